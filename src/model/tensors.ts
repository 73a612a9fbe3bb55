/**
 * Parameters as tensors of files, under diffusers' names, and back.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { Scratch } from "../formats/bytes.ts";
import { elementSize, encodeHalves, floatDTypes, isAllFinite } from "../formats/elements.ts";
import {
  type FileDType,
  type FileTensor,
  type NamedTensor,
  toFloat32,
} from "../formats/safetensors.ts";
import { formatShape, sameShape, sizeOf } from "../shape.ts";
import {
  fileShape,
  type ParameterLayout,
  type ParameterReader,
  type ParameterSpec,
  type ParameterValues,
  putRows,
  readParameter,
  rowOfFile,
  toFileOrder,
} from "./parameters.ts";

/**
 * Parameters from the tensors of a file.
 *
 * @throws {InputError} If a tensor is missing, superfluous or wrongly shaped.
 */
export function parametersFrom(
  layout: ParameterLayout,
  tensors: ReadonlyMap<string, FileTensor>,
  what: string,
): ParameterReader {
  const rest = new Set(tensors.keys());
  const found = layout.specs.map((spec) => {
    const name = [spec.name, formerName(spec.name)].find((n) => tensors.has(n));
    if (name === undefined) throw new InputError(`Cannot load ${what}: it lacks ${spec.name}`);
    rest.delete(name);
    const tensor = tensors.get(name)!;
    checkParameter(spec, tensor, what);
    return tensor;
  });
  for (const name of rest) if (IGNORED.test(name)) rest.delete(name);
  if (rest.size) {
    throw new InputError(
      `Cannot load ${what}: the network has no place for ${[...rest][0]}` +
        (rest.size > 1 ? ` and ${rest.size - 1} more tensors` : ""),
    );
  }
  return {
    read(index, scratch = new Scratch(), into) {
      const spec = layout.specs[index], tensor = found[index], length = sizeOf(spec.shape);
      const out = into ?? scratch.floats(2, length), row = rowOfFile(spec);
      const each = tensor.read ? Math.max(1, Math.floor(PIECE / row)) : length / row;
      // Piece by piece, so that there is no second copy of all of it.
      for (let first = 0; first * row < length; first += each) {
        const rows = Math.min(each, length / row - first);
        const piece = partOf(tensor, first * row, rows * row);
        const values = toFloat32(piece, spec.name, scratch);
        if (!isAllFinite(values)) {
          throw new InputError(
            `Cannot load ${what}: ${spec.name} holds numbers that are not finite`,
          );
        }
        putRows(spec, values, first, out);
      }
      return out;
    },
  };
}

/** Numbers that are read at a time. */
const PIECE = 2 ** 20;

/** Elements of a tensor, if they can be read apart. */
function partOf(tensor: FileTensor, first: number, length: number): FileTensor {
  if (!tensor.read || length === sizeOf(tensor.shape)) return tensor;
  const { dtype, read } = tensor, size = elementSize(dtype as FileDType), start = first * size;
  const part = (from: number, to: number, into?: Uint8Array<ArrayBuffer>) =>
    read.call(tensor, start + from, start + to, into);
  return { dtype, shape: [length], read: part, bytes: NONE };
}

/** What is never looked at where there is a function to read. */
const NONE = new Uint8Array();

/**
 * What files hold beside parameters: early ones the fixed frequencies under a second name, those of
 * text encoders the numbers of positions, and the logits of BERT.
 */
const IGNORED = /^time_proj\.W$|(^|\.)position_ids$|^to_logits\.(weight|bias)$/;

/** The name that attention layers had in diffusers before version 0.15. */
function formerName(name: string): string {
  const former = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };
  return name.replace(
    /(attentions\.\d+\.)(to_q|to_k|to_v|to_out\.0)\./,
    (_, block: string, layer: keyof typeof former) => `${block}${former[layer]}.`,
  );
}

function checkParameter(spec: ParameterSpec, tensor: FileTensor, what: string): void {
  const shape = fileShape(spec);
  // Dense layers of attention were convolutions of one pixel once.
  const given = shape.length === 2 && tensor.shape.length > 2 && sizeOf(tensor.shape.slice(2)) === 1
    ? tensor.shape.slice(0, 2)
    : tensor.shape;
  if (!sameShape(given, shape)) {
    throw new InputError(
      `Cannot load ${what}: ${spec.name} has shape ${formatShape(tensor.shape)}, but the network ` +
        `wants ${formatShape(shape)}`,
    );
  }
  if (!floatDTypes.some((dtype) => dtype === tensor.dtype)) {
    throw new InputError(
      `Cannot load ${what}: ${spec.name} is of type ${tensor.dtype}, not a float ` +
        `(${floatDTypes.join(", ")})`,
    );
  }
}

/** Types that weights can be written in: 32-bit floats, or 16-bit ones of 11 or 8 significant bits. */
export type WeightFileDType = "F32" | "F16" | "BF16";

/**
 * Parameters as tensors to write, each read when its values are asked for.
 *
 * @param place What comes before their names.
 */
export function nameTensors(
  layout: ParameterLayout,
  parameters: ParameterValues,
  dtype: WeightFileDType = "F32",
  place = "",
): NamedTensor[] {
  const scratch = new Scratch();
  const tensors = layout.specs.map((spec, i): NamedTensor => ({
    ...{ name: place + spec.name, shape: fileShape(spec), dtype: "F32" },
    get values() {
      return toFileOrder(spec, readParameter(layout, parameters, i, scratch));
    },
  }));
  return dtype === "F32" ? tensors : tensors.map((tensor) => halve(tensor, dtype));
}

/** The tensor in 16-bit floats. */
const halve = (tensor: NamedTensor, dtype: "F16" | "BF16"): NamedTensor => ({
  ...{ name: tensor.name, shape: tensor.shape, dtype },
  get values() {
    const bits = encodeHalves(dtype, tensor.values as Float32Array<ArrayBuffer>);
    if (bits) return bits;
    const largest = dtype === "F16" ? "65504" : "3.39e38";
    throw new RangeError(
      `Cannot write ${tensor.name} as ${dtype}: it holds numbers beyond ${largest}`,
    );
  },
});
