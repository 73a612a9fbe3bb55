/**
 * An engine on the server that the page came from.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { pictureSize, type Samples, strengthOf } from "../sample/options.ts";
import type { ModelFacts } from "../worker/protocol.ts";
import { type Engine, EngineError, type Job, type Made, type Step } from "./engine.ts";
import { readCanvas } from "./pictures.ts";

/** How often to ask again where the server is busy. */
const RETRIES = 20;

/** What an event of a job tells. */
interface Told {
  readonly state: "queued" | "running" | "done" | "cancelled" | "failed";
  readonly step?: number;
  readonly steps?: number;
  readonly images?: number;
  readonly withheld?: Readonly<Record<string, string>>;
  readonly detail?: string;
  readonly preview?: {
    readonly png: string;
    readonly noisy?: string;
    readonly columns: number;
    readonly first: number;
    readonly count: number;
  };
}

/** A model as the server tells of it. */
type Served =
  & Pick<ModelFacts, "shape" | "parameters" | "classes" | "none" | "reads" | "guidance">
  & {
    readonly name: string;
  };

/** The models of the server that the page came from; `undefined` if it has no engine. */
export function serverModels(): string[] | undefined {
  const told = document.querySelector<HTMLMetaElement>('meta[name="ddpm-server"]')?.content;
  return told === undefined ? undefined : JSON.parse(told);
}

/** Computes on the server. */
export class ServerEngine implements Engine {
  readonly models: readonly string[];
  readonly files = new Map<string, readonly File[]>();
  #facts: Promise<ReadonlyMap<string, Served>> | undefined;

  constructor(models: readonly string[]) {
    this.models = models;
  }

  async about(): Promise<string> {
    const { device } = await ask<{ device: string }>("api/health");
    return `${device}, of this server`;
  }

  async open(model: string): Promise<ModelFacts> {
    return { card: {}, notes: [], ...await this.#served(model) };
  }

  add(): Promise<string> {
    return Promise.reject(
      new InputError("The server has models of its own: yours compute in this tab"),
    );
  }

  async *run(job: Job, signal: AbortSignal): AsyncGenerator<Step, Made> {
    const served = await this.#served(job.model), shape = served.shape.map((n) => n ?? 32);
    const nothing = { count: 0, shape, data: new Float32Array() };
    const body = JSON.stringify(await describe(job));
    const { id } = await ask<{ id: string }>("api/jobs", {
      ...{ method: "POST", body, headers: { "Content-Type": "application/json" }, signal },
    }).catch((error) => {
      if (signal.aborted) return { id: undefined };
      throw error;
    });
    if (id === undefined) return nothing;
    const cancel = () =>
      void fetch(`api/jobs/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
    // Who leaves the page gives it up. Firefox says so first, Chromium ends the events before.
    addEventListener("pagehide", cancel, { once: true });
    signal.addEventListener("abort", cancel, { once: true });
    if (signal.aborted) cancel();
    try {
      for await (const told of eventsOf(id)) {
        const { state, step, steps, preview } = told;
        if (state === "cancelled") {
          if (signal.aborted) return nothing;
          throw new EngineError("The server gave this up");
        }
        if (state === "failed") throw new EngineError(told.detail ?? "The server failed");
        if (state === "done") return await fetchAll(id, told, shape);
        if (step === undefined || steps === undefined) continue;
        const { png, noisy } = preview ?? {};
        yield {
          ...{ step, steps },
          ...(png === undefined ? {} : { sample: await cut(preview!, png, shape) }),
          ...(noisy === undefined ? {} : { noisy: await cut(preview!, noisy, shape) }),
        };
      }
      cancel();
      throw new EngineError("The server does not answer");
    } finally {
      removeEventListener("pagehide", cancel);
      signal.removeEventListener("abort", cancel);
    }
  }

  reset(): void {
    this.#facts = undefined;
  }

  async #served(model: string): Promise<Served> {
    this.#facts ??= ask<Served[]>("api/models")
      .then((all) => new Map(all.map((one) => [one.name, one])));
    const facts = (await this.#facts.catch((error) => {
      this.#facts = undefined;
      throw error;
    })).get(model);
    if (facts) return facts;
    throw new InputError(`The server has no model ${model}`);
  }
}

/** The pictures of a job that is done; those that are withheld are grey. */
async function fetchAll(
  id: string,
  { images: count = 0, withheld = {} }: Told,
  shape: readonly number[],
): Promise<Made> {
  const grey = { count: 1, shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)) };
  const images = await Promise.all(
    Array.from({ length: count }, async (_, k) => {
      if (k in withheld) return grey;
      const response = await fetch(`api/jobs/${id}/images/${k}`);
      if (response.ok) return readCanvas(await createImageBitmap(await response.blob()), shape);
      throw new InputError((await response.json()).detail);
    }),
  );
  const reasons = Object.entries(withheld).map(([k, why]) => [Number(k), why] as const);
  return { ...join(images, shape), ...(reasons.length ? { withheld: new Map(reasons) } : {}) };
}

/** A job as the server takes it. */
async function describe(job: Job): Promise<unknown> {
  const { model, method: sampler, steps, seed, count, labels, prompt } = job;
  const { init, mask, walk, guidance: { scale, interval } = {} } = job;
  return {
    ...{ model, sampler, steps, seed, count },
    ...(labels ? { labels } : {}),
    ...(prompt ? { prompt } : {}),
    // The server guides by itself where nobody says how far.
    ...(scale === undefined ? {} : { guidance: scale }),
    ...(interval ? { guidance_interval: interval } : {}),
    ...(init ? { init: await encode(init), strength: strengthOf(job) } : {}),
    ...(init && mask ? { mask: await encode(pictureOf(mask, init)) } : {}),
    ...(walk ? { walk } : {}),
  };
}

/** A mask as a picture. */
function pictureOf(mask: Float32Array, init: Samples): Samples {
  const { height, width } = pictureSize(init);
  return { count: 1, shape: [height, width, 1], data: mask.map((value) => 2 * value - 1).slice() };
}

/** An image as the base64 of a PNG. */
async function encode(image: Samples): Promise<string> {
  const { height, width, channels } = pictureSize(image),
    canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d")!, pixels = context.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 4; c++) {
      const value = c < 3 ? (image.data[i * channels + c % channels] + 1) * 127.5 : 255;
      pixels.data[4 * i + c] = value;
    }
  }
  context.putImageData(pixels, 0, 0);
  const bytes = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** The images of a preview, in the size of the model's. */
async function cut(
  { columns, count }: NonNullable<Told["preview"]>,
  png: string,
  shape: readonly number[],
): Promise<Samples> {
  const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
  const sheet = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const width = sheet.width / columns, height = sheet.height / Math.ceil(count / columns);
  const images: Samples[] = [];
  for (let k = 0; k < count; k++) {
    const left = k % columns * width, top = Math.floor(k / columns) * height;
    images.push(readCanvas(await createImageBitmap(sheet, left, top, width, height), shape));
  }
  return join(images, shape);
}

function join(images: readonly Samples[], shape: readonly number[]): Samples {
  const size = shape.reduce((a, b) => a * b, 1), data = new Float32Array(images.length * size);
  for (const [k, image] of images.entries()) data.set(image.data, k * size);
  return { count: images.length, shape, data };
}

/** What the server tells of a job. */
async function* eventsOf(id: string): AsyncGenerator<Told> {
  const source = new EventSource(`api/jobs/${id}/events`), pending: (Told | undefined)[] = [];
  let wake = () => {};
  const take = (told: Told | undefined) => {
    pending.push(told);
    wake();
  };
  for (const name of ["queued", "running", "step", "done", "cancelled", "failure"]) {
    source.addEventListener(name, ({ data }: MessageEvent) => take(JSON.parse(data)));
  }
  source.onerror = () => take(undefined);
  try {
    for (;;) {
      if (!pending.length) await new Promise<void>((resolve) => wake = resolve);
      const told = pending.shift();
      if (!told) return;
      yield told;
    }
  } finally {
    source.close();
  }
}

/** Asks the server; again after a while if it is busy. */
async function ask<T>(path: string, options: RequestInit = {}): Promise<T> {
  for (let tries = 0;; tries++) {
    const response = await fetch(path, options).catch((error: Error) => {
      throw new EngineError(`The server does not answer: ${error.message}`);
    });
    const answer = await response.json();
    if (response.ok) return answer;
    const wait = Number(response.headers.get("retry-after"));
    if (!wait || tries === RETRIES) throw new InputError(answer.detail);
    await new Promise((resolve) => setTimeout(resolve, 1000 * wait));
  }
}
