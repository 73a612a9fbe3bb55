/**
 * Group normalisation by kernels of which a workgroup takes a group of one image, and reads it twice:
 * for its mean and the variance around that, and for sums of its gradient and the gradient itself.
 *
 * @module
 */

import type { Fused } from "../compile/loop.ts";
import type { Tensor } from "../tensor.ts";
import { FusedWork } from "./elementwise.ts";
import {
  bind,
  bindInput,
  foldGrid,
  type Kernel,
  load,
  makeKernel,
  store,
  type WgslTarget,
} from "./kernel.ts";

/** Sizes of a channels-last tensor: images, pixels, channels, channels a group. */
export interface NormSizes {
  readonly images: number;
  readonly pixels: number;
  readonly channels: number;
  readonly each: number;
}

/** WGSL of `total(lane, value)`: the sum over a workgroup, known to all lanes. */
const totalOf = (lanes: number, { subgroup }: WgslTarget, T: "f32" | "vec4f" = "f32") =>
  subgroup === lanes
    ? `fn total(lane: u32, value: ${T}) -> ${T} { return subgroupAdd(value); }`
    : `var<workgroup> parts: array<${T}, ${lanes}>;
fn total(lane: u32, value: ${T}) -> ${T} {
  workgroupBarrier();
  parts[lane] = value;
  workgroupBarrier();
  for (var half = ${lanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { parts[lane] += parts[lane + half]; }
    workgroupBarrier();
  }
  return parts[0];
}`;

/** WGSL of the sum of a value's channels. */
const flatten = (isVector: boolean, v: string) => isVector ? `dot(${v}, vec4f(1.0))` : v;

/** Invocations of a workgroup that takes a group of an image. */
const lanesFor = ({ pixels }: NormSizes, { subgroup, lanes }: WgslTarget) =>
  subgroup === lanes ? lanes : pixels < 256 ? 64 : 256;

/** Mean and 1 / √(variance + eps) of each channel's group: `[batch, 2, channels]`. */
export function lowerMoments(
  node: Tensor,
  sizes: NormSizes,
  eps: number,
  target: WgslTarget,
): Kernel[] {
  const { images, pixels, channels, each } = sizes, lanes = lanesFor(sizes, target);
  const isVector = each % 4 === 0, unit = isVector ? 4 : 1;
  const x = bindInput("x", node.inputs[0], isVector), y = bind("y", node, { write: true });
  const walk = (line: string) =>
    `for (var p = lane; p < u.pixels; p += ${lanes}u) {
  for (var c = 0u; c < u.each; c++) { let v = ${load(x, "first + p * u.channels + c")}; ${line} }
}`;
  const { grid, index } = foldGrid(images * channels / each);
  return [makeKernel({
    label: "group_norm, moments",
    bindings: [x, y],
    uniforms: { pixels, channels: channels / unit, each: each / unit, groups: channels / each },
    functions: totalOf(lanes, target),
    lanes,
    body: `let image = ${index} / u.groups; let group_first = ${index} % u.groups * u.each;
let first = image * u.pixels * u.channels + group_first;
let count = f32(u.pixels * u.each * ${unit}u);
let start = ${load(x, "first")}${isVector ? ".x" : ""};
var sum = 0.0;
${walk(`sum += ${flatten(isVector, "v - start")};`)}
let mean = start + total(lane, sum) / count;
var squares = 0.0;
${walk(`let d = v - mean; squares += ${isVector ? "dot(d, d)" : "d * d"};`)}
let scale = 1.0 / sqrt(total(lane, squares) / count + ${eps}f);
let to = (image * 2u * u.channels + group_first) * ${unit}u;
for (var c = lane; c < u.each * ${unit}u; c += ${lanes}u) {
  y[to + c] = mean;
  y[to + u.channels * ${unit}u + c] = scale;
}`,
    workgroups: [1, ...grid],
  })];
}

/**
 * The gradient by what was normalised, given that by the result, moments and scale; and sums per
 * image and channel, `[batch, 3, channels]`: of that gradient, of it times the normalised value, and
 * of the result. A workgroup takes a group of an image, which its second reading finds in a cache.
 */
export function lowerGradient(
  node: Tensor,
  sizes: NormSizes,
  target: WgslTarget,
  fused: Fused,
): Kernel[] {
  const { images, pixels, channels, each } = sizes, lanes = lanesFor(sizes, target);
  const isVector = each % 4 === 0, unit = isVector ? 4 : 1, T = isVector ? "vec4f" : "f32";
  const work = new FusedWork(node, fused, isVector);
  const [g, x, moments, scale] = node.inputs.slice(0, 4)
    .map((input, i) => bindInput(`x${i}`, input, isVector));
  const sums = bind("sums", node.inputs[4], { vector: isVector, write: true });
  const walk = (line: string) =>
    `for (var p = lane; p < u.pixels; p += ${lanes}u) {
  let at = first + p * u.channels + c;
  let g = ${load(g, "at")}; let normal = (${load(x, "at")} - mean) * rstd;
  ${line}
}`;
  const { grid, index } = foldGrid(images * channels / each);
  return [work.kernel({
    label: "group_norm, gradient",
    bindings: [g, x, moments, scale, sums],
    uniforms: {
      ...{ pixels, channels: channels / unit, each: each / unit, groups: channels / each },
      count: pixels * each,
    },
    functions: totalOf(lanes, target, T),
    lanes,
    body: `let image = ${index} / u.groups; let channel = ${index} % u.groups * u.each;
let first = image * u.pixels * u.channels + channel;
let stats = image * 2u * u.channels + channel; let to = image * 3u * u.channels + channel;
let mean = ${load(moments, "stats")}; let rstd = ${load(moments, "stats + u.channels")};
var total0 = ${T}(); var total1 = ${T}();
for (var c = 0u; c < u.each; c++) {
  var sum0 = ${T}(); var sum1 = ${T}();
  ${walk("sum0 += g; sum1 += g * normal;")}
  sum0 = total(lane, sum0); sum1 = total(lane, sum1);
  if (lane == 0u) { sums[to + c] = sum0; sums[to + u.channels + c] = sum1; }
  let scale = ${load(scale, "channel + c")};
  total0 += scale * sum0; total1 += scale * sum1;
}
let mean0 = ${flatten(isVector, "total0")} / f32(u.count); let mean1 = ${
      flatten(isVector, "total1")
    } / f32(u.count);
for (var c = 0u; c < u.each; c++) {
  let scale = ${load(scale, "channel + c")};
  var sum2 = ${T}();
  ${
      walk(
        `let v = rstd * (g * scale - mean0 - normal * mean1); sum2 += v;
  ${store(work.result, "at", work.finish?.(`at * ${unit}u`, "v") ?? "v")}`,
      )
    }
  sum2 = total(lane, sum2);
  if (lane == 0u) { sums[to + 2u * u.channels + c] = sum2; }
}`,
    workgroups: [1, ...grid],
  })];
}
