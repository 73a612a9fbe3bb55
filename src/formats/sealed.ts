/**
 * Safetensors files with a checksum in their metadata: the SHA-256 of the file with zeros in place of
 * the checksum itself.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { asBytes, type Bytes, concat } from "./bytes.ts";
import { collect, encodeSafetensors, type NamedTensor } from "./safetensors.ts";

const KEY = "sha256", BLANK = "0".repeat(64), MARK = `"${KEY}":"`;
/** How far into a file the checksum is searched. Metadata come first. */
const HEADER = 1 << 20;
/** Bytes that are read at a time. */
const CHUNK = 1 << 22;

/** Metadata with room for a checksum, which comes first. */
export const withSeal = (
  metadata: Readonly<Record<string, string>>,
): Record<string, string> => ({ [KEY]: BLANK, ...metadata });

/** The position of the checksum's digits; `undefined` if a file has none. */
export function findSeal(start: Uint8Array): number | undefined {
  // One character a byte, so that places agree.
  const found = new TextDecoder("latin1").decode(start.subarray(0, HEADER)).indexOf(MARK);
  const at = found + MARK.length;
  return found < 0 || at + BLANK.length > start.length ? undefined : at;
}

/** A file's checksum, and the parts of what it is of; `undefined` if it has none. */
export function unseal(
  file: Uint8Array<ArrayBuffer> | Bytes,
): { readonly seal: string; readonly parts: Iterable<Uint8Array<ArrayBuffer>> } | undefined {
  const bytes = asBytes(file), at = findSeal(bytes.read(0, HEADER));
  if (at === undefined) return undefined;
  const end = at + BLANK.length;
  function* parts() {
    yield bytes.read(0, at!);
    yield new TextEncoder().encode(BLANK);
    for (let from = end; from < bytes.length; from += CHUNK) yield bytes.read(from, from + CHUNK);
  }
  return { seal: new TextDecoder("latin1").decode(bytes.read(at, end)), parts: parts() };
}

/**
 * A file in memory with its checksum.
 *
 * @throws {InputError} If the browser computes none for the page.
 */
export async function writeSealedFile(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<Uint8Array<ArrayBuffer>> {
  const file = collect(encodeSafetensors(tensors, withSeal(metadata)));
  file.set(new TextEncoder().encode(await digest(file)), findSeal(file)!);
  return file;
}

/**
 * Whether a file in memory has a checksum that matches.
 *
 * @throws {InputError} If the browser computes none for the page.
 */
export async function hasSeal(file: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const found = unseal(file);
  return found !== undefined && await digest(concat([...found.parts])) === found.seal;
}

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  // Missing on pages that come from elsewhere over plain HTTP, whatever the types say.
  const subtle = crypto.subtle as SubtleCrypto | undefined;
  if (subtle) {
    const hash = new Uint8Array(await subtle.digest("SHA-256", bytes));
    return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }
  throw new InputError(
    "Cannot compute a checksum: browsers do so for pages that come over https, or from localhost",
  );
}
