import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { writeSafetensors } from "../../../src/formats/safetensors.ts";
import { arrayPictures, picturesAmong } from "../../../src/data/datasets/array.ts";
import { inMemory } from "../../../src/formats/bytes.ts";
import { cifarPictures } from "../../../src/data/datasets/cifar.ts";
import { emojiPictures } from "../../../src/data/datasets/emoji.ts";
import { idxPictures } from "../../../src/data/datasets/idx.ts";
import { readNpy, readNpz } from "../../../src/formats/npy.ts";
import { tensorPictures } from "../../../src/data/datasets/array_files.ts";
import { pictureDataset, type Pictures } from "../../../src/data/pictures.ts";
import { pictureFile, pictureJson } from "../../pictures.ts";

/** Five pictures of 4 rows, 6 columns and 3 channels. */
const pixels = await pictureJson<number[]>("arrays.json");

async function assertPictures(pictures: Pictures, tolerance = 0): Promise<void> {
  assertEquals(pictures.count, 5);
  for (let i = 0; i < 5; i++) {
    const { width, height, channels, data } = await pictures.picture(i);
    assertEquals([height, width, channels], [4, 6, 3]);
    const off = [...data].map((value, k) => Math.abs(value - pixels[72 * i + k]));
    assert(Math.max(...off) <= tolerance, `picture ${i} is ${Math.max(...off)} levels off`);
  }
}

for (
  const [name, tolerance] of [["hwc", 0], ["f16", 1], ["big-endian", 0], ["fortran", 0]] as const
) {
  Deno.test(`${name}.npy of NumPy is read, or refused where it is transposed`, async () => {
    const bytes = inMemory(await pictureFile(`${name}.npy`));
    if (name === "fortran") {
      assertThrows(() => readNpy(bytes, name), InputError, "it is in Fortran's order");
    } else await assertPictures(picturesAmong(name, [readNpy(bytes, name)]), tolerance);
  });
}

for (const name of ["chw.npz", "openai.npz"]) {
  Deno.test(`${name} of NumPy is read, with its labels`, async () => {
    const arrays = await readNpz(inMemory(await pictureFile(name)), name);
    const pictures = picturesAmong(name, arrays);
    await assertPictures(pictures);
    assertEquals(Array.from(pictures.labels!), [3, 1, 4, 1, 5]);
  });
}

Deno.test("safetensors are read, floats in [-1, 1] and channels first, as sample writes them", async () => {
  const values = new Float32Array(360);
  pixels.forEach((value, at) => {
    const c = at % 3, pixel = Math.floor(at / 3) % 24, image = Math.floor(at / 72);
    values[image * 72 + c * 24 + pixel] = value / 127.5 - 1;
  });
  const labels = { name: "labels", shape: [5], values: new Int32Array([1, 2, 3, 4, 0]) };
  const file = writeSafetensors([{ name: "images", shape: [5, 3, 4, 6], values }, labels]);
  const pictures = tensorPictures(file, "x.safetensors");
  await assertPictures(pictures);
  assertEquals(Array.from(pictures.labels!), [1, 2, 3, 4, 0]);
});

Deno.test("arrays that are no pictures are refused, and what is there is listed", async () => {
  const npy = await pictureFile("hwc.npy");
  const header = (text: string) => {
    const bytes = npy.slice(), at = 10;
    bytes.fill(0x20, at, 127);
    bytes.set(new TextEncoder().encode(text), at);
    return bytes;
  };
  const cases: [Uint8Array<ArrayBuffer>, string][] = [
    [await pictureFile("objects.npy"), "its elements are no plain numbers"],
    [npy.slice(0, 5), "5 bytes are too few"],
    [npy.slice(0, -1), "5x4x6x3 of u1 are 360 bytes, but there are 359"],
    [npy.with(0, 0), "it does not start as npy files do"],
    [npy.with(6, 9), "its version is 9"],
    [header("{'descr': '<c8', 'fortran_order': False, 'shape': (5,)}"), "of type c8, not one of"],
    [header("{'descr': '|u1', 'fortran_order': False}"), "its header is damaged"],
    [header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 99999999, 9)}"), "large"],
  ];
  for (const [bytes, why] of cases) {
    const { message } = assertThrows(() => readNpy(inMemory(bytes), "x.npy"), InputError, why);
    assert(message.startsWith("Cannot read x.npy as npy: "));
  }
  const tensor = (name: string, shape: number[], fill = 0) => ({
    ...{ name, shape },
    values: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(fill),
  });
  const refusals: [Parameters<typeof writeSafetensors>[0], string][] = [
    [[], "it has no array of images, count x height x width or .* \\(it is empty\\)"],
    [[tensor("a", [3, 4])], "no array of images, .* \\(a 3x4\\)"],
    [[tensor("a", [3, 4, 4]), tensor("b", [3, 4, 4])], "several arrays could be its images \\(a"],
    [[tensor("a", [3, 4, 4], 700)], "its numbers are from 700 to 700, not in"],
    [[tensor("a", [3, 4, 4], NaN)], "it has the number NaN"],
    [[tensor("a", [3, 7, 7, 7])], "of shape 3x7x7x7; they should have 1 to 4 channels"],
    [[tensor("a", [0, 4, 4])], "it has 0 images of 4x4x1"],
    [[tensor("a", [3, 4, 4]), tensor("labels", [3], 0.5)], "its labels labels have the number 0.5"],
  ];
  for (const [tensors, why] of refusals) {
    const read = () => tensorPictures(writeSafetensors(tensors), "x.safetensors");
    const { message } = assertThrows(read, InputError);
    assert(new RegExp(why).test(message), message);
  }
  await assertRejects(
    () => readNpz(inMemory(npy), "x.npz"),
    InputError,
    "Cannot read x.npz as zip",
  );
});

/** A file of CIFAR: records with these labels, whose reds are 10, greens 20, blues 30 + the place. */
function cifarFile(labels: readonly (readonly number[])[]): Uint8Array<ArrayBuffer> {
  const parts = labels.map((heads, i) => {
    const record = new Uint8Array(heads.length + 3072);
    record.set(heads);
    [10, 20, 30].forEach((value, c) =>
      record.fill(value + i, heads.length + 1024 * c, heads.length + 1024 * (c + 1))
    );
    record[heads.length + 1] = 99;
    return record;
  });
  const file = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  parts.reduce((at, part) => (file.set(part, at), at + part.length), 0);
  return file;
}

Deno.test("CIFAR's records are labels and planes of color", async () => {
  const files = [cifarFile([[3], [9]]), cifarFile([[0]])];
  const names = Array.from({ length: 10 }, (_, i) => `class ${i}`);
  const meta = new TextEncoder().encode(names.join("\n") + "\n\n");
  const ten = cifarPictures("cifar10", files, meta);
  assertEquals([ten.count, Array.from(ten.labels!), ten.classes], [3, [3, 9, 0], names]);
  const { width, height, channels, data } = await ten.picture(1);
  assertEquals([width, height, channels], [32, 32, 3]);
  assertEquals([...data.subarray(0, 9)], [11, 21, 31, 99, 21, 31, 11, 21, 31]);

  const hundred = cifarPictures("cifar100", [cifarFile([[19, 99], [0, 7]])]);
  assertEquals(Array.from(hundred.labels!), [99, 7], "the fine label is the class");
  assertEquals((await hundred.picture(0)).data[0], 10);
});

Deno.test("files that are not CIFAR's are refused", () => {
  const good = cifarFile([[1]]);
  const cases: [Uint8Array<ArrayBuffer>, string][] = [
    [good.slice(0, -1), "data_batch_1.bin has 3,072 bytes, which is no whole number of records"],
    [new Uint8Array(), "data_batch_1.bin has 0 bytes"],
    [good.with(0, 10), "image 0 has the label 10, but there are 10 classes"],
  ];
  for (const [file, why] of cases) {
    assertThrows(() => cifarPictures("cifar10", [file]), InputError, why);
  }
});

Deno.test("EMNIST's columns come before its rows", async () => {
  const images = { shape: [1, 2, 2], data: new Uint8Array([1, 2, 3, 4]) };
  assertEquals([...(await idxPictures("x", images).picture(0)).data], [1, 2, 3, 4]);
  const turned = await idxPictures("x", images, undefined, true).picture(0);
  assertEquals([...turned.data], [1, 3, 2, 4]);
});

Deno.test("emoji lie on a sheet, each in a frame of one pixel", async () => {
  const entry = (short_name: string, category: string, sheet_x: number, sheet_y: number) => ({
    ...{ short_name, category, sheet_x, sheet_y, name: null, unified: "1F600" },
  });
  const table = [
    entry("red_heart", "Symbols", 1, 0),
    entry("skin-tone-2", "Component", 0, 0),
    { ...entry("cat", "Animals & Nature", 0, 1), name: "CAT FACE" },
  ];
  // Cells of 2 + 2 pixels, told apart by their pixels' numbers.
  const data = Uint8Array.from({ length: 8 * 8 * 4 }, (_, i) => i / 4);
  const sheet = { width: 8, height: 8, channels: 4, data };
  const emoji = emojiPictures("emoji", table, sheet, 2);
  assertEquals([emoji.count, emoji.names], [2, ["red heart", "cat face"]]);
  assertEquals(emoji.classes, ["Animals & Nature", "Symbols"]);
  assertEquals(Array.from(emoji.labels!), [1, 0]);
  const cell = async (i: number) => {
    const picture = await emoji.picture(i);
    return [0, 4, 8, 12].map((at) => picture.data[at]);
  };
  assertEquals(await cell(0), [13, 14, 21, 22]);
  assertEquals(await cell(1), [41, 42, 49, 50]);

  const far = [entry("x", "Symbols", 2, 0)];
  assertThrows(() => emojiPictures("emoji", far, sheet, 2), InputError, "x is at 2, 0, beyond a");
  assertThrows(() => emojiPictures("emoji", [{}], sheet, 2), InputError, "Bad emoji table: 0.");
});

Deno.test("a set of pictures becomes a data set of one size", async () => {
  const layout = { count: 3, height: 2, width: 2, channels: 1 };
  const bytes = Uint8Array.from({ length: 12 }, (_, i) => 20 * i);
  const pictures = arrayPictures("x", layout, bytes, { labels: [4, 5, 6] });
  const preparation = {
    ...{ height: 2, width: 2, channels: 1, background: [0, 0, 0] as const },
    ...{ crop: "center" as const, flip: true, shift: 0 },
  };
  const data = pictureDataset(pictures, preparation);
  const out = new Float32Array(4);
  await data.read(1, out, 0);
  assertEquals([...out], [80, 100, 120, 140].map((x) => Math.fround(x / 127.5 - 1)));

  using batches = data.batches!({ size: 50, seed: 3, imageAt: (place) => place % 3 });
  const { images, labels } = await batches.at(0);
  assertEquals(Array.from(labels.subarray(0, 4)), [4, 5, 6, 4]);
  const isFlipped = Array.from({ length: 50 }, (_, i) => images[4 * i] > images[4 * i + 1]);
  const share = isFlipped.filter((x) => x).length / 50;
  assert(share > 0.25 && share < 0.75, `${share} are flipped`);
  const kept = images.slice(200 - 4 * 10);
  assertEquals((await batches.at(40)).images.slice(0, 40), kept, "by place, not by call");
  assertThrows(() => arrayPictures("x", layout, bytes.subarray(1)), InputError, "need 12 bytes");
  assertThrows(
    () => arrayPictures("x", { ...layout, channels: 5 }, bytes),
    InputError,
    "5 channels",
  );
});
