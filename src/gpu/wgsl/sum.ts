/**
 * Kernels of loop nests that sum along some axes. On GPUs the lanes of a workgroup share long sums;
 * the longest are taken in parts by several workgroups.
 *
 * @module
 */

import { argument } from "../expression.ts";
import { type Axis, collapse, isVectorizable, type Loop, splitAxis } from "../compile/loop.ts";
import { Scratch, type Storage } from "../storage.ts";
import { emit, functionsFor } from "./expression.ts";
import { foldGrid, type Kernel, makeKernel, type WgslTarget } from "./kernel.ts";
import {
  addressUniforms,
  at,
  decode,
  isBoundOneWay,
  isInteger,
  loopOnes,
  makePorts,
  read,
  splitLarge,
  write,
} from "./loop_addressing.ts";

/** WGSL that adds up a variable of the lanes that share a sum. */
const fold = (variable: string) =>
  `sums[lane] = ${variable};
workgroupBarrier();
for (var half = u.depth / 2u; half > 0u; half /= 2u) {
  if (live && d < half) { sums[lane] += sums[lane + half * u.across]; }
  workgroupBarrier();
}
${variable} = sums[lane];
workgroupBarrier();`;

/**
 * How sums of `size` times `steps` terms are shared: by the lanes of a workgroup, of which `across` lie
 * side by side, `depth` in a sum, and `along` in rows; and by workgroups, which take `chunk` of `size`.
 */
function shareSum(
  inner: number,
  outer: number,
  size: number,
  steps: number,
  target: WgslTarget,
): { lanes: number; across: number; depth: number; along: number; chunk: number } {
  // Sums of more than 1,024 values in a row would lose accuracy.
  const mostTerms = 1024;
  const isShort = size < 16 || inner * outer >= target.workgroups * target.lanes;
  // Software pays much for barriers.
  if (target.lanes < 32 || isShort) {
    const { lanes } = target, across = Math.min(inner, lanes), along = Math.floor(lanes / across);
    const groups = Math.ceil(inner / across) * Math.ceil(outer / along);
    const wanted = Math.min(target.workgroups / groups, size * steps / target.steps);
    const least = size * steps / mostTerms;
    const parts = Math.ceil(Math.max(1, least, size < 16 ? 1 : wanted));
    return { lanes, across, depth: 1, along, chunk: Math.ceil(size / parts) };
  }
  const lanes = 4 * target.lanes;
  let across = Math.min(inner, 16), depth = 1;
  const groupsOf = () => Math.ceil(inner / across) * outer;
  while (across >= 8 && across % 2 === 0 && groupsOf() < target.workgroups) across /= 2;
  while (2 * depth * across <= lanes && 8 * depth <= size) depth *= 2;
  const along = Math.floor(lanes / (across * depth)), terms = Math.ceil(size / depth) * steps;
  const wanted = Math.min(target.workgroups / groupsOf(), terms / 32);
  const parts = Math.ceil(Math.max(1, terms / mostTerms, terms > 64 ? wanted : 1));
  return { lanes, across, depth, along, chunk: Math.ceil(size / parts / depth) * depth };
}

/** The kernels of a sum: one, or several where it is taken in parts. */
export function lowerSum(loop: Loop<Storage>, target: WgslTarget): Kernel[] {
  let axes = collapse(loop);
  const all = axes.length === 1 && axes[0].summed && !loop.finish;
  if (all) {
    const pieces = splitLargeSum(loop, target);
    if (pieces) return pieces.flatMap((piece) => lowerSum(piece, target));
    // A sum of everything: as many sums side by side as there are lanes, then a sum of those.
    const width = widestDivisor(axes[0].size, 4 * target.lanes);
    if (width > 1 && width < axes[0].size) return lowerInParts(loop, axes[0], width, target);
  }
  const isLast = axes.at(-1)!.summed;
  const vectorized = isVectorizable(loop, axes) && isBoundOneWay(loop, axes);
  if (isLast) axes = [...axes, { size: 1, summed: false, strides: loopOnes(loop) }];
  const innermost = axes.length - 1;
  const inner = axes[innermost].size / (vectorized ? 4 : 1);
  const indexed = axes.slice(0, -1).map((a, index) => ({ ...a, index }));
  const kept = indexed.filter((a) => !a.summed), summed = indexed.filter((a) => a.summed);
  const outer = kept.reduce((n, a) => n * a.size, 1);

  const [walk, ...rest] = summed.toSorted((a, b) => b.size - a.size);
  const steps = rest.reduce((n, a) => n * a.size, 1);
  const share = shareSum(inner, outer, walk.size, steps, target);
  const { lanes, across, depth, along } = share, chunk = loop.finish ? walk.size : share.chunk;
  const blocks = Math.ceil(inner / across), rows = Math.ceil(outer / along);
  const chunks = Math.ceil(walk.size / chunk);

  const elements = outer * axes[innermost].size;
  const parts = chunks === 1 ? undefined : loop.results.map(() => new Scratch(chunks * elements));
  const results = loop.results.map((r, i) => parts ? { ...r, storage: parts[i], offset: 0 } : r);
  const { ports, bindings } = makePorts({ ...loop, results }, axes, vectorized, target);
  const { grid, index } = foldGrid(rows * chunks);

  const operandAt = (k: number) => {
    const moving = [walk, ...rest].filter((a) => a.strides[k]);
    return [`a${k}`, ...moving.map((a) => `i${a.index} * u.s${k}_${a.index}`)].join(" + ");
  };
  const { statements, values } = emit(
    loop.results.map((r) => r.expression),
    (i) => `x${i}`,
    (i) => isInteger(ports[i]),
  );
  const finish = loop.finish &&
    emit([loop.finish], (i) => i ? `x${i}` : "sum0", (i) => i > 0 && isInteger(ports[i]));
  const load = (k: number) => `let x${k} = ${read(ports[k], operandAt(k))};`;
  const operands = loop.operands.map((_, k) => k), summand = loop.finish ? [0] : operands;
  const expressions = [
    ...loop.results.map((r) => r.expression),
    ...(loop.finish ? [loop.finish] : []),
  ];
  const body = [
    "let c = group.x * u.across + lane % u.across;",
    `let flat = ${index};`,
    "let row = flat / u.chunks * u.along + lane / (u.across * u.depth);",
    "let part = flat % u.chunks; let d = lane / u.across % u.depth;",
    "let live = c < u.inner && row < u.outer && lane < u.across * u.depth * u.along;",
    // A workgroup that shares sums has to stay together.
    depth === 1 ? "if (!live) { return; }" : "",
    decode(kept, "row"),
    ...ports.map((port, k) =>
      `let a${k} = ${at(k, kept)} + ${port.binding.vector ? "c" : `c * u.s${k}_${innermost}`};`
    ),
    ...results.map((_, r) => `var sum${r} = T();`),
    `let end = select(0u, min((part + 1u) * u.chunk, u.n${walk.index}), live);`,
    `for (var i${walk.index} = part * u.chunk + d; i${walk.index} < end; i${walk.index} += u.depth) {`,
    ...rest.map((a) => `for (var i${a.index} = 0u; i${a.index} < u.n${a.index}; i${a.index}++) {`),
    ...summand.map(load),
    statements,
    ...results.map((_, r) => `sum${r} += ${values[r]};`),
    ...summed.map(() => "}"),
    ...(depth === 1 ? [] : [
      ...results.map((_, r) => fold(`sum${r}`)),
      "if (!live || d > 0u) { return; }",
    ]),
    ...operands.slice(summand.length).map(load),
    finish?.statements ?? "",
    ...results.map((_, r) => {
      const k = loop.operands.length + r;
      return write(ports[k], `a${k} + part * u.elements`, finish?.values[r] ?? `sum${r}`);
    }),
  ].join("\n");
  const T = vectorized ? "vec4f" : "f32";
  const functions = functionsFor(expressions, T);
  const kernel = makeKernel({
    label: loop.label,
    bindings,
    functions: depth === 1
      ? functions
      : `${functions}\nvar<workgroup> sums: array<${T}, ${lanes}>;`,
    uniforms: {
      ...addressUniforms(ports, axes, axes.length - 1),
      inner,
      across,
      depth,
      along,
      outer,
      chunk,
      chunks,
      elements: elements / (vectorized ? 4 : 1),
    },
    lanes,
    body,
    workgroups: [blocks, ...grid],
  });
  return parts
    ? [kernel, ...lowerSum(sumOfParts(loop, parts, chunks, elements), target)]
    : [kernel];
}

/** Adds up the parts of sums that were taken in `chunks`. */
function sumOfParts(
  loop: Loop<Storage>,
  parts: readonly Scratch[],
  chunks: number,
  elements: number,
): Loop<Storage> {
  return {
    label: `${loop.label}, parts`,
    domain: [chunks, elements],
    summed: [true, false],
    operands: parts.map((storage) => ({ storage, strides: [elements, 1], offset: 0 })),
    results: loop.results.map((r, i) => ({ ...r, strides: [0, 1], expression: argument(i) })),
  };
}

/** A sum of a single axis as a sum of columns `width` wide, and then of those. */
function lowerInParts(
  loop: Loop<Storage>,
  axis: Axis,
  width: number,
  target: WgslTarget,
): Kernel[] {
  const [rows, columns] = splitAxis(axis, width);
  const parts = loop.results.map(() => new Scratch(width));
  const first: Loop<Storage> = {
    ...loop,
    domain: [rows.size, width],
    summed: [true, false],
    operands: loop.operands.map((o, k) => ({
      ...o,
      strides: [rows.strides[k], columns.strides[k]],
    })),
    results: loop.results.map((r, i) => ({
      ...r,
      storage: parts[i],
      strides: [0, 1],
      offset: 0,
    })),
  };
  const second: Loop<Storage> = {
    label: `${loop.label}, parts`,
    domain: [width],
    summed: [true],
    operands: parts.map((storage) => ({ storage, strides: [1], offset: 0 })),
    results: loop.results.map((r, i) => ({ ...r, strides: [0], expression: argument(i) })),
  };
  return [...lowerSum(first, target), ...lowerSum(second, target)];
}

/** A sum over more elements than a binding may span as sums of parts, and then of those. */
function splitLargeSum(loop: Loop<Storage>, target: WgslTarget): Loop<Storage>[] | undefined {
  const pieces = splitLarge(loop, target);
  if (!pieces) return undefined;
  const parts = loop.results.map(() => new Scratch(pieces.length));
  return [
    ...pieces.map((piece, i): Loop<Storage> => ({
      ...piece,
      results: piece.results.map((r, k) => ({ ...r, storage: parts[k], offset: i })),
    })),
    sumOfParts(loop, parts, pieces.length, 1),
  ];
}

/** The widest divisor of n up to a limit, a multiple of four if there is one. */
function widestDivisor(n: number, limit: number): number {
  const divisors = Array.from({ length: limit }, (_, i) => limit - i).filter((d) => n % d === 0);
  return divisors.find((d) => d % 4 === 0) ?? divisors[0];
}
