/**
 * Whether a model that paints texts fits into memory, before anything of it is loaded.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { describeExcess } from "../../gpu/describe.ts";
import type { Device } from "../../gpu/device.ts";
import { GpuDevice } from "../../gpu/wgsl/device.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { TextToImage } from "../../sample/text_to_image.ts";
import type { TextToImageOptions } from "../../sample/text_to_image_options.ts";
import { formatBytes } from "../../units.ts";
import { freeMemory } from "../run/memory.ts";

/** Settings that fit, and what is to be said of them. */
export interface Fitting {
  readonly options: TextToImageOptions;
  readonly notice?: string;
}

/**
 * The settings, with weights of 16 bits where nobody says how they are to lie, and only so they fit.
 *
 * @param about What the model is called, and whether there is a picture to begin with.
 * @throws {InputError} If a stage takes more memory than is free, or than the device has.
 */
export function fitMemory(
  device: Device,
  model: TextToImageModel,
  options: TextToImageOptions,
  about: { readonly place: string; readonly isBegun: boolean },
): Fitting {
  const lack = lackOf(device, model, options, about.isBegun);
  if (!lack) return { options };
  const half: TextToImageOptions = { ...options, weightDType: "f16" };
  const left = options.weightDType ? lack : lackOf(device, model, half, about.isBegun);
  if (!left) {
    const notice = `weights: f16, since with f32, to ${lack.stage}, ${lack.why}; --weights chooses`;
    return { options: half, notice };
  }
  const advice = [
    ...(options.weightDType === "f32" ? ["--weights f16"] : []),
    ...(/code$/.test(left.stage) && !options.tile ? ["--tile 256"] : []),
    "a smaller --size",
  ];
  throw new InputError(
    `Cannot paint with ${about.place} at ${
      options.size!.toReversed().join("x")
    }: to ${left.stage}, ` +
      `${left.why}; less is taken with ${advice.join(" or ")}`,
  );
}

/** The first stage that does not fit, and why. */
function lackOf(
  device: Device,
  model: TextToImageModel,
  options: TextToImageOptions,
  isBegun: boolean,
): { readonly stage: string; readonly why: string } | undefined {
  const isInProcess = !(device instanceof GpuDevice) || device.isSoftware;
  const free = (isInProcess ? freeMemory() : undefined) ?? Infinity;
  for (const [stage, plan] of Object.entries(TextToImage.plan(device, model, options))) {
    const { bytes, excess } = plan;
    if (stage === "encode" && !isBegun) continue;
    if (excess) return { stage, why: describeExcess(excess, device.name) };
    if (bytes <= free) continue;
    const why = `it takes ${formatBytes(bytes)} of memory, and ${formatBytes(free)} are free`;
    return { stage, why };
  }
  return undefined;
}
