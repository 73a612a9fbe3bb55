/**
 * Bytes at hand or on a disk, and their unpacking with a limit.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { formatBytes } from "../units.ts";

/** Bytes of which parts can be read. */
export interface Bytes {
  /** How many there are. */
  readonly length: number;
  /** Whether reading them costs nothing. */
  readonly isInMemory: boolean;
  /** A part of them, shorter if they end before; what has to be read may be put into `into`. */
  read(from: number, to: number, into?: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>;
}

/**
 * Memory that is used again and again, in numbered slots that grow as they have to: what was in a slot
 * is lost when it is asked for again. With it, large things are read one after the other without
 * leaving as much memory behind as all of them take.
 *
 * @example
 * ```ts
 * import { initializeModel, parseNetwork, readModel, Scratch, serializeModel } from "@x/ddpm";
 *
 * const network = parseNetwork({ block_out_channels: [8], norm_num_groups: 4,
 *   down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
 * const { parameters } = readModel(serializeModel(initializeModel(network, {}, 0)));
 * if ("read" in parameters) {
 *   const scratch = new Scratch();
 *   for (const i of network.layout.specs.keys()) console.log(parameters.read(i, scratch).length);
 * }
 * ```
 */
export class Scratch {
  readonly #slots: ArrayBuffer[] = [];

  /** So many bytes of a slot. */
  bytes(slot: number, size: number): Uint8Array<ArrayBuffer> {
    const slots = this.#slots;
    if (!(slots[slot]?.byteLength >= size)) slots[slot] = new ArrayBuffer(size);
    return new Uint8Array(slots[slot], 0, size);
  }

  /** A slot as so many numbers. */
  floats(slot: number, length: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.bytes(slot, 4 * length).buffer, 0, length);
  }
}

/** Bytes in memory. */
export const inMemory = (bytes: Uint8Array<ArrayBuffer>): Bytes => ({
  ...{ length: bytes.length, isInMemory: true },
  read: (from, to) => bytes.subarray(from, to),
});

/** Bytes to read parts of, wherever they are. */
export const asBytes = (bytes: Uint8Array<ArrayBuffer> | Bytes): Bytes =>
  bytes instanceof Uint8Array ? inMemory(bytes) : bytes;

/** A view for reading numbers. */
export const viewOf = (bytes: Uint8Array<ArrayBuffer>): DataView<ArrayBuffer> =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** More unpacked bytes than this are taken for a trap. */
export const MAX_UNPACKED: number = 2 ** 32;

/** Data that do not unpack. */
export class DamageError extends InputError {}

/**
 * Unpacks a stream.
 *
 * @param limit How many bytes it may give, with those that were unpacked `before`.
 * @throws {DamageError} If its data are damaged, or others follow them. `what` starts the message.
 * @throws {InputError} If it gives more.
 */
export async function unpack(
  packed: ReadableStream<Uint8Array<ArrayBuffer>>,
  format: CompressionFormat,
  what: string,
  limit: number = MAX_UNPACKED,
  before = 0,
): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let length = before;
  try {
    for await (const part of packed.pipeThrough(new DecompressionStream(format))) {
      length += part.length;
      if (length > limit) break;
      parts.push(part);
    }
  } catch (error) {
    const name = format === "gzip" ? "gzip" : "compressed";
    throw new DamageError(`${what}: its ${name} data are damaged (${(error as Error).message})`);
  }
  if (length > limit) {
    throw new InputError(`${what}: it unpacks to more than ${formatBytes(limit)}`);
  }
  return concat(parts);
}

/** All bytes in one array. */
export function concat(parts: readonly Uint8Array<ArrayBuffer>[]): Uint8Array<ArrayBuffer> {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** Bytes that are read at a time where all are gone through. */
export const CHUNK = 65536;

/** Bytes, or a part of them, as a stream. */
export function streamOf(
  bytes: Bytes,
  from = 0,
  to = bytes.length,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    pull(controller) {
      const part = bytes.read(from, Math.min(from + CHUNK, to));
      from += part.length;
      if (part.length) controller.enqueue(part);
      else controller.close();
    },
  });
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const latin = new TextDecoder("latin1");

/**
 * The name of a file: UTF-8, or else a character for each byte, so that different names in an
 * encoding that is not told remain different.
 */
export function decodeName(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return latin.decode(bytes);
  }
}
