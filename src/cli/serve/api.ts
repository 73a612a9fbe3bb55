/**
 * The API of the server: jobs, and what they may be about.
 *
 * @module
 */

import { z } from "zod";
import { methods } from "../../sample/solvers/mod.ts";
import { DEFAULT_STEPS } from "../../sample/timesteps.ts";
import { InputError } from "../../errors.ts";
import { version } from "../terminal/version.ts";
import type { Mutex } from "../../mutex.ts";
import type { ComputeThread } from "./compute_thread.ts";
import type { Client } from "./guard.ts";
import { HttpError } from "./http.ts";
import type { Job } from "./job.ts";
import type { Jobs } from "./jobs.ts";
import type { Served } from "./models.ts";
import { type Call, type Route, route } from "./routes.ts";
import {
  eventSchema,
  healthSchema,
  type JobRequest,
  jobSchema,
  jobStateSchema,
  type Limits,
  modelSchema,
  samplers,
  samplerSchema,
} from "./schemas.ts";

/** Streams of events at a time. */
const MAX_STREAMS = 256;

/** What requests are about. */
export interface Studio {
  readonly thread: ComputeThread;
  readonly jobs: Jobs;
  readonly models: ReadonlyMap<string, Served>;
  readonly limits: Limits;
  readonly queue: number;
  /** Pictures that were sent are decoded one at a time: unpacked, they are large. */
  readonly planning: Mutex;
}

/**
 * Takes a job.
 *
 * @throws {InputError} If there is no such model, or it cannot do that.
 * @throws {HttpError} If there is no room.
 */
export async function take(
  { jobs, models, planning }: Studio,
  { id }: Client,
  request: JobRequest,
): Promise<Job> {
  jobs.checkRoom(id);
  const { model: name } = request;
  const served = name === undefined ? models.values().next().value : models.get(name);
  if (!served) {
    throw new InputError(`There is no model ${name}: there are ${[...models.keys()].join(", ")}`);
  }
  using _ = await planning.acquire();
  // What is planned here is planned again where it is computed; what is wrong is told at once.
  await served.plan(request);
  return jobs.add(id, { ...request, model: served.facts.name });
}

/** The routes of the API. */
export function apiRoutes(studio: Studio): Route[] {
  const { thread, jobs, models, limits, queue } = studio;
  let streams = 0;
  const find = ({ parts: { id } }: Call): Job => {
    const job = jobs.get(id);
    if (job) return job;
    throw new HttpError(404, "There is no such job, or it was a while ago");
  };
  const body = jobSchema(limits);
  return [
    route<z.infer<typeof body>>({
      ...{ method: "POST", path: "/api/jobs", summary: "Asks for pictures", status: 201 },
      ...{ body, answer: jobStateSchema },
      async handle({ client, body }) {
        const job = await take(studio, client, body);
        return Response.json(job.state, {
          status: 201,
          headers: { Location: `/api/jobs/${job.id}` },
        });
      },
    }),
    route({
      ...{ method: "GET", path: "/api/jobs/{id}", summary: "Tells how far a job is" },
      answer: jobStateSchema,
      handle(call) {
        const job = find(call);
        job.touch();
        return Response.json(job.state);
      },
    }),
    route({
      ...{ method: "DELETE", path: "/api/jobs/{id}", summary: "Cancels a job" },
      answer: jobStateSchema,
      handle(call) {
        const job = find(call);
        job.cancel();
        return Response.json(job.state);
      },
    }),
    route({
      ...{ method: "GET", path: "/api/jobs/{id}/events", type: "text/event-stream" },
      summary: "Tells of each step; who leaves gives the job up, if nobody else watches",
      answer: eventSchema,
      handle(call) {
        const job = find(call);
        if (streams >= MAX_STREAMS) {
          throw new HttpError(503, "Too many watch at a time", { "Retry-After": "5" });
        }
        streams++;
        const leave = () => void streams--;
        return new Response(onEnd(job.watch(), leave), {
          headers: { "Content-Type": "text/event-stream", "X-Accel-Buffering": "no" },
        });
      },
    }),
    route({
      ...{ method: "GET", path: "/api/jobs/{id}/images/{k}", type: "image/png" },
      summary: "A picture, numbered from 0, whose texts tell how it was made",
      handle(call) {
        const job = find(call), { k } = call.parts;
        if (!job.isOver) throw new HttpError(409, "The job is not done");
        const png = /^\d{1,6}$/.test(k) ? job.images[Number(k)] : undefined;
        if (!png) throw new HttpError(404, `There are ${job.images.length} pictures, from 0 on`);
        if (typeof png === "string") throw new HttpError(403, `The picture is ${png}`);
        return new Response(new Uint8Array(png), { headers: { "Content-Type": "image/png" } });
      },
    }),
    route({
      ...{ method: "GET", path: "/api/models", summary: "The models that can be asked for" },
      answer: z.array(modelSchema),
      handle: () => Response.json([...models.values()].map(({ facts }) => facts)),
    }),
    route({
      ...{ method: "GET", path: "/api/samplers", summary: "The samplers that can be asked for" },
      answer: z.array(samplerSchema),
      handle: () =>
        Response.json(samplers.map((name) => {
          const { summary, order, evaluations, defaults } = methods[name];
          return { name, summary, order, evaluations, steps: defaults?.steps ?? DEFAULT_STEPS };
        })),
    }),
    route({
      ...{ method: "GET", path: "/api/health", summary: "How the server is" },
      answer: healthSchema,
      handle: () =>
        Response.json({
          status: thread.failure === undefined ? "ok" : "failed",
          ...(thread.failure === undefined ? {} : { detail: thread.failure }),
          ...{ version, device: thread.name },
          ...{ running: Number(jobs.running !== undefined), queued: jobs.queued, queue, limits },
        }),
    }),
  ];
}

/** A stream that tells when it is over, or nobody reads it any more. */
function onEnd(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  end: () => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (!done) return controller.enqueue(value);
      end();
      controller.close();
    },
    async cancel() {
      end();
      await reader.cancel();
    },
  }, { highWaterMark: 0 });
}
