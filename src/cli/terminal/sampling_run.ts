/**
 * Running a sampler from a command: progress, frames for an animation, a preview, and Ctrl-C, which
 * keeps the finished images.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { SampleOptions, Samples } from "../../sample/options.ts";
import { LatentSampler } from "../../sample/latent_sampler.ts";
import type { PictureSampler } from "../commands/samplers.ts";
import { environment } from "./environment.ts";
import { Interruption } from "../run/interruption.ts";
import type { OutputKind } from "../media/picture_files.ts";
import { Preview, protocolOf } from "../media/preview.ts";
import { formatLeft, type Progress, writeTerminal } from "./progress.ts";

/** The most frames of an animation, or updates of a preview. */
export const MAX_FRAMES = 60;

/** @throws {InputError} If standard error is not a terminal. */
export function checkPreview(isWanted = false): void {
  if (isWanted && !Deno.stderr.isTerminal()) {
    throw new InputError("--preview draws in the terminal, but standard error is not one");
  }
}

/** The result of a run. */
export interface Watched {
  /** The finished images, or as far as they got before an interruption. */
  readonly images: Samples;
  /** x_t of all images at some steps, for animations. */
  readonly frames: readonly Samples[];
  readonly isStopped: boolean;
}

/**
 * Runs a sampler to its end, or until the user interrupts it.
 *
 * @param finish Restores what an edit was to keep.
 */
export async function watch(
  sampler: PictureSampler,
  kind: OutputKind,
  hasPreview: boolean,
  progress: Progress,
  options: SampleOptions,
  finish: (images: Samples) => Samples = (images) => images,
): Promise<Watched> {
  const { steps } = sampler, began = performance.now(), isAnimated = kind === "animation";
  const preview = hasPreview
    ? new Preview(protocolOf(environment), Deno.consoleSize().columns, writeTerminal)
    : undefined;
  const frames = new Map<number, Samples[]>();
  const decode = sampler instanceof LatentSampler
    ? (latents: Samples) => sampler.decode(latents)
    : (samples: Samples) => Promise.resolve(samples);
  let logged = 0;
  using interruption = new Interruption(progress, "writing what is done");
  const stream = sampler.stream({
    ...options,
    every: isAnimated || preview ? Math.ceil(steps / MAX_FRAMES) : steps,
    signal: interruption.signal,
    onProgress(done, total) {
      const left = formatLeft(done, total, (performance.now() - began) / 1000);
      const text = `step ${done} of ${total}${left}`;
      // A log gets a line a batch, of whose next one the first step may take several evaluations.
      if (!Deno.stderr.isTerminal() && done % steps === 0 && done > logged && done < total) {
        progress.say(text);
        logged = done;
      } else progress.update(text);
    },
  });
  let next = await stream.next();
  for (; !next.done; next = await stream.next()) {
    const { step, noisy, sample } = next.value;
    if (isAnimated && step < steps) frames.set(step, [...frames.get(step) ?? [], noisy]);
    if (preview) {
      const picture = await decode(sample);
      progress.clear();
      preview.draw(picture);
    }
  }
  const { count } = next.value, images = count ? finish(next.value) : next.value;
  // After an interruption, some of the images may not have got as far.
  const whole = [...frames.values()].map(join).filter((frame) => frame.count === count);
  const shown: Samples[] = [];
  for (const frame of whole) shown.push(await decode(frame));
  return {
    images,
    frames: shown,
    isStopped: interruption.signal.aborted,
  };
}

/** Concatenates samples. */
export function join(parts: readonly Samples[]): Samples {
  if (parts.length === 1) return parts[0];
  const data = new Float32Array(parts.reduce((n, part) => n + part.data.length, 0));
  parts.reduce((at, part) => (data.set(part.data, at), at + part.data.length), 0);
  return { ...parts[0], count: parts.reduce((n, { count }) => n + count, 0), data };
}
