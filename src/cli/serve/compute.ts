/**
 * What computes for the server: a device, and models, which paint one request at a time into files.
 *
 * @module
 */

import { pictureSize, type Samples } from "../../sample/options.ts";
import { makeGrid, makePicture } from "../../sample/pixels.ts";
import type { Call, Service } from "../../worker/channel.ts";
import { encodePng } from "../media/picture_files.ts";
import { type DeviceFlags, openForCommand } from "../terminal/device.ts";
import { Engine } from "./engine.ts";
import { openModels, type Served } from "./models.ts";
import type { PaintedStep, Plan } from "./plan.ts";
import type { JobRequest, Preview } from "./schemas.ts";

/** The longest side of a preview, all pictures together. */
const PREVIEW_SIDE = 256;

/** What is served, and by which device. */
export interface ComputeSetup {
  /** Where the models are. */
  readonly places: readonly string[];
  /** Whether their safety checkers are left out. */
  readonly isUnchecked?: boolean;
  readonly flags: DeviceFlags;
}

/** The file of a picture, or why it is withheld, in words. */
export type Painted = Uint8Array | string;

/** How far a request is. */
export interface PaintStep {
  readonly step: number;
  readonly steps: number;
  /** What it shows; nothing where nobody looks, or a safety checker has yet to. */
  readonly preview?: Preview;
}

/**
 * Opens a device, and paints.
 *
 * @param models The models, where they are open already.
 */
export function makeService(models?: ReadonlyMap<string, Served>): Service {
  let engine: Engine | undefined;
  return {
    async open({ places, isUnchecked, flags }: ComputeSetup, { report }: Call): Promise<string> {
      models ??= await openModels(places, isUnchecked);
      const say = (notice: string) => void report(notice);
      engine = await Engine.create(() => openForCommand(flags, { say }));
      return engine.name;
    },
    async paint(
      request: JobRequest,
      { signal, report, ask }: Call,
    ): Promise<readonly Painted[]> {
      const { plan } = models!.get(request.model!)!, parts = partsOf(request);
      const images: Painted[] = [];
      for (const [k, part] of parts.entries()) {
        if (signal.aborted) return [];
        const painting = paint(engine!, await plan(part), signal, () => ask("isWatched"));
        for (;;) {
          const { done, value } = await painting.next();
          if (done) {
            images.push(...value);
            break;
          }
          const { step, steps, preview } = value;
          const told = { step: k * steps + step, steps: parts.length * steps };
          await report(
            {
              ...told,
              ...(preview ? { preview: { ...preview, first: preview.first + k } } : {}),
            } satisfies PaintStep,
          );
        }
      }
      return images;
    },
    close(): void {
      engine?.[Symbol.dispose]();
    },
  };
}

/** A request as those that are planned: one, or one for each picture that has a seed of its own. */
const partsOf = ({ hasOwnSeeds, ...request }: JobRequest): JobRequest[] =>
  hasOwnSeeds
    ? Array.from({ length: request.count }, (_, k) => ({
      ...{ ...request, count: 1, seed: request.seed + k },
    }))
    : [request];

/**
 * Does what was planned, and makes files of it; none if it is aborted.
 *
 * @param isWatched Whether somebody looks at the step that was just done.
 */
export async function* paint(
  engine: Engine,
  plan: Plan,
  signal: AbortSignal,
  isWatched: () => unknown,
): AsyncGenerator<PaintStep, readonly Painted[]> {
  const run = engine.run(plan, signal);
  let next = await run.next(), batch = 0;
  for (; !next.done; next = await run.next()) {
    const { index, step, steps, sample } = next.value;
    batch ||= sample.count;
    const isShown = !plan.hidesSteps && await isWatched();
    const drawing = isShown ? drawPreview(next.value) : undefined;
    // What fails there is of the same device.
    const preview = await drawing?.catch(async (error) => void await run.throw(error));
    yield {
      step: Math.floor(index / batch) * steps + step,
      steps: Math.ceil(plan.count / batch) * steps,
      ...(preview ? { preview } : {}),
    };
  }
  const images: Painted[] = [], withheld = plan.withheld?.();
  for (let i = 0; i < next.value.count && !signal.aborted; i++) {
    const why = withheld?.get(i), picture = makePicture(next.value, i);
    images.push(why ?? await encodePng(picture, plan.provenance(i), plan.parameters?.(i)));
  }
  return signal.aborted ? [] : images;
}

/** What a step shows, small. */
async function drawPreview({ index: first, noisy, ...step }: PaintedStep): Promise<Preview> {
  const sample = await step.pictures?.() ?? step.sample;
  const { count } = sample, { height, width } = pictureSize(sample);
  const columns = Math.ceil(Math.sqrt(count));
  const every = Math.ceil(columns * Math.max(height, width) / PREVIEW_SIDE);
  const draw = async (samples: Samples) =>
    new Uint8Array(await encodePng(makeGrid(thinned(samples, every), 1, 0, columns), {}))
      .toBase64();
  // Latents are no pictures.
  const isPicture = String(noisy.shape) === String(sample.shape);
  return {
    ...{ png: await draw(sample), columns, first, count },
    ...(isPicture ? { noisy: await draw(noisy) } : {}),
  };
}

/** Every so many-th pixel. */
function thinned(samples: Samples, every: number): Samples {
  if (every === 1) return samples;
  const { count } = samples, { height, width, channels } = pictureSize(samples);
  const [rows, columns] = [height, width].map((side) => Math.ceil(side / every));
  const data = new Float32Array(count * rows * columns * channels);
  for (let i = 0, to = 0; i < count; i++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const at = ((i * height + y * every) * width + x * every) * channels;
        for (let c = 0; c < channels; c++) data[to++] = samples.data[at + c];
      }
    }
  }
  return { count, shape: [rows, columns, channels], data };
}
