/**
 * Convolutions 3 × 3 with stride 1 by F(4 × 4, 3 × 3) in kernels of their own: transforms of weights
 * and images to 36 frequencies, a batch of 36 matrix products, and the transform back. The gradient
 * by the weights goes through the adjoint: both images are transformed, their products are summed
 * over all tiles, and 9 taps are made of 36.
 *
 * @module
 */

import { type ConvSizes, convSizes, type Window } from "../convolution.ts";
import type { Fused } from "../loop.ts";
import type { Shape } from "../shape.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { F4, transposed } from "../winograd.ts";
import { generateTile } from "./gemm.ts";
import {
  bind,
  type Kernel,
  loadFour,
  makeKernel,
  type Variant,
  type WgslTarget,
} from "./kernel.ts";
import { splitSum } from "./split.ts";
import {
  FREQUENCIES,
  M,
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

/** For each frequency, tiles times weights: `[36][tiles][channels]`. */
function multiply(
  images: Scratch,
  weights: Scratch,
  { tiles, channels, out, isMirrored }: {
    tiles: number;
    channels: number;
    out: number;
    isMirrored: boolean;
  },
  target: WgslTarget,
): { kernel: Kernel; to: Scratch } {
  const to = new Scratch(FREQUENCIES * tiles * out);
  const a = bind("a", images, { vector: true }), b = bind("b", weights, { vector: true });
  const y = bind("y", to, { vector: true, write: true });
  const tile = generateTile({
    size: [tiles, out, FREQUENCIES],
    ...{ rows: "tiles", columns: "out", vector: true },
    begin: "var k = 0u; let a_start = group.z * u.tiles * u.channels; " +
      "let b_start = group.z * u.channels * u.out;",
    ...{ condition: "k < u.channels", advance: "k += 4u;" },
    a: {
      layout: "along",
      prepare: (slot, index) => `let i${slot} = a_start + (${index}) * u.channels;`,
      fetch: (slot) => loadFour(a, `i${slot} + k`),
    },
    b: isMirrored
      ? {
        layout: "along",
        prepare: (slot, index) => `let i${slot} = b_start + (${index}) * u.channels;`,
        fetch: (slot) => loadFour(b, `i${slot} + k`),
      }
      : {
        layout: "across",
        prepare: (slot, index) => `let i${slot} = b_start + ${index};`,
        fetch: (slot, step) => loadFour(b, `i${slot} + (k + ${step.value}) * u.out`),
      },
    place: (row, column) => `(group.z * u.tiles + ${row}) * u.out + ${column}`,
  }, target);
  const kernel = makeKernel({
    label: "winograd, products",
    bindings: [a, b, y],
    uniforms: { tiles, channels, out },
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
  const [batch, height, width, out] = result.shape, tiling = tilesOf(batch, height, width);
  const weights = transformWeights(w, isMirrored, target);
  const images = transformImages(
    "winograd, image",
    ...[image, F4.bt, tiling, padding, target, input ? { input } : {}] as const,
  );
  const sizes = { tiles: tiling.count, channels: image.shape[3], out, isMirrored };
  const products = multiply(images.to, weights.to, sizes, target);
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
    const sums = new Scratch(FREQUENCIES * channels * out);
    const a = bind("a", images.to, { vector: true }), b = bind("b", results.to, { vector: true });
    const tile = generateTile({
      size: [channels, out, FREQUENCIES],
      ...{ rows: "channels", columns: "out", vector: true },
      begin: `let q = group.z % ${FREQUENCIES}u; let part = group.z / ${FREQUENCIES}u;
var k = part * u.chunk; let end = min(k + u.chunk, u.tiles);
let a_start = q * u.tiles * u.channels; let b_start = q * u.tiles * u.out;`,
      ...{ condition: "k < end", advance: "k += 4u;" },
      a: {
        layout: "across",
        prepare: (slot, index) => `let i${slot} = a_start + ${index};`,
        fetch: (slot, step) =>
          `select(vec4f(), ${
            loadFour(a, `i${slot} + min(k + ${step.value}, end - 1u) * u.channels`)
          }, k + ${step.value} < end)`,
      },
      b: {
        layout: "across",
        prepare: (slot, index) => `let i${slot} = b_start + ${index};`,
        fetch: (slot, step) => loadFour(b, `i${slot} + min(k + ${step.value}, end - 1u) * u.out`),
      },
      place: (row, column) => `(group.z * u.channels + ${row}) * u.out + ${column}`,
    }, target);
    const columns = Math.ceil(out / tile.columns), rows = Math.ceil(channels / tile.rows);
    const product = splitSum(
      "winograd, sums",
      sums,
      tiling.count,
      columns * rows * FREQUENCIES,
      target,
      (result, parts, chunk) => {
        const y = bind("y", result, { vector: true, write: true });
        return makeKernel({
          label: "winograd, sums",
          bindings: [a, b, y],
          uniforms: { tiles: tiling.count, channels, out, chunk },
          ...tile.code(y),
          workgroups: [columns, rows, FREQUENCIES * parts],
        });
      },
    );
    return [images.kernel, results.kernel, ...product, weightsBack(sums, node, target)];
  },
};
