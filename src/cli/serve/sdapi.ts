/**
 * A subset of the API of AUTOMATIC1111's web UI, for front ends that speak it. What a model cannot do
 * is refused, and nothing that would change a picture is ignored.
 *
 * @module
 */

import { z } from "zod";
import { InputError } from "../../errors.ts";
import { parseWith } from "../../config.ts";
import { HttpError } from "./http.ts";
import { type Studio, take } from "./api.ts";
import type { Job } from "./job.ts";
import { type Route, route } from "./routes.ts";
import { type JobRequest, jobSchema } from "./schemas.ts";
import { samplerByName, samplerNames } from "./sdapi_samplers.ts";

const text = z.string().max(4000);

/** The fields that both take. */
const common = {
  prompt: text.nullish(),
  negative_prompt: text.nullish(),
  seed: z.int().min(-1).nullish().describe("-1 is any"),
  steps: z.int().min(1).nullish(),
  cfg_scale: z.number().min(0).nullish(),
  width: z.int().min(1).nullish(),
  height: z.int().min(1).nullish(),
  sampler_name: text.nullish(),
  sampler_index: text.nullish().describe("The same as sampler_name"),
  scheduler: text.nullish(),
  batch_size: z.int().min(1).nullish(),
  n_iter: z.int().min(1).nullish(),
  override_settings: z.looseObject({ sd_model_checkpoint: text.nullish() }).nullish(),
};
const textSchema = z.looseObject(common);
const imageSchema = z.looseObject({
  ...common,
  init_images: z.array(z.string()).length(1, "must hold one picture"),
  denoising_strength: z.number().min(0).max(1).nullish(),
  mask: z.string().nullish(),
});

/** A request of either. */
type SdRequest = z.infer<typeof textSchema> & Partial<z.infer<typeof imageSchema>>;

/** What comes back. */
const resultSchema = z.object({
  images: z.array(z.string()).describe("PNG files in base64"),
  parameters: z.record(z.string(), z.unknown()),
  info: z.string().describe("JSON: seed, and how pictures were made"),
});

/** Fields that change no picture, or none without others that are refused. */
const HARMLESS =
  /^(hr_.*|firstphase_.*|(save|send)_images|do_not_save_.*|override_settings_restore_afterwards|force_task_id|include_init_images|script_args|image_cfg_scale|seed_resize_from_.*|subseed)$/;
/** Fields that change nothing without a mask. */
const OF_MASKS = /^(mask_|inpaint)/;
/** Values of other fields that mean what is done anyway. */
const USUAL: Readonly<Record<string, unknown>> = {
  ...{ s_noise: 1, s_tmax: 999, resize_mode: 1, inpainting_fill: 1 },
};

/** Whether a value says nothing. */
const isEmpty = (value: unknown) =>
  value === null || value === false || value === 0 || value === "" || value === -1 ||
  typeof value === "object" && Object.keys(value).length === 0;

/** @throws {InputError} If something is asked for that would change pictures, and is not done here. */
function refuseOthers(request: SdRequest, known: readonly string[]): void {
  const isKnown = (name: string, value: unknown) =>
    known.includes(name) || isEmpty(value) || value === USUAL[name] || HARMLESS.test(name) ||
    !request.mask && OF_MASKS.test(name);
  const other = Object.entries(request).find(([name, value]) => !isKnown(name, value));
  if (other) throw new InputError(`${other[0]} is not supported here: leave it out`);
  const settings = Object.entries(request.override_settings ?? {});
  const odd = settings.find(([name, value]) => name !== "sd_model_checkpoint" && !isEmpty(value));
  if (odd) throw new InputError(`The setting ${odd[0]} is not supported here: leave it out`);
}

/** The same as a job of ours. */
function translate(
  request: SdRequest,
  models: Studio["models"],
  usual: string,
): Record<string, unknown> {
  const { override_settings: settings, prompt, negative_prompt: negative } = request;
  const model = settings?.sd_model_checkpoint || usual;
  const canRead = models.get(model)?.facts.reads ?? false;
  const seed = request.seed ?? -1, [init] = request.init_images ?? [];
  const { sampler_name: name, sampler_index: other } = request;
  const fields: Record<keyof JobRequest, unknown> = {
    model,
    // Front ends always send texts, which a model that does not read can be given if they are empty.
    prompt: canRead ? prompt ?? "" : prompt || undefined,
    negative_prompt: negative || undefined,
    seed: seed < 0 ? crypto.getRandomValues(new Uint32Array(1))[0] : seed,
    steps: request.steps,
    guidance: canRead ? request.cfg_scale : undefined,
    ...{ width: request.width, height: request.height },
    count: (request.batch_size ?? 1) * (request.n_iter ?? 1),
    ...samplerByName(name ?? other ?? undefined, request.scheduler ?? undefined),
    ...{ init, mask: request.mask || undefined, strength: undefined },
    ...(init === undefined ? {} : { strength: request.denoising_strength ?? 0.75 }),
  } as Record<keyof JobRequest, unknown>;
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  );
}

/** The routes. */
export function sdRoutes(studio: Studio): Route[] {
  const { jobs, models, limits } = studio, schema = jobSchema(limits);
  // Front ends are about texts.
  const reader = [...models.values()].find(({ facts }) => facts.reads)?.facts.name;
  const checkpoint = reader ?? [...models.keys()][0];
  const paint = (path: string, body: z.ZodType<SdRequest>, known: readonly string[]) =>
    route<SdRequest>({
      ...{ method: "POST", path, summary: "Makes pictures, and answers when they are done" },
      ...{ body, answer: resultSchema },
      async handle({ client, body }) {
        refuseOthers(body, known);
        const request = parseWith(schema, translate(body, models, checkpoint), "request");
        const job = await take(studio, client, { ...request, hasOwnSeeds: true });
        job.isHeld = true;
        // A client that goes away is noticed as soon as the answer has begun.
        await job.begun;
        const answer = async () => resultOf(await finished(job), body, request);
        if (job.isOver) return Response.json(await answer());
        return new Response(inOne(answer, () => job.cancel()), {
          headers: { "Content-Type": "application/json" },
        });
      },
    });
  return [
    paint("/sdapi/v1/txt2img", textSchema, [...Object.keys(common), "denoising_strength"]),
    paint("/sdapi/v1/img2img", imageSchema, Object.keys(imageSchema.shape)),
    route({
      ...{ method: "GET", path: "/sdapi/v1/sd-models", summary: "The models, as front ends ask" },
      handle: () =>
        Response.json([...models.keys()].map((name) => ({
          ...{ title: name, model_name: name, filename: name },
          ...{ hash: null, sha256: null, config: null },
        }))),
    }),
    route({
      ...{ method: "GET", path: "/sdapi/v1/samplers", summary: "The samplers, as front ends ask" },
      handle: () =>
        Response.json(
          Object.entries(samplerNames).map(([name, own]) => ({
            name,
            aliases: [own],
            options: {},
          })),
        ),
    }),
    route({
      ...{ method: "GET", path: "/sdapi/v1/progress", summary: "How far the job that runs is" },
      handle({ client }) {
        const { running } = jobs, { step = 0, steps = 0 } = running?.state ?? {};
        // Pictures are for those who asked for them.
        const isOwn = running?.owner === client.id;
        return Response.json({
          ...{ progress: steps ? step / steps : 0, eta_relative: 0, textinfo: null },
          state: {
            ...{ skipped: false, interrupted: false, job: running ? "running" : "" },
            ...{ job_count: Number(running !== undefined) + jobs.queued, job_no: 0 },
            ...{ sampling_step: step, sampling_steps: steps },
          },
          current_image: isOwn ? running?.look()?.png ?? null : null,
        });
      },
    }),
    route({
      ...{ method: "GET", path: "/sdapi/v1/options", summary: "Settings: the model" },
      handle: () => Response.json({ sd_model_checkpoint: checkpoint }),
    }),
  ];
}

/** A job that is done. */
async function finished(job: Job): Promise<Job> {
  await job.ended;
  const { state, detail } = job.state;
  if (state === "done") return job;
  throw state === "failed" ? new Error(detail) : new HttpError(503, "The job was cancelled");
}

/**
 * What front ends expect. Picture k is the first one of the seed `all_seeds[k]`, so that asking for that
 * seed alone gives it again.
 */
function resultOf(job: Job, body: SdRequest, { seed, model, steps }: JobRequest) {
  // Of pictures that are withheld nothing is sent: all lists are of the others.
  const files = job.images.flatMap((image, k) => typeof image === "string" ? [] : [{ image, k }]);
  const { withheld } = job.state, prompt = body.prompt ?? "";
  const negative = body.negative_prompt ?? "";
  const each = <T>(value: (k: number) => T) => files.map(({ k }) => value(k));
  // Variations are refused, so that what they would be drawn from changes nothing.
  const subseed = Math.max(0, Number(body.subseed ?? 0));
  return {
    images: files.map(({ image }) => new Uint8Array(image).toBase64()),
    parameters: { ...body, ...(body.init_images ? { init_images: null, mask: null } : {}) },
    info: JSON.stringify({
      ...{ prompt, all_prompts: each(() => prompt) },
      ...{ negative_prompt: negative, all_negative_prompts: each(() => negative) },
      ...{ seed, all_seeds: each((k) => seed + k) },
      ...{ subseed, all_subseeds: each((k) => subseed + k), subseed_strength: 0 },
      ...{ width: body.width, height: body.height, steps, cfg_scale: body.cfg_scale },
      ...{ sampler_name: body.sampler_name ?? body.sampler_index, sd_model_name: model },
      ...{ batch_size: body.batch_size ?? 1, denoising_strength: body.denoising_strength },
      index_of_first_image: 0,
      ...(withheld ? { withheld } : {}),
    }),
  };
}

/** An answer that is there at the end; what fails meanwhile breaks it off. */
const inOne = (answer: () => Promise<unknown>, cancel: () => void) =>
  new ReadableStream({
    async pull(controller) {
      controller.enqueue(new TextEncoder().encode(JSON.stringify(await answer())));
      controller.close();
    },
    cancel,
  }, { highWaterMark: 0 });
