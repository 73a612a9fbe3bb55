/**
 * Who reads what in a graph, and which of its elementwise tensors have no memory, because they are
 * computed wherever they are needed.
 *
 * @module
 */

import { type Graph, nodesOf, rootsOf } from "../graph.ts";
import { scalarConstant } from "./stage.ts";
import type { Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";

/** The uses of a graph's tensors. */
export class Uses {
  readonly nodes: readonly Tensor[];
  /** Tensors that must exist at the end. */
  readonly roots: ReadonlySet<Tensor>;
  /** Elementwise tensors that are computed wherever they are needed. */
  readonly inlined = new Set<Tensor>();
  readonly #consumers = new Map<Tensor, Tensor[]>();

  constructor(graph: Graph) {
    this.roots = new Set(rootsOf(graph));
    this.nodes = nodesOf(graph);
    for (const node of this.nodes) {
      // A view reads nothing of what it has to wait for.
      for (const x of node.op.view ? node.inputs.slice(0, 1) : node.inputs) {
        this.#consumers.set(x, [...this.consumersOf(x), node]);
      }
    }
  }

  /** Tensors that have it as an input, once for each time that they do. */
  consumersOf(x: Tensor): readonly Tensor[] {
    return this.#consumers.get(x) ?? [];
  }

  /** What is computed from a tensor, or from views of it. */
  readersOf(x: Tensor): Tensor[] {
    return this.consumersOf(x).flatMap((c) => c.op.view ? this.readersOf(c) : [c]);
  }

  /** What has to be in memory to read a tensor. */
  leaves(node: Tensor): Set<Tensor> {
    if (scalarConstant(node) !== undefined) return new Set();
    const { source } = resolve(node);
    return this.inlined.has(source) ? this.leavesOf(source.inputs) : new Set([source]);
  }

  leavesOf(nodes: readonly Tensor[]): Set<Tensor> {
    return new Set(nodes.flatMap((x) => [...this.leaves(x)]));
  }
}
