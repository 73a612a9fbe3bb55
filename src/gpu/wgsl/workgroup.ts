/**
 * Tiles of products through workgroup memory, for GPUs: a workgroup fetches eight k of all its rows
 * and columns together, each lane a part, and fetches the next eight while it multiplies.
 *
 * @module
 */

import { type Product, range, type Source, type Step, storeRow, type Tile } from "./gemm.ts";
import type { Binding } from "./kernel.ts";

/** A square of lanes, each of which owns `rows` rows and `groups` vectors of four columns. */
interface Style {
  readonly side: number;
  readonly rows: number;
  readonly groups: number;
}

/** Tiles by their rows and columns. */
export const workgroupTiles = {
  "128x128": { side: 16, rows: 8, groups: 2 },
  "64x64": { side: 8, rows: 8, groups: 2 },
  "32x32": { side: 8, rows: 4, groups: 1 },
} as const satisfies Record<string, Style>;

/** Iterations of four k between barriers. */
const DEPTH = 2;

/** Generates the product; its operands are read as vectors. */
export function generateWorkgroupTile(p: Product, name: keyof typeof workgroupTiles): Tile {
  const { side, rows, groups }: Style = workgroupTiles[name];
  const lanes = side * side, height = side * rows, width = side * 4 * groups;
  // With as many lanes as there are vectors to fetch, half of them fetch of A, the others of B.
  const isSplit = height + width === lanes;
  const block = p.block ?? "group.y";
  const a = fetcher("a", p.a, block, height, p.rows);
  const b = fetcher("b", p.b, "group.x", width, p.columns);
  const fetchAll = range(DEPTH).flatMap((d) => [
    `if (${p.condition}) {`,
    ...(isSplit
      ? [
        `if (lane < ${height}u) { ${a.fetch} pa${d} = va; }`,
        `else { ${b.fetch} pa${d} = vb; }`,
      ]
      : [a.fetch, b.fetch, `pa${d} = va; pb${d} = vb;`]),
    p.advance,
    isSplit ? `} else { pa${d} = vec4f(); }` : `} else { pa${d} = vec4f(); pb${d} = vec4f(); }`,
  ]);
  const keepAll = range(DEPTH).flatMap((d) =>
    isSplit
      ? [
        `if (lane < ${height}u) { ${a.keep(d, `pa${d}`)} } else { ${b.keep(d, `pa${d}`)} }`,
      ]
      : [a.keep(d, `pa${d}`), b.keep(d, `pb${d}`)]
  );
  const element = (i: number, u: number) =>
    p.a.layout === "along" ? `a${i}[${u}]` : `a${u}_${i >> 2}[${i & 3}]`;
  const multiply = [
    `for (var d = 0u; d < ${DEPTH}u; d++) {`,
    ...(p.a.layout === "along"
      ? range(rows).map((i) => `let a${i} = tile_a[d * ${height}u + ly * ${rows}u + ${i}u];`)
      : range(4).flatMap((u) =>
        range(rows / 4).map((r) =>
          `let a${u}_${r} = tile_a[d * ${height}u + ${u * height / 4}u + ly * ${
            rows / 4
          }u + ${r}u];`
        )
      )),
    ...range(4).flatMap((u) => [
      ...range(groups).map((j) =>
        `let b${u}_${j} = tile_b[d * ${width}u + ${u * width / 4}u + lx + ${side * j}u];`
      ),
      ...range(rows).flatMap((i) =>
        range(groups).map((j) =>
          `y${i}_${j} = fma(vec4f(${element(i, u)}), b${u}_${j}, y${i}_${j});`
        )
      ),
    ]),
    "}",
  ];
  const body = (y: Binding) => [
    `let ly = lane / ${side}u; let lx = lane % ${side}u;`,
    `let row = ${block} * ${height}u + ly * ${rows}u;`,
    ...range(groups).map((j) =>
      `let at${j} = min(group.x * ${width}u + (lx + ${side * j}u) * 4u, u.${p.columns} - 4u);`
    ),
    p.begin,
    a.prepare,
    b.prepare,
    ...range(DEPTH).flatMap((d) => [`var pa${d}: vec4f;`, isSplit ? "" : `var pb${d}: vec4f;`]),
    ...range(rows).flatMap((i) =>
      range(groups).map((j) => `var y${i}_${j} = ${p.start?.(`at${j}`) ?? "vec4f()"};`)
    ),
    `var more = ${p.condition};`,
    ...fetchAll,
    "while (more) {",
    "workgroupBarrier();",
    ...keepAll,
    "workgroupBarrier();",
    `more = ${p.condition};`,
    ...fetchAll,
    ...multiply,
    "}",
    ...range(rows).flatMap((i) =>
      range(groups).map((j) => storeRow(p, y, i, `at${j}`, `y${i}_${j}`))
    ),
  ];
  const functions = `var<workgroup> tile_a: array<vec4f, ${DEPTH * height}>;
var<workgroup> tile_b: array<vec4f, ${DEPTH * width}>;`;
  return {
    code: (y) => ({ body: body(y).filter((line) => line).join("\n"), lanes, functions }),
    ...{ rows: height, columns: width },
  };
}

/**
 * How the lanes of a workgroup fetch an operand: one vector each. A lies as it was fetched; B lies
 * with its columns side by side, as lanes read it.
 */
function fetcher(
  name: "a" | "b",
  source: Source,
  group: string,
  length: number,
  limit: string,
): { prepare: string; fetch: string; keep(depth: number, value: string): string } {
  const isAlong = source.layout === "along", step: Step = { name, value: `k${name}` };
  // Columns are stored four at a time, so that they are clamped four at a time.
  const clamp = (index: string, unit: number) =>
    `min(${group} * ${length}u + ${index}, u.${limit} - ${unit}u)`;
  const index = !isAlong
    ? clamp(`l${name} % ${length / 4}u * 4u`, 4)
    : name === "a"
    ? clamp("la", 1)
    : `${clamp("lb / 4u * 4u", 4)} + lb % 4u`;
  return {
    prepare: [
      `let l${name} = lane % ${length}u;`,
      isAlong ? "" : `let k${name} = l${name} / ${length / 4}u;`,
      source.prepare(`f${name}`, index),
    ].join("\n"),
    fetch: [
      source.step?.(`f${name}`, isAlong ? undefined : step) ?? "",
      `let v${name} = ${source.fetch(`f${name}`, isAlong ? { name: "0", value: "0u" } : step)};`,
    ].join("\n"),
    keep: (depth, value) =>
      name === "a" || !isAlong
        ? `tile_${name}[${depth * length}u + l${name}] = ${value};`
        : range(4).map((u) =>
          `tile_b[${depth * length + u * length / 4}u + lb / 4u][lb % 4u] = ${value}[${u}];`
        ).join(" "),
  };
}
