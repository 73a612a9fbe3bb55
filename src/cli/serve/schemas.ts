/**
 * What is sent and answered, as schemas: requests are checked by them, and the OpenAPI document is
 * made of them.
 *
 * @module
 */

import { z } from "zod";
import { type MethodName, methods } from "../../sample/solvers/mod.ts";

/** The most that one request may ask for. */
export interface Limits {
  readonly images: number;
  readonly steps: number;
}

/** The longest side of a picture that is sent, and of one that is asked for. */
export const MAX_SENT_SIDE = 2048, MAX_SIDE = 1024;
/** Characters of a prompt at most. */
const MAX_TEXT = 4000;

/** Samplers that make images. */
export const samplers = (Object.keys(methods) as MethodName[])
  .filter((name) => !methods[name].isInverse);

const text = z.string().max(MAX_TEXT);
const png = z.string().describe("A picture: base64 of a PNG, or of another file of pictures");
const side = z.int().min(1).max(MAX_SIDE);

/** The schema of what can be asked for. */
export const jobSchema = ({ images, steps }: Limits) =>
  z.strictObject({
    model: text.optional().describe("One of /api/models; the first where none is given"),
    prompt: text.optional().describe("What to paint, for models that read"),
    negative_prompt: text.optional().describe("What not to paint"),
    class: text.optional().describe("Classes, names or numbers with commas between them, or none"),
    labels: z.array(z.int().min(0)).min(1).max(images).optional()
      .describe("Numbers of classes, which pictures take in turns"),
    count: z.int().min(1).max(images).default(1),
    steps: z.int().min(1).max(steps).optional(),
    sampler: z.enum(samplers).optional(),
    sigmas: z.enum(["karras", "exponential", "polyexponential", "vp"]).optional(),
    eta: z.number().min(0).max(1).optional(),
    seed: z.int().min(0).default(0).describe("Picture k of a seed is the same whatever the count"),
    guidance: z.number().min(0).max(1000).optional(),
    guidance_interval: z.tuple([z.number().min(0), z.number().min(0)]).optional()
      .describe("Guide only where σ/α lies between"),
    width: side.optional(),
    height: side.optional(),
    init: png.optional(),
    strength: z.number().min(0).max(1).optional().describe("How much of init changes"),
    mask: png.optional().describe("White where init is painted anew"),
    walk: z.strictObject({ seed: z.int().min(0), share: z.number().min(0).max(1) }).optional()
      .describe("Starts on the way to the noise of another seed"),
  });

/** What can be asked for. */
export interface JobRequest extends z.infer<ReturnType<typeof jobSchema>> {
  /** Whether picture k is the first one of `seed` + k, made by itself, and not the k-th of `seed`. */
  readonly hasOwnSeeds?: boolean;
}

/** An answer that refuses. */
export const errorSchema = z.object({ error: z.string(), detail: z.string() });

/** How far a job is. */
export const jobStateSchema = z.object({
  id: z.string(),
  state: z.enum(["queued", "running", "done", "cancelled", "failed"]),
  position: z.int().optional().describe("Of a job that waits: 1 is next"),
  step: z.int().optional(),
  steps: z.int().optional(),
  images: z.int().optional().describe("How many pictures there are"),
  withheld: z.record(z.string(), z.string()).optional()
    .describe("By the numbers of pictures that are not sent, why"),
  detail: z.string().optional().describe("What went wrong"),
});

/** How far a job is. */
export type JobState = z.infer<typeof jobStateSchema>;

/** What an event of a step tells beside how far the job is. */
export const previewSchema = z.object({
  png: z.string().describe("The predicted x_0 of pictures side by side, without gaps, base64"),
  noisy: z.string().optional()
    .describe("Their x_t in the same way, where samples are pictures and not latents"),
  columns: z.int(),
  first: z.int().describe("The number of the first picture"),
  count: z.int(),
});

/** What an event of a step tells beside how far the job is. */
export type Preview = z.infer<typeof previewSchema>;

/** The data of an event of a job. */
export const eventSchema = jobStateSchema.extend({ preview: previewSchema.optional() });

/** What is known of a model. */
export const modelSchema = z.object({
  name: z.string(),
  shape: z.array(z.int().nullable()).describe("Height, width, channels; null where any will do"),
  parameters: z.int(),
  classes: z.array(z.string()).optional(),
  none: z.int().optional().describe("The number that stands for no class"),
  reads: z.boolean().describe("Whether it takes prompts"),
  guidance: z.object({
    scale: z.number(),
    interval: z.tuple([z.number(), z.number()]).readonly().optional(),
  }).optional()
    .describe("How it is guided where nobody says; nothing if it cannot be"),
});

/** What is known of a model. */
export type ServedModel = z.infer<typeof modelSchema>;

/** What is known of a sampler. */
export const samplerSchema = z.object({
  name: z.string(),
  summary: z.string(),
  order: z.number(),
  evaluations: z.number(),
  steps: z.int().describe("As many where none are given"),
});

/** How the server is. */
export const healthSchema = z.object({
  status: z.enum(["ok", "failed"])
    .describe("failed where the thread that computes ended; the next job starts another one"),
  detail: z.string().optional().describe("Why it failed"),
  version: z.string(),
  device: z.string(),
  running: z.int(),
  queued: z.int(),
  queue: z.int().describe("How many may wait"),
  limits: z.object({ images: z.int(), steps: z.int() }),
});
