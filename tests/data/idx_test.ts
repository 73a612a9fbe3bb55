import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { idxDataset, readIdx } from "../../src/data/datasets/idx.ts";
import { mutate } from "../mutate.ts";
import { Random } from "../random.ts";

/** An IDX file with this magic number, these sizes and these data. */
function fileOf(magic: number, shape: readonly number[], data: ArrayLike<number>) {
  const bytes = new Uint8Array(4 + 4 * shape.length + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, magic);
  shape.forEach((n, i) => view.setUint32(4 + 4 * i, n));
  bytes.set(data, 4 + 4 * shape.length);
  return bytes;
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const ramp = (length: number) => Uint8Array.from({ length }, (_, i) => i);
const images = fileOf(0x803, [2, 3, 4], ramp(24)), labels = fileOf(0x801, [2], [7, 9]);

Deno.test("readIdx() reads images and labels, raw and gzipped", async () => {
  for (const wrap of [(bytes: Uint8Array<ArrayBuffer>) => bytes, gzip]) {
    assertEquals(await readIdx(await wrap(images), "x"), { shape: [2, 3, 4], data: ramp(24) });
    assertEquals(await readIdx(await wrap(labels), "x"), {
      shape: [2],
      data: new Uint8Array([7, 9]),
    });
  }
});

Deno.test("readIdx() reads part of a larger buffer, wherever it starts", async () => {
  const larger = new Uint8Array(images.length + 3);
  larger.set(images, 3);
  assertEquals((await readIdx(larger.subarray(3), "x")).data, ramp(24));
});

const zipped = await gzip(images);

/** What is wrong, a file that is wrong in this way, and what the message has to mention. */
const refusals: readonly [string, Uint8Array<ArrayBuffer>, string][] = [
  ["an empty file", new Uint8Array(), "0 bytes are too few"],
  ["a file that ends within its magic number", images.slice(0, 3), "3 bytes are too few"],
  ["a file that ends within its sizes", images.slice(0, 15), "too few for 3 sizes"],
  [
    "a file that ends within its data",
    images.slice(0, -1),
    "2x3x4 should be 24 bytes, but there are 23",
  ],
  ["a file that goes on after its data", fileOf(0x803, [2, 3, 4], ramp(25)), "but there are 25"],
  [
    "a file of another kind",
    new Uint8Array([0x89, 0x50, 0x4e, 0x47, 13]),
    "its magic number is 0x89504e47",
  ],
  ["elements that are no bytes", fileOf(0xd01, [1], [0, 0, 0, 0]), "0x00000d01, not 0x0000080N"],
  ["the wrong order of bytes", fileOf(0x03080000, [1], [0]), "its magic number is 0x03080000"],
  ["sizes whose product overflows", fileOf(0x804, Array(4).fill(2 ** 32 - 1), []), "should be"],
  ["truncated gzip data", zipped.slice(0, -10), "its gzip data are damaged"],
  ["gzip data without an end", zipped.slice(0, 12), "its gzip data are damaged"],
  ["nothing but the start of gzip data", zipped.slice(0, 2), "its gzip data are damaged"],
  ["gzip data with a wrong checksum", zipped.with(zipped.length - 6, 1), "gzip data are damaged"],
  ["gzipped nonsense", await gzip(ramp(50)), "its magic number is 0x00010203"],
];

for (const [what, bytes, why] of refusals) {
  Deno.test(`readIdx() refuses ${what}`, async () => {
    const { message } = await assertRejects(() => readIdx(bytes, "x.idx"), InputError, why);
    assert(message.startsWith("Cannot read x.idx as IDX: ") && !message.includes("\n"), message);
  });
}

Deno.test("readIdx() gives a value or an InputError for 1,000 damaged files", async () => {
  const random = new Random("idx");
  let read = 0;
  for (let i = 0; i < 1000; i++) {
    try {
      const { shape, data } = await readIdx(mutate(i % 2 ? zipped : images, random), "x");
      assertEquals(shape.reduce((a, b) => a * b, 1), data.length);
      read++;
    } catch (error) {
      assert(error instanceof InputError, `damage ${i}: ${error}`);
    }
  }
  assert(read > 20 && read < 900, `${read} of 1000 could be read`);
});

Deno.test("idxDataset() maps bytes 0 to 255 to -1 to 1, at the place that it is told", () => {
  const data = new Uint8Array([0, 255, 51, 204, 0, 0, 255, 255]);
  const set = idxDataset("four", { shape: [2, 2, 2], data });
  assertEquals([set.name, set.count, ...set.shape], ["four", 2, 2, 2, 1]);
  assertEquals(set.labels, undefined);
  const out = new Float32Array(6).fill(9);
  set.read(0, out, 1);
  assertEquals([...out], [9, -1, 1, -0.6, 0.6, 9].map(Math.fround));
  set.read(1, out, 2);
  assertEquals([...out], [9, -1, -1, -1, 1, 1].map(Math.fround));
});

Deno.test("idxDataset() keeps labels", () => {
  const set = idxDataset("two", { shape: [2, 1, 1], data: ramp(2) }, { shape: [2], data: ramp(2) });
  assertEquals(Array.from(set.labels!), [0, 1]);
});

const label = (...shape: number[]) => ({ shape, data: ramp(shape.reduce((a, b) => a * b, 1)) });

for (
  const [what, images, labels, why] of [
    ["labels for images", label(3), undefined, "its images are of shape 3, not count x height"],
    ["images in color", label(2, 2, 2, 3), undefined, "shape 2x2x2x3"],
    ["a single number", label(), undefined, "not count x height x width"],
    ["no images", label(0, 28, 28), undefined, "shape 0x28x28"],
    ["images without pixels", label(5, 0, 28), undefined, "shape 5x0x28"],
    ["fewer bytes than pixels", { shape: [2, 2, 2], data: ramp(7) }, undefined, "have 7 bytes"],
    ["too few labels", label(3, 2, 2), label(2), "3 images have labels of shape 2"],
    ["too many labels", label(3, 2, 2), label(4), "3 images have labels of shape 4"],
    ["labels of more than a number", label(3, 2, 2), label(3, 1), "labels of shape 3x1"],
  ] as const
) {
  Deno.test(`idxDataset() refuses ${what}`, () => {
    assertThrows(() => idxDataset("mnist", images, labels), InputError, why);
  });
}
