/**
 * Tensors in pickles of PyTorch: views of storages by strides, and the functions that make them.
 *
 * @module
 */

import { sizeOf } from "../shape.ts";
import { elementSize, type FileDType } from "./elements.ts";
import { Global, PickleError, type PickleFunction, type Surroundings } from "./pickle.ts";
import { arrayFunctions, isCounts } from "./pickled_arrays.ts";

/** Numbers in a row, which tensors may share. */
export interface TorchStorage {
  /** What it is called in its file. */
  readonly key: string;
  readonly dtype: FileDType;
  /** How many numbers. */
  readonly count: number;
}

/** A part of a storage; old versions of PyTorch had such. */
interface StoragePart {
  readonly storage: TorchStorage;
  readonly start: number;
  readonly count: number;
}

/** A tensor: the elements of a storage that its strides lead to. */
export class TorchTensor {
  /**
   * @param start Its first byte in the storage.
   * @param strides Elements from one to the next along each axis.
   */
  constructor(
    readonly storage: TorchStorage,
    readonly dtype: FileDType,
    readonly start: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** Types of storages, by the names of their classes in the module torch. */
const storageTypes: Readonly<Record<string, FileDType>> = {
  ...{ FloatStorage: "F32", DoubleStorage: "F64", HalfStorage: "F16", BFloat16Storage: "BF16" },
  ...{ LongStorage: "I64", IntStorage: "I32", ShortStorage: "I16", CharStorage: "I8" },
  ...{ ByteStorage: "U8", BoolStorage: "BOOL", UntypedStorage: "U8" },
};

/** Types of elements that have no storages of their own. */
const elementTypes: Readonly<Record<string, FileDType>> = {
  ...{ float8_e4m3fn: "F8_E4M3", float8_e5m2: "F8_E5M2" },
  ...{ uint16: "U16", uint32: "U32", uint64: "U64" },
};

/** Characters of what a storage is called at most: a number, or an address. */
const LONGEST_KEY = 64;
/** A tensor that repeats elements has no more than this, since its file may be short. */
const MOST_REPEATED = 2 ** 24;

/** @throws {PickleError} If it leaves its storage. */
function makeTensor(
  part: unknown,
  offset: unknown,
  shape: unknown,
  strides: unknown,
  ofType?: FileDType,
): TorchTensor {
  if (!isPart(part)) throw new PickleError("a tensor has no storage");
  const { storage, start, count } = part, dtype = ofType ?? storage.dtype;
  if (
    !isCounts([offset]) || !isCounts(shape) || !Array.isArray(strides) ||
    strides.length !== shape.length || !strides.every((n) => isCounts([n]))
  ) throw new PickleError("the sizes of a tensor are damaged");
  const first = Number(offset), unit = elementSize(storage.dtype), size = elementSize(dtype);
  const length = sizeOf(shape), there = Math.floor(count * unit / size);
  const last = shape.reduce((at, n, axis) => at + (n - 1) * strides[axis], first);
  if (length && !(last < there)) {
    throw new PickleError(`a tensor ${shape.join("x")} is larger than its storage of ${there}`);
  }
  if (length > there && length > MOST_REPEATED) {
    throw new PickleError(`a tensor ${shape.join("x")} repeats ${there} elements`);
  }
  return new TorchTensor(storage, dtype, start * unit + first * size, shape, strides);
}

const isPart = (x: unknown): x is StoragePart =>
  typeof x === "object" && x !== null && "storage" in x && "start" in x;

const asTensor = (x: unknown): unknown => {
  if (x instanceof TorchTensor) return x;
  throw new PickleError("a parameter is no tensor");
};

/** A dictionary of pairs. */
const dictionary: PickleFunction = ([pairs = []], count) => {
  if (!Array.isArray(pairs) || !pairs.every((pair) => Array.isArray(pair) && pair.length === 2)) {
    throw new PickleError("a dictionary is damaged");
  }
  count(pairs.length);
  return new Map(pairs);
};

/** What is kept as the list that it is made of. */
const list: PickleFunction = ([items = []]) => {
  if (!Array.isArray(items)) throw new PickleError("a list is damaged");
  return items;
};

const tensor: PickleFunction = ([part, offset, shape, strides]) =>
  makeTensor(part, offset, shape, strides);
const parameter: PickleFunction = ([data]) => asTensor(data);

/** All that files of models call. */
const functions: Readonly<Record<string, PickleFunction>> = {
  ...arrayFunctions,
  "torch._utils._rebuild_tensor": tensor,
  "torch._utils._rebuild_tensor_v2": tensor,
  "torch._utils._rebuild_tensor_v3"([part, offset, shape, strides, , , type]) {
    const name = type instanceof Global ? type.name.replace(/^torch\./, "") : "";
    if (!Object.hasOwn(elementTypes, name)) throw new PickleError(`a tensor is of type ${name}`);
    return makeTensor(part, offset, shape, strides, elementTypes[name]);
  },
  "torch._utils._rebuild_parameter": parameter,
  "torch._utils._rebuild_parameter_with_state": parameter,
  "torch.Size": list,
  "torch.device": (args) => args.join(":"),
  "collections.OrderedDict": dictionary,
  "builtins.set": list,
  "__builtin__.set": list,
};

/** What a pickle of PyTorch may use, and the storages that it turns out to refer to, by their keys. */
export function torchSurroundings(): Surroundings & {
  readonly storages: ReadonlyMap<unknown, TorchStorage>;
} {
  const storages = new Map<unknown, TorchStorage>();
  const persistent = (id: unknown): StoragePart => {
    const [kind, type, key, , count, view] = Array.isArray(id) ? id : [];
    if (kind !== "storage") {
      throw new PickleError(
        kind === "module"
          ? "it holds a network with its code; save its state_dict()"
          : "it refers to what is no storage of numbers",
      );
    }
    const name = type instanceof Global ? type.name.replace(/^torch\.(storage\.)?/, "") : "";
    if (!Object.hasOwn(storageTypes, name)) {
      throw new PickleError(`its numbers are in a ${name || "storage of no type"}`);
    }
    if (typeof key !== "string" || key.length > LONGEST_KEY || !isCounts([count])) {
      throw new PickleError("a storage is damaged");
    }
    const dtype = storageTypes[name], storage = storages.get(key) ?? { key, dtype, count };
    if (storage.dtype !== dtype || storage.count !== count) {
      throw new PickleError(`the storage ${key} is there as two different ones`);
    }
    storages.set(key, storage);
    if (view === undefined || view === null) return { storage, start: 0, count };
    const [, start, length] = Array.isArray(view) ? view : [];
    if (!isCounts([start, length]) || start + length > count) {
      throw new PickleError(`a part of the storage ${key} is damaged`);
    }
    return { storage, start, count: length };
  };
  return { functions, persistent, storages };
}
