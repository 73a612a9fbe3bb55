/**
 * Restoration of pictures with a model that was trained for nothing of the kind: {@linkcode restore}.
 *
 * @module
 */

import type { Denoiser } from "../diffusion/denoiser.ts";
import { meanPerItem, perItem } from "../diffusion/items.ts";
import { InputError } from "../errors.ts";
import type { Device, Precision } from "../gpu/device.ts";
import { type Graph, makeGraph } from "../gpu/graph.ts";
import * as e from "../gpu/expression.ts";
import { add, clamp, map, sqrt, square, sub } from "../gpu/ops/map.ts";
import { input } from "../gpu/tensor.ts";
import { denoiserOf } from "../model/denoiser.ts";
import type { Model } from "../model/model.ts";
import { sameShape, sizeOf } from "../shape.ts";
import { checkConditions, conditionInputs, type Given, writeConditions } from "./conditions.ts";
import type { LinearOperator } from "./guidance/operators.ts";
import { type RestorationMethod, restored, type RestoredOptions } from "./guidance/restored.ts";
import type { SampleOptions, Samples } from "./options.ts";
import { Sampler } from "./sampler.ts";

/** Settings of {@linkcode restore}. */
export interface RestoreOptions
  extends RestoredOptions, Pick<SampleOptions, "seed" | "conditions" | "signal" | "onProgress"> {
  /** Evaluations of the network and of its gradient; by default 50, and 100 of `dps`. */
  readonly steps?: number;
  /** Images that are computed together. @default {16} */
  readonly batchSize?: number;
  /** How activations are kept. @default {"f32"} */
  readonly precision?: Precision;
}

/** What a restoration came to. */
export interface Restoration {
  /** In [-1, 1]. */
  readonly images: Samples;
  /**
   * How far each was from its measurement when the sampler was done with it: the root of the mean of
   * (y - A x)².
   */
  readonly found: readonly number[];
  /** How far it is now, brought to the nearest pictures that agree with it. */
  readonly left: readonly number[];
}

/** Steps where nobody says how many. */
export const restorationSteps: Readonly<Record<RestorationMethod, number>> = {
  pigdm: 50,
  dps: 100,
};
/** The noise that steps of DDIM add, as a share of that of ancestral sampling. */
const ETA = 1;
/** Farther than anything is. */
const FAR = 1e9;
/** Pictures are projected this often onto those that agree, and onto [-1, 1]. */
const PROJECTIONS = 100;
/** Farther from its measurement, on a range of 2, a picture has nothing to do with it. */
const HOPELESS = 0.25;

/**
 * Pictures x of which A x is known. Each is one of those that the model finds likely; another seed
 * gives others.
 *
 * @param measurement y = A x of each picture.
 * @throws {InputError} If model, operator and measurement do not go together.
 * @throws {Error} If what is found does not agree with the measurement.
 * @throws {DeviceError} If the device fails.
 *
 * @example
 * ```ts
 * import { fetchModel, openDevice, operators, restore } from "@x/ddpm";
 *
 * const small = Float32Array.from({ length: 49 }, (_, i) => i % 7 === 3 ? 0.5 : -1);
 * const measurement = { count: 1, shape: [7, 7, 1], data: small };
 * using device = await openDevice("cpu");
 * const model = await fetchModel("mnist-unconditional"), options = { steps: 20, batchSize: 1 };
 * const { images } = await restore(device, model, operators.superres(4), measurement, options);
 * console.log(images.shape); // [28, 28, 1], a one
 * ```
 */
export async function restore(
  device: Device,
  model: Model | Denoiser,
  operator: LinearOperator,
  measurement: Samples,
  options: RestoreOptions = {},
): Promise<Restoration> {
  const { method = "pigdm", zeta, conditions, ...rest } = options;
  const { steps = restorationSteps[method], batchSize = 16, precision = "f32" } = options;
  const denoiser = "network" in model ? denoiserOf(model) : model, { itemShape } = denoiser;
  const { count, shape, data } = measurement, measured = operator.measured(itemShape);
  if (!sameShape(shape, measured) || data.length !== count * sizeOf(measured)) {
    throw new InputError(
      `Cannot restore from ${count} measurements of ${shape.join("x")}: they must be of ` +
        measured.join("x"),
    );
  }
  const wrap = [restored(operator, options)], given = { ...conditions, measurement: data };
  using sampler = await Sampler.create(device, denoiser, {
    ...{ method: "ddim", eta: ETA, steps, wrap, precision },
    batchSize: Math.min(batchSize, count),
  });
  const { seed, signal, onProgress } = rest;
  const images = await sampler.sample({
    ...{ count, conditions: given },
    ...(seed === undefined ? {} : { seed }),
    ...(signal ? { signal } : {}),
    ...(onProgress ? { onProgress } : {}),
  });
  signal?.throwIfAborted();
  const result = await project(device, denoiser, operator, images, { conditions: given });
  const worst = Math.max(...result.found);
  if (worst < HOPELESS) return result;
  throw new Error(
    `Cannot restore image ${result.found.indexOf(worst)}: what was found is ` +
      `${
        worst.toFixed(2)
      } from what is known of it (rms, of a range of 2), no better than chance; ` +
      (method === "dps"
        ? `it diverged: take a smaller zeta${zeta === undefined ? "" : ` than ${zeta}`}`
        : "the model knows no such pictures, or more steps are needed"),
  );
}

/**
 * Measurements A x of items, as {@linkcode restore} takes them.
 *
 * @param conditions Those of the operator.
 *
 * @example
 * ```ts
 * import { measure, openDevice, operators } from "@x/ddpm";
 *
 * const white = { count: 1, shape: [8, 8, 1], data: new Float32Array(64).fill(1) };
 * using device = await openDevice("cpu");
 * const { shape, data } = await measure(device, operators.superres(4), white);
 * console.log(shape, data); // [2, 2, 1], ones
 * ```
 */
export async function measure(
  device: Device,
  operator: LinearOperator,
  items: Samples,
  conditions?: SampleOptions["conditions"],
): Promise<Samples> {
  const { count, shape: item, data } = items, known = operator.conditions?.(item) ?? {};
  const given = conditions ? { conditions } : {}, shape = operator.measured(item);
  checkConditions(known, given, count);
  const y = operator.apply(input("x", [count, ...item]), conditionInputs(known, count));
  using program = await device.compile(makeGraph({ y }), { label: "a measurement" });
  program.buffers.x.write(data);
  writeConditions(program.buffers, known, given, { count, first: 0, here: count });
  program.run();
  return { count, shape, data: await program.buffers.y.read() as Float32Array<ArrayBuffer> };
}

/**
 * Brings pictures to the nearest ones that agree with their measurements, as far as there are such:
 * of all that come about, each is the one that agrees best.
 */
async function project(
  device: Device,
  { itemShape }: Denoiser,
  operator: LinearOperator,
  images: Samples,
  given: Given,
): Promise<Restoration> {
  const { count } = images;
  const conditions = {
    measurement: { shape: operator.measured(itemShape), dtype: "f32" as const },
    ...operator.conditions?.(itemShape),
  };
  const graph = (): Graph => {
    const x = input("x", [count, ...itemShape]), values = conditionInputs(conditions, count);
    const rest = sub(values.measurement, operator.apply(x, values));
    const next = clamp(add(x, operator.pinv(rest, values)), -1, 1);
    const rms = sqrt(meanPerItem(square(rest))),
      [best, least] = [x, rms].map(({ shape }, i) => input(["best", "least"][i], shape));
    const isBetter = perItem(map([rms, least], e.less), itemShape.length);
    return makeGraph({ rms }, [
      [x, next],
      [best, map([isBetter, x, best], e.select)],
      [least, map([rms, least], e.min)],
    ]);
  };
  using program = await device.compile(graph(), { label: "the projection of pictures" });
  const { buffers } = program, { x, rms, best, least } = buffers;
  writeConditions(buffers, conditions, given, { count, first: 0, here: count });
  x.write(images.data.map((value) => Math.max(-1, Math.min(1, value))));
  least.write(new Float32Array(count).fill(FAR));
  program.run();
  const found = [...await rms.read()];
  program.run(PROJECTIONS);
  const data = await best.read() as Float32Array<ArrayBuffer>;
  return { images: { ...images, data }, found, left: [...await least.read()] };
}
