/**
 * A small classifier of MNIST's digits, trained here, whose last hidden layer tells what an image
 * looks like: three convolutions and two dense layers.
 *
 * @module
 */

import * as e from "../src/gpu/expression.ts";
import type { Device, Program } from "../src/gpu/device.ts";
import { grad } from "../src/gpu/grad.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { conv2d, same } from "../src/gpu/ops/conv2d.ts";
import { map, mul, relu } from "../src/gpu/ops/map.ts";
import { linear } from "../src/gpu/ops/matmul.ts";
import { softmax } from "../src/gpu/ops/softmax.ts";
import { mean, sum } from "../src/gpu/ops/sum.ts";
import { reshape, slice } from "../src/gpu/ops/view.ts";
import { input, type Tensor } from "../src/gpu/tensor.ts";
import {
  collectParameters,
  initializeParameters,
  type ParameterSource,
  viewParameters,
} from "../src/model/parameters.ts";
import { type Dataset, ImageOrder } from "../src/data/dataset.ts";

/** Images that are computed together. */
const BATCH = 100;
const EPOCHS = 6, LEARNING_RATE = 0.002, SIDE = 28;
/** Pixels by which training images are moved at most. */
const SHIFT = 2;
/** Numbers that describe an image. */
export const FEATURES = 64;

/** Scores of the ten digits, and what they are made of. */
function network(parameter: ParameterSource, images: Tensor): { features: Tensor; scores: Tensor } {
  const make = (name: string, shape: number[], size: number) => {
    const bias = { shape: [size], order: "plain", init: "zeros" } as const;
    const order = shape.length === 4 ? "conv" : "linear";
    return [
      parameter({ name: `${name}.weight`, shape, order, init: "xavier", isTrained: true }),
      parameter({ name: `${name}.bias`, ...bias, isTrained: true }),
    ];
  };
  const halving = { stride: 2, padding: [1, 1, 1, 1] } as const;
  const conv = (name: string, x: Tensor, channels: number, window = same(3)) => {
    const [weight, bias] = make(name, [3, 3, x.shape[3], channels], channels);
    return relu(conv2d(x, weight, bias, window));
  };
  const dense = (name: string, x: Tensor, size: number) => {
    const [weight, bias] = make(name, [size, x.shape[1]], size);
    return linear(x, weight, bias);
  };
  let h = conv("conv1", images, 16);
  h = conv("conv2", h, 32, halving);
  h = conv("conv3", h, 64, halving);
  const features = relu(dense("dense1", reshape(h, [BATCH, 49 * 64]), FEATURES));
  return { features, scores: dense("dense2", features, 10) };
}

const images = input("images", [BATCH, SIDE, SIDE, 1]);
const layout = collectParameters((parameter) => void network(parameter, images), input);

/** A step of Adam (Kingma and Ba 2015) on the cross entropy. */
function trainingGraph() {
  const [flat, first, second] = ["parameters", "moment1", "moment2"].map((name) =>
    input(name, [layout.size])
  );
  const labels = input("labels", [BATCH, 10]), rates = input("rates", [3]);
  const parameter = viewParameters(layout, [flat]);
  const likely = sum(mul(softmax(network(parameter, images).scores), labels), [1]);
  const loss = mean(map([likely], (p) => e.neg(e.log(e.max(p, 1e-12)))));
  const [g] = grad(loss, [flat]);
  const decay = (old: e.Expression, now: e.Expression, beta: number) =>
    e.add(e.mul(beta, old), e.mul(1 - beta, now));
  const next1 = map([first, g], (m, g) => decay(m, g, 0.9));
  const next2 = map([second, g], (v, g) => decay(v, e.mul(g, g), 0.999));
  const [rate, correct1, correct2] = [0, 1, 2].map((i) => slice(rates, 0, i, 1));
  const updated = map(
    [flat, next1, next2, rate, correct1, correct2],
    (p, m, v, rate, c1, c2) =>
      e.sub(p, e.div(e.mul(rate, e.mul(m, c1)), e.add(e.sqrt(e.mul(v, c2)), 1e-8))),
  );
  return makeGraph({ loss }, [[flat, updated], [first, next1], [second, next2]]);
}

/** Writes an image, moved by some pixels. */
async function readMoved(
  data: Dataset,
  index: number,
  to: Float32Array,
  at: number,
  words: number,
) {
  const image = new Float32Array(SIDE * SIDE);
  await data.read(index, image, 0);
  const shift = (n: number) => n % (2 * SHIFT + 1) - SHIFT;
  const dy = shift(words), dx = shift(Math.floor(words / 16));
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const isIn = y + dy >= 0 && y + dy < SIDE && x + dx >= 0 && x + dx < SIDE;
      to[at + y * SIDE + x] = isIn ? image[(y + dy) * SIDE + x + dx] : -1;
    }
  }
}

/** Learns to classify; returns the parameters. The same for the same device and data. */
export async function trainClassifier(
  device: Device,
  data: Dataset,
  onProgress: (text: string) => void,
): Promise<Float32Array<ArrayBuffer>> {
  using program = await device.compile(trainingGraph(), { label: "a classifier's step" });
  const { buffers } = program, order = new ImageOrder(data.count, 1);
  buffers.parameters.write(initializeParameters(layout, 1));
  const batch = new Float32Array(BATCH * SIDE * SIDE),
    steps = EPOCHS * Math.floor(data.count / BATCH);
  for (let step = 0; step < steps; step++) {
    const labels = new Float32Array(BATCH * 10);
    for (let i = 0; i < BATCH; i++) {
      const index = order.at(step * BATCH + i), moves = (index * 7 + step * 13) % 251;
      await readMoved(data, index, batch, i * SIDE * SIDE, moves);
      labels[i * 10 + data.labels![index]] = 1;
    }
    buffers.images.write(batch);
    buffers.labels.write(labels);
    const rate = LEARNING_RATE * (1 + Math.cos(Math.PI * step / steps)) / 2;
    buffers.rates.write([rate, 1 / (1 - 0.9 ** (step + 1)), 1 / (1 - 0.999 ** (step + 1))]);
    program.run();
    if (step % 50) continue;
    const [loss] = await buffers.loss.read();
    onProgress(`classifier: step ${step} of ${steps}, loss ${loss.toFixed(4)}`);
  }
  return await buffers.parameters.read() as Float32Array<ArrayBuffer>;
}

/** A classifier that was trained. */
export class Classifier implements Disposable {
  readonly #program: Program;

  private constructor(program: Program) {
    this.#program = program;
  }

  /** Compiles it. */
  static async create(device: Device, parameters: Float32Array): Promise<Classifier> {
    const flat = input("parameters", [layout.size]);
    const graph = makeGraph({ ...network(viewParameters(layout, [flat]), images) });
    const program = await device.compile(graph, {
      label: "a classifier",
      constant: ["parameters"],
    });
    program.buffers.parameters.write(parameters);
    return new Classifier(program);
  }

  /** Features `[count, 64]` and the likeliest digits of images `[count, 28, 28]` in [-1, 1]. */
  async classify(data: Float32Array): Promise<{ features: Float64Array; digits: number[] }> {
    const count = data.length / SIDE ** 2, batch = new Float32Array(BATCH * SIDE ** 2);
    const features = new Float64Array(count * FEATURES), digits: number[] = [];
    for (let first = 0; first < count; first += BATCH) {
      const here = Math.min(BATCH, count - first);
      batch.set(data.subarray(first * SIDE ** 2, (first + here) * SIDE ** 2));
      this.#program.buffers.images.write(batch);
      this.#program.run();
      features.set(
        await this.#program.buffers.features.read(0, here * FEATURES),
        first * FEATURES,
      );
      const scores = await this.#program.buffers.scores.read();
      for (let i = 0; i < here; i++) {
        const own = scores.subarray(10 * i, 10 * i + 10);
        digits.push(own.indexOf(Math.max(...own)));
      }
    }
    return { features, digits };
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
  }
}
