/**
 * Reverse-mode differentiation, graph to graph.
 *
 * @module
 */

import { ancestorsOf } from "./graph.ts";
import { add } from "./ops/map.ts";
import { after, broadcastTo, joinSlices, type Slice, sliceOp } from "./ops/view.ts";
import { formatShape, sizeOf } from "../shape.ts";
import { apply, constant, type Tensor } from "./tensor.ts";

/**
 * The gradients of a scalar by tensors that it is made of, as further tensors.
 *
 * @param loss A tensor with one element.
 * @param by Tensors to differentiate by; what they themselves are made of is held fixed.
 * @param segments What lies within them is not kept for the gradients, but computed again (Chen et
 * al. 2016, "Training deep nets with sublinear memory cost"). They do not overlap.
 * @throws {TypeError} If `loss` has more than one element, or an operation has no gradient.
 */
export function grad(
  loss: Tensor,
  by: readonly Tensor[],
  segments: readonly Segment[] = [],
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
  const recomputation = new Recomputation(segments);
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

/** What is made after one tensor, up to another one that follows from it. */
export interface Segment {
  /** Where it begins. */
  readonly from: Tensor;
  /** What follows. */
  readonly to: Tensor;
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

/** Tensors of segments, made again once the gradients have come to them. */
class Recomputation {
  /** In order, with the gradient that arrived first, and what was made again. */
  readonly #segments: (Segment & { arrived?: Tensor; readonly made: Map<Tensor, Tensor> })[];

  constructor(segments: readonly Segment[]) {
    this.#segments = segments.map((segment) => ({ ...segment, made: new Map() }))
      .sort((a, b) => a.from.id - b.from.id);
  }

  /** The tensor, as the gradient `g` that arrived at it shall know it. */
  again(node: Tensor, g: Tensor): Tensor {
    const segment = this.#segmentOf(node);
    if (!segment) return node;
    const arrived = segment.arrived ??= g, { from, made } = segment, open = [node];
    for (let x = open.at(-1); x; x = open.at(-1)) {
      const isWithin = from.id < x.id && x.id <= segment.to.id;
      const missing = isWithin ? x.inputs.filter((input) => !made.has(input)) : [];
      if (missing.length && !made.has(x)) {
        open.push(...missing.toReversed());
        continue;
      }
      open.pop();
      if (made.has(x)) continue;
      const result = isWithin
        ? apply(x.op, x.inputs.map((input) => made.get(input)!), x.attributes)
        // Whatever follows from its beginning has to wait; the rest is made once.
        : x === from
        ? after(x, arrived)
        : x;
      made.set(x, result);
    }
    return made.get(node)!;
  }

  /** The segment that a tensor lies within. */
  #segmentOf({ id }: Tensor) {
    let low = 0, high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#segments[middle].to.id < id) low = middle + 1;
      else high = middle;
    }
    const found = this.#segments[low];
    return found && found.from.id < id ? found : undefined;
  }
}
