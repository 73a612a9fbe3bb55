/**
 * A pass of compilation for devices with 16-bit floats: decides which tensors are kept as such
 * between kernels. Kernels compute with 32 bits all the same; what halves is memory and its traffic
 * (Micikevicius et al., "Mixed precision training", 2018).
 *
 * @module
 */

import { type Graph, nodesOf, rootsOf } from "../graph.ts";
import { remake, type Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";

/** Images, and what is known of each of them, have fewer channels, and keep all their digits. */
const CHANNELS = 8;

/**
 * The same simplified graph with activations and their gradients as 16-bit floats. Inputs, outputs,
 * state, sums and statistics stay as they are, and so does what a kernel needs that has not
 * declared that it takes them ({@linkcode Op.halves}).
 *
 * @param reads Whether kernels can read a tensor where it lies if its elements are 16 bits wide.
 */
export function halve(graph: Graph, reads: (x: Tensor) => boolean): Graph {
  const nodes = nodesOf(graph), roots = new Set(rootsOf(graph)), { outputs, updates } = graph;
  const kept = new Set<Tensor>();
  for (const node of nodes) {
    if (node.op.view) continue;
    for (const x of node.inputs) if (!readsHalves(node, x, reads)) kept.add(resolve(x).source);
  }
  const isHalf = (node: Tensor) =>
    node.op.halves?.writes === true && node.dtype === "f32" && !roots.has(node) &&
    !kept.has(node) && node.shape.length > 1 && node.shape.at(-1)! % CHANNELS === 0;
  const made = new Map<Tensor, Tensor>(), get = (x: Tensor) => made.get(x)!;
  for (const node of nodes) made.set(node, remake(node, node.inputs.map(get), isHalf(node)));
  return {
    outputs: Object.fromEntries(Object.entries(outputs).map(([name, x]) => [name, get(x)])),
    updates: updates.map(([state, value]) => [get(state), get(value)]),
  };
}

/** Whether a node's kernel can read an input that lies in memory as 16-bit floats. */
function readsHalves({ op }: Tensor, x: Tensor, reads: (x: Tensor) => boolean): boolean {
  if (!op.halves?.reads) return false;
  return !op.variants || op.acceptsView !== undefined || reads(x);
}
