import { assert, assertEquals } from "@std/assert";
import { decode, Image } from "imagescript";
import { crc32 } from "node:zlib";
import { animatePng } from "../../src/cli/media/apng.ts";
import { encodePng } from "../../src/cli/media/picture_files.ts";

const picture = (grey: number) => ({
  ...{ width: 5, height: 3 },
  rgba: new Uint8ClampedArray(60).map((_, i) => i % 4 === 3 ? 255 : grey),
});

function chunksOf(png: Uint8Array) {
  const view = new DataView(png.buffer, png.byteOffset), chunks = [];
  for (let at = 8; at < png.length;) {
    const length = view.getUint32(at), data = png.subarray(at + 8, at + 8 + length);
    const type = new TextDecoder().decode(png.subarray(at + 4, at + 8));
    assertEquals(
      view.getUint32(at + 8 + length),
      crc32(png.subarray(at + 4, at + 8 + length)),
      type,
    );
    chunks.push({ type, data, view: new DataView(data.buffer, data.byteOffset, length) });
    at += 12 + length;
  }
  return chunks;
}

Deno.test("an animated PNG holds all frames, and is a PNG of the first", async () => {
  const greys = [0, 100, 200];
  const frames = await Promise.all(greys.map((grey) => encodePng(picture(grey), { seed: 7 })));
  const file = animatePng(frames, [50, 50, 2000]), chunks = chunksOf(file);
  const types = chunks.map(({ type }) => type).filter((type) => type !== "tEXt");
  assertEquals(types, [
    "IHDR",
    "acTL",
    "iTXt",
    "fcTL",
    "IDAT",
    "fcTL",
    "fdAT",
    "fcTL",
    "fdAT",
    "IEND",
  ]);
  const find = (name: string) => chunks.filter(({ type }) => type === name);
  assertEquals([0, 4].map((i) => find("acTL")[0].view.getUint32(i)), [3, 0]);
  const controls = find("fcTL").map(({ view }) => [
    ...[0, 4, 8].map((i) => view.getUint32(i)),
    ...[20, 22].map((i) => view.getUint16(i)),
  ]);
  assertEquals(controls, [[0, 5, 3, 50, 1000], [1, 5, 3, 50, 1000], [3, 5, 3, 2000, 1000]]);
  assertEquals(find("fdAT").map(({ view }) => view.getUint32(0)), [2, 4]);

  const first = await decode(file);
  assert(first instanceof Image);
  assertEquals(first.bitmap[0], 0);
  // A frame with its chunks renamed is the PNG that it was made of.
  find("fdAT").forEach(({ data }, i) => {
    const [, , ...rest] = chunksOf(frames[i + 1]).filter(({ type }) => /IHDR|IDAT/.test(type));
    assertEquals(rest.length, 0);
    const original = chunksOf(frames[i + 1]).find(({ type }) => type === "IDAT")!;
    assertEquals(data.slice(4), original.data.slice());
  });
});
