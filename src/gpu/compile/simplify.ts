/**
 * The first pass of compilation: composite operations are expanded, equal subgraphs become one, and
 * views that a kernel cannot read get a copy.
 *
 * @module
 */

import { ancestorsOf, type Graph, rootsOf } from "../graph.ts";
import { copy } from "../ops/map.ts";
import { apply, type Tensor } from "../tensor.ts";
import { isDenseView, resolve } from "../view.ts";

/** What kernels of a target can do. */
export interface Abilities {
  /** Whether they can read a tensor as it lies in memory; if not given, whatever lies dense. */
  readonly reads?: (x: Tensor) => boolean;
  /**
   * Whether there is one for an operation that others can stand for, and the target is better off with
   * it; if not given, there is none.
   */
  readonly computes?: (node: Tensor) => boolean;
}

/** The same graph in terms of operations that targets implement. */
export function simplify(
  graph: Graph,
  { reads = isDenseView, computes = () => false }: Abilities = {},
): Graph {
  const replaced = new Map<Tensor, Tensor>(), interned = new Map<string, Tensor>();

  const visit = (node: Tensor): Tensor => {
    const known = replaced.get(node);
    if (known) return known;
    const inputs = node.inputs.map(visit);
    const expanded = node.op.expand?.(rebuild(node, inputs), computes);
    const result = expanded ? visit(expanded) : intern(node, inputs);
    replaced.set(node, result);
    replaced.set(result, result);
    return result;
  };

  const intern = (node: Tensor, given: readonly Tensor[]): Tensor => {
    const inputs = given.map((x) => isReadable(node, x, reads) ? x : intern(copy(x), [x]));
    const key = `${node.op.name} ${inputs.map((x) => x.id)} ${JSON.stringify(node.attributes)}`;
    let found = interned.get(key);
    if (!found) {
      // A new tensor even if nothing changed: ids must grow in the order of this walk.
      found = apply(node.op, inputs, node.attributes);
      interned.set(key, found);
    }
    return found;
  };

  /** Outputs and updates have memory of their own, each its own. */
  const taken = new Set<Tensor>();
  const output = (x: Tensor): Tensor => {
    const isOwn = x.inputs.length > 0 && !x.op.view && !taken.has(x);
    const result = isOwn ? x : copy(x);
    taken.add(result);
    return result;
  };

  ancestorsOf(rootsOf(graph)).forEach(visit);
  return {
    outputs: Object.fromEntries(
      Object.entries(graph.outputs).map(([name, x]) => [name, output(visit(x))]),
    ),
    updates: graph.updates.map(([state, value]) => [visit(state), output(visit(value))]),
  };
}

/** A node with other inputs, or itself if they are the same. */
const rebuild = (node: Tensor, inputs: readonly Tensor[]): Tensor =>
  inputs.every((x, i) => x === node.inputs[i]) ? node : apply(node.op, inputs, node.attributes);

/** Whether a node's kernel can read an input as it lies in memory. */
function isReadable(node: Tensor, x: Tensor, reads: (x: Tensor) => boolean): boolean {
  const { op } = node;
  if (op.view) return op.view(node, resolve(x)) !== undefined;
  if (!op.variants && !op.loops && !op.wasm) return true;
  return op.acceptsView?.(resolve(x), x.shape) ?? reads(x);
}
