/**
 * The interface of an operation: its shape rule, reference implementation, gradient (as more graph),
 * lowering, and test cases. Adding an operation means adding one file and listing it in ops/mod.ts.
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

/** An operation with attributes of type `A`. */
export interface Op<A = unknown> {
  /** Its name in the literature, `group_norm`. */
  readonly name: string;

  /** Shape and element type (`f32` if not given) of the result. Throws where there is none. */
  infer(inputs: readonly Tensor[], attributes: A): { shape: Shape; dtype?: DType };

  /** Reference implementation: writes the result for dense inputs. `out` is zeroed beforehand. */
  reference?(node: Tensor<A>, inputs: readonly HostArray[], out: HostArray): void;

  /**
   * The gradient of a scalar with respect to each input, given `g`, its gradient with respect to the
   * result. Only inputs with `needed[i]` are computed; `undefined` stands for zero.
   */
  gradient?(
    node: Tensor<A>,
    g: Tensor,
    needed: readonly boolean[],
  ): readonly (Tensor | undefined)[];

  /**
   * Decomposes the operation into simpler ones, where it has no kernel or its kernel is slower.
   *
   * @param computes Whether the target has a kernel for an operation and prefers it.
   */
  expand?(node: Tensor<A>, computes: (node: Tensor) => boolean): Tensor | undefined;

  /** The sum of the result along axes (kept with size 1), where its kernel computes it anyway. */
  sum?(node: Tensor<A>, axes: readonly number[]): Tensor | undefined;

  /**
   * For operations that move no data: the result as a view of the storage behind the first input;
   * `undefined` if the input has to be copied first.
   */
  view?(node: Tensor<A>, input: View): View | undefined;

  /**
   * Whether the kernels can read an input of this shape through a view. By default it must be dense
   * and aligned for a binding.
   */
  acceptsView?(view: View, shape: Shape): boolean;

  /** Floating point operations, where they matter; a multiply-add counts as 2. */
  flops?(node: Tensor<A>): number;

  /** Loop nests that compute it, for targets without a kernel of its own. */
  loops?(node: Tensor<A>): readonly Loop<Storage>[];

  /** Its kernels on a GPU, in order of preference. */
  readonly variants?: readonly Variant<A>[];

  /** Its kernels on the CPU, in WebAssembly. */
  wasm?(node: Tensor<A>, target: WasmTarget, fused: Fused): readonly WasmKernel[];

  /** Whether its kernel on the CPU pays, where other operations can stand for it. */
  wasmPays?(node: Tensor<A>): boolean;

  /** Which elementwise ops its CPU kernel can fuse; on a GPU, its variants say so. */
  readonly fuses?: Fusing;

  /** For an operation without kernels: the input whose kernels write into the result directly. */
  readonly fills?: number;

  /** Whether its GPU kernels read and write tensors stored as 16-bit floats. */
  readonly halves?: Halves;

  /** Test cases: values are compared with the reference, gradients with central differences. */
  readonly cases?: readonly Case[];
}

/** Whether kernels read inputs and write results stored as 16-bit floats. */
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
