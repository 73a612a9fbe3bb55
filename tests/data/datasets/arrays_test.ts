import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { writeSafetensors } from "../../../src/formats/safetensors.ts";
import { arrayPictures, picturesAmong } from "../../../src/data/datasets/array.ts";
import { inMemory } from "../../../src/formats/bytes.ts";
import { cifarPictures } from "../../../src/data/datasets/cifar.ts";
import { emojiPictures } from "../../../src/data/datasets/emoji.ts";
import { idxPictures } from "../../../src/data/datasets/idx.ts";
import { readNpy, readNpz } from "../../../src/formats/npy.ts";
import {
  npyPictures,
  npzPictures,
  tensorPictures,
} from "../../../src/data/datasets/array_files.ts";
import { pictureDataset, type Pictures } from "../../../src/data/pictures.ts";
import type { Raster } from "../../../src/data/raster.ts";
import { makeNpy, makeZip, pictureFile, pictureJson } from "../../pictures.ts";

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
  Deno.test(`${name}.npy of NumPy is read`, async () => {
    await assertPictures(npyPictures(await pictureFile(`${name}.npy`), name), tolerance);
  });
}

Deno.test("headers are read as Python 2 wrote them, and as others may", async () => {
  const bytes = new Uint8Array(pixels);
  const headers = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (5L, 4L, 6L, 3L), }",
    `{"descr": "|u1", "fortran_order": False, "shape": (5, 4, 6, 3)}`,
    "{'shape':(5,4,6,3,),'fortran_order':False,'descr':u'u1'}",
    "{ 'descr' : 'uint8' ,\n 'fortran_order' : False ,\t'shape' : ( 5 , 4 , 6 , 3 ) }",
  ];
  for (const header of headers) {
    await assertPictures(npyPictures(makeNpy("", [], bytes, header), "x.npy"));
  }
  const floats = new Float64Array(pixels.map((value) => value / 255));
  const header = "{'descr': 'float64', 'fortran_order': False, 'shape': (5, 4, 6, 3)}";
  await assertPictures(npyPictures(makeNpy("", [], floats, header), "x.npy"));
  const flags = Uint8Array.from({ length: 4 }, (_, i) => i % 2);
  for (const type of ["|b1", "bool", "?"]) {
    const masks = npyPictures(makeNpy(type, [1, 2, 2], flags), "x.npy");
    assertEquals([...(await masks.picture(0)).data], [0, 255, 0, 255], type);
  }
});

Deno.test("arrays in Fortran's order are those in C's, of every type and rank", () => {
  for (const [type, size] of [["u1", 1], ["i2", 2], ["f4", 4], ["f8", 8]] as const) {
    for (const shape of [[2, 3, 4], [5, 1, 3], [2, 2, 3, 3], [4], [3, 0, 2]]) {
      const count = shape.reduce((a, b) => a * b, 1);
      const elements = Array.from({ length: count }, (_, i) => i);
      const bytes = new Uint8Array(count * size), view = new DataView(bytes.buffer);
      // The place of each element, by its indices, where the first index changes first.
      for (const i of elements) {
        let rest = i, place = 0;
        for (let axis = shape.length - 1; axis >= 0; axis--) {
          place += (rest % shape[axis]) * shape.slice(0, axis).reduce((a, b) => a * b, 1);
          rest = Math.floor(rest / shape[axis]);
        }
        if (type === "u1") view.setUint8(place, i);
        else if (type === "i2") view.setInt16(2 * place, i, true);
        else if (type === "f4") view.setFloat32(4 * place, i, true);
        else view.setFloat64(8 * place, i, true);
      }
      const header = `{'descr': '<${type}', 'fortran_order': True, 'shape': (${shape},), }`;
      const array = readNpy(inMemory(makeNpy("", [], bytes, header)), "x");
      assertEquals([...array.values()], elements, `${type} ${shape}`);
    }
  }
});

for (const name of ["chw.npz", "openai.npz"]) {
  Deno.test(`${name} of NumPy is read, with its labels`, async () => {
    const arrays = await readNpz(inMemory(await pictureFile(name)), name);
    const pictures = picturesAmong(name, arrays);
    await assertPictures(pictures);
    assertEquals(Array.from(pictures.labels!), [3, 1, 4, 1, 5]);
  });
}

Deno.test("a tensor of a type that nobody reads is in nobody's way", async () => {
  const images = { name: "images", shape: [1, 1, 2, 2], values: new Float32Array([-1, 1, 1, -1]) };
  const spectrum = { name: "spectrum", shape: [1, 2, 2], values: new Int32Array(4) };
  const file = writeSafetensors([images, spectrum]);
  // Complex numbers of the same size, which only the header tells of.
  const header = new TextDecoder().decode(file.subarray(8, 300));
  file.set(new TextEncoder().encode("C64"), 8 + header.indexOf("I32"));
  const { data } = await tensorPictures(file, "x.safetensors").picture(0);
  assertEquals([...data], [0, 255, 255, 0]);
});

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
    [header("{'descr': '|u1', 'fortran_order': False, 'shape': (5, x)}"), "its header is damaged"],
    [header("{'descr': '|u1', 'fortran_order': False, 'shape': (5, -4)}"), "its header is damaged"],
    [npy.slice(0, 5), "5 bytes are too few"],
    [npy.slice(0, -1), "5x4x6x3 of u1 are 360 bytes, but there are 359"],
    [npy.with(0, 0), "it does not start as npy files do"],
    [npy.with(6, 9), "its version is 9"],
    [header("{'descr': '|u1', 'fortran_order': False}"), "its header is damaged"],
    [header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999, 99999999, 9)}"), "large"],
  ];
  for (const [bytes, why] of cases) {
    const { message } = assertThrows(() => readNpy(inMemory(bytes), "x.npy"), InputError, why);
    assert(message.startsWith("Cannot read x.npy as npy: "));
  }
  const unused: [Uint8Array<ArrayBuffer>, string][] = [
    [await pictureFile("objects.npy"), "its elements are Python objects, which could run any code"],
    [
      header("{'descr': '<c8', 'fortran_order': False, 'shape': (5,)}"),
      "of type c8, not one of b1",
    ],
    [
      header("{'descr': 'constructor', 'fortran_order': False, 'shape': ()}"),
      "of type constructor",
    ],
    [header("{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (5,)}"), "of type M8[ns], not"],
    [header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (5,)}"), "are records"],
  ];
  for (const [bytes, why] of unused) {
    const { message } = assertThrows(() => npyPictures(bytes, "x.npy"), InputError, why);
    assert(message.startsWith("Cannot read x.npy as npy: "));
    assertThrows(() => readNpy(inMemory(bytes), "x.npy").values(), InputError, why);
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
    [[tensor("a", [8, 8, 3])], "an array of 8x8x3 is a single image with 3 channels; a set is an"],
    [[tensor("a", [20, 30, 1])], "an array of 20x30x1 is a single image with 1 channels"],
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

/** Text as NumPy stores it: 32 bits a character, of as many as the longest has. */
function textArray(texts: readonly string[]): Uint8Array<ArrayBuffer> {
  const width = Math.max(...texts.map((text) => text.length));
  const codes = texts.flatMap((text) =>
    Array.from({ length: width }, (_, i) => text.codePointAt(i) ?? 0)
  );
  return makeNpy(`<U${width}`, [texts.length], new Uint32Array(codes));
}
const whole = (values: readonly number[], shape = [values.length]) =>
  makeNpy("<i8", shape, BigInt64Array.from(values, BigInt));
const floats = (values: readonly number[], shape = [values.length]) =>
  makeNpy("<f8", shape, new Float64Array(values));
const images = makeNpy("|u1", [5, 4, 6, 3], new Uint8Array(pixels));

/** What is beside the images in a .npz file, and what labels and classes come of it. */
const beside: Record<
  string,
  [files: Record<string, Uint8Array>, labels?: number[], classes?: string[] | undefined]
> = {
  "names of classes": [
    { "labels.npy": whole([0, 2, 1, 1, 0]), "class_names.npy": textArray(["cat", "dog", "cow"]) },
    [0, 2, 1, 1, 0],
    ["cat", "dog", "cow"],
  ],
  "names of classes that are called labels, and labels that are called y": [
    { "labels.npy": textArray(["a", "b"]), "y.npy": whole([0, 1, 1, 1, 0]) },
    [0, 1, 1, 1, 0],
    ["a", "b"],
  ],
  "fewer names than classes": [
    { "labels.npy": whole([0, 2, 1, 1, 0]), "classes.npy": textArray(["cat", "dog"]) },
    [0, 2, 1, 1, 0],
  ],
  "labels from -1": [
    { "labels.npy": whole([-1, 2, 0, -1, 2]) },
    [0, 2, 1, 0, 2],
    ["-1", "0", "2"],
  ],
  "labels from -1 and names": [
    { "labels.npy": floats([-1, 1, 0, -1, 1]), "class_names.npy": textArray(["cat", "dog"]) },
    [0, 2, 1, 0, 2],
    ["-1", "cat", "dog"],
  ],
  "text labels": [
    { "labels.npy": textArray(["dog", "cat", "dog", "über", "cat"]) },
    [1, 0, 1, 2, 0],
    ["cat", "dog", "über"],
  ],
  "labels in bytes": [
    { "y.npy": makeNpy("|S2", [5], new Uint8Array([98, 0, 97, 98, 98, 0, 98, 0, 97, 98])) },
    [1, 0, 1, 1, 0],
    ["ab", "b"],
  ],
  "one-hot labels": [
    { "labels.npy": floats([0, 1, 1, 0, 1, 0, 0, 1, 0, 1], [5, 2]) },
    [1, 0, 0, 1, 1],
  ],
  "one-hot labels that are called otherwise": [
    {
      "hot.npy": whole([0, 1, 1, 0, 1, 0, 0, 1, 0, 1], [5, 2]),
      "ids.npy": textArray([..."abcde"]),
    },
    [1, 0, 0, 1, 1],
  ],
  "a column of labels": [{ "labels.npy": whole([3, 1, 4, 1, 5], [5, 1]) }, [3, 1, 4, 1, 5]],
  "labels among other numbers": [
    { "ids.npy": whole([9, 8, 7, 6, 5]), "label.npy": floats([1, 0, 0, 1, 2]) },
    [1, 0, 0, 1, 2],
  ],
  "what is no array": [{ "README.txt": new TextEncoder().encode("Hello"), "b.npy": whole([7]) }],
  "nothing but what cannot be read": [{
    "meta.npy": await pictureFile("objects.npy"),
    "c.npy": makeNpy("<c16", [5], new Uint8Array(80)),
    "cut.npy": whole([1, 2, 3]).slice(0, -1),
    "__MACOSX/._images.npy": new Uint8Array(100),
    "names.npy": textArray(["a.png", "b.png", "c.png", "d.png", "e.png"]),
  }],
};

for (const [what, [files, labels, classes]] of Object.entries(beside)) {
  Deno.test(`images in a .npz are read beside ${what}`, async () => {
    const pictures = await npzPictures(makeZip({ "images.npy": images, ...files }), "x.npz");
    await assertPictures(pictures);
    assertEquals(pictures.labels && Array.from(pictures.labels), labels);
    assertEquals(pictures.classes, classes);
    assertEquals(pictures.labelProblem, undefined);
  });
}

/** What is beside the images, and why no labels come of it. */
const noLabels: Record<string, [Record<string, Uint8Array>, string]> = {
  scores: [{ "scores.npy": floats([0.25, 1, 2, 3, 4]) }, "its scores have the number 0.25"],
  "several numbers": [
    { "a.npy": whole([1, 2, 3, 4, 5]), "b.npy": floats([0, 0, 0, 0, 0.5]) },
    "several arrays could be its labels (a, b); call one of them labels",
  ],
  "several labels an image": [
    { "labels.npy": whole([0, 1, 1, 1, 1, 0, 0, 1, 0, 1], [5, 2]) },
    "its labels have 2 numbers for image 1 that are not one 1 among zeros",
  ],
  "labels of other images": [{ "y_train.npy": whole([1, 2, 3]) }, "its y_train are 3, not 5"],
  "labels that are objects": [
    { "labels.npy": await pictureFile("objects.npy") },
    "Cannot read labels.npy in x.npz as npy: its elements are Python objects",
  ],
  "labels that are infinite": [{ "labels.npy": floats([0, 1, Infinity, 0, 1]) }, "number Infinity"],
};

for (const [what, [files, why]] of Object.entries(noLabels)) {
  Deno.test(`images in a .npz beside ${what} are read without labels, and it is known why`, async () => {
    const pictures = await npzPictures(makeZip({ "images.npy": images, ...files }), "x.npz");
    await assertPictures(pictures);
    assertEquals([pictures.labels, pictures.classes], [undefined, undefined]);
    assert(pictures.labelProblem?.includes(why), pictures.labelProblem);
  });
}

Deno.test("images that cannot be read are no reason to take something else for them", async () => {
  const objects = await pictureFile("objects.npy");
  for (
    const files of [{ "images.npy": objects, "thumbnails.npy": images }, { "data.npy": objects }]
  ) {
    await assertRejects(
      () => npzPictures(makeZip(files), "x.npz"),
      InputError,
      "in x.npz as npy: its elements are Python objects, which could run any code; save plain",
    );
  }
  const pictures = await npzPictures(
    makeZip({ "x.npy": objects, "set/thumbnails.npy": images }),
    "x.npz",
  );
  await assertPictures(pictures);
  await assertRejects(
    () => npzPictures(makeZip({ "a.npy": objects, "b.npy": whole([1]) }), "x.npz"),
    InputError,
    "it has no array of images",
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
  const emoji = emojiPictures("emoji", table, { google: sheet }, { size: 2 });
  assertEquals([emoji.count, emoji.names], [2, ["red heart", "cat face"]]);
  assertEquals(emoji.captions, [
    ["red heart", "symbols"],
    ["cat face", "cat", "animals & nature"],
  ]);
  assertEquals(emoji.classes, ["Animals & Nature", "Symbols"]);
  assertEquals(Array.from(emoji.labels!), [1, 0]);
  const cell = async (i: number) => {
    const picture = await emoji.picture(i);
    return [0, 4, 8, 12].map((at) => picture.data[at]);
  };
  assertEquals(await cell(0), [13, 14, 21, 22]);
  assertEquals(await cell(1), [41, 42, 49, 50]);

  // A table may have the variation selector where the other does not.
  const heart = { ...entry("heart", "Symbols", 0, 0), name: "HEAVY BLACK HEART" };
  const told = [{ ...heart, unified: "2764-FE0F" }, { ...heart, unified: "1F49A" }, heart];
  const keywords = { "\u2764": ["red_heart", "love", "like", "a", "b", "c"], "💚\ufe0f": [] };
  const { captions, names } = emojiPictures("x", told, { a: sheet }, { size: 2, keywords });
  const name = "heavy black heart";
  assertEquals(names, [name, name, name]);
  assertEquals(captions, [
    [name, "red heart", "heart", "love, like, a, b", "symbols"],
    ...[[name, "heart", "symbols"], [name, "heart", "symbols"]],
  ]);

  const far = [entry("x", "Symbols", 2, 0)];
  const wrong = (table: unknown, message: string, sheets: Record<string, Raster> = { a: sheet }) =>
    assertThrows(() => emojiPictures("emoji", table, sheets, { size: 2 }), InputError, message);
  wrong(far, "x is at 2, 0, beyond a");
  wrong([{}], "Bad emoji table: 0.");
  wrong([{ ...heart, unified: "heart" }], "Bad emoji table: 0.unified");
  assertThrows(
    () => emojiPictures("emoji", table, { a: sheet }, { keywords: { "💚": "love" } }),
    ...[InputError, "Bad emoji keywords: 💚"] as const,
  );
  wrong(table, "sheets have 4 and 3 channels", { a: sheet, b: { ...sheet, channels: 3 } });
});

Deno.test("emoji of two styles say so, and a name is held out in both", () => {
  const table = Array.from({ length: 200 }, (_, i) => ({
    ...{ short_name: `emoji_${i}`, short_names: [`emoji_${i}`, `number-${i}`] },
    ...{ category: "Symbols", sheet_x: i % 20, sheet_y: Math.floor(i / 20) },
  }));
  const sheet = { width: 80, height: 40, channels: 4, data: new Uint8Array(80 * 40 * 4) };
  const sheets = { google: sheet, twitter: sheet };
  const [train, test] = (["train", "test"] as const).map((split) =>
    emojiPictures("emoji", table, sheets, { size: 2, split })
  );
  const names = (pictures: typeof train) => [...new Set(pictures.names)];
  assertEquals([...names(train), ...names(test)].length, 200);
  assert(names(test).length > 4 && names(test).length < 25, String(names(test).length));
  assertEquals(train.count, 2 * names(train).length);
  const [first] = names(test), number = first.slice("emoji ".length);
  assertEquals(test.captions![test.count / 2], [
    ...[first, `number ${number}`, `${first}, twitter`, `number ${number}, twitter`, "symbols"],
  ]);
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
