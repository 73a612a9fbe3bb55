/**
 * Reverse-mode differentiation, graph to graph.
 *
 * @module
 */

import { ancestorsOf } from "./graph.ts";
import { add } from "./ops/map.ts";
import { broadcastTo } from "./ops/view.ts";
import { formatShape, sizeOf } from "./shape.ts";
import { constant, type Tensor } from "./tensor.ts";

/**
 * The gradients of a scalar by tensors that it is made of, as further tensors.
 *
 * @param loss A tensor with one element.
 * @param by Tensors to differentiate by; what they themselves are made of is held fixed.
 * @throws {TypeError} If `loss` has more than one element, or an operation has no gradient.
 */
export function grad(loss: Tensor, by: readonly Tensor[]): Tensor[] {
  if (sizeOf(loss.shape) !== 1) {
    throw new TypeError(
      `Cannot differentiate a tensor of shape ${formatShape(loss.shape)}: it must be one number`,
    );
  }
  const wanted = new Set(by), dependent = new Set<Tensor>();
  const nodes = ancestorsOf([loss]);
  for (const node of nodes) {
    if (wanted.has(node) || node.inputs.some((x) => dependent.has(x))) dependent.add(node);
  }
  const gradients = new Map<Tensor, Tensor>();
  if (dependent.has(loss)) gradients.set(loss, broadcastTo(constant([1]), loss.shape));
  for (const node of nodes.toReversed()) {
    const g = gradients.get(node);
    if (!g || wanted.has(node)) continue;
    const needed = node.inputs.map((x) => dependent.has(x) && x.dtype === "f32");
    if (!needed.some((n) => n)) continue;
    if (!node.op.gradient) throw new TypeError(`Cannot differentiate ${node.op.name}`);
    node.op.gradient(node, g, needed).forEach((part, i) => {
      const x = node.inputs[i];
      if (!part || !needed[i]) return;
      const sofar = gradients.get(x);
      gradients.set(x, sofar ? add(sofar, part) : part);
    });
  }
  return by.map((x) => gradients.get(x) ?? broadcastTo(constant([0]), x.shape));
}
