/**
 * Symbolic tensors. A {@linkcode Tensor} is a plain description of how a value comes about: an
 * operation, its inputs and its attributes. It holds no data and owns no memory; functions in
 * `ops/` make new ones from old ones, and that is all of tracing.
 *
 * @module
 */

import type { Op } from "./op.ts";
import { formatShape, type Shape, sizeOf } from "../shape.ts";

/** Element type: 32-bit floats, or 32-bit signed integers for indices, counters and seeds. */
export type DType = "f32" | "i32";

/** Host data of a tensor. Interpreters may hold `f32` tensors in double precision. */
export type HostArray =
  | Float32Array<ArrayBuffer>
  | Float64Array<ArrayBuffer>
  | Int32Array<ArrayBuffer>;

/** A value to be computed: a node of a graph. */
export interface Tensor<A = unknown> {
  /** Greater than the ids of all inputs. */
  readonly id: number;
  /**
   * What makes it.
   *
   * @internal
   */
  readonly op: Op<A>;
  /** What it is made of. */
  readonly inputs: readonly Tensor[];
  /** What the operation has to know beside its inputs. */
  readonly attributes: A;
  /** Its sizes, the fastest axis last. */
  readonly shape: Shape;
  /** Type of its elements. */
  readonly dtype: DType;
  /** Whether a GPU keeps it in memory as 16-bit floats; a pass of the compiler decides. */
  readonly isHalf?: boolean;
}

let nextId = 0;

/**
 * The result of an operation on tensors.
 *
 * @throws {RangeError} If the operation is not defined for these shapes.
 * @throws {TypeError} If it is not defined for these element types.
 */
export function apply<A>(op: Op<A>, inputs: readonly Tensor[], attributes: A): Tensor<A> {
  const { shape, dtype = "f32" } = op.infer(inputs, attributes);
  if (shape.some((n) => !Number.isInteger(n) || n < 1)) {
    throw new RangeError(
      `Cannot apply ${op.name}: the result would have shape ${formatShape(shape)}`,
    );
  }
  return { id: nextId++, op, inputs, attributes, shape, dtype };
}

/** The same tensor, made of other inputs. */
export function remake(tensor: Tensor, inputs: readonly Tensor[], isHalf: boolean): Tensor {
  return { ...tensor, id: nextId++, inputs, isHalf };
}

const inputOp: Op<{ name: string; shape: Shape; dtype: DType }> = {
  name: "input",
  infer: (_, { shape, dtype }) => ({ shape, dtype }),
};

/** A value that the program gets from outside, by name. */
export function input(name: string, shape: Shape, dtype: DType = "f32"): Tensor {
  return apply(inputOp, [], { name, shape, dtype });
}

/** The name of an input, or undefined for any other tensor. */
export function inputName(tensor: Tensor): string | undefined {
  return tensor.op === inputOp ? (tensor.attributes as { name: string }).name : undefined;
}

/** Data by identity: two constants are the same if they hold the same array. */
class Data {
  static #next = 0;
  readonly #key = Data.#next++;
  constructor(readonly array: HostArray) {}
  toJSON(): number {
    return this.#key;
  }
}

const constantOp: Op<{ data: Data; shape: Shape }> = {
  name: "constant",
  infer: (_, { data, shape }) => ({
    shape,
    dtype: data.array instanceof Int32Array ? "i32" : "f32",
  }),
};

/**
 * A tensor of known numbers, in row-major order.
 *
 * @throws {RangeError} If the shape does not have as many elements as `values`.
 */
export function constant(
  values: readonly number[] | HostArray,
  shape: Shape = [values.length],
): Tensor {
  if (sizeOf(shape) !== values.length) {
    throw new RangeError(
      `Cannot make a constant of shape ${formatShape(shape)} from ${values.length} values`,
    );
  }
  const array = values instanceof Int32Array ? values : new Float64Array(values);
  return apply(constantOp, [], { data: new Data(array), shape });
}

/** The data of a constant, or undefined for any other tensor. */
export function constantData(tensor: Tensor): HostArray | undefined {
  return tensor.op === constantOp ? (tensor.attributes as { data: Data }).data.array : undefined;
}
