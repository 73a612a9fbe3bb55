/**
 * LoRA (Hu et al. 2021): files of products of two thin matrices, which are added to the weights of a
 * model. They are added where weights are read, so that there is no second copy of them.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { floatDTypes, isAllFinite } from "../formats/elements.ts";
import { type FileTensor, toFloat32 } from "../formats/safetensors.ts";
import { formatShape, sameShape, sizeOf } from "../shape.ts";
import type { TensorMap } from "./families/family.ts";
import { findModule, moduleOf, type Part } from "./lora_names.ts";
import {
  fileShape,
  fromFileOrder,
  type ParameterLayout,
  type ParameterSpec,
  readParameter,
} from "./parameters.ts";
import type { TextToImageModel } from "./text_to_image.ts";
import type { Weighted } from "./weights.ts";

/** How a file is merged. */
export interface LoraOptions {
  /** What the changes are multiplied with; may be negative. @default {1} */
  readonly scale?: number;
  /** Alpha of changes to each network that the tensors do not tell. @default {the rank} */
  readonly alphas?: Partial<Readonly<Record<"unet" | "text_encoder", number>>>;
  /** What the file is called, for messages. */
  readonly what?: string;
}

/** A change of one weight: scale · up · down. */
interface Change {
  readonly up: FileTensor;
  readonly down: FileTensor;
  readonly scale: number;
  /** The name of a half, for messages. */
  readonly name: string;
}

/** The parts of changes that a file has, by the module that they belong to, and their names. */
type Parts = Map<string, Map<Part, { readonly name: string; readonly tensor: FileTensor }>>;

/**
 * A model with the changes of a LoRA in its weights: those of its UNet and of its text encoder. They
 * are W + scale · alpha / rank · up · down.
 *
 * Names may be those of kohya's scripts (`lora_unet_…`, `lora_te_…`), or of diffusers and peft
 * (`unet.….lora_A.weight`, `….to_q_lora.down.weight`).
 *
 * @param tensors Those of the file, which are read when weights are.
 * @throws {InputError} If a tensor is none of a LoRA, or does not fit the model.
 *
 * @example
 * ```ts
 * import { mergeLora, readTensorFile, type TextToImageModel } from "@x/ddpm";
 *
 * async function withStyle(model: TextToImageModel, file: Uint8Array<ArrayBuffer>) {
 *   return mergeLora(model, (await readTensorFile(file)).tensors, { scale: 0.8 });
 * }
 * console.log(withStyle.name);
 * ```
 */
export function mergeLora(
  model: TextToImageModel,
  tensors: TensorMap,
  { scale = 1, alphas = {}, what = "the LoRA" }: LoraOptions = {},
): TextToImageModel {
  const bad = (why: string) => new InputError(`Cannot use ${what} for this model: ${why}`);
  if (!Number.isFinite(scale)) throw bad(`${scale} is no number to multiply it with`);
  const modules: Parts = new Map();
  for (const [name, tensor] of tensors) {
    const found = moduleOf(name);
    if (!found) {
      throw bad(
        `${name} is none of a LoRA that is known, which has pairs of lora_down and lora_up, or of ` +
          "lora_A and lora_B",
      );
    }
    const parts = modules.get(found.module) ?? new Map();
    if (parts.has(found.part)) throw bad(`${name} is there twice, under another name too`);
    modules.set(found.module, parts.set(found.part, { name, tensor }));
  }
  if (!modules.size) throw bad("it holds no tensors");
  const changes = { unet: new Map<number, Change>(), text_encoder: new Map<number, Change>() };
  const layouts = {
    unet: model.denoiser.network.layout,
    text_encoder: model.textEncoder.network.layout,
  };
  for (const [module, parts] of modules) {
    const { name } = parts.values().next().value!, place = findModule(module, layouts);
    if (!place) throw bad(`it has nothing that ${name} would change`);
    const { network, index } = place, usual = alphas[network];
    changes[network].set(index, changeOf(parts, layouts[network].specs[index], scale, usual, bad));
  }
  return {
    ...model,
    denoiser: changed(model.denoiser, changes.unet, what),
    textEncoder: changed(model.textEncoder, changes.text_encoder, what),
  };
}

/** The change that parts make up, which must fit a weight. */
function changeOf(
  parts: ReadonlyMap<Part, { readonly name: string; readonly tensor: FileTensor }>,
  spec: ParameterSpec,
  factor: number,
  usual: number | undefined,
  bad: (why: string) => InputError,
): Change {
  const [up, down, alpha] = [parts.get("up"), parts.get("down"), parts.get("alpha")];
  if (!up || !down) throw bad(`there is a ${[...parts.values()][0].name} without its other half`);
  const [out, input, ...window] = fileShape(spec);
  for (const { name, tensor } of parts.values()) {
    if (floatDTypes.some((dtype) => dtype === tensor.dtype)) continue;
    throw bad(`${name} is of type ${tensor.dtype}, not a float`);
  }
  const rank = down.tensor.shape[0], [rows, inner, ...ones] = up.tensor.shape;
  const [, columns, ...taps] = down.tensor.shape;
  const isWindow = sameShape(taps, window) || sizeOf(taps) === 1 && sizeOf(window) === 1;
  const fits = {
    down: rank > 0 && columns === input && isWindow,
    up: rows === out && inner === rank && sizeOf(ones) === 1,
  };
  for (const half of ["down", "up"] as const) {
    if (fits[half]) continue;
    const { name, tensor } = half === "down" ? down : up;
    const other = half === "up" ? ` and the rank is ${rank}` : "";
    throw bad(
      `${name} has shape ${formatShape(tensor.shape)}, but ${spec.name} is ` +
        `${formatShape(fileShape(spec))}${other}`,
    );
  }
  const strength = alpha ? toFloat32(alpha.tensor, alpha.name) : [usual ?? rank];
  if (strength.length !== 1 || !Number.isFinite(strength[0])) {
    throw bad(`${alpha?.name ?? "its alpha"} is not one number`);
  }
  const scale = factor * strength[0] / rank;
  return { up: up.tensor, down: down.tensor, scale, name: down.name };
}

/** A network whose weights are changed when they are read. */
function changed<W extends Weighted<{ readonly layout: ParameterLayout }>>(
  piece: W,
  changes: ReadonlyMap<number, Change>,
  what: string,
): W {
  if (!changes.size) return piece;
  const { network: { layout }, parameters } = piece;
  return {
    ...piece,
    parameters: {
      read(index: number) {
        const values = readParameter(layout, parameters, index), change = changes.get(index);
        if (!change) return values;
        const sum = fromFileOrder(layout.specs[index], productOf(change));
        for (let i = 0; i < sum.length; i++) sum[i] += values[i];
        if (isAllFinite(sum)) return sum;
        throw new InputError(
          `Cannot use ${what}: with ${change.name}, ${
            layout.specs[index].name
          } holds numbers that ` +
            "are not finite",
        );
      },
    },
  };
}

/** scale · up · down, in the order of files. */
function productOf({ up: left, down: right, scale }: Change): Float32Array<ArrayBuffer> {
  const [rows, rank] = left.shape, up = toFloat32(left), down = toFloat32(right);
  const columns = down.length / rank, product = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    const row = product.subarray(i * columns, (i + 1) * columns);
    for (let k = 0; k < rank; k++) {
      const a = scale * up[i * rank + k], from = k * columns;
      for (let j = 0; j < columns; j++) row[j] += a * down[from + j];
    }
  }
  return product;
}
