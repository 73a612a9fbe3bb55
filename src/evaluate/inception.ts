/**
 * Features of pictures as the Fréchet inception distance knows them (Heusel et al. 2017): resized by
 * either of the two rules that its implementations have, and shown to Inception v3.
 *
 * @module
 */

import { writeWeights } from "../diffusion/weights.ts";
import { InputError } from "../errors.ts";
import { isAllFinite } from "../formats/elements.ts";
import type { FileTensor } from "../formats/safetensors.ts";
import type { Device, Program } from "../gpu/device.ts";
import * as e from "../gpu/expression.ts";
import { makeGraph } from "../gpu/graph.ts";
import { map } from "../gpu/ops/map.ts";
import { linear } from "../gpu/ops/matmul.ts";
import { atHalves, interpolation } from "../gpu/ops/resample.ts";
import { broadcastTo, permute, transpose } from "../gpu/ops/view.ts";
import { input, inputName, type Tensor } from "../gpu/tensor.ts";
import { INCEPTION, INCEPTION_SIDE } from "../model/inception.ts";
import { parametersFrom } from "../model/tensors.ts";
import { parseNetwork } from "../model/network.ts";
import {
  parameterInputs,
  type ParameterLayout,
  type ParameterReader,
  viewParameters,
} from "../model/parameters.ts";
import { weightsOf } from "../model/weights.ts";
import { Mutex } from "../mutex.ts";
import { pictureSize, type Samples } from "../sample/options.ts";
import { sameShape, type Shape, sizeOf } from "../shape.ts";
import { type FeatureExtractor, toBytes } from "./feature_extractor.ts";

/**
 * How pictures are resized and scaled: `pytorch-fid` has pixels around half-integers and shows the
 * network [-1, 1], `torch-fidelity` follows TensorFlow 1, with pixels at integers, and shows it
 * [-1, 127/128]. Both are bilinear, without antialiasing and without rounding. Distances of one do not
 * compare with those of the other.
 */
export type InceptionPreprocessing = "pytorch-fid" | "torch-fidelity";

/** Settings of {@linkcode inceptionFeatures}. */
export interface InceptionOptions {
  /** How pictures are prepared. @default {"pytorch-fid"} */
  readonly preprocessing?: InceptionPreprocessing;
  /** Pictures at a time, which memory is taken for. @default {8} */
  readonly batchSize?: number;
  /** What the weights are called, for messages. @default {"the weights"} */
  readonly what?: string;
}

/** Where a pixel of the result is among those of a picture. */
const places: Record<InceptionPreprocessing, (length: number) => (i: number) => number> = {
  "pytorch-fid": (length) => atHalves(length, INCEPTION_SIDE),
  "torch-fidelity": (length) => (i) => i * length / INCEPTION_SIDE,
};

/** How pixels of 0 to 255 are shown to the network. */
const scales: Record<InceptionPreprocessing, (x: e.Expression) => e.Expression> = {
  "pytorch-fid": (x) => e.sub(e.mul(x, 2 / 255), 1),
  "torch-fidelity": (x) => e.div(e.sub(x, 128), 128),
};

/** Pixels `[batch, channels, height, width]` of 0 to 255, 1 or 3 channels, as the network sees them. */
export function prepareForInception(pixels: Tensor, preprocessing: InceptionPreprocessing): Tensor {
  const [n, , h, w] = pixels.shape, side = INCEPTION_SIDE, place = places[preprocessing];
  const wide = linear(pixels, interpolation(w, side, place(w)));
  const tall = linear(transpose(wide), interpolation(h, side, place(h)));
  const resized = map([permute(tall, [0, 3, 2, 1])], scales[preprocessing]);
  return broadcastTo(resized, [n, side, side, 3]);
}

/**
 * Compiles Inception v3 for batches of a fixed size: 2048 features of pictures of any size, grey or of
 * three channels, and 1008 logits without the bias of the last layer, as the Inception score is defined
 * (Salimans et al. 2016; torch-fidelity's `logits_unbiased`).
 *
 * @param weights Those of TensorFlow's graph of 2015, by their names in PyTorch: the file
 * `pt_inception-2015-12-05-6726825d.pth`, or the same tensors as safetensors.
 * @throws {InputError} If a tensor is missing, superfluous or wrongly shaped, or not finite.
 * @throws {LimitError} If it does not fit into the device's memory.
 *
 * @example Weights that have not learnt anything
 * ```ts
 * import { openDevice, parseNetwork } from "@x/ddpm";
 * import { inceptionFeatures } from "@x/ddpm/evaluate";
 *
 * const { layout } = parseNetwork({ _class_name: "InceptionV3" });
 * const weights = layout.specs.map(({ name, shape: s, order }) => {
 *   const shape = order === "conv" ? [s[3], s[2], s[0], s[1]] : s;
 *   const values = new Float32Array(shape.reduce((a, b) => a * b)).fill(0.01);
 *   return [name, { dtype: "F32", shape, bytes: new Uint8Array(values.buffer) }] as const;
 * });
 * using device = await openDevice("cpu");
 * using inception = await inceptionFeatures(device, new Map(weights), { batchSize: 1 });
 * const pictures = { count: 1, shape: [32, 32, 3], data: new Float32Array(3072) };
 * console.log((await inception.extract(pictures)).features.length); // 2048
 * ```
 */
export async function inceptionFeatures(
  device: Device,
  weights: ReadonlyMap<string, FileTensor>,
  { preprocessing = "pytorch-fid", batchSize = 8, what = "the weights" }: InceptionOptions = {},
): Promise<FeatureExtractor> {
  const network = parseNetwork({ _class_name: INCEPTION }), side = INCEPTION_SIDE;
  if (network.kind !== "feature extractor") throw new TypeError(`${INCEPTION} sees no features`);
  const { layout, width, classes } = network;
  const inputs = parameterInputs(layout), pictures = input("pictures", [batchSize, side, side, 3]);
  const parameter = viewParameters(layout, inputs);
  const parameters = withoutBias(layout, readInceptionWeights(layout, weights, what));
  const buffer = device.buffer(sizeOf(pictures.shape)), buffers = { pictures: buffer };
  let program: Program | undefined;
  try {
    program = await device.compile(
      makeGraph({ ...network.forward({ parameter }, pictures) }),
      { label: INCEPTION, buffers, constant: inputs.map((x) => inputName(x)!) },
    );
    for (const [name, values] of Object.entries(weightsOf({ network, parameters }))) {
      writeWeights(values, program.buffers[name]);
    }
  } catch (error) {
    program?.[Symbol.dispose]();
    buffer[Symbol.dispose]();
    throw error;
  }
  const { features, logits } = program.buffers, run = program, turns = new Mutex();
  /** What prepares pictures of the shape that was the last to be asked for. */
  let preparing: { readonly shape: Shape; readonly program: Program } | undefined;
  const prepare = async (shape: Shape): Promise<Program> => {
    if (preparing && sameShape(preparing.shape, shape)) return preparing.program;
    preparing?.program[Symbol.dispose]();
    preparing = undefined;
    const graph = makeGraph({
      pictures: prepareForInception(input("pixels", shape), preprocessing),
    });
    const program = await device.compile(graph, { label: "the resizing of pictures", buffers });
    preparing = { shape, program };
    return program;
  };
  return {
    name: `${INCEPTION} (${preprocessing})`,
    ...{ width, classes },
    async extract(samples, signal) {
      const { count } = samples, { height, width: columns, channels } = pictureSize(samples);
      if (channels !== 1 && channels !== 3) {
        throw new InputError(
          `Cannot show pictures of ${channels} channels to ${INCEPTION}: they must have 3, or 1 if ` +
            "they are grey",
        );
      }
      using _turn = await turns.acquire();
      const first = await prepare([batchSize, channels, height, columns]),
        { pixels } = first.buffers;
      const found = {
        features: new Float32Array(count * width),
        logits: new Float32Array(count * classes),
      };
      for (let at = 0; at < count; at += batchSize) {
        signal?.throwIfAborted();
        const n = Math.min(batchSize, count - at);
        pixels.write(planarBytes(samples, at, n));
        first.run();
        run.run();
        found.features.set(await features.read(0, n * width), at * width);
        found.logits.set(await logits.read(0, n * classes), at * classes);
      }
      return found;
    },
    [Symbol.dispose]() {
      preparing?.program[Symbol.dispose]();
      run[Symbol.dispose]();
      buffer[Symbol.dispose]();
    },
  };
}

/**
 * Pictures `first` to `first + count` in 0 to 255, one channel after the other.
 *
 * @throws {InputError} If they hold what is no number.
 */
function planarBytes(samples: Samples, first: number, count: number): Float32Array<ArrayBuffer> {
  const { height, width, channels } = pictureSize(samples), pixels = height * width;
  const size = pixels * channels, planes = new Float32Array(count * size);
  for (let n = 0; n < count; n++) {
    const values = samples.data.subarray((first + n) * size, (first + n + 1) * size);
    if (!isAllFinite(values)) {
      throw new InputError(
        `Cannot take features of picture ${first + n}: it holds numbers that are not finite`,
      );
    }
    toBytes(values).forEach((byte, i) =>
      planes[n * size + i % channels * pixels + Math.floor(i / channels)] = byte
    );
  }
  return planes;
}

/** The parameters of the network out of a file; counters of batches, which nothing reads, may be there. */
function readInceptionWeights(
  layout: ParameterLayout,
  weights: ReadonlyMap<string, FileTensor>,
  what: string,
): ParameterReader {
  const used = [...weights].filter(([name]) => !name.endsWith(".bn.num_batches_tracked"));
  return parametersFrom(layout, new Map(used), what);
}

/** The parameters, but zeros for the bias of logits. */
const withoutBias = ({ specs }: ParameterLayout, parameters: ParameterReader): ParameterReader => ({
  read(index, scratch) {
    const values = parameters.read(index, scratch);
    return specs[index].name === "fc.bias" ? values.fill(0) : values;
  },
});
