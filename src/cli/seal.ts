/**
 * Checksums within safetensors files: the SHA-256 of all bytes of the file, with zeros in place of
 * the checksum itself, as an entry of its metadata.
 *
 * @module
 */

import { type NamedTensor, writeSafetensors } from "../model/safetensors.ts";

const KEY = "sha256", BLANK = "0".repeat(64), MARK = `"${KEY}":"`;
/** How far into a file the mark is looked for. Metadata come first. */
const HEADER = 1 << 20;

/** A file with a checksum. */
export async function writeSealed(
  tensors: readonly NamedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = writeSafetensors(tensors, { [KEY]: BLANK, ...metadata });
  const at = findSeal(bytes)!;
  bytes.set(new TextEncoder().encode(await digest(bytes)), at);
  return bytes;
}

/** Whether a file has a checksum, and it is right. */
export async function isIntact(bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const at = findSeal(bytes);
  if (at === undefined) return false;
  const seal = bytes.subarray(at, at + BLANK.length), given = seal.slice();
  seal.set(new TextEncoder().encode(BLANK));
  const found = await digest(bytes);
  seal.set(given);
  return found === new TextDecoder().decode(given);
}

/** Where the checksum's digits are. */
function findSeal(bytes: Uint8Array): number | undefined {
  // One character a byte, so that places agree.
  const found = new TextDecoder("latin1").decode(bytes.subarray(0, HEADER)).indexOf(MARK);
  const at = found + MARK.length;
  return found < 0 || at + BLANK.length > bytes.length ? undefined : at;
}

async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}
