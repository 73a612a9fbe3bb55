/**
 * NumPy's arrays and numbers in pickles, of all versions of both.
 *
 * @module
 */

import { sizeOf } from "../shape.ts";
import { formatBytePair } from "../units.ts";
import { viewOf } from "./bytes.ts";
import { numpyTypes, toRowMajor } from "./npy.ts";
import { PickleError, type PickleFunction, type Stateful } from "./pickle.ts";

/** The type of an array's elements. */
class ElementType implements Stateful {
  /** Whether the lowest byte of a number comes first. */
  isLittle = true;

  /** @param name Its letter and size, as `f4`. */
  constructor(readonly name: string) {}

  setState(state: unknown): void {
    const [, order] = isSequence(state) ? state : [];
    if (typeof order !== "string") throw new PickleError("the order of bytes of a type is damaged");
    this.isLittle = order !== ">";
  }

  get size(): number {
    return Number(this.name.slice(1));
  }
}

/** An array. */
export class PickledArray implements Stateful {
  #type = new ElementType("");
  #shape: readonly number[] = [0];
  #bytes: Uint8Array<ArrayBuffer> = new Uint8Array();
  #isFortran = false;

  setState(state: unknown): void {
    if (!isSequence(state) || state.length !== 5) throw new PickleError("an array is damaged");
    const [, shape, type, isFortran, content] = state;
    this.fill(shape, type, isFortran, content);
  }

  /** @throws {PickleError} If shape, type and content do not fit. */
  fill(shape: unknown, type: unknown, isFortran: unknown, content: unknown): this {
    if (!isCounts(shape) || !(type instanceof ElementType) || typeof isFortran !== "boolean") {
      throw new PickleError("an array is damaged");
    }
    [this.#shape, this.#type, this.#isFortran] = [shape, type, isFortran];
    // Of other types, such as Python's objects, nothing can be read.
    if (!Object.hasOwn(numpyTypes, type.name)) return this;
    const bytes = bytesOf(content), length = sizeOf(shape) * type.size;
    if (bytes?.length !== length) {
      throw new PickleError(
        `an array ${shape.join("x")} of ${type.name} has ${
          bytes ? formatBytePair(bytes.length, length)[0] : "no bytes"
        }`,
      );
    }
    this.#bytes = bytes;
    return this;
  }

  get shape(): readonly number[] {
    return this.#shape;
  }

  /** Type of its elements, with their order of bytes if that is not the usual one: `f4`, `>f4`. */
  get type(): string {
    return (this.#type.isLittle ? "" : ">") + this.#type.name;
  }

  /** Its elements, the last index changing first. */
  bytes(): Uint8Array<ArrayBuffer> {
    return this.#isFortran ? toRowMajor(this.#bytes, this.#shape, this.#type.size) : this.#bytes;
  }
}

const isSequence = (x: unknown): x is readonly unknown[] => Array.isArray(x);

/** Whether something is a list of whole numbers from 0 on, whose product is one too. */
export const isCounts = (x: unknown): x is readonly number[] =>
  isSequence(x) && x.length <= 64 && x.every((n) => Number.isSafeInteger(n) && Number(n) >= 0) &&
  Number.isSafeInteger(sizeOf(x as readonly number[]));

/** Bytes, or text that stands for some. */
function bytesOf(x: unknown): Uint8Array<ArrayBuffer> | undefined {
  if (typeof x === "string") {
    if (!/^[\0-\xff]*$/.test(x)) return undefined;
    return Uint8Array.from(x, (char) => char.charCodeAt(0));
  }
  return x instanceof Uint8Array ? x as Uint8Array<ArrayBuffer> : undefined;
}

/** Bytes that a text of Latin characters stands for: so Python 3 writes them for Python 2. */
const encode: PickleFunction = ([text, encoding], count) => {
  const isText = typeof text === "string" && encoding === "latin1";
  if (isText) count(text.length / 64);
  const bytes = isText ? bytesOf(text) : undefined;
  if (!bytes) throw new PickleError("it encodes what is no text, or not as latin1");
  return bytes;
};

/** A single number. */
const scalar: PickleFunction = ([type, content]) => {
  const get = type instanceof ElementType && Object.hasOwn(numpyTypes, type.name)
    ? numpyTypes[type.name]
    : undefined;
  const bytes = bytesOf(content);
  // Numbers of other types, as dates, are not looked at.
  if (!(type instanceof ElementType) || !get) return null;
  if (bytes?.length !== type.size) throw new PickleError("a number is damaged");
  return get(viewOf(bytes), 0, type.isLittle);
};

/** A function under the names of a module before and after NumPy 2. */
const both = (name: string, f: PickleFunction) => ({
  [`numpy.core.${name}`]: f,
  [`numpy._core.${name}`]: f,
});

/** What pickles of arrays call. */
export const arrayFunctions: Readonly<Record<string, PickleFunction>> = {
  "numpy.dtype": ([name]) => new ElementType(String(name).slice(0, 40)),
  ...both("multiarray._reconstruct", () => new PickledArray()),
  ...both("multiarray.scalar", scalar),
  ...both(
    "numeric._frombuffer",
    ([content, type, shape, order]) => new PickledArray().fill(shape, type, order === "F", content),
  ),
  "_codecs.encode": encode,
};
