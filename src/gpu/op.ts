/**
 * The contract of an operation. One file in `ops/` states everything that is known of an
 * operation: its shape rule, its value on the CPU, its gradient (as more graph), what it lowers to,
 * and the cases that tests run. Nothing else has to be touched to add one.
 *
 * @module
 */

import type { Fusing } from "./compile/fusion_rules.ts";
import type { Fused } from "./compile/loop.ts";
import type { Loop } from "./compile/loop.ts";
import type { Shape } from "../shape.ts";
import type { Storage } from "./storage.ts";
import type { DType, HostArray, Tensor } from "./tensor.ts";
import type { View } from "./view.ts";
import type { WasmKernel, WasmTarget } from "./wasm/kernel.ts";
import type { Variant } from "./wgsl/kernel.ts";

/** Everything there is to know of an operation with attributes of type `A`. */
export interface Op<A = unknown> {
  /** As in the literature, `group_norm`. */
  readonly name: string;

  /** Shape and element type (`f32` if not given) of the result. Throws where there is none. */
  infer(inputs: readonly Tensor[], attributes: A): { shape: Shape; dtype?: DType };

  /** Writes the value, given dense values of the inputs. `out` arrives filled with zeros. */
  reference?(node: Tensor<A>, inputs: readonly HostArray[], out: HostArray): void;

  /**
   * The gradient of a scalar by each input, given its gradient `g` by the result. Only inputs with
   * `needed[i]` are asked for; `undefined` means that it is zero.
   */
  gradient?(
    node: Tensor<A>,
    g: Tensor,
    needed: readonly boolean[],
  ): readonly (Tensor | undefined)[];

  /**
   * The result in terms of simpler operations, for operations that have no kernel of their own, or
   * where that is better.
   *
   * @param computes Whether the target has a kernel for an operation that it is best computed by.
   */
  expand?(node: Tensor<A>, computes: (node: Tensor) => boolean): Tensor | undefined;

  /** The sum of the result along axes, which keep a size of 1, where its kernel has that anyway. */
  sum?(node: Tensor<A>, axes: readonly number[]): Tensor | undefined;

  /**
   * For operations that move no data: the result as a view of what the first input is a view of.
   * `undefined` where it cannot be one, so that the input has to be copied first.
   */
  view?(node: Tensor<A>, input: View): View | undefined;

  /**
   * Whether the kernels can read an input of this shape through a view. By default they want it
   * dense, and starting where a binding may.
   */
  acceptsView?(view: View, shape: Shape): boolean;

  /** Floating point operations, where they dominate: 2 a multiplication and addition. */
  flops?(node: Tensor<A>): number;

  /** Its computation as loop nests, for targets on which it has no kernel of its own. */
  loops?(node: Tensor<A>): readonly Loop<Storage>[];

  /** Ways to compute it on a GPU, the preferred ones first. */
  readonly variants?: readonly Variant<A>[];

  /** Its computation on a CPU by WebAssembly. */
  wasm?(node: Tensor<A>, target: WasmTarget, fused: Fused): readonly WasmKernel[];

  /** Elementwise work that its kernel on a CPU can do on the way; for GPUs, variants tell it. */
  readonly fuses?: Fusing;

  /** The input, of an operation without kernels, that its kernels write along with the result. */
  readonly fills?: number;

  /** What its kernels on a GPU read and write where tensors are kept as 16-bit floats. */
  readonly halves?: Halves;

  /** What tests run: values against the reference, gradients against central differences. */
  readonly cases?: readonly Case[];
}

/** Whether kernels read 16-bit floats, of whichever input, and whether they write them. */
export interface Halves {
  readonly reads: boolean;
  readonly writes: boolean;
}

/** An application of an operation to test. */
export interface Case {
  readonly name: string;
  readonly inputs: readonly CaseInput[];
  readonly build: (...inputs: readonly Tensor[]) => Tensor;
}

/** An input of a case: uniform random numbers of `range`, by default [-1, 1]; integers if `i32`. */
export interface CaseInput {
  readonly shape: Shape;
  readonly dtype?: DType;
  readonly range?: readonly [number, number];
}
