/**
 * What kernels of attention are made of: a workgroup owns `side` rows of the result and walks over
 * square tiles of scores, of which a lane owns four rows by four columns, and four rows of every so
 * many columns of the result.
 *
 * Everything that several lanes need goes through two tiles in workgroup memory, together 16 KiB at
 * the most. Rows beyond the end count as the last one; what is made of them is not stored, or
 * weighted by zero.
 *
 * @module
 */

import { type AttentionSizes, attentionSizes } from "../attention_sizes.ts";
import type { Tensor } from "../tensor.ts";
import { resolve, type View } from "../view.ts";
import { aliases, EXP, LOG } from "./expression.ts";
import { range } from "./gemm.ts";
import { type Binding, bindRange, foldGrid, type Kernel, load, makeKernel } from "./kernel.ts";

/** What is read: queries, keys, values, and the gradient by the result. */
export type MatrixName = "q" | "k" | "v" | "g";

/** In which order they are among the inputs, and which sizes (uniforms all) they have. */
const matrices = {
  q: { index: 0, rows: "queries", columns: "size" },
  k: { index: 1, rows: "keys", columns: "size" },
  v: { index: 2, rows: "keys", columns: "width" },
  g: { index: 3, rows: "queries", columns: "width" },
} as const;

/** Whether kernels can read matrices so: rows without gaps, and batch axes that are walked as two. */
export function isWalkable({ strides }: View, shape: readonly number[]): boolean {
  const outer = shape.map((size, i) => ({ size, stride: strides[i] })).slice(0, -3)
    .filter(({ size }) => size > 1);
  return (strides.at(-1) === 1 || shape.at(-1) === 1) &&
    outer.every(({ stride }, i) =>
      i + 1 === outer.length || stride === outer[i + 1].stride * outer[i + 1].size
    );
}

/** How a matrix is bound, and where its rows are. */
function operand(name: MatrixName, tensor: Tensor) {
  const { strides } = resolve(tensor), { binding, start } = bindRange(name, tensor);
  const batch = tensor.shape.map((size, i) => size > 1 ? strides[i] : 0).slice(0, -2);
  const inner = batch.at(-1) ?? 0, outer = batch.slice(0, -1).findLast((s) => s > 0) ?? 0;
  const places = { start, outer, inner, jump: strides.at(-2)! };
  return {
    binding,
    isVector: Object.values(places).every((n) => n % 4 === 0),
    uniforms: Object.fromEntries(Object.entries(places).map(([k, n]) => [`${name}_${k}`, n])),
  };
}

/** WGSL of a function that reads four numbers of a row. */
function loader(name: MatrixName, binding: Binding): string {
  const { rows, columns } = matrices[name];
  const element = (i: number) =>
    `select(0.0, ${load(binding, `start + ${i}u`)}, column + ${i}u < u.${columns})`;
  const value = binding.vector
    ? `select(vec4f(), ${load(binding, "start >> 2u")}, column < u.${columns})`
    : `vec4f(${range(4).map(element)})`;
  return `fn load_${name}(base: u32, row: u32, column: u32) -> vec4f {
let start = base + min(row, u.${rows} - 1u) * u.${name}_jump + column;
return ${value};
}`;
}

/** How much of a sum goes through workgroup memory at a time. */
const DEPTH = 32;

/** Rows and columns of a tile of scores. */
export type Side = 64 | 32;

/** WGSL of kernels, statement by statement. */
export class AttentionKernel {
  readonly #rows: "queries" | "keys";
  readonly #columns: "queries" | "keys";
  readonly #side: Side;
  /** Lanes along a side of the workgroup. */
  readonly #lanes: number;
  readonly #sizes: AttentionSizes;
  readonly #heads: number;
  readonly #read: readonly MatrixName[];
  readonly #operands: readonly ReturnType<typeof operand>[];
  /** Whether four numbers are read and written at a time. */
  readonly #isVector: boolean;

  /**
   * @param inputs Queries, keys, values, and the gradient by the result.
   * @param rows What the results, and the scores, have a row for.
   * @param read The matrices that it reads.
   */
  constructor(
    inputs: readonly Tensor[],
    rows: "queries" | "keys",
    side: Side,
    read: readonly MatrixName[],
  ) {
    this.#rows = rows;
    this.#columns = rows === "keys" ? "queries" : "keys";
    this.#side = side;
    this.#lanes = side / 4;
    this.#sizes = attentionSizes(inputs);
    this.#heads = inputs[0].shape.at(-3) ?? 1;
    this.#read = read;
    this.#operands = read.map((name) => operand(name, inputs[matrices[name].index]));
    const { size, width } = this.#sizes;
    this.#isVector = size % 4 === 0 && width % 4 === 0 && this.#operands.every((o) => o.isVector);
  }

  /**
   * The kernel.
   *
   * @param results Bindings of matrices that it stores.
   * @param others Bindings of single numbers.
   */
  make(
    label: string,
    results: readonly Binding[],
    others: readonly Binding[],
    body: readonly string[],
  ): Kernel {
    const { batch, ...sizes } = this.#sizes, n = this.#lanes, vector = this.#isVector;
    const tiles = Math.ceil(sizes[this.#rows] / this.#side), groups = tiles * batch;
    const { grid, index } = foldGrid(groups);
    const operands = this.#operands.map(({ binding }) => ({ ...binding, vector }));
    return makeKernel({
      label,
      bindings: [...operands, ...results.map((b) => ({ ...b, vector })), ...others],
      uniforms: Object.assign(
        { ...sizes, heads: this.#heads, tiles, groups },
        ...this.#operands.map(({ uniforms }) => uniforms),
      ),
      functions: [
        ...["a", "b"].map((t) => `var<workgroup> tile_${t}: array<vec4f, ${DEPTH * n}>;`),
        ...[aliases("vec4f"), EXP, LOG],
        ...this.#read.map((name, i) => loader(name, operands[i])),
      ].join("\n"),
      lanes: n * n,
      body: [
        `let index = ${index};`,
        "if (index >= u.groups) { return; }",
        `let batch = index / u.tiles; let first = index % u.tiles * ${this.#side}u;`,
        `let ly = lane / ${n}u; let lx = lane % ${n}u; let row = first + 4u * ly;`,
        "let scale = 1.0 / sqrt(f32(u.size));",
        ...this.#read.map((m) =>
          `let ${m}_base = u.${m}_start + batch / u.heads * u.${m}_outer + ` +
          `batch % u.heads * u.${m}_inner;`
        ),
        ...body,
      ].join("\n"),
      workgroups: [1, ...grid],
    });
  }

  /** A walk over tiles, whose columns start at `at`. */
  walk(body: readonly string[]): string[] {
    return [`for (var at = 0u; at < u.${this.#columns}; at += ${this.#side}u) {`, ...body, "}"];
  }

  /** The tensor's row or column that column `j` of a lane's scores belongs to. */
  column(j: number): string {
    return `at + lx + ${j * this.#lanes}u`;
  }

  /** Whether there is none. */
  isBeyond(j: number): string {
    return `${this.column(j)} >= u.${this.#columns}`;
  }

  /** Declares `name0` to `name3`, inner products of the rows of `a` with those of `b`. */
  products(name: string, a: MatrixName, b: MatrixName): string[] {
    const n = this.#lanes, blocks = DEPTH / 4 * n, length = `u.${matrices[a].columns}`;
    // A lane fetches four numbers of four rows, and turns them.
    const fetch = (tile: "a" | "b", m: MatrixName, row: (i: number) => string) => [
      `let d = block % ${DEPTH / 4}u * 4u; let place = block / ${DEPTH / 4}u;`,
      ...range(4).map((i) => `let x${i} = load_${m}(${m}_base, ${row(i)}, begin + d);`),
      ...range(4).map((c) =>
        `tile_${tile}[(d + ${c}u) * ${n}u + place] = vec4f(${range(4).map((i) => `x${i}[${c}]`)});`
      ),
    ];
    const fetchA = fetch("a", a, (i) => `first + 4u * place + ${i}u`);
    const fetchB = fetch("b", b, (i) => `at + place + ${i * n}u`);
    const fetchBoth = n * n >= 2 * blocks
      ? [`if (lane < ${blocks}u) { let block = lane;`, ...fetchA]
        .concat(`} else { let block = lane - ${blocks}u;`, fetchB, "}")
      : ["{ let block = lane;", ...fetchA, "}", "{ let block = lane;", ...fetchB, "}"];
    return [
      ...range(4).map((j) => `var ${name}${j} = vec4f();`),
      `for (var begin = 0u; begin < ${length}; begin += ${DEPTH}u) {`,
      "workgroupBarrier();",
      ...fetchBoth,
      "workgroupBarrier();",
      `let end = min(${length} - begin, ${DEPTH}u);`,
      "for (var d = 0u; d < end; d += 4u) {",
      ...["a", "b"].flatMap((t) =>
        range(4).map((c) =>
          `let ${t}${c} = tile_${t}[(d + ${c}u) * ${n}u + ${t === "a" ? "ly" : "lx"}];`
        )
      ),
      ...range(4).flatMap((c) =>
        range(4).map((j) => `${name}${j} = fma(a${c}, vec4f(b${c}[${j}]), ${name}${j});`)
      ),
      "}",
      "}",
    ];
  }

  /** Declares accumulators of so many columns. */
  accumulators(y: string, columns: number): string[] {
    return this.#owned(columns).map((name) => `var ${y}${name} = vec4f();`);
  }

  /** Multiplies them, each row by its component of `factor`. */
  scale(y: string, columns: number, factor: string): string[] {
    return this.#owned(columns).map((name) => `${y}${name} *= ${factor}[${name.at(-1)}];`);
  }

  /** Adds products of the scores `p0` to `p3` with the rows of `b` to accumulators. */
  spread(y: string, p: string, b: MatrixName): string[] {
    const n = this.#lanes, each = DEPTH / n, isHalf = this.#side > DEPTH;
    const groups = this.#groups(this.#sizes[matrices[b].columns]);
    // Unrolled less where there is much of it: code grows, and takes long to compile.
    const steps = range(groups.length > 2 ? 2 : 4);
    return [
      `let rest_${y} = min(u.${this.#columns} - at, ${this.#side}u);`,
      `for (var part = 0u; part < rest_${y}; part += ${DEPTH}u) {`,
      "workgroupBarrier();",
      ...range(each).map((j) =>
        `tile_a[ly * ${DEPTH}u + lx + ${j * n}u] = ${
          isHalf ? `select(${p}${j}, ${p}${each + j}, part > 0u)` : `${p}${j}`
        };`
      ),
      ...groups.flatMap((c) => [
        c ? "workgroupBarrier();" : "",
        ...range(each).map((t) =>
          `tile_b[lane + ${t * n * n}u] = load_${b}(${b}_base, ` +
          `at + part + ly + ${t * n}u, (lx + ${c * n}u) * 4u);`
        ),
        "workgroupBarrier();",
        `for (var i = 0u; i < ${DEPTH}u; i += ${steps.length}u) {`,
        ...steps.map((t) =>
          `let a${t} = tile_a[ly * ${DEPTH}u + i + ${t}u]; ` +
          `let b${t} = tile_b[(i + ${t}u) * ${n}u + lx];`
        ),
        ...steps.flatMap((t) =>
          range(4).map((i) => `${y}${c}_${i} = fma(vec4f(a${t}[${i}]), b${t}, ${y}${c}_${i});`)
        ),
        "}",
      ]),
      "}",
    ];
  }

  /** Declares `name`, the `value`s of all lanes of the same rows combined. */
  combine(name: string, value: string, f: (a: string, b: string) => string): string[] {
    const place = `tile_a[ly * ${this.#lanes}u`;
    return [
      `workgroupBarrier(); tile_a[lane] = ${value}; workgroupBarrier();`,
      `var ${name} = ${place}];`,
      `for (var i = 1u; i < ${this.#lanes}u; i++) { ${name} = ${f(name, `${place} + i]`)}; }`,
    ];
  }

  /** Stores accumulators as rows of a result. */
  store(y: string, columns: "size" | "width"): string[] {
    const n = this.#lanes, limit = `u.${columns}`;
    return range(4).flatMap((i) => [
      `if (row + ${i}u < u.${this.#rows}) {`,
      `let start = (batch * u.${this.#rows} + row + ${i}u) * ${limit};`,
      ...this.#groups(this.#sizes[columns]).map((c) => {
        const column = `(lx + ${c * n}u) * 4u`, value = `${y}${c}_${i}`;
        if (this.#isVector) {
          return `if (${column} < ${limit}) { ${y}[(start + ${column}) >> 2u] = ${value}; }`;
        }
        const at = (e: number) => `${column} + ${e}u`;
        return range(4).map((e) =>
          `if (${at(e)} < ${limit}) { ${y}[start + ${at(e)}] = ${value}[${e}]; }`
        ).join(" ");
      }),
      "}",
    ]);
  }

  /** Groups of columns, of each of which a lane owns four. */
  #groups(columns: number): number[] {
    return range(Math.ceil(columns / this.#side));
  }

  /** How names of accumulators end: a group of columns and a row. */
  #owned(columns: number): string[] {
    return this.#groups(columns).flatMap((c) => range(4).map((i) => `${c}_${i}`));
  }
}
