/**
 * Files with a checksum on a disk, which are streamed: states of trainings, latents.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { TensorBuffer } from "../../gpu/device.ts";
import type { Bytes } from "../../formats/bytes.ts";
import { encodeHeader } from "../../formats/safetensors.ts";
import { findSeal, unseal, withSeal } from "../../formats/sealed.ts";
import { writeAll, writeWhole } from "../terminal/files.ts";

/** Elements in memory at a time. */
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
  const head = encodeHeader(described, withSeal(metadata));
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
  const found = unseal(file), hash = createHash("sha256");
  if (!found) return false;
  for (const part of found.parts) hash.update(part);
  return hash.digest("hex") === found.seal;
}
