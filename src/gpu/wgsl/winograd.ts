/**
 * Convolutions 3 × 3 with stride 1 by F(4 × 4, 3 × 3) in kernels of their own: transforms of weights
 * and images to 36 frequencies, a batch of 36 matrix products, and the transform back. The gradient
 * by the weights goes through the adjoint: both images are transformed, their products are summed
 * over all tiles, and 9 taps are made of 36.
 *
 * @module
 */

import { type ConvSizes, convSizes, type Window } from "../convolution.ts";
import type { Fused } from "../compile/loop.ts";
import type { Shape } from "../../shape.ts";
import type { Tensor } from "../tensor.ts";
import { F4, transposed } from "../winograd.ts";
import { generateTile, type Source, type Step } from "./gemm.ts";
import {
  bind,
  type Binding,
  type Kernel,
  loadFour,
  makeKernel,
  type Variant,
  type WgslTarget,
} from "./kernel.ts";
import { splitSum } from "./split_k.ts";
import {
  FREQUENCIES,
  Frequencies,
  M,
  placeInFrequency,
  tilesOf,
  transformBack,
  transformImages,
  transformWeights,
  weightsBack,
} from "./winograd_transforms.ts";

/** Fewer channels than this are not worth trying. */
const MIN_CHANNELS = 16;

/** Whether a convolution can be computed by this file. */
const suits = (s: ConvSizes) =>
  s.stride === 1 && s.kernelHeight === 3 && s.kernelWidth === 3 &&
  s.channels % 4 === 0 && s.outChannels % 4 === 0 &&
  s.channels >= MIN_CHANNELS && s.outChannels >= MIN_CHANNELS &&
  s.outHeight >= M && s.outWidth >= M;

/**
 * Tiles that make up for the transforms of the weights, which with 256 channels on lavapipe take as
 * long as 500 pixels by direct convolution; fewer going forward, where weights are often prepared.
 */
const MIN_TILES = 32, MIN_TILES_FORWARD = 16;

/** Whether the transforms are likely to be made up for, by measurements on lavapipe. */
const pays = (s: ConvSizes, minTiles: number) =>
  s.channels >= 64 && s.outChannels >= 64 && hasTiles(s, minTiles);

const hasTiles = ({ batch, outHeight, outWidth }: ConvSizes, least: number) =>
  tilesOf(batch, outHeight, outWidth).count >= least;

/** Rows of a frequency as rows (or columns) of a product over its channels. */
const rowsOf = (binding: Binding, start: string, rows: string): Source => ({
  layout: "along",
  prepare: (slot, index) => `let i${slot} = ${start} + (${index}) * 32u;`,
  fetch: (slot) => loadFour(binding, `i${slot} + ${placeInFrequency("0u", "k", rows)}`),
});

/** Channels of a frequency as columns (or rows) of a product over its rows. */
const columnsOf = (
  binding: Binding,
  start: string,
  rows: string,
  row: (step: Step) => string,
): Source => ({
  layout: "across",
  prepare: (slot, index) => `let i${slot} = ${start} + ${placeInFrequency("0u", index, rows)};`,
  fetch: (slot, step) => loadFour(binding, `i${slot} + (${row(step)}) * 32u`),
});

/** For each frequency, tiles times weights. */
function multiply(
  images: Frequencies,
  weights: Frequencies,
  isMirrored: boolean,
  target: WgslTarget,
): { kernel: Kernel; to: Frequencies } {
  const { rows: tiles, channels } = images, out = isMirrored ? weights.rows : weights.channels;
  const to = new Frequencies(tiles, out);
  const a = bind("a", images, { vector: true }), b = bind("b", weights, { vector: true });
  const y = bind("y", to, { vector: true, write: true });
  const tile = generateTile({
    size: [tiles, out, FREQUENCIES],
    ...{ rows: "tiles", columns: "out", vector: true },
    begin: "var k = 0u; let a_start = group.z * u.a_stride; let b_start = group.z * u.b_stride;",
    ...{ condition: "k < u.channels", advance: "k += 4u;" },
    a: rowsOf(a, "a_start", "u.tiles"),
    b: isMirrored
      ? rowsOf(b, "b_start", "u.out")
      : columnsOf(b, "b_start", "u.channels", (step) => `k + ${step.value}`),
    place: (row, column) => `group.z * u.y_stride + ${placeInFrequency(row, column, "u.tiles")}`,
  }, target);
  const kernel = makeKernel({
    label: "winograd, products",
    bindings: [a, b, y],
    uniforms: {
      ...{ tiles, channels, out },
      ...{ a_stride: images.stride, b_stride: weights.stride, y_stride: to.stride },
    },
    ...tile.code(y),
    workgroups: [Math.ceil(out / tile.columns), Math.ceil(tiles / tile.rows), FREQUENCIES],
  });
  return { kernel, to };
}

/** A convolution of `image` with weights, perhaps turned round, into `result`. */
function correlate(
  image: Tensor,
  w: Tensor,
  bias: Tensor | undefined,
  result: Tensor,
  padding: readonly [number, number],
  isMirrored: boolean,
  target: WgslTarget,
  { input, output }: Fused,
): Kernel[] {
  const [batch, height, width] = result.shape, tiling = tilesOf(batch, height, width);
  const weights = transformWeights(w, isMirrored, target);
  const images = transformImages(
    "winograd, image",
    ...[image, F4.bt, tiling, padding, target, input ? { input } : {}] as const,
  );
  const products = multiply(images.to, weights.to, isMirrored, target);
  const finish = output ? { output } : {};
  const back = transformBack(products.to, bias, result, tiling, target, finish);
  return [weights.kernel, images.kernel, products.kernel, back];
}

/** The convolution itself. */
export const forwardByWinograd: Variant<Window> = {
  name: "winograd",
  when: (node) => suits(sizesForward(node)),
  pays: (node) => pays(sizesForward(node), MIN_TILES_FORWARD),
  fuses: { input: true, output: true },
  lower(node, target, fused) {
    const [x, w, bias] = node.inputs, { padding } = sizesForward(node);
    return correlate(x, w, bias, node, [padding[0], padding[2]], false, target, fused);
  },
};

const sizesForward = ({ inputs: [x, w], shape, attributes }: Tensor<Window>) =>
  convSizes(x.shape, w.shape, shape, attributes);

const sizesInputGrad = ({ inputs: [g, w], shape, attributes }: Tensor<Window>) =>
  convSizes(shape, w.shape, g.shape, attributes);

const sizesWeightGrad = ({ inputs: [x, g], shape, attributes }: Tensor<Window>) =>
  convSizes(x.shape, shape, g.shape, attributes);

/** The gradient by the image: a convolution with the weights turned round. */
export const inputGradByWinograd: Variant<Window & { shape: Shape }> = {
  name: "winograd",
  when: (node) => suits(sizesInputGrad(node)),
  pays: (node) => pays(sizesInputGrad(node), MIN_TILES),
  fuses: { input: false, output: true },
  lower(node, target, fused) {
    const [g, w] = node.inputs, [top, , left] = node.attributes.padding;
    return correlate(g, w, undefined, node, [2 - top, 2 - left], true, target, fused);
  },
};

/** The gradient by the weights. */
export const weightGradByWinograd: Variant<Window & { shape: Shape }> = {
  name: "winograd",
  when: (node) => suits(sizesWeightGrad(node)),
  pays: (node) => {
    const sizes = sizesWeightGrad(node);
    return sizes.channels * sizes.outChannels >= 2048 && hasTiles(sizes, MIN_TILES);
  },
  fuses: { input: true, output: false },
  lower(node, target, fused) {
    const [x, g] = node.inputs, [batch, height, width, out] = g.shape, channels = x.shape[3];
    const [top, , left] = node.attributes.padding, tiling = tilesOf(batch, height, width);
    const images = transformImages(
      "winograd, image",
      ...[x, F4.bt, tiling, [top, left], target, fused] as const,
    );
    const results = transformImages(
      "winograd, result",
      g,
      transposed(F4.at),
      tiling,
      [0, 0],
      target,
    );
    const sums = new Frequencies(channels, out);
    const a = bind("a", images.to, { vector: true }), b = bind("b", results.to, { vector: true });
    const row = (step: Step) => `min(k + ${step.value}, end - 1u)`;
    const rows = columnsOf(a, "a_start", "u.tiles", row);
    const tile = generateTile({
      size: [channels, out, FREQUENCIES],
      ...{ rows: "channels", columns: "out", vector: true },
      begin: `let q = group.z % ${FREQUENCIES}u; let part = group.z / ${FREQUENCIES}u;
var k = part * u.chunk; let end = min(k + u.chunk, u.tiles);
let a_start = q * u.a_stride; let b_start = q * u.b_stride;`,
      ...{ condition: "k < end", advance: "k += 4u;" },
      a: {
        ...rows,
        fetch: (slot, step) =>
          `select(vec4f(), ${rows.fetch(slot, step)}, k + ${step.value} < end)`,
      },
      b: columnsOf(b, "b_start", "u.tiles", row),
      place: (row, column) =>
        `group.z * u.y_stride + ${placeInFrequency(row, column, "u.channels")}`,
    }, target);
    const across = Math.ceil(out / tile.columns), down = Math.ceil(channels / tile.rows);
    const product = splitSum(
      "winograd, sums",
      sums,
      tiling.count,
      across * down * FREQUENCIES,
      target,
      (result, parts, chunk) => {
        const y = bind("y", result, { vector: true, write: true });
        return makeKernel({
          label: "winograd, sums",
          bindings: [a, b, y],
          uniforms: {
            ...{ tiles: tiling.count, channels, out, chunk },
            ...{ a_stride: images.to.stride, b_stride: results.to.stride, y_stride: sums.stride },
          },
          ...tile.code(y),
          workgroups: [across, down, FREQUENCIES * parts],
        });
      },
    );
    return [images.kernel, results.kernel, ...product, weightsBack(sums, node, target)];
  },
};
