/**
 * The one tile generator behind matrix products and all three directions of convolution:
 * Y[row, column] = Σₖ A[row, k] B[k, column], where operands say how to fetch four numbers.
 *
 * Three styles. `subgroup`: eight lanes own 32 rows × 32 columns; every number is loaded once, by one
 * lane, and handed round by broadcast. That suits lavapipe, where a load costs 260 instructions.
 * `plain`: every invocation owns 8 rows × 8 columns and loads what it needs itself. Tiles named by
 * their size go through workgroup memory, which suits GPUs; workgroup.ts generates them.
 *
 * Rows and columns beyond the end are clamped to the last ones, computed again and stored again:
 * cheaper than a branch, and the same numbers.
 *
 * @module
 */

import { type Binding, store, type WgslTarget } from "./kernel.ts";
import { generateWorkgroupTile, type workgroupTiles } from "./workgroup.ts";

/** One of the four k of an iteration: how names that belong to it end, and its number as WGSL. */
export interface Step {
  readonly name: string;
  readonly value: string;
}

/** How the generator fetches an operand: WGSL for three places. */
export interface Source {
  /**
   * `along`: a fetch gives four consecutive k of one row (or column).
   * `across`: a fetch gives one k of four consecutive rows (or columns).
   */
  readonly layout: "along" | "across";
  /** Before the loop: what to know of the row or column `index` (the first of four, if across). */
  prepare(slot: string, index: string): string;
  /** At the top of an iteration; knows of a `step` where every lane fetches one of its own. */
  step?(slot: string, step?: Step): string;
  /** A `vec4f`: four k, or the `step` of them, if across. */
  fetch(slot: string, step: Step): string;
}

/** A product to generate. */
export interface Product {
  /** Rows, columns, and products of that size, by which a tile is chosen. */
  readonly size: readonly [rows: number, columns: number, count: number];
  /** Which of the tiles along the rows a workgroup takes, `group.y` if not given. */
  readonly block?: string;
  /** Numbers of rows and columns: names of uniforms. */
  readonly rows: string;
  readonly columns: string;
  readonly a: Source;
  readonly b: Source;
  /** Statements before the loop. */
  readonly begin: string;
  /** The loop condition; an iteration takes four k. */
  readonly condition: string;
  /** Statements after the products of an iteration. */
  readonly advance: string;
  /** What stands for these where a lane fetches all four k of an iteration. */
  readonly walk?: {
    readonly begin: string;
    readonly iteration: string;
    readonly advance: string;
  };
  /** Start value of the four accumulators of a column, a `vec4f`; zero by default. */
  readonly start?: (column: string) => string;
  /** WGSL of the element index of Y[row, column]. */
  readonly place: (row: string, column: string) => string;
  /** What to store instead of a value at an index; four of them if Y is bound as vectors. */
  readonly finish?: ((at: string, value: string) => string) | undefined;
  /** Whether Y is bound as vectors; all four columns exist then. Else stores are guarded. */
  readonly vector: boolean;
}

/** A generated product: parts of its kernel, and how many rows and columns a workgroup takes. */
export interface Tile {
  /** @param y What Y is bound as. */
  code(y: Binding): {
    readonly body: string;
    readonly lanes: number;
    readonly functions?: string;
  };
  readonly rows: number;
  readonly columns: number;
}

/** Ways to compute a tile. */
export type TileName = "subgroup" | "plain" | keyof typeof workgroupTiles;

/** The ways that are worth trying on a device, for operands that are read as vectors. */
export function tileNames(target: WgslTarget): readonly TileName[] {
  return target.subgroup === 8 ? ["subgroup"] : ["128x128", "64x64", "32x32"];
}

/** The way to compute a product, unless the target prescribes one: the largest that keeps it busy. */
function chooseTile({ size, vector }: Product, target: WgslTarget): TileName {
  const names = tileNames(target);
  if (!vector) return names.includes("subgroup") ? "subgroup" : "plain";
  if (target.tile) return target.tile;
  const [rows, columns, count] = size;
  return names.find((name) => {
    const [height, width] = name.split("x").map(Number);
    return count * Math.ceil(rows / height) * Math.ceil(columns / width) >= target.workgroups / 4;
  }) ?? names.at(-1)!;
}

/** How a tile is spread over invocations. */
interface Style {
  readonly lanes: number;
  /** Accumulators of an invocation: `rows` × `groups` vectors of four columns. */
  readonly rows: number;
  readonly groups: number;
  /** What a workgroup takes. */
  readonly tile: { readonly rows: number; readonly columns: number };
  /** Statements that set `row` and `column`, the first of each for this invocation. */
  readonly origin: (block: string) => string;
  /** Rows that this invocation fetches, as offsets to `row`; the first of four, if across. */
  readonly fetched: (layout: Source["layout"]) => string[];
  /** Element (row i, step u) of what was fetched. */
  readonly element: (layout: Source["layout"], i: number, u: number) => string;
  /** A statement that adds four products to a sum. */
  readonly accumulate: (sum: string, products: readonly (readonly [string, string])[]) => string;
}

/** 0 to n - 1. */
export const range = (n: number): number[] => [...Array(n).keys()];

/** The four k of an iteration, each by itself. */
const STEPS: readonly Step[] = range(4).map((u) => ({ name: `${u}`, value: `${u}u` }));

/** Every invocation for itself; eight by eight of them in a workgroup. */
const plain = (isVector: boolean): Style => {
  const rows = isVector ? 8 : 4, groups = isVector ? 2 : 1, side = 8;
  return {
    lanes: side * side,
    rows,
    groups,
    tile: { rows: side * rows, columns: side * 4 * groups },
    origin: (block) =>
      `let row = (${block} * ${side}u + lane / ${side}u) * ${rows}u;
let column = (group.x * ${side}u + lane % ${side}u) * ${4 * groups}u;`,
    fetched: (layout) =>
      layout === "along"
        ? range(rows).map((i) => `${i}u`)
        : range(rows / 4).map((i) => `${4 * i}u`),
    element: (layout, i, u) => layout === "along" ? `a${i}[${u}]` : `a${i >> 2}_${u}[${i & 3}]`,
    accumulate: (sum, products) =>
      `${sum} = ${products.reduce((s, [a, b]) => `fma(${a}, ${b}, ${s})`, sum)};`,
  };
};

/** Eight lanes that share their fetches. */
const subgroup = (isVector: boolean): Style => {
  // Guarded stores of single elements are four times as many; fewer rows keep LLVM quick.
  const rows = isVector ? 32 : 8;
  return {
    lanes: 8,
    rows,
    groups: 1,
    tile: { rows, columns: 32 },
    origin: (block) => `let row = ${block} * ${rows}u; let column = group.x * 32u + 4u * lane;`,
    fetched: (layout) =>
      layout === "along" ? range(rows / 8).map((i) => `(${8 * i}u + lane)`) : ["4u * lane"],
    element: (layout, i, u) =>
      layout === "along"
        ? `subgroupBroadcast(a${i >> 3}[${u}], ${i & 7}u)`
        : `subgroupBroadcast(a0_${u}[${i & 3}], ${i >> 2}u)`,
    // Lavapipe has no fused multiply-add, so that adding up four products before they meet the
    // large sum costs nothing, and halves the rounding error.
    accumulate(sum, products) {
      const [p0, p1, p2, p3] = products.map(([a, b]) => `${a} * ${b}`);
      return `${sum} += (${p0} + ${p1}) + (${p2} + ${p3});`;
    },
  };
};

/** Generates the product for a device. */
export function generateTile(p: Product, target: WgslTarget): Tile {
  const name = chooseTile(p, target);
  if (name !== "subgroup" && name !== "plain") return generateWorkgroupTile(p, name);
  const style = (name === "subgroup" ? subgroup : plain)(p.vector);
  const last = p.a.layout === "along" ? 1 : 4;
  const slots = style.fetched(p.a.layout).map((offset, i) => {
    const index = `row + ${offset}`;
    return { name: `a${i}`, index: p.vector ? `min(${index}, u.${p.rows} - ${last}u)` : index };
  });
  const columns = range(style.groups).flatMap((j) =>
    p.b.layout === "along"
      ? range(4).map((i) => ({ name: `b${j}${i}`, index: `at${j} + ${i}u` }))
      : [{ name: `b${j}`, index: `at${j}` }]
  );
  const fetch = (source: Source, { name }: { name: string }) =>
    source.layout === "along"
      ? [`let ${name} = ${source.fetch(name, STEPS[0])};`]
      : STEPS.map((step) => `let ${name}_${step.name} = ${source.fetch(name, step)};`);
  const columnVector = (j: number, u: number) =>
    p.b.layout === "along" ? `vec4f(${range(4).map((i) => `b${j}${i}[${u}]`)})` : `b${j}_${u}`;

  const accumulators = range(style.rows).flatMap((i) => range(style.groups).map((j) => ({ i, j })));
  const body = (y: Binding) => [
    style.origin(p.block ?? "group.y"),
    p.walk?.begin ?? p.begin,
    ...range(style.groups).map((j) => {
      const index = `column + ${4 * j}u`;
      return `let at${j} = ${p.vector ? `min(${index}, u.${p.columns} - 4u)` : index};`;
    }),
    ...slots.map(({ name, index }) => p.a.prepare(name, index)),
    ...columns.map(({ name, index }) => p.b.prepare(name, index)),
    ...accumulators.map(({ i, j }) => `var y${i}_${j} = ${p.start?.(`at${j}`) ?? "vec4f()"};`),
    `while (${p.condition}) {`,
    p.walk?.iteration ?? "",
    ...slots.map(({ name }) => p.a.step?.(name) ?? ""),
    ...columns.map(({ name }) => p.b.step?.(name) ?? ""),
    ...slots.flatMap((slot) => fetch(p.a, slot)),
    ...columns.flatMap((slot) => fetch(p.b, slot)),
    ...range(style.groups).flatMap((j) =>
      range(4).map((u) => `let c${j}_${u} = ${columnVector(j, u)};`)
    ),
    ...accumulators.map(({ i, j }) => {
      const element = (u: number) => `vec4f(${style.element(p.a.layout, i, u)})`;
      return style.accumulate(`y${i}_${j}`, range(4).map((u) => [element(u), `c${j}_${u}`]));
    }),
    p.walk?.advance ?? p.advance,
    "}",
    ...storeAll(p, y, style),
  ];
  return {
    code: (y) => ({ body: body(y).filter((line) => line).join("\n"), lanes: style.lanes }),
    ...style.tile,
  };
}

/** Stores all accumulators; in a loop where LLVM would take minutes for as many copies. */
function storeAll(p: Product, y: Binding, { rows, groups }: Style): string[] {
  return range(groups).flatMap((j) => {
    const names = range(rows).map((i) => `y${i}_${j}`);
    if (!p.finish || rows < 8) return names.map((name, i) => storeRow(p, y, i, `at${j}`, name));
    return [
      `var all${j} = array<vec4f, ${rows}>(${names});`,
      `for (var i = 0u; i < ${rows}u; i++) { ${storeRow(p, y, "i", `at${j}`, `all${j}[i]`)} }`,
    ];
  });
}

/** Stores accumulators of row i, a number or a variable, to where its numbers came from. */
export function storeRow(
  p: Product,
  y: Binding,
  i: number | "i",
  column: string,
  value: string,
): string {
  const finish = p.finish ?? ((_, value) => value);
  const [offset, block, inBlock] = i === "i"
    ? ["i", "(i & ~3u)", "(i & 3u)"]
    : [`${i}u`, `${i & ~3}u`, `${i & 3}u`];
  if (p.vector) {
    const row = p.a.layout === "along"
      ? `min(row + ${offset}, u.${p.rows} - 1u)`
      : `(min(row + ${block}, u.${p.rows} - 4u) + ${inBlock})`;
    const at = p.place(row, column);
    return store(y, `(${at}) >> 2u`, finish(at, value));
  }
  const row = `(row + ${offset})`;
  const elements = range(4).map((c) => {
    const one = `(${column} + ${c}u)`, at = p.place(row, one);
    return `if (${one} < u.${p.columns}) { ${store(y, at, finish(at, `${value}[${c}]`))} }`;
  });
  return `if (${row} < u.${p.rows}) { ${elements.join(" ")} }`;
}
