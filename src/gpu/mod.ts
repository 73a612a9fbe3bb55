/**
 * The tensor layer: symbolic tensors, operations, gradients, graphs and what compiles them. Guidance
 * functions, losses and networks of one's own are made of it.
 *
 * @example Least squares by the gradient
 * ```ts
 * import { openDevice } from "@x/ddpm";
 * import { grad, input, makeGraph, mul, square, sub, sum } from "@x/ddpm/tensor";
 *
 * const x = input("x", [3]), target = input("target", [3]);
 * const [gradient] = grad(sum(square(sub(x, target))), [x]);
 * using device = await openDevice("cpu");
 * using program = await device.compile(makeGraph({}, [[x, sub(x, mul(gradient, 0.25))]]));
 * program.buffers.target.write([1, 2, 3]);
 * program.run(20);
 * console.log(await program.buffers.x.read()); // close to [1, 2, 3]
 * ```
 *
 * @module
 */

export type { Shape } from "../shape.ts";
export type { CompileOptions, Program } from "./device.ts";
export type {
  Argument,
  Call,
  Constant,
  Expression,
  HalfPrimitive,
  Operand,
  Primitive,
} from "./expression.ts";
export * as expression from "./expression.ts";
export { grad, type Segment } from "./grad.ts";
export { type Graph, makeGraph } from "./graph.ts";
export { constant, type DType, type HostArray, input, type Tensor } from "./tensor.ts";
export type { Window } from "./convolution.ts";
export { attention } from "./ops/attention.ts";
export { causalAttention } from "./ops/causal_attention.ts";
export { concat } from "./ops/concat.ts";
export { conv2d, same } from "./ops/conv2d.ts";
export { gather } from "./ops/gather.ts";
export { groupNorm } from "./ops/group_norm.ts";
export { layerNorm } from "./ops/layer_norm.ts";
export {
  add,
  type Binary,
  clamp,
  cos,
  div,
  exp,
  gelu,
  log,
  map,
  max,
  min,
  mish,
  mul,
  neg,
  relu,
  silu,
  sin,
  sqrt,
  square,
  sub,
  tanh,
  toFloat,
  type Unary,
} from "./ops/map.ts";
export { linear, matmul } from "./ops/matmul.ts";
export { nearestRow } from "./ops/nearest.ts";
export {
  dropout,
  randomInteger,
  randomNormal,
  type RandomState,
  randomUniform,
} from "./ops/random.ts";
export { averagePoolSame, maxPool } from "./ops/pool.ts";
export { averagePool, resizeBilinear, upsampleNearest } from "./ops/resample.ts";
export { softmax } from "./ops/softmax.ts";
export { mean, sum } from "./ops/sum.ts";
export { broadcastTo, permute, reshape, slice, stopGradient, transpose } from "./ops/view.ts";
