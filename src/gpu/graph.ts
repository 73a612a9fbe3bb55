/**
 * A {@linkcode Graph} is what a program computes: named outputs, and values that become the next
 * value of an input.
 *
 * @module
 */

import { formatShape, sameShape } from "../shape.ts";
import { inputName, type Tensor } from "./tensor.ts";

/** What a program computes in one run. */
export interface Graph {
  /** What it gives, by name. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Pairs of an input and the value that it has after the run. */
  readonly updates: readonly (readonly [state: Tensor, value: Tensor])[];
}

/**
 * Makes a graph.
 *
 * @throws {TypeError} If an update does not fit its input, or if two inputs share a name.
 */
export function makeGraph(
  outputs: Readonly<Record<string, Tensor>>,
  updates: Graph["updates"] = [],
): Graph {
  for (const [state, value] of updates) {
    if (
      inputName(state) === undefined || state.dtype !== value.dtype ||
      !sameShape(state.shape, value.shape)
    ) {
      throw new TypeError(
        `Cannot update ${inputName(state) ?? "a tensor that is no input"}: a ${value.dtype} of ` +
          `shape ${formatShape(value.shape)} is given for ${state.dtype} ${
            formatShape(state.shape)
          }`,
      );
    }
  }
  const graph = { outputs, updates };
  const names = new Set<string>();
  for (const node of nodesOf(graph)) {
    const name = inputName(node);
    if (name === undefined) continue;
    if (names.has(name)) throw new TypeError(`Cannot make a graph: two inputs are named ${name}`);
    names.add(name);
  }
  return graph;
}

/** The tensors that a graph ends in. */
export function rootsOf(graph: Graph): Tensor[] {
  return [...Object.values(graph.outputs), ...graph.updates.flat()];
}

/** All tensors of a graph, inputs before what is made of them. */
export function nodesOf(graph: Graph): Tensor[] {
  return ancestorsOf(rootsOf(graph));
}

/** The tensors that these are made of and they themselves, in order of their making. */
export function ancestorsOf(roots: readonly Tensor[]): Tensor[] {
  const found = new Set<Tensor>(), stack = [...roots];
  for (let node = stack.pop(); node; node = stack.pop()) {
    if (found.has(node)) continue;
    found.add(node);
    stack.push(...node.inputs);
  }
  return [...found].sort((a, b) => a.id - b.id);
}
