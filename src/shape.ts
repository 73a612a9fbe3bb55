/**
 * Shapes, strides and numpy broadcasting. Shapes list sizes from the slowest to the fastest axis;
 * images are `[batch, height, width, channels]`.
 *
 * @module
 */

/** The sizes of a tensor's axes, slowest first. The empty shape is a scalar. */
export type Shape = readonly number[];

/** Number of elements of a tensor of this shape. */
export function sizeOf(shape: Shape): number {
  let size = 1;
  for (const n of shape) size *= n;
  return size;
}

/** Element strides of a densely packed tensor of this shape. */
export function denseStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i];
  }
  return strides;
}

/** Whether these strides walk a tensor of this shape in memory order without gaps. */
export function isDense(shape: Shape, strides: readonly number[]): boolean {
  const dense = denseStrides(shape);
  return shape.every((n, i) => n === 1 || strides[i] === dense[i]);
}

/** Whether two shapes are equal, axis by axis. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

/**
 * The shape that all of these broadcast to: axes are aligned at the right, and sizes of 1 stretch.
 *
 * @throws {RangeError} If two sizes of an axis differ and neither is 1.
 */
export function broadcastShapes(shapes: readonly Shape[]): Shape {
  const rank = Math.max(0, ...shapes.map((s) => s.length));
  const out = new Array<number>(rank).fill(1);
  for (const shape of shapes) {
    shape.forEach((n, i) => {
      const axis = rank - shape.length + i;
      if (n === out[axis] || n === 1) return;
      if (out[axis] !== 1) {
        throw new RangeError(
          `Cannot broadcast shapes ${shapes.map(formatShape).join(" and ")}: sizes ${
            out[axis]
          } and ${n} meet`,
        );
      }
      out[axis] = n;
    });
  }
  return out;
}

/** Strides that read a tensor of `shape` and `strides` as if it had the shape `target`. */
export function broadcastStrides(
  shape: Shape,
  strides: readonly number[],
  target: Shape,
): number[] {
  const missing = target.length - shape.length;
  return target.map((_, i) => i < missing || shape[i - missing] === 1 ? 0 : strides[i - missing]);
}

/**
 * Strides that walk, in the same order, a view of `shape` and `strides` as if it had the shape
 * `target`; `undefined` if no strides do.
 */
export function reshapeStrides(
  shape: Shape,
  strides: readonly number[],
  target: Shape,
): number[] | undefined {
  const runs: { size: number; stride: number }[] = [];
  shape.forEach((size, i) => {
    if (size === 1) return;
    const last = runs.at(-1);
    if (last?.stride === strides[i] * size) last.size *= size;
    else runs.push({ size, stride: 0 });
    runs.at(-1)!.stride = strides[i];
  });
  const out = new Array<number>(target.length);
  let { size, stride } = runs.pop() ?? { size: 1, stride: 1 };
  for (let i = target.length - 1; i >= 0; i--) {
    if (size === 1 && target[i] !== 1) ({ size, stride } = runs.pop()!);
    if (size % target[i]) return undefined;
    out[i] = stride;
    stride *= target[i];
    size /= target[i];
  }
  return out;
}

/** An axis of a finer shape. */
export interface Refined {
  readonly size: number;
  /** The axis that it is a part of. */
  readonly axis: number;
  /** Steps along that axis for one along this one. */
  readonly inner: number;
  /** Whether no slower axis is a part of the same one. */
  readonly isFirst: boolean;
}

/**
 * The axes of `finer`, which walks the same elements as `shape`, as parts of its axes; `undefined` if
 * one of them is a part of two.
 */
export function refine(shape: Shape, finer: Shape): Refined[] | undefined {
  const axes: Refined[] = [];
  let axis = shape.length - 1, inner = 1;
  for (const size of finer.toReversed()) {
    while (axis > 0 && inner === shape[axis] && size > 1) [axis, inner] = [axis - 1, 1];
    axes.unshift({ size, axis, inner, isFirst: inner * size === shape[axis] });
    inner *= size;
    if (shape[axis] % inner) return undefined;
  }
  return axes;
}

/** A shape as people write it, `[2, 3]`. */
export function formatShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}
