/**
 * Kernels of fused loop nests. An invocation stays with four channels and walks many elements of
 * the longest other axis, so that what varies only by channel or image is loaded once, and starting
 * it (0.3 µs a workgroup on lavapipe) is paid once. On GPUs the lanes of a workgroup share long sums.
 *
 * @module
 */

import { argument } from "../expression.ts";
import {
  type Access,
  type Axis,
  collapse,
  isSum,
  isVectorizable,
  type Loop,
  splitAxis,
} from "../loop.ts";
import { Scratch, type Storage, storageSize } from "../storage.ts";
import { emit, functionsFor } from "./expression.ts";
import {
  alignmentOf,
  type Binding,
  BINDING_ALIGNMENT,
  foldGrid,
  type Kernel,
  load as loadElement,
  makeKernel,
  store,
  type WgslTarget,
} from "./kernel.ts";

/** The kernels that run a nest: one, or several where a sum is taken in parts. */
export function lowerLoop(loop: Loop<Storage>, target: WgslTarget): Kernel[] {
  return isSum(loop) ? lowerSum(loop, target) : lowerMap(loop, target);
}

/** How a kernel addresses one operand or result. */
interface Port {
  /** Its binding, which others may share. */
  readonly binding: Binding;
  /** Strides along the axes and first element, in vectors where the binding's are. */
  readonly strides: readonly number[];
  readonly start: number;
}

/** Where the binding of an access starts. */
const bindingStart = ({ storage, offset }: Access<Storage>) =>
  offset - offset % alignmentOf(storage);

/** Whether a vectorised nest would bind nothing both as vectors and as elements. */
function isBoundOneWay(loop: Loop<Storage>, axes: readonly Axis[]): boolean {
  const accesses = [...loop.operands, ...loop.results], { strides } = axes.at(-1)!;
  return accesses.every((a, k) =>
    accesses.every((b, j) =>
      strides[k] === strides[j] || a.storage !== b.storage || bindingStart(a) !== bindingStart(b)
    )
  );
}

/** Bindings and addresses of all accesses; those of one storage share a binding where that is possible. */
function makePorts(
  loop: Loop<Storage>,
  axes: readonly Axis[],
  vectorized: boolean,
  { maxBindingElements }: WgslTarget,
): { ports: Port[]; bindings: Binding[] } {
  const bindings: Binding[] = [];
  const accesses = [...loop.operands, ...loop.results];
  const bound = accesses.map((access, k) => {
    const { storage } = access, vector = vectorized && axes.at(-1)!.strides[k] === 1;
    const offset = bindingStart(access);
    const last = axes.reduce((n, a) => n + (a.size - 1) * a.strides[k], access.offset);
    const size = storageSize(storage);
    // Parts of sums lie behind one another, where the axes do not reach.
    const reach = storage instanceof Scratch ? size : Math.ceil((last + 1) / 4) * 4;
    const end = Math.min(size, reach), write = k >= loop.operands.length;
    const others = bindings.map((b) => {
      const from = Math.min(offset, b.offset), to = Math.max(end, b.offset + b.length);
      return { from, length: to - from };
    });
    const i = bindings.findIndex((b, i) =>
      b.storage === storage &&
      (b.offset === offset || (b.vector === vector && others[i].length <= maxBindingElements))
    );
    if (i < 0) {
      const name = `b${bindings.length}`;
      return bindings.push({ name, storage, offset, length: end - offset, vector, write }) - 1;
    }
    const found = bindings[i], { from, length } = others[i];
    if (found.vector !== vector) {
      throw new TypeError(`Cannot read ${loop.label} both by vectors and by elements`);
    }
    bindings[i] = { ...found, offset: from, length, write: write || found.write };
    return i;
  });
  const ports = accesses.map((access, k): Port => {
    const binding = bindings[bound[k]], unit = binding.vector ? 4 : 1;
    return {
      binding,
      strides: axes.map((a) => a.strides[k] / unit),
      start: (access.offset - binding.offset) / unit,
    };
  });
  return { ports, bindings };
}

/** Uniforms that name every port's start and its strides along some axes. */
function addressUniforms(ports: readonly Port[], axes: readonly Axis[], count: number) {
  const uniforms: Record<string, number> = {};
  ports.forEach((port, k) => {
    uniforms[`start${k}`] = port.start;
    axes.forEach((_, a) => {
      if (axes[a].strides.some((s) => s)) uniforms[`s${k}_${a}`] = port.strides[a];
    });
  });
  axes.slice(0, count).forEach((axis, a) => uniforms[`n${a}`] = axis.size);
  return uniforms;
}

/** WGSL that reads a port at an index, as `T`. */
function read({ binding }: Port, index: string): string {
  const value = loadElement(binding, index);
  return binding.vector && binding.storage.dtype === "f32" ? value : `T(${value})`;
}

/** WGSL that stores a value of type `T`. */
function write({ binding }: Port, index: string, value: string): string {
  const integer = binding.vector ? "vec4i" : "i32";
  const isFloat = binding.storage.dtype === "f32";
  return store(binding, index, isFloat ? value : `${integer}(${value})`);
}

/** WGSL that decodes a flat index over `axes` into `i0`, `i1`, … */
function decode(axes: readonly { size: number; index: number }[], flat: string): string {
  const lines = [`var rest = ${flat};`];
  axes.toReversed().forEach(({ index }, k) => {
    const isLast = k === axes.length - 1;
    lines.push(`let i${index} = ${isLast ? "rest" : `rest % u.n${index}`};`);
    if (!isLast) lines.push(`rest = rest / u.n${index};`);
  });
  return axes.length ? lines.join("\n") : "";
}

const at = (k: number, axes: readonly { index: number }[]) =>
  [`u.start${k}`, ...axes.map(({ index }) => `i${index} * u.s${k}_${index}`)].join(" + ");

function lowerMap(loop: Loop<Storage>, target: WgslTarget): Kernel[] {
  const split = splitLarge(loop, target);
  if (split) return split.flatMap((part) => lowerMap(part, target));

  let axes = collapse(loop);
  if (axes.length === 0) axes = [{ size: 1, summed: false, strides: loopOnes(loop) }];
  const vectorized = isVectorizable(loop, axes) && isBoundOneWay(loop, axes);
  if (axes.length === 1) axes = splitAxis(axes[0], vectorized ? 4 : 1);
  const { ports, bindings } = makePorts(loop, axes, vectorized, target);

  const inner = axes.at(-1)!.size / (vectorized ? 4 : 1);
  const outerAxes = axes.slice(0, -1).map((a, index) => ({ ...a, index }));
  const walk = outerAxes.reduce((best, a) => a.size > best.size ? a : best);
  const others = outerAxes.filter((a) => a !== walk);
  const outer = others.reduce((n, a) => n * a.size, 1);

  const across = Math.min(inner, target.lanes), along = Math.floor(target.lanes / across);
  const blocks = Math.ceil(inner / across);
  const wanted = Math.max(1, Math.ceil(target.workgroups / (blocks * outer)));
  const longest = Math.max(1, Math.ceil(walk.size / along / wanted));
  const chunk = Math.min(longest, target.steps) * along;
  const chunks = Math.ceil(walk.size / chunk);
  const { grid, index } = foldGrid(outer * chunks);

  const innermost = axes.length - 1;
  const address = ports.map((port, k) =>
    `let a${k} = ${at(k, others)} + ${port.binding.vector ? "c" : `c * u.s${k}_${innermost}`};`
  );
  const place = (k: number) => `a${k} + p * u.s${k}_${walk.index}`;
  const isFixed = (k: number) => axes[walk.index].strides[k] === 0;
  const load = (k: number) => `let x${k} = ${read(ports[k], isFixed(k) ? `a${k}` : place(k))};`;
  const loads = loop.operands.map((_, k) => k);
  const { statements, values } = emit(
    loop.results.map((r) => r.expression),
    (i) => `x${i}`,
  );
  const body = [
    "let c = group.x * u.across + lane % u.across;",
    `let flat = ${index};`,
    "if (c >= u.inner || lane >= u.across * u.along || flat >= u.groups) { return; }",
    decode(others, "flat / u.chunks"),
    ...address,
    ...loads.filter(isFixed).map(load),
    "let first = flat % u.chunks * u.chunk;",
    `let end = min(first + u.chunk, u.n${walk.index});`,
    "for (var p = first + lane / u.across; p < end; p += u.along) {",
    ...loads.filter((k) => !isFixed(k)).map(load),
    statements,
    ...loop.results.map((_, r) => {
      const k = loop.operands.length + r;
      return write(ports[k], place(k), values[r]);
    }),
    "}",
  ].join("\n");
  return [makeKernel({
    label: loop.label,
    bindings,
    functions: functionsFor(loop.results.map((r) => r.expression), vectorized ? "vec4f" : "f32"),
    uniforms: {
      ...addressUniforms(ports, axes, axes.length - 1),
      inner,
      across,
      along,
      chunk,
      chunks,
      groups: outer * chunks,
    },
    lanes: target.lanes,
    body,
    workgroups: [blocks, ...grid],
  })];
}

const loopOnes = (loop: Loop<Storage>) => [...loop.operands, ...loop.results].map(() => 1);

/** A flat nest over more elements than a binding may span, in parts. */
function splitLarge(loop: Loop<Storage>, target: WgslTarget): Loop<Storage>[] | undefined {
  const axes = collapse(loop);
  const size = target.maxBindingElements - target.maxBindingElements % BINDING_ALIGNMENT;
  if (axes.length !== 1 || axes[0].size <= size) return undefined;
  const parts: Loop<Storage>[] = [];
  for (let start = 0; start < axes[0].size; start += size) {
    const part = <A extends Access<Storage>>(access: A, k: number): A => ({
      ...access,
      strides: [axes[0].strides[k]],
      offset: access.offset + start * axes[0].strides[k],
    });
    parts.push({
      ...loop,
      domain: [Math.min(size, axes[0].size - start)],
      summed: [axes[0].summed],
      operands: loop.operands.map(part),
      results: loop.results.map((r, i) => part(r, loop.operands.length + i)),
    });
  }
  return parts;
}

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

function lowerSum(loop: Loop<Storage>, target: WgslTarget): Kernel[] {
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
  const { statements, values } = emit(loop.results.map((r) => r.expression), (i) => `x${i}`);
  const finish = loop.finish && emit([loop.finish], (i) => i ? `x${i}` : "sum0");
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
