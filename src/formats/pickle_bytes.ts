/**
 * The numbers and strings of pickles, as bytes and as text.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { formatBytes } from "../units.ts";
import { type Bytes, CHUNK, viewOf } from "./bytes.ts";

/** Something in a pickle that is wrong; `readPickle` says of which. */
export class PickleError extends InputError {}

/** Bytes of the longest whole number, and characters of the longest line. */
const LONGEST_NUMBER = 128, LONGEST_LINE = 2 ** 20;

/** Reads bytes in order. */
export class Cursor {
  /** Where the next byte is. */
  at: number;
  readonly #bytes: Bytes;
  #part: Uint8Array<ArrayBuffer> = new Uint8Array();
  #start = 0;

  constructor(bytes: Bytes, at: number) {
    this.#bytes = bytes;
    this.at = at;
  }

  /** @throws {PickleError} If there are fewer. */
  take(count: number): Uint8Array<ArrayBuffer> {
    const end = this.at + count;
    if (end > this.#bytes.length) throw new PickleError("it ends too early; is it truncated?");
    if (end > this.#start + this.#part.length) {
      this.#start = this.at;
      this.#part = this.#bytes.read(this.at, Math.max(end, this.at + CHUNK));
      if (this.#part.length < count) throw new PickleError("it is no longer all there");
    }
    const taken = this.#part.subarray(this.at - this.#start, end - this.#start);
    this.at = end;
    return taken;
  }

  byte(): number {
    return this.take(1)[0];
  }

  /** An unsigned number of so many bytes. */
  number(size: 1 | 2 | 4 | 8): number {
    const view = viewOf(this.take(size));
    if (size === 8) return Number(view.getBigUint64(0, true));
    if (size === 4) return view.getUint32(0, true);
    return size === 2 ? view.getUint16(0, true) : view.getUint8(0);
  }

  /** Bytes after a number that tells how many they are. */
  sized(size: 1 | 4 | 8): Uint8Array<ArrayBuffer> {
    return this.take(this.number(size));
  }

  /** Text up to the end of a line, a character for each byte. */
  line(): string {
    let text = "";
    for (let byte = this.byte(); byte !== 10; byte = this.byte()) {
      text += String.fromCharCode(byte);
      if (text.length > LONGEST_LINE) throw new PickleError("a line of it is too long");
    }
    return text;
  }
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Text in UTF-8. */
export const decodeText = (bytes: Uint8Array): string => utf8.decode(bytes);

/** A string of Python 2, which is text or bytes: text if it is ASCII. */
export const byteString = (bytes: Uint8Array<ArrayBuffer>): string | Uint8Array<ArrayBuffer> =>
  bytes.every((byte) => byte < 0x80) ? utf8.decode(bytes) : bytes.slice();

/** A whole number, as a bigint where it has to be. */
function wholeNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** A whole number in the complement of two, lowest byte first. */
export function longNumber(bytes: Uint8Array): number | bigint {
  if (bytes.length > LONGEST_NUMBER) {
    throw new PickleError(`a number has ${formatBytes(bytes.length)}`);
  }
  const value = bytes.reduceRight((n, byte) => n << 8n | BigInt(byte), 0n);
  return wholeNumber(BigInt.asIntN(8 * bytes.length, value));
}

/** A whole number in digits, perhaps marked as long. */
export function decimalNumber(text: string): number | bigint {
  if (text.length <= 2 * LONGEST_NUMBER && /^-?\d+L?$/.test(text)) {
    return wholeNumber(BigInt(text.replace("L", "")));
  }
  throw new PickleError(`${JSON.stringify(text.slice(0, 40))} is no number`);
}

const escapes: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };

/** A string as Python 2 writes it in programs. */
export function quotedString(text: string): string | Uint8Array<ArrayBuffer> {
  const inner = text.match(/^(["'])(.*)\1$/s)?.[2];
  if (inner === undefined) throw new PickleError("a string lacks its quotation marks");
  const plain = inner.replace(
    /\\(?:x([0-9a-fA-F]{2})|(.))/gs,
    (_, code, char) => code ? String.fromCharCode(parseInt(code, 16)) : escapes[char] ?? char,
  );
  return byteString(Uint8Array.from(plain, (char) => char.charCodeAt(0)));
}

/** Text in Latin 1 with escapes for all other characters. */
export const escapedText = (text: string): string =>
  text.replace(/\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))/g, (_, short, long) => {
    const code = parseInt(short ?? long, 16);
    return short ? String.fromCharCode(code) : String.fromCodePoint(Math.min(code, 0x10ffff));
  });
