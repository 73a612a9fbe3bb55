/**
 * Kernels of fused loop nests. An invocation stays with four channels and walks many elements of
 * the longest other axis, so that what varies only by channel or image is loaded once, and starting
 * it (0.3 µs a workgroup on lavapipe) is paid once.
 *
 * @module
 */

import { collapse, isSum, isVectorizable, type Loop, splitAxis } from "../compile/loop.ts";
import type { Storage } from "../storage.ts";
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
import { lowerSum } from "./sum.ts";

/** The kernels that run a nest: one, or several where a sum is taken in parts. */
export function lowerLoop(loop: Loop<Storage>, target: WgslTarget): Kernel[] {
  return isSum(loop) ? lowerSum(loop, target) : lowerMap(loop, target);
}

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
    (i) => isInteger(ports[i]),
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
