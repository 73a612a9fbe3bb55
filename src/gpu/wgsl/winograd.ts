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
import { Scratch, type Storage } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { applyMatrix, F4, type Matrix, transposed } from "../winograd.ts";
import { FusedWork } from "./elementwise.ts";
import { literal } from "./expression.ts";
import { generateTile, range } from "./gemm.ts";
import {
  bind,
  type Binding,
  bindInput,
  foldGrid,
  type Kernel,
  load,
  loadFour,
  makeKernel,
  store,
  type Variant,
  type WgslTarget,
} from "./kernel.ts";
import { splitSum } from "./split.ts";

/** Outputs of a tile along an axis, inputs that they need, and products of a tile. */
const M = 4, N = 6, FREQUENCIES = N * N;
/** Fewer channels than this are not worth trying. */
const MIN_CHANNELS = 16;

/** Whether a convolution can be computed by this file. */
const suits = (s: ConvSizes) =>
  s.stride === 1 && s.kernelHeight === 3 && s.kernelWidth === 3 &&
  s.channels % 4 === 0 && s.outChannels % 4 === 0 &&
  s.channels >= MIN_CHANNELS && s.outChannels >= MIN_CHANNELS &&
  s.outHeight >= M && s.outWidth >= M;

/** Whether the transforms are likely to be made up for, by measurements on lavapipe. */
const pays = (s: ConvSizes) => s.channels >= 64 && s.outChannels >= 64;

/** Four by four pixels of an image, or what there is of them at its edges. */
interface Tiling {
  readonly rows: number;
  readonly columns: number;
  readonly count: number;
}

const tilesOf = (batch: number, height: number, width: number): Tiling => {
  const rows = Math.ceil(height / M), columns = Math.ceil(width / M);
  return { rows, columns, count: batch * rows * columns };
};

/** WGSL of y = T x Tᵀ for a square of vectors; `x` and the result are names by row and column. */
function square(
  matrix: Matrix,
  x: (i: number, j: number) => string,
  lines: string[],
): string[][] {
  const size = matrix[0].length;
  const name = (value: string) => {
    const named = `s${lines.length}`;
    lines.push(`let ${named} = ${value};`);
    return named;
  };
  const ops = {
    add: (a: string, b: string) => name(`${a} + ${b}`),
    sub: (a: string, b: string) => name(`${a} - ${b}`),
    madd(sum: string | undefined, c: number, x: string) {
      const product = c === 1 ? x : c === -1 ? `-${x}` : `${literal(c)} * ${x}`;
      return sum === undefined ? name(product) : name(`${sum} + ${product}`);
    },
    zero: () => "vec4f()",
  };
  const columns = range(size).map((j) => applyMatrix(matrix, range(size).map((i) => x(i, j)), ops));
  return range(matrix.length).map((i) => applyMatrix(matrix, columns.map((c) => c[i]), ops));
}

/** A kernel in which every invocation transforms one square of four channels. */
function transform(parts: {
  label: string;
  bindings: readonly Binding[];
  uniforms: Record<string, number>;
  /** Vectors of channels, and squares. */
  inner: number;
  outer: number;
  /** WGSL that reads squares from `c` and `tile`, and writes them to `y`. */
  body: string[];
  work: FusedWork;
}, { lanes }: WgslTarget): Kernel {
  const { label, bindings, inner, outer } = parts;
  const { grid, index } = foldGrid(Math.ceil(inner * outer / lanes));
  return parts.work.kernel({
    ...{ label, bindings, lanes },
    uniforms: { ...parts.uniforms, inner, outer },
    body: [
      `let flat = ${index} * ${lanes}u + lane;`,
      "if (flat >= u.inner * u.outer) { return; }",
      "let c = flat % u.inner; let tile = flat / u.inner;",
      ...parts.body,
    ].join("\n"),
    workgroups: [1, ...grid],
  });
}

/** Statements that find a tile's image and the pixel that it starts at. */
const PLACE = "let left = tile % u.columns * 4u; let top = tile / u.columns % u.rows * 4u; " +
  "let image = tile / (u.columns * u.rows);";

/** Images as frequencies `[36][tiles][channels]`: T d Tᵀ of squares as large as T is wide. */
function transformImages(
  label: string,
  image: Tensor,
  matrix: Matrix,
  tiling: Tiling,
  [padTop, padLeft]: readonly [number, number],
  target: WgslTarget,
  fused: Fused = {},
): { kernel: Kernel; to: Scratch } {
  const [, height, width, channels] = image.shape, size = matrix[0].length;
  const to = new Scratch(FREQUENCIES * tiling.count * channels), lines = [PLACE];
  const work = new FusedWork(to, fused, true, image), { input, result } = work;
  const x = bindInput("x", image, true);
  const place = ["image", "0u", "0u", "(c * 4u)"], fixed = input?.fixed ?? [];
  lines.push(...fixed.map((k) => `let fixed${k} = ${input!.read(k, place)};`));
  for (const i of range(size)) {
    lines.push(
      `let y${i} = top + ${i}u - u.pad_top; let x${i} = left + ${i}u - u.pad_left;`,
      `let row${i} = ((image * u.height + y${i}) * u.width) * u.inner + c;`,
    );
  }
  const read = (i: number, j: number) => {
    const pixel = [`y${i}`, `x${j}`].map((at) => `select(0u, ${at}, ok${i}${j})`);
    return input?.value(
      place.with(1, pixel[0]).with(2, pixel[1]),
      (k) => fixed.includes(k) ? `fixed${k}` : undefined,
    ) ??
      load(x, `select(0u, row${i} + x${j} * u.inner, ok${i}${j})`);
  };
  for (const i of range(size)) {
    for (const j of range(size)) {
      lines.push(
        `let ok${i}${j} = y${i} < u.height && x${j} < u.width;`,
        `let d${i}${j} = select(vec4f(), ${read(i, j)}, ok${i}${j});`,
      );
    }
  }
  const z = square(matrix, (i, j) => `d${i}${j}`, lines);
  z.flat().forEach((value, q) =>
    lines.push(store(result, `(${q}u * u.outer + tile) * u.inner + c`, value))
  );
  const kernel = transform({
    ...{ label, work },
    bindings: input?.bindings ?? [x],
    uniforms: {
      ...{ height, width, rows: tiling.rows, columns: tiling.columns },
      ...{ pad_top: padTop, pad_left: padLeft },
    },
    ...{ inner: channels / 4, outer: tiling.count, body: lines },
  }, target);
  return { kernel, to };
}

/** Weights `[3][3][in][out]` as frequencies `[36][in][out]`; turned round for the gradient. */
function transformWeights(
  w: Tensor,
  isMirrored: boolean,
  target: WgslTarget,
): { kernel: Kernel; to: Scratch } {
  const [, , channels, out] = w.shape, to = new Scratch(FREQUENCIES * channels * out);
  const work = new FusedWork(to, {}, true), x = bindInput("w", w, true), y = work.result;
  const lines = range(9).map((t) =>
    `let d${t} = ${load(x, `${isMirrored ? 8 - t : t}u * u.inner * u.outer + flat`)};`
  );
  const z = square(F4.g, (i, j) => `d${3 * i + j}`, lines);
  z.flat().forEach((value, q) => lines.push(store(y, `${q}u * u.inner * u.outer + flat`, value)));
  const kernel = transform({
    ...{ label: "winograd, weights", work },
    bindings: [x],
    ...{ uniforms: {}, inner: out / 4, outer: channels, body: lines },
  }, target);
  return { kernel, to };
}

/** Products `[36][tiles][channels]` as pixels, plus a bias. */
function transformBack(
  products: Scratch,
  bias: Tensor | undefined,
  result: Tensor,
  tiling: Tiling,
  target: WgslTarget,
  fused: Fused,
): Kernel {
  const [, height, width, channels] = result.shape, lines = [PLACE];
  const work = new FusedWork(result, fused, true), y = work.result;
  const m = bind("m", products, { vector: true }), added = bias && bindInput("bias", bias, true);
  for (const q of range(FREQUENCIES)) {
    lines.push(`let d${q} = ${load(m, `(${q}u * u.outer + tile) * u.inner + c`)};`);
  }
  if (added) lines.push(`let b = ${load(added, "c")};`);
  const z = square(F4.at, (i, j) => `d${N * i + j}`, lines);
  lines.push("let first = ((image * u.height + top) * u.width + left) * u.inner + c;");
  z.forEach((row, i) =>
    row.forEach((value, j) => {
      const at = `first + (${i}u * u.width + ${j}u) * u.inner`;
      const biased = `${value}${added ? " + b" : ""}`;
      const finished = work.finish?.(`(${at}) * 4u`, biased) ?? biased;
      lines.push(
        `if (top + ${i}u < u.height && left + ${j}u < u.width) { ${store(y, at, finished)} }`,
      );
    })
  );
  return transform({
    ...{ label: "winograd, back", work },
    bindings: [m, ...(added ? [added] : [])],
    uniforms: { height, width, rows: tiling.rows, columns: tiling.columns },
    ...{ inner: channels / 4, outer: tiling.count, body: lines },
  }, target);
}

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
  pays: (node) => pays(sizesForward(node)),
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
  pays: (node) => pays(sizesInputGrad(node)),
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
    const { channels, outChannels } = sizesWeightGrad(node);
    return channels * outChannels >= 2048;
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

/** Sums of frequencies `[36][in][out]` as taps. */
function weightsBack(sums: Storage, result: Tensor, target: WgslTarget): Kernel {
  const [, , channels, out] = result.shape;
  const work = new FusedWork(result, {}, true), m = bind("m", sums, { vector: true });
  const lines = range(FREQUENCIES).map((q) =>
    `let d${q} = ${load(m, `${q}u * u.inner * u.outer + flat`)};`
  );
  const z = square(transposed(F4.g), (i, j) => `d${N * i + j}`, lines);
  z.flat().forEach((value, t) =>
    lines.push(store(work.result, `${t}u * u.inner * u.outer + flat`, value))
  );
  return transform({
    ...{ label: "winograd, taps", work },
    bindings: [m],
    ...{ uniforms: {}, inner: out / 4, outer: channels, body: lines },
  }, target);
}
