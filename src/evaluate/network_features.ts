/**
 * Features by a network that is shown pictures of one shape.
 *
 * @module
 */

import { writeWeights } from "../diffusion/weights.ts";
import { InputError } from "../errors.ts";
import { isAllFinite } from "../formats/elements.ts";
import type { Device, Program } from "../gpu/device.ts";
import { makeGraph } from "../gpu/graph.ts";
import { input, inputName, type Tensor } from "../gpu/tensor.ts";
import { type Forward, type ItemNetwork, itemOf } from "../model/network.ts";
import { parameterInputs, viewParameters } from "../model/parameters.ts";
import { type Weighted, weightsOf } from "../model/weights.ts";
import { Mutex } from "../mutex.ts";
import { formatShape, sameShape, sizeOf } from "../shape.ts";
import { type FeatureExtractor, toLevels } from "./feature_extractor.ts";

/** What is seen in pictures, a row for each. */
export interface Seen {
  readonly features: Tensor;
  /** Of networks that classify. */
  readonly logits?: Tensor;
}

/** How features are computed. */
export interface NetworkFeaturesOptions {
  /** What the extractor is called. */
  readonly name: string;
  /** Pictures that are computed together. */
  readonly batchSize: number;
}

/** Compiles what a network makes of something, and gives it its weights. */
export async function compileForward(
  device: Device,
  model: Weighted<ItemNetwork>,
  outputs: (forward: Forward) => Readonly<Record<string, Tensor>>,
): Promise<Program> {
  const { layout, className: label } = model.network, inputs = parameterInputs(layout);
  const program = await device.compile(
    makeGraph({ ...outputs({ parameter: viewParameters(layout, inputs) }) }),
    { label, constant: inputs.map((x) => inputName(x)!) },
  );
  for (const [name, values] of Object.entries(weightsOf(model))) {
    writeWeights(values, program.buffers[name]);
  }
  return program;
}

/**
 * Compiles what sees features in pictures of the shape that a network is for.
 *
 * @throws {DeviceError} If it does not fit the device.
 */
export async function networkFeatures(
  device: Device,
  model: Weighted<ItemNetwork>,
  { name, batchSize }: NetworkFeaturesOptions,
  see: (forward: Forward, pictures: Tensor) => Seen,
): Promise<FeatureExtractor> {
  const shape = itemOf(model.network), each = sizeOf(shape);
  const pictures = input("pictures", [batchSize, ...shape]);
  let [width, classes] = [0, 0];
  const program = await compileForward(device, model, (forward) => {
    const seen = see(forward, pictures);
    [width, classes] = [seen.features.shape[1], seen.logits?.shape[1] ?? 0];
    return { ...seen };
  });
  const { buffers } = program, turns = new Mutex();
  return {
    ...{ name, shape, width },
    ...(classes ? { classes } : {}),
    async extract({ count, shape: given, data }, signal) {
      if (!sameShape(given, shape)) {
        throw new InputError(
          `Cannot take features ${name} of pictures of ${formatShape(given)}: they are for ` +
            formatShape(shape),
        );
      }
      if (!isAllFinite(data)) {
        throw new InputError(
          "Cannot take features of pictures that hold numbers that are not finite",
        );
      }
      using _turn = await turns.acquire();
      const features = new Float32Array(count * width);
      const logits = new Float32Array(count * classes);
      for (let first = 0; first < count; first += batchSize) {
        signal?.throwIfAborted();
        const n = Math.min(batchSize, count - first);
        buffers.pictures.write(toLevels(data.subarray(first * each, (first + n) * each)));
        program.run();
        features.set(await buffers.features.read(0, n * width), first * width);
        if (classes) logits.set(await buffers.logits.read(0, n * classes), first * classes);
      }
      return { features, ...(classes ? { logits } : {}) };
    },
    [Symbol.dispose]() {
      program[Symbol.dispose]();
    },
  };
}
