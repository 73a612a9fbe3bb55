/**
 * Who reads what in a graph, and which of its elementwise tensors have no memory, because they are
 * computed wherever they are needed.
 *
 * @module
 */

import { type Graph, nodesOf, rootsOf } from "../graph.ts";
import { push } from "./multimap.ts";
import { scalarConstant } from "./stage.ts";
import type { Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";

/** The uses of a graph's tensors. */
export class Uses {
  readonly nodes: readonly Tensor[];
  /** Tensors that must exist at the end. */
  readonly roots: ReadonlySet<Tensor>;
  readonly #consumers = new Map<Tensor, Tensor[]>();
  readonly #readers = new Map<Tensor, readonly Tensor[]>();
  /** What has to be in memory to compute each of the tensors that have none. */
  readonly #inlined = new Map<Tensor, ReadonlySet<Tensor>>();

  constructor(graph: Graph) {
    this.roots = new Set(rootsOf(graph));
    this.nodes = nodesOf(graph);
    for (const node of this.nodes) {
      // A view reads nothing of what it has to wait for.
      for (const x of node.op.view ? node.inputs.slice(0, 1) : node.inputs) {
        push(this.#consumers, x, node);
      }
    }
  }

  /** Tensors that have it as an input, once for each time that they do. */
  consumersOf(x: Tensor): readonly Tensor[] {
    return this.#consumers.get(x) ?? [];
  }

  /** What is computed from a tensor, or from views of it. */
  readersOf(x: Tensor): readonly Tensor[] {
    let known = this.#readers.get(x);
    if (!known) {
      const readers: Tensor[] = [], open = [x];
      for (let at = open.pop(); at; at = open.pop()) {
        for (const c of this.consumersOf(at)) (c.op.view ? open : readers).push(c);
      }
      this.#readers.set(x, known = readers);
    }
    return known;
  }

  /** Has an elementwise tensor computed wherever it is needed; its inputs must have been decided on. */
  inline(node: Tensor): void {
    this.#inlined.set(node, this.leavesOf(node.inputs));
  }

  /** Whether a tensor is computed wherever it is needed. */
  isInlined(node: Tensor): boolean {
    return this.#inlined.has(node);
  }

  /** What has to be in memory to read a tensor. */
  leaves(node: Tensor): ReadonlySet<Tensor> {
    if (scalarConstant(node) !== undefined) return new Set();
    const { source } = resolve(node);
    return this.#inlined.get(source) ?? new Set([source]);
  }

  leavesOf(nodes: readonly Tensor[]): Set<Tensor> {
    return new Set(nodes.flatMap((x) => [...this.leaves(x)]));
  }
}
