/**
 * Rules for fusing elementwise ops into a kernel's prologue (its first input) or epilogue (its
 * result).
 *
 * @module
 */

import { isCopy, mapOp } from "../ops/map.ts";
import {
  broadcastStrides,
  denseStrides,
  refine,
  sameShape,
  type Shape,
  sizeOf,
} from "../../shape.ts";
import { scalarConstant } from "./stage.ts";
import type { Tensor } from "../tensor.ts";
import type { Uses } from "./def_use.ts";
import { isDenseView, resolve } from "../view.ts";

/** Where the kernels of an operation can fuse elementwise ops. */
export interface Fusing {
  /** In the prologue, on the first input. */
  readonly input: boolean;
  /**
   * In the epilogue, on the result. If only by rows, operands are laid out like the result, perhaps in
   * another shape, or are one row for all of its rows.
   */
  readonly output: boolean | "rows";
}

/** What kernels of a target can fuse. */
export interface Absorbing {
  /** Where those of an operation can fuse. */
  readonly fuses: (node: Tensor) => Fusing | undefined;
  /**
   * Whether they read operands by arbitrary strides and through reshapes; otherwise operands must be
   * laid out like the result, or hold one number per image and channel, or as {@linkcode Fusing} says.
   */
  readonly findsAnything: boolean;
  /** How many storages a kernel may bind. */
  readonly maxStorages: number;
  /** Elements of a storage that a loop can write parts of as if it were one; none, if not given. */
  readonly maxWhole?: number;
}

/** The elementwise tensor that an operation can compute in its prologue instead of reading it. */
export function absorbedInput(node: Tensor, uses: Uses, target: Absorbing): Tensor | undefined {
  if (!target.fuses(node)?.input) return undefined;
  const x = resolve(node.inputs[0]).source, { findsAnything } = target;
  const readers = uses.readersOf(x);
  const isPossible = x.op === mapOp && x.dtype === "f32" && !uses.roots.has(x) &&
    // A convolution and the gradient by its weights: computing it for more is no longer cheap.
    readers.length <= 2 && x.shape.at(-1)! % 4 === 0 && isChannelwise(x, x.shape, uses) &&
    readers.every((reader) => {
      const [first, ...others] = reader.inputs;
      const isWhole = resolve(first).source === x && isDenseView(first) &&
        sizeOf(first.shape) === sizeOf(x.shape);
      const isFirst = findsAnything
        ? isWhole && refine(first.shape, x.shape) !== undefined
        : first === x
        ? x.shape.length === 4
        : isWhole && repeatsPixels(x, first.shape, uses);
      return isFirst && first.shape.length === 4 && first.shape[3] === x.shape.at(-1) &&
        target.fuses(reader)?.input &&
        accesses([x], uses, x).size + others.length + 1 <= target.maxStorages;
    });
  return isPossible ? x : undefined;
}

/** Whether a tensor is a copy of images, `[n, height, f, width, f, channels]`, with each pixel repeated. */
function repeatsPixels(x: Tensor, images: Shape, uses: Uses): boolean {
  const { shape, inputs: [view, ...others] } = x, [n, h, up, w, across, c] = shape;
  if (shape.length !== 6 || others.length || uses.isInlined(view)) return false;
  const { strides } = resolve(view);
  return sameShape(images, [n, h * up, w * across, c]) && sameShape(view.shape, shape) &&
    strides[2] === 0 && strides[4] === 0 && isCopy(x);
}

/** Whether all operands of an elementwise tensor have stride 1 along the channels. */
function isChannelwise(node: Tensor, domain: Shape, uses: Uses): boolean {
  return node.inputs.every((x) => {
    if (uses.isInlined(x)) return isChannelwise(x, domain, uses);
    const strides = broadcastStrides(x.shape, resolve(x).strides, domain);
    return scalarConstant(x) !== undefined || (x.dtype === "f32" && strides.at(-1) === 1);
  });
}

/** Whether the kernel of `source` can compute the elementwise tensor `node` in its epilogue. */
export function absorbsOutput(
  source: Tensor,
  node: Tensor,
  uses: Uses,
  target: Absorbing,
): boolean {
  const kind = target.fuses(source)?.output, isFree = target.findsAnything || kind === "rows";
  const isAlike = isFree
    ? sizeOf(source.shape) === sizeOf(node.shape) && source.shape.at(-1) === node.shape.at(-1)
    : source.shape.length === 4 && sameShape(source.shape, node.shape);
  // What is read both before and after is bound twice.
  const storages = accesses([node], uses, node).size + accesses(source.inputs, uses).size;
  return Boolean(kind) && node.dtype === "f32" && !uses.roots.has(source) && isAlike &&
    leadsOnlyTo(source, node, uses) && storages <= target.maxStorages &&
    isPixelwise(node, source, node.shape, uses, target.findsAnything ? "anything" : kind);
}

/** Whether a tensor is used by another one only. */
function leadsOnlyTo(x: Tensor, node: Tensor, uses: Uses): boolean {
  const [reader, ...others] = uses.readersOf(x);
  return !others.length && reader !== undefined &&
    (reader === node || (uses.isInlined(reader) && leadsOnlyTo(reader, node, uses)));
}

/** Whether the other operands of an elementwise tensor are laid out as an epilogue can read them. */
function isPixelwise(
  node: Tensor,
  result: Tensor,
  domain: Shape,
  uses: Uses,
  readable: Fusing["output"] | "anything" | undefined,
): boolean {
  const dense = denseStrides(domain);
  return node.inputs.every((x) => {
    if (scalarConstant(x) !== undefined) return true;
    if (uses.isInlined(x)) return isPixelwise(x, result, domain, uses, readable);
    const { source, strides: own, offset } = resolve(x);
    const strides = broadcastStrides(x.shape, own, domain);
    const isAlike = strides.every((s, i) => s === dense[i] || domain[i] === 1);
    if (source === result) {
      return readable === true ? x === result : isAlike && offset === 0;
    }
    if (x.dtype !== "f32") return false;
    if (readable === "anything") return strides.at(-1)! <= 1;
    if (readable === "rows") {
      const last = domain.length - 1;
      return isAlike || strides.every((s, i) => domain[i] === 1 || s === (i === last ? 1 : 0));
    }
    return isAlike || (strides[1] === 0 && strides[2] === 0 && strides[3] === 1);
  });
}

/** Memory that is read to compute tensors, or the inputs of `node`. */
function accesses(tensors: readonly Tensor[], uses: Uses, node?: Tensor): Set<string> {
  const all = new Set<string>();
  const visit = (x: Tensor) => {
    if (scalarConstant(x) !== undefined) return;
    const { source, offset } = resolve(x);
    if (source === node || uses.isInlined(source)) source.inputs.forEach(visit);
    else all.add(`${source.id} ${offset}`);
  };
  tensors.forEach(visit);
  return all;
}
