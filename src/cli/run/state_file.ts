/**
 * Training states: safetensors files that are streamed to disk and carry a checksum in their metadata,
 * the SHA-256 of the file with zeros in place of the checksum itself.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { TensorBuffer } from "../../gpu/device.ts";
import { asBytes, type Bytes } from "../../formats/bytes.ts";
import { encodeHeader } from "../../formats/safetensors.ts";
import { writeAll, writeWhole } from "../terminal/files.ts";

const KEY = "sha256", BLANK = "0".repeat(64), MARK = `"${KEY}":"`;
/** How far into a file the checksum is searched. Metadata come first. */
const HEADER = 1 << 20;
/** Elements, or bytes, in memory at a time. */
const CHUNK = 1 << 22;

/** Reads a buffer of a device in chunks. */
export async function* readChunks(
  buffer: Pick<TensorBuffer, "length" | "read">,
): AsyncGenerator<Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
  for (let at = 0; at < buffer.length; at += CHUNK) {
    yield await buffer.read(at, Math.min(CHUNK, buffer.length - at));
  }
}

/** Writes buffers of 32-bit floats to a file with a checksum. */
export async function writeSealed(
  path: string,
  buffers: Readonly<Record<string, Pick<TensorBuffer, "length" | "read">>>,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const described = Object.entries(buffers).map(([name, { length }]) => ({
    ...{ name, shape: [length], dtype: "F32" as const },
  }));
  const head = encodeHeader(described, { [KEY]: BLANK, ...metadata });
  await writeWhole(path, async (file) => {
    const hash = createHash("sha256").update(head);
    await writeAll(file, head);
    for (const buffer of Object.values(buffers)) {
      for await (const chunk of readChunks(buffer)) {
        const bytes = new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
        hash.update(bytes);
        await writeAll(file, bytes);
      }
    }
    await file.seek(findSeal(head)!, Deno.SeekMode.Start);
    await writeAll(file, hash.digest("hex"));
  });
}

/** Whether a file has a checksum that matches. */
export function isIntact(file: Uint8Array<ArrayBuffer> | Bytes): boolean {
  const bytes = asBytes(file), at = findSeal(bytes.read(0, HEADER));
  if (at === undefined) return false;
  const end = at + BLANK.length, hash = createHash("sha256");
  hash.update(bytes.read(0, at)).update(BLANK);
  for (let from = end; from < bytes.length; from += CHUNK) {
    hash.update(bytes.read(from, from + CHUNK));
  }
  return hash.digest("hex") === new TextDecoder("latin1").decode(bytes.read(at, end));
}

/** The position of the checksum's digits. */
function findSeal(bytes: Uint8Array): number | undefined {
  // One character a byte, so that places agree.
  const found = new TextDecoder("latin1").decode(bytes.subarray(0, HEADER)).indexOf(MARK);
  const at = found + MARK.length;
  return found < 0 || at + BLANK.length > bytes.length ? undefined : at;
}
