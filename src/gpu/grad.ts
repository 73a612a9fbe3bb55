/**
 * Reverse-mode differentiation, graph to graph.
 *
 * @module
 */

import { ancestorsOf } from "./graph.ts";
import { add } from "./ops/map.ts";
import { after, broadcastTo, joinSlices, type Slice, sliceOp } from "./ops/view.ts";
import { formatShape, sizeOf } from "./shape.ts";
import { apply, constant, type Tensor } from "./tensor.ts";

/**
 * The gradients of a scalar by tensors that it is made of, as further tensors.
 *
 * @param loss A tensor with one element.
 * @param by Tensors to differentiate by; what they themselves are made of is held fixed.
 * @param checkpoints Tensors to keep, in order of their making: what was made between them is not
 * kept for the gradients, but computed again (Chen et al. 2016, "Training deep nets with sublinear
 * memory cost").
 * @throws {TypeError} If `loss` has more than one element, or an operation has no gradient.
 */
export function grad(
  loss: Tensor,
  by: readonly Tensor[],
  checkpoints: readonly Tensor[] = [],
): Tensor[] {
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
  const arrivals = new Map<Tensor, Arrivals>();
  const at = (x: Tensor): Arrivals => {
    const known = arrivals.get(x) ?? { slices: [] };
    arrivals.set(x, known);
    return known;
  };
  if (dependent.has(loss)) at(loss).sum = broadcastTo(constant([1]), loss.shape);
  const recomputation = new Recomputation(checkpoints);
  for (const node of nodes.toReversed()) {
    const g = totalOf(node, arrivals.get(node));
    if (!g || wanted.has(node)) continue;
    const needed = node.inputs.map((x) => dependent.has(x) && x.dtype === "f32");
    if (!needed.some((n) => n)) continue;
    if (node.op === sliceOp) {
      at(node.inputs[0]).slices.push({ ...node.attributes as Slice, g });
      continue;
    }
    if (!node.op.gradient) throw new TypeError(`Cannot differentiate ${node.op.name}`);
    node.op.gradient(recomputation.again(node, g), g, needed).forEach((part, i) => {
      if (!part || !needed[i]) return;
      const arrived = at(node.inputs[i]);
      arrived.sum = arrived.sum ? add(arrived.sum, part) : part;
    });
  }
  return by.map((x) => totalOf(x, arrivals.get(x)) ?? broadcastTo(constant([0]), x.shape));
}

/** What arrives at a tensor: the sum of gradients of all of it, and gradients of slices of it. */
interface Arrivals {
  sum?: Tensor;
  readonly slices: (Slice & { readonly g: Tensor })[];
}

function totalOf(x: Tensor, arrived: Arrivals | undefined): Tensor | undefined {
  if (!arrived?.slices.length) return arrived?.sum;
  const joined = joinSlices(x.shape, arrived.slices);
  return arrived.sum ? add(arrived.sum, joined) : joined;
}

/** Tensors between checkpoints, made again once the gradients have come to them. */
class Recomputation {
  readonly #checkpoints: readonly Tensor[];
  /** By segment: the gradient that arrived first, and what was made again. */
  readonly #segments = new Map<number, { arrived: Tensor; made: Map<Tensor, Tensor> }>();

  constructor(checkpoints: readonly Tensor[]) {
    this.#checkpoints = checkpoints;
  }

  /** The tensor, as the gradient `g` that arrived at it shall know it. */
  again(node: Tensor, g: Tensor): Tensor {
    const segment = this.#segmentOf(node);
    if (segment === undefined) return node;
    let state = this.#segments.get(segment);
    if (!state) this.#segments.set(segment, state = { arrived: g, made: new Map() });
    const { arrived, made } = state;
    const make = (x: Tensor): Tensor => {
      const known = made.get(x);
      if (known) return known;
      const result = this.#segmentOf(x) === segment
        ? apply(x.op, x.inputs.map(make), x.attributes)
        // Whatever follows from a checkpoint has to wait; the rest is made once.
        : this.#checkpoints.includes(x)
        ? after(x, arrived)
        : x;
      made.set(x, result);
      return result;
    };
    return make(node);
  }

  /** The number of the checkpoint that ends a tensor's segment, unless it lies outside of all. */
  #segmentOf({ id }: Tensor): number | undefined {
    const index = this.#checkpoints.findIndex((c) => id <= c.id);
    return index > 0 ? index : undefined;
  }
}
