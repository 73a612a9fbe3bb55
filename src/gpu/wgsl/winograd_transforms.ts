/**
 * The transforms of F(4 × 4, 3 × 3): images, weights and results to 36 frequencies and back.
 *
 * @module
 */

import type { Fused } from "../compile/loop.ts";
import { Scratch } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { applyMatrix, F4, type Matrix, transposed } from "../winograd.ts";
import { FusedWork } from "./elementwise.ts";
import { literal } from "./expression.ts";
import { range } from "./gemm.ts";
import {
  bind,
  type Binding,
  bindInput,
  foldGrid,
  type Kernel,
  load,
  store,
  type WgslTarget,
} from "./kernel.ts";

/** Outputs of a tile along an axis. */
export const M = 4;
/** Inputs that they need. */
const N = 6;
/** Products of a tile. */
export const FREQUENCIES: number = N * N;

/**
 * Memory for images or weights as frequencies, `[36][channels / 32][rows][32]`: a product reads 32
 * channels of neighbouring rows, which lie together like this instead of far apart.
 */
export class Frequencies extends Scratch {
  /** Tiles of images, or input channels of weights. */
  readonly rows: number;
  readonly channels: number;
  /** Elements of a frequency. */
  readonly stride: number;

  constructor(rows: number, channels: number) {
    const stride = Math.ceil(channels / 32) * 32 * rows;
    super(FREQUENCIES * stride);
    this.rows = rows;
    this.channels = channels;
    this.stride = stride;
  }
}

/** WGSL of where an element of a frequency is; `rows` is how many there are. */
export const placeInFrequency = (row: string, channel: string, rows: string): string =>
  `(((${channel}) >> 5u) * ${rows} + ${row}) * 32u + ((${channel}) & 31u)`;

/** Four by four pixels of an image, or what there is of them at its edges. */
export interface Tiling {
  readonly rows: number;
  readonly columns: number;
  readonly count: number;
}

export const tilesOf = (batch: number, height: number, width: number): Tiling => {
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
  /** What it makes of squares, or squares of: an invocation takes four channels of a row. */
  frequencies: Frequencies;
  /** WGSL that reads squares from `c` and `tile`, and writes them to `y`; `at` is in a frequency. */
  body: string[];
  work: FusedWork;
}, { lanes }: WgslTarget): Kernel {
  const { label, bindings, frequencies: { rows: outer, channels } } = parts;
  const inner = channels / 4, stride = parts.frequencies.stride / 4;
  const { grid, index } = foldGrid(Math.ceil(stride / lanes));
  return parts.work.kernel({
    ...{ label, bindings, lanes },
    uniforms: { ...parts.uniforms, inner, outer, stride },
    body: [
      `let at = ${index} * ${lanes}u + lane;`,
      "let tile = at / 8u % u.outer; let c = at / (8u * u.outer) * 8u + at % 8u;",
      "if (at >= u.stride || c >= u.inner) { return; }",
      ...parts.body,
    ].join("\n"),
    workgroups: [1, ...grid],
  });
}

/** Statements that find a tile's image and the pixel that it starts at. */
const PLACE = "let left = tile % u.columns * 4u; let top = tile / u.columns % u.rows * 4u; " +
  "let image = tile / (u.columns * u.rows);";

/** Images as frequencies, with tiles as rows: T d Tᵀ of squares as large as T is wide. */
export function transformImages(
  label: string,
  image: Tensor,
  matrix: Matrix,
  tiling: Tiling,
  [padTop, padLeft]: readonly [number, number],
  target: WgslTarget,
  fused: Fused = {},
): { kernel: Kernel; to: Frequencies } {
  const [, height, width, channels] = image.shape, size = matrix[0].length;
  const to = new Frequencies(tiling.count, channels), lines = [PLACE];
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
  z.flat().forEach((value, q) => lines.push(store(result, `${q}u * u.stride + at`, value)));
  const kernel = transform({
    ...{ label, work },
    bindings: input?.bindings ?? [x],
    uniforms: {
      ...{ height, width, rows: tiling.rows, columns: tiling.columns },
      ...{ pad_top: padTop, pad_left: padLeft },
    },
    ...{ frequencies: to, body: lines },
  }, target);
  return { kernel, to };
}

/** Weights `[3][3][in][out]` as frequencies, with input channels as rows; turned round for the gradient. */
export function transformWeights(
  w: Tensor,
  isMirrored: boolean,
  target: WgslTarget,
): { kernel: Kernel; to: Frequencies } {
  const [, , channels, out] = w.shape, to = new Frequencies(channels, out);
  const work = new FusedWork(to, {}, true), x = bindInput("w", w, true), y = work.result;
  const lines = range(9).map((t) =>
    `let d${t} = ${load(x, `(${isMirrored ? 8 - t : t}u * u.outer + tile) * u.inner + c`)};`
  );
  const z = square(F4.g, (i, j) => `d${3 * i + j}`, lines);
  z.flat().forEach((value, q) => lines.push(store(y, `${q}u * u.stride + at`, value)));
  const kernel = transform({
    ...{ label: "winograd, weights", work },
    bindings: [x],
    ...{ uniforms: {}, frequencies: to, body: lines },
  }, target);
  return { kernel, to };
}

/** Frequencies as pixels, plus a bias. */
export function transformBack(
  products: Frequencies,
  bias: Tensor | undefined,
  result: Tensor,
  tiling: Tiling,
  target: WgslTarget,
  fused: Fused,
): Kernel {
  const [, height, width] = result.shape, lines = [PLACE];
  const work = new FusedWork(result, fused, true), y = work.result;
  const m = bind("m", products, { vector: true }), added = bias && bindInput("bias", bias, true);
  for (const q of range(FREQUENCIES)) {
    lines.push(`let d${q} = ${load(m, `${q}u * u.stride + at`)};`);
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
    ...{ frequencies: products, body: lines },
  }, target);
}

/** Frequencies as the weights that they are gradients of. */
export function weightsBack(sums: Frequencies, result: Tensor, target: WgslTarget): Kernel {
  const work = new FusedWork(result, {}, true), m = bind("m", sums, { vector: true });
  const lines = range(FREQUENCIES).map((q) => `let d${q} = ${load(m, `${q}u * u.stride + at`)};`);
  const z = square(transposed(F4.g), (i, j) => `d${N * i + j}`, lines);
  z.flat().forEach((value, t) =>
    lines.push(store(work.result, `(${t}u * u.outer + tile) * u.inner + c`, value))
  );
  return transform({
    ...{ label: "winograd, taps", work },
    bindings: [m],
    ...{ uniforms: {}, frequencies: sums, body: lines },
  }, target);
}
