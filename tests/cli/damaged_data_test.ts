/**
 * Damaged data of every format, through everything that `train` does with them before a step. More
 * of it than in the suite: `deno test -A tests/cli/damaged_data_test.ts -- 5000`.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import { assert } from "@std/assert";
import { openDataset } from "../../src/cli/data/data.ts";
import { parseImages } from "../../src/data/image_options.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { InputError } from "../../src/errors.ts";
import { inMemory } from "../../src/formats/bytes.ts";
import { gunzip } from "../../src/formats/gzip.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { openBatches } from "../../src/data/batches.ts";
import { mutate } from "../mutate.ts";
import { gzip, makeBatch, makeBmp, makeNpy, makeTar, makeZip, pictureFile } from "../pictures.ts";
import { Random } from "../random.ts";
import { encodeIdx, Folder, imagesFile, labelsFile } from "./cli.ts";

/** How many damaged files in all. */
const COUNT = Number(Deno.args[0] ?? 400);
/** Bytes by which the process may grow: what a few images of the largest size take. */
const MAX_GROWTH = 2e9;

class Quiet extends Progress {
  override say(): void {}
}

/** CIFAR's records, two a file. */
const records = new Uint8Array(2 * 3073).map((_, i) => i % 3073 ? i : 5);
const cifar = Object.fromEntries(
  [1, 2, 3, 4, 5].map((i) => [`cifar-10-batches-bin/data_batch_${i}.bin`, records]),
);
/** The same as pickles. */
const pickled = Object.fromEntries([
  ...["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
  "batches.meta",
].map((name) => [
  `cifar-10-batches-py/${name}`,
  makeBatch(new Uint8Array(3072), { labels: [5], label_names: ["a", "b"] }),
]));
const tensors = writeSafetensors([
  { name: "images", shape: [3, 4, 4], values: new Float32Array(48).map((_, i) => i / 48) },
  { name: "labels", shape: [3], values: new Int32Array([0, 1, 2]) },
]);
const numbers = makeNpy("<f4", [3, 2, 2], new Float32Array(12).map((_, i) => i / 12));
const names = makeNpy("<U1", [3], new Uint32Array([97, 98, 97]));
const emoji = JSON.stringify([1, 2, 3].map((i) => ({
  ...{ name: `X ${i}`, short_name: `x_${i}`, category: `C ${i}`, sheet_x: 0, sheet_y: 0 },
})));

/** Image files, which are damaged in a folder with a good one. */
const imageFiles = [
  ...["rgb.png", "rgba.png", "grey.png", "grey-alpha.png", "grey-16.png", "palette.png"],
  ...["rgb.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "turned.jpg", "rgb.gif"],
  ...["animated.gif", "transparent.gif", "lossless.webp", "lossy.webp", "alpha.webp"],
  ...["animated.webp", "rgb.bmp", "palette.bmp"],
];

/** Files of an archive, and links to them. */
const linked = [
  { name: "a/1.bmp", data: makeBmp(2, 2, [1, 2, 3]) },
  { name: "b/2.bmp", kind: "2", target: "../a/1.bmp" },
  { name: "c", kind: "2", target: "a" },
];

/** What is damaged, what it is called, and the files beside it. */
const sets: [name: string, bytes: Uint8Array<ArrayBuffer>, beside?: Record<string, Uint8Array>][] =
  [
    ["train-images-idx3-ubyte", imagesFile(), { "train-labels-idx1-ubyte": labelsFile() }],
    ["train-labels-idx1-ubyte", labelsFile(), { "train-images-idx3-ubyte": imagesFile() }],
    ["train-images-idx3-ubyte.gz", await gzip(encodeIdx([3, 8, 8], new Uint8Array(192)))],
    ["x.tar", makeTar(cifar)],
    ["x.tar.gz", await gzip(makeTar(cifar))],
    ["python.tar", makeTar(pickled)],
    ["images.tar", await pictureFile("gnu.tar")],
    ["images.tar.gz", await pictureFile("pax.tar.gz")],
    ["images.zip", await pictureFile("images.zip")],
    ["wide.zip", await pictureFile("wide.zip")],
    ["links.tar", makeTar(linked)],
    ["links.zip", makeZip(linked, "a comment")],
    ["sparse.tar.gz", await pictureFile("sparse-pax-1.0.tar.gz")],
    ["sparse.tar", await gunzip(inMemory(await pictureFile("sparse-gnu.tar.gz")), "sparse.tar")],
    ["x.npy", await pictureFile("hwc.npy")],
    ["floats.npy", await pictureFile("f16.npy")],
    ["x.npz", await pictureFile("chw.npz")],
    ["stored.npz", await pictureFile("openai.npz")],
    ["labels.npz", makeZip({ "images.npy": numbers, "labels.npy": names, "README": records })],
    ["fortran.npy", await pictureFile("fortran.npy")],
    ["x.safetensors", tensors],
    ["emoji.json", new TextEncoder().encode(emoji)],
  ];
const isFolder = (name: string) => /^(train|emoji)/.test(name);

/** The changed start of a file is where most can go wrong; every third time it is all that changes. */
function damage(bytes: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  if (random.below(3)) return mutate(bytes, random);
  const start = mutate(bytes.slice(0, 64), random), rest = bytes.subarray(64);
  const whole = new Uint8Array(start.length + rest.length);
  whole.set(start);
  whole.set(rest, start.length);
  return whole;
}

/** The file with right checksums, if it is a PNG: without them, decoders would see little of it. */
function withChecksums(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes[1] !== 0x50 || bytes[2] !== 0x4e) return bytes;
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 8 + view.getUint32(at);
    if (end + 4 > bytes.length) break;
    view.setUint32(end, crc32(bytes.subarray(at + 4, end)));
    at = end + 4;
  }
  return bytes;
}

/** Opens a set and looks at its first images, as far as that goes. */
async function tryOut(path: string): Promise<"images" | "error"> {
  try {
    const options = { maxBad: "0", workers: 1 };
    const data = await openDataset(path, parseImages({ size: 8 }), new Quiet(), options);
    const out = new Float32Array(data.shape.reduce((a, b) => a * b));
    for (let i = 0; i < Math.min(4, data.count); i++) {
      await data.read(i, out, 0);
      assert(out.every((x) => x >= -1 && x <= 1));
    }
    return "images";
  } catch (error) {
    assert(error instanceof InputError, `${path}: ${(error as Error).stack}`);
    assert(!/\p{Cc}/u.test(error.message) && error.message.length < 1500, error.message);
    return "error";
  }
}

Deno.test(`${COUNT} damaged files end in images or in an error that names them`, async () => {
  await using folder = await Folder.make();
  const random = new Random("damaged data"), before = Deno.memoryUsage().rss;
  const told: Record<string, { images: number; error: number }> = {};
  let largest = 0, slowest = 0;
  const kinds = [...imageFiles, ...sets.map(([name]) => name)];
  for (let i = 0; i < COUNT; i++) {
    const name = kinds[i % kinds.length], at = `${i}`;
    await Deno.mkdir(folder.at(at));
    const set = sets.find(([set]) => set === name);
    for (const [other, bytes] of Object.entries(set?.[2] ?? {})) {
      await folder.write(`${at}/${other}`, bytes);
    }
    if (name === "emoji.json") {
      await Deno.mkdir(folder.at(`${at}/img/google/sheets`), { recursive: true });
      await folder.write(`${at}/img/google/sheets/32.png`, makeBmp(68, 68, [1, 2, 3]));
    }
    const damaged = damage(set?.[1] ?? await pictureFile(name), random);
    await folder.write(`${at}/${name}`, random.below(2) ? damaged : withChecksums(damaged));
    const began = performance.now();
    const outcome = await tryOut(folder.at(set && !isFolder(name) ? `${at}/${name}` : at));
    slowest = Math.max(slowest, performance.now() - began);
    (told[name] ??= { images: 0, error: 0 })[outcome]++;
    largest = Math.max(largest, Deno.memoryUsage().rss - before);
    await Deno.remove(folder.at(at), { recursive: true });
  }
  const sum = (key: "images" | "error") => Object.values(told).reduce((n, t) => n + t[key], 0);
  if (Deno.args.length) {
    // deno-lint-ignore no-console -- asked for on the command line
    console.log(told, { images: sum("images"), errors: sum("error"), largest, slowest });
  }
  assert(largest < MAX_GROWTH, `the process grew by ${largest} bytes`);
  assert(sum("images") > 0.05 * COUNT && sum("error") > 0.2 * COUNT);
});

Deno.test("workers survive damaged images, and go on with the good ones", async () => {
  await using folder = await Folder.make();
  const random = new Random("damaged images"), count = Math.max(60, COUNT / 10);
  for (let i = 0; i < count; i++) {
    const name = imageFiles[i % imageFiles.length], bytes = await pictureFile(name);
    await folder.write(`${i}-${name}`, i % 3 ? damage(bytes, random) : bytes);
  }
  const options = { maxBad: "100%", workers: 2, cache: true };
  const data = await openDataset(folder.path, parseImages({ size: 8 }), new Quiet(), options);
  using batches = openBatches(data, { size: 16, seed: 0, imageAt: (place) => place % data.count });
  for (let place = 0; place < 2 * count; place += 16) {
    const { images } = await batches.at(place);
    assert(images.every((x) => x >= -1 && x <= 1));
  }
});
