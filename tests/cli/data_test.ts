import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { openDataset, type ReadOptions } from "../../src/cli/data/data.ts";
import { parseImages } from "../../src/data/image_options.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { InputError } from "../../src/errors.ts";
import { parseTraining } from "../../src/train/config.ts";
import { trainValidationSplit } from "../../src/train/step_inputs.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { openBatches } from "../../src/data/batches.ts";
import type { Dataset } from "../../src/data/dataset.ts";
import {
  gzip,
  join,
  makeBatch,
  makeBmp,
  makeNpy,
  makeTar,
  makeZip,
  pictureFile,
} from "../pictures.ts";
import { encodeIdx, Folder, imagesFile, labelsFile, tinyUNet } from "./cli.ts";
import { makeFolder, readLog, readState, train } from "./training.ts";

/** What is said, instead of on stderr. */
class Quiet extends Progress {
  readonly said: string[] = [];
  override say(text: string): void {
    this.said.push(text);
  }
}

const open = (path: string, images: object = {}, options?: ReadOptions, progress = new Quiet()) =>
  openDataset(path, parseImages(images), progress, options);

/** Images of one color each, so that a batch tells what is in it: 30, 40, 50... */
async function makePhotos(folder: Folder, count: number, within = "."): Promise<void> {
  for (let i = 0; i < count; i++) {
    const level = 30 + 10 * i, parent = `${within}/${i % 2 ? "odd" : "even"}`;
    await Deno.mkdir(folder.at(parent), { recursive: true });
    const bmp = makeBmp(9, 7, [level, level, level]);
    await folder.write(`${parent}/${String(i).padStart(3, "0")}.bmp`, bmp);
  }
}

/** The first level of each image of some batches, and their labels. */
async function draw(data: Dataset, batches: number, size = 5, seed = 1, from = 0) {
  const plan = { size, seed, imageAt: (place: number) => place % data.count };
  using made = openBatches(data, plan);
  const levels: number[] = [], labels: number[] = [];
  for (let i = 0; i < batches; i++) {
    const batch = await made.at(from + i * size), each = batch.images.length / size;
    for (let k = 0; k < size; k++) levels.push(Math.round(batch.images[k * each] * 127.5 + 127.5));
    labels.push(...batch.labels);
  }
  return { levels, labels };
}

Deno.test("a folder of images is a data set, in the order of its files' names", async () => {
  await using folder = await Folder.make();
  await makePhotos(folder, 6);
  await folder.write("even/.hidden.bmp", "");
  await folder.write("even/notes.txt", "");
  const data = await open(folder.path);
  assertEquals([data.count, ...data.shape], [6, 7, 9, 3]);
  assertEquals(data.labels, undefined);
  const { levels, labels } = await draw(data, 2, 6);
  assertEquals(levels, [30, 50, 70, 40, 60, 80, 30, 50, 70, 40, 60, 80]);
  assertEquals(labels, Array(12).fill(0));
  const out = new Float32Array(7 * 9 * 3);
  await data.read(3, out, 0);
  assertEquals(Math.round(out[0] * 127.5 + 127.5), 40);
});

Deno.test("with --classes folders, an image's class is the folder it is in", async () => {
  await using folder = await Folder.make();
  await makePhotos(folder, 4);
  const data = await open(folder.path, { classes: "folders" });
  assertEquals(data.classes, ["even", "odd"]);
  assertEquals((await draw(data, 1, 4)).labels, [0, 0, 1, 1]);
  await folder.write("stray.bmp", makeBmp(9, 7, [0, 0, 0]));
  await assertRejects(
    () => open(folder.path, { classes: "folders" }),
    InputError,
    "stray.bmp is in no folder of a class",
  );
});

Deno.test("links to folders are followed, but not round in circles, and broken ones are named", async () => {
  await using folder = await Folder.make();
  await using photos = await Folder.make();
  await makePhotos(photos, 4);
  await Deno.symlink(photos.at("odd"), folder.at("uneven"));
  await Deno.symlink(photos.at("even"), folder.at("even"));
  await Deno.mkdir(folder.at("more/inner"), { recursive: true });
  await folder.write("more/9.bmp", makeBmp(9, 7, [1, 2, 200]));
  await Deno.symlink("../../uneven/001.bmp", folder.at("more/inner/1.bmp"));
  await Deno.symlink("..", folder.at("more/inner/up"));
  await Deno.symlink(folder.path, folder.at("more/all"));
  await Deno.symlink("inner", folder.at("more/again"));
  await Deno.symlink(folder.at("nowhere"), folder.at("gone"));
  // By way of another folder back to where it started.
  await Deno.symlink(folder.path, photos.at("odd/back"));
  const quiet = new Quiet(), data = await open(folder.path, { classes: "folders" }, {}, quiet);
  assertEquals(data.classes, ["even", "more", "uneven"]);
  assertEquals(Array.from(data.labels!), [0, 0, 1, 1, 1, 2, 2]);
  assertEquals(
    quiet.said.sort(),
    [
      "left out   gone: it is a link to what is not there",
      ...["all", "again/up", "inner/up"].sort().map((name) =>
        `left out   more/${name}: it is a link to a folder that it is in`
      ),
      "left out   uneven/back: it is a link to a folder that it is in",
    ].sort(),
  );
  await draw(data, 1, 7);
});

Deno.test("names on a disk that are not UTF-8 are named, for Deno opens none of them", async () => {
  if (Deno.build.os !== "linux") return;
  await using folder = await Folder.make();
  await folder.write("good.bmp", makeBmp(9, 7, [1, 2, 200]));
  const script = `mkdir "$(printf 'caf\\351')" && cp good.bmp "$(printf 'caf\\351')/1.bmp" &&
    cp good.bmp "$(printf 'na\\357f.bmp')" && cp good.bmp "$(printf 'caf\\357\\277\\275.bmp')" &&
    ln -s "$(printf 'caf\\351')" link && ln -s / root`;
  const shell = new Deno.Command("sh", { args: ["-c", script], cwd: folder.path });
  assertEquals((await shell.output()).code, 0);
  const quiet = new Quiet(), data = await open(folder.path, {}, {}, quiet);
  assertEquals(data.count, 2, "a name that has the character U+FFFD is as good as any");
  const why = "its name is not UTF-8, and Deno opens no others; rename it, by convmv or mv";
  assertEquals(quiet.said.sort(), [
    ...["caf\ufffd", "link", "na\ufffdf.bmp"].map((name) => `left out   ${name}: ${why}`),
    "left out   root: it is a link to a folder that it is in",
  ]);
  await assertRejects(() => open(folder.at("caf\ufffd")), InputError, why);
});

Deno.test("links in archives are followed, and those that lead nowhere are named", async () => {
  await using folder = await Folder.make();
  const files = [
    { name: "a/1.bmp", data: makeBmp(2, 2, [1, 2, 200]) },
    { name: "b/2.bmp", kind: "2", target: "../a/1.bmp" },
    { name: "c", kind: "2", target: "a" },
    { name: "d/3.bmp", kind: "2", target: "/photos/3.bmp" },
  ];
  const hard = { name: "e/4.bmp", kind: "1", target: "a/1.bmp" };
  await folder.write("x.zip", makeZip(files));
  await folder.write("x.tar", makeTar([...files, hard]));
  const lost = "left out   d/3.bmp: it is a link to /photos/3.bmp, which is not there";
  for (const [name, classes] of [["x.zip", "abc"], ["x.tar", "abce"]]) {
    const quiet = new Quiet();
    const data = await open(folder.at(name), { classes: "folders" }, {}, quiet);
    assertEquals(data.classes?.join(""), classes);
    assertEquals(quiet.said, [lost]);
    await draw(data, 1, data.count);
  }
  await folder.write("none.tar", makeTar(files.slice(3)));
  await assertRejects(
    () => open(folder.at("none.tar")),
    InputError,
    "it holds no images, files that end in .png, .jpg, .gif, .webp or .bmp; left out is d/3.bmp",
  );
});

Deno.test("a gzipped archive or IDX file may have several members", async () => {
  await using folder = await Folder.make();
  const halve = async (bytes: Uint8Array<ArrayBuffer>) =>
    join(await gzip(bytes.slice(0, 400)), await gzip(bytes.slice(400)), new Uint8Array(100));
  await folder.write("x.tar.gz", await halve(makeTar({ "1.bmp": makeBmp(2, 2, [1, 2, 3]) })));
  await folder.write("train-images-idx3-ubyte.gz", await halve(imagesFile()));
  for (const [name, count] of [["x.tar.gz", 1], ["train-images-idx3-ubyte.gz", 12]] as const) {
    assertEquals((await open(folder.at(name))).count, count);
  }
});

Deno.test("archives hold what folders hold", async () => {
  await using folder = await Folder.make();
  for (const name of ["images.zip", "wide.zip", "ustar.tar", "pax.tar.gz"]) {
    await folder.write(name, await pictureFile(name));
    const data = await open(folder.at(name), { size: 8 });
    assertEquals([data.count, data.shape[2]], [name.startsWith("pax") ? 4 : 3, 3], name);
    const { levels } = await draw(data, 2, data.count);
    assertEquals(levels.slice(0, data.count), levels.slice(data.count));
  }
  const classes = { size: 8, classes: "folders" };
  assertEquals((await open(folder.at("images.zip"), classes)).classes, ["cats", "dogs"]);
  const inner = makeTar({
    "set/a/1.bmp": makeBmp(2, 2, [1, 2, 3]),
    "set/b/2.bmp": makeBmp(2, 2, [4, 5, 6]),
  });
  await folder.write("inner.tar", inner);
  assertEquals((await open(folder.at("inner.tar"), { classes: "folders" })).classes, ["a", "b"]);
});

Deno.test("batches are the same whatever the number of workers, from wherever one goes on", async () => {
  await using folder = await Folder.make();
  await makePhotos(folder, 12);
  await folder.write("odd/013.png", await pictureFile("rgba.png"));
  await folder.write("odd/014.jpg", await pictureFile("turned.jpg"));
  const images = { size: [6, 8], flip: true, shift: 2, crop: "random" };
  const all = async (workers: number, cache: boolean, from = 0, seed = 4) => {
    const data = await open(folder.path, images, { workers, cache });
    using batches = openBatches(data, { size: 5, seed, imageAt: (p) => (p * 3) % data.count });
    const parts: number[] = [];
    for (let place = from; place < 60; place += 5) {
      parts.push(...(await batches.at(place)).images);
    }
    return parts;
  };
  const one = await all(1, false);
  assertEquals(await all(3, false), one);
  assertEquals(await all(2, true), one);
  assertEquals(await all(2, false, 35), one.slice(35 * 6 * 8 * 3));
  assert((await all(1, false, 0, 5)).some((x, i) => x !== one[i]), "another seed varies otherwise");
});

Deno.test("going on elsewhere drops what was prepared", async () => {
  await using folder = await Folder.make();
  await makePhotos(folder, 9);
  const data = await open(folder.path, {}, { workers: 2 });
  const plan = { size: 3, seed: 0, imageAt: (place: number) => place % 9 };
  using batches = openBatches(data, plan);
  const level = async (place: number) => (await batches.at(place)).images[0];
  const [first, third] = [await level(0), await level(6)];
  assert(first !== third);
  assertEquals([await level(90), await level(0), await level(6)], [first, first, third]);
});

Deno.test("sizes and channels are what images have, if they agree", async () => {
  await using folder = await Folder.make();
  await folder.write("a.png", await pictureFile("grey.png"));
  const grey = await open(folder.path);
  assertEquals(grey.shape, [9, 13, 1]);
  assertEquals((await open(folder.path, { channels: 3 })).shape[2], 3);
  await folder.write("b.png", await pictureFile("rgb.png"));
  assertEquals((await open(folder.path)).shape[2], 3);
  await folder.write("c.bmp", makeBmp(2, 3, [1, 2, 3]));
  await assertRejects(
    () => open(folder.path),
    InputError,
    "its images are of different sizes; give --size, 64 for instance",
  );
  assertEquals((await open(folder.path, { size: 4 })).shape[1], 4);
  await Deno.remove(folder.at("a.png"));
  await Deno.remove(folder.at("b.png"));
  await folder.write("c.bmp", makeBmp(300, 10, [1, 2, 3]));
  await assertRejects(() => open(folder.path), InputError, "its images are 300x10; give --size");
});

Deno.test("bad files are named once, and others take their places, the same ones every time", async () => {
  await using folder = await Folder.make();
  await makePhotos(folder, 20);
  const good = await draw(await open(folder.path), 4);
  await folder.write("even/004.bmp", "no image");
  await folder.write("odd/009.bmp", new Uint8Array());
  const quiet = new Quiet(), options = { maxBad: "10%", workers: 3 };
  const data = await open(folder.path, {}, options, quiet);
  const first = await draw(data, 8);
  assertEquals(quiet.said.map((text) => text.replace(/ \(\d of at most 2\)$/, "")).sort(), [
    "left out   Cannot read even/004.bmp: it is no PNG, JPEG, GIF, WebP or BMP",
    "left out   Cannot read odd/009.bmp: it is empty",
  ]);
  assertEquals(await draw(data, 8), first);
  assertEquals(await draw(await open(folder.path, {}, { ...options, workers: 1 }), 8), first);
  // The third even and the fifth odd image are bad: those after them come twice.
  const expected = good.levels.map((_, i) => good.levels[[2, 14].includes(i) ? i + 1 : i]);
  assertEquals(first.levels.slice(0, 20), expected);

  const strict = await open(folder.path, {}, { maxBad: "1" });
  const { message } = await assertRejects(() => draw(strict, 8), InputError);
  assertMatch(message, /2 of 20 images are bad, but --max-bad is 1; the last one: Cannot read /);
  await assertRejects(() => open(folder.path, {}, { maxBad: "many" }), InputError, "like 1% or 20");
});

Deno.test("a set of nothing but bad files is an error, not a search without end", async () => {
  await using folder = await Folder.make();
  for (const name of ["a.png", "b.jpg"]) await folder.write(name, "no image");
  const why = "it is no PNG, JPEG, GIF, WebP or BMP";
  await assertRejects(() => open(folder.path, { size: 8 }, { maxBad: "100%" }), InputError, why);
  await folder.write("c.png", await pictureFile("rgb.png"));
  const data = await open(folder.path, {}, { maxBad: "100%" });
  await folder.write("c.png", "no more");
  await assertRejects(() => draw(data, 1), InputError, why);
});

Deno.test("files and folders are told apart by what is in them", async () => {
  await using folder = await Folder.make();
  const record = new Uint8Array(3073), side = 8;
  const cifar = Object.fromEntries([1, 2, 3, 4, 5].map((i) => [`data_batch_${i}.bin`, record]));
  await folder.write(
    "c.tar.gz",
    await gzip(makeTar(
      Object.fromEntries(Object.entries(cifar).map(([k, v]) => [`cifar-10-batches-bin/${k}`, v])),
    )),
  );
  await Deno.mkdir(folder.at("c/cifar-10-batches-bin"), { recursive: true });
  for (const [name, data] of Object.entries(cifar)) {
    await folder.write(`c/cifar-10-batches-bin/${name}`, data);
  }
  await folder.write("h.tar", makeTar({ "cifar-100-binary/train.bin": new Uint8Array(3074) }));
  await folder.write("emnist-letters-train-images-idx3-ubyte.gz", await gzip(imagesFile()));
  await folder.write("emnist-letters-train-labels-idx1-ubyte.gz", await gzip(labelsFile()));
  for (const name of ["hwc.npy", "chw.npz"]) await folder.write(name, await pictureFile(name));
  const cases: [string, number, number, boolean][] = [
    ["c.tar.gz", 5, 32, true],
    ["c", 5, 32, true],
    ["c/cifar-10-batches-bin", 5, 32, true],
    ["h.tar", 1, 32, true],
    ["emnist-letters-train-images-idx3-ubyte.gz", 12, side, true],
    [".", 12, side, true],
    ["hwc.npy", 5, 4, false],
    ["chw.npz", 5, 4, true],
  ];
  for (const [name, count, height, hasLabels] of cases) {
    const data = await open(folder.at(name));
    assertEquals([data.count, data.shape[0], !!data.labels], [count, height, hasLabels], name);
    await draw(data, 1, 3);
  }
  await folder.write(
    "emnist-digits-train-images-idx3-ubyte",
    encodeIdx([1, 2, 2], new Uint8Array(4)),
  );
  await folder.write("one.png", await pictureFile("rgb.png"));
  await folder.write("text.txt", "hello");
  await folder.write("text.gz", await gzip(new TextEncoder().encode("hello")));
  const refusals: [string, string][] = [
    [".", "it holds several sets; give one of its files: emnist-digits"],
    ["one.png", "it is a single image; give the folder that holds the images"],
    ["text.txt", "it is no IDX, zip, tar, npy, npz or safetensors file"],
    ["text.gz", "it holds neither a tar archive nor IDX data"],
    ["nothing", "there is no such file or folder"],
  ];
  for (const [name, why] of refusals) {
    await assertRejects(() => open(folder.at(name)), InputError, why);
  }
});

Deno.test("archives of arrays may hold other files, archives of images other arrays", async () => {
  await using folder = await Folder.make();
  const array = makeNpy("|u1", [3, 4, 4], new Uint8Array(48).fill(200));
  const readme = new TextEncoder().encode("Hello"), image = makeBmp(9, 7, [1, 2, 200]);
  await folder.write("a.npz", makeZip({ "images.npy": array, "README.md": readme }));
  await folder.write("b.npz", makeZip({ "images.npy": array, "preview.bmp": image }));
  await folder.write("c.zip", makeZip({ "images.npy": array, "README.md": readme }));
  await folder.write("d.zip", makeZip({ "features.npy": array, "1.bmp": image }));
  for (const [name, count, width] of [["a.npz", 3, 4], ["b.npz", 3, 4], ["c.zip", 3, 4]] as const) {
    const data = await open(folder.at(name));
    assertEquals([data.count, data.shape[1]], [count, width], name);
  }
  const data = await open(folder.at("d.zip"));
  assertEquals([data.count, data.shape[1]], [1, 9]);
});

/** Two pictures of one color each, the second one's brighter than ASCII. */
const twoPictures = Uint8Array.from(
  { length: 2 * 3072 },
  (_, i) => 10 * (1 + Math.floor(i / 1024)) + (i < 3072 ? 0 : 150),
);

Deno.test("CIFAR is read in the version for Python too, from folders and archives", async () => {
  await using folder = await Folder.make();
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  for (const k of [1, 2, 3, 4, 5]) {
    const lists = { labels: [k, 0], filenames: ["a.png", "b.png"] };
    files[`cifar-10-batches-py/data_batch_${k}`] = makeBatch(twoPictures, lists);
  }
  const names = Array.from({ length: 100 }, (_, i) => `class ${i}`);
  files["cifar-10-batches-py/batches.meta"] = makeBatch(new Uint8Array(), {
    label_names: names.slice(0, 10),
  });
  const hundred = {
    "cifar-100-python/meta": makeBatch(new Uint8Array(), { fine_label_names: names }),
    "cifar-100-python/train": makeBatch(twoPictures, {
      ...{ coarse_labels: [3, 4], fine_labels: [99, 7], filenames: ["a", "b"] },
    }),
  };
  await folder.write("ten.tar.gz", await gzip(makeTar(files)));
  await folder.write("hundred.zip", makeZip(hundred));
  for (const [name, bytes] of Object.entries({ ...files, ...hundred })) {
    await Deno.mkdir(folder.at(name.split("/")[0]), { recursive: true });
    await folder.write(name, bytes);
  }
  for (const name of ["ten.tar.gz", "cifar-10-batches-py", "."]) {
    const data = await open(folder.at(name)), out = new Float32Array(3072);
    assertEquals([data.count, ...data.shape], [10, 32, 32, 3], name);
    assertEquals(Array.from(data.labels!), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    assertEquals(data.classes, names.slice(0, 10));
    await data.read(3, out, 0);
    assertEquals(Array.from(out.subarray(0, 3), (x) => Math.round((x + 1) * 127.5)), [
      190,
      200,
      210,
    ]);
  }
  for (const name of ["hundred.zip", "cifar-100-python"]) {
    const data = await open(folder.at(name));
    assertEquals([data.count, Array.from(data.labels!)], [2, [99, 7]], name);
    assertEquals(data.classes, names);
  }
});

Deno.test("what is wrong with pickles of CIFAR is told, and that of other pickles", async () => {
  await using folder = await Folder.make();
  const good = makeBatch(twoPictures, { labels: [1, 2] });
  const cut = good.slice(0, -1),
    ten = (changed: Uint8Array<ArrayBuffer>) => {
      const names = [1, 2, 3, 4, 5].map((i) => `cifar-10-batches-py/data_batch_${i}`);
      const files = Object.fromEntries(names.map((name) => [name, good]));
      return makeZip({
        ...files,
        "cifar-10-batches-py/batches.meta": good,
        "cifar-10-batches-py/data_batch_3": changed,
      });
    };
  const ascii = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  await folder.write("cut.zip", ten(cut));
  await folder.write("evil.zip", ten(ascii("cos\nsystem\n(S'ls'\ntR.")));
  await folder.write("list.zip", ten(ascii("].")));
  await folder.write("empty.zip", ten(ascii("}.")));
  await folder.write("labels.zip", ten(makeBatch(twoPictures, { labels: [1] })));
  await folder.write("odd.zip", ten(makeBatch(twoPictures, { labels: [1, "x"] })));
  await folder.write("other.zip", ten(makeBatch(twoPictures, { labels: [1, 10] })));
  await folder.write("net.tar", makeTar({ "imagenet32/train_data_batch_1": good }));
  await Deno.mkdir(folder.at("part"));
  await folder.write("part/data_batch_1", good);
  await folder.write("x.pkl", good);
  const cases: [string, string][] = [
    ["cut.zip", "Cannot read data_batch_3 as a pickle: it ends too early"],
    ["evil.zip", "it calls os.system, which is not run"],
    ["list.zip", "Cannot use data_batch_3: it holds no dictionary"],
    ["empty.zip", "Cannot use data_batch_3: it has no data of 32x32x3 bytes an image"],
    ["labels.zip", "Cannot use data_batch_3: it has no labels for 2 images"],
    ["odd.zip", "Cannot use data_batch_3: image 1 has the label x"],
    ["other.zip", "Cannot use cifar10: image 5 has the label 10"],
    ["net.tar", "imagenet32/train_data_batch_1 is pickled; of pickles only all of CIFAR-10"],
    ["part", "part/data_batch_1 is pickled; of pickles only all of CIFAR-10"],
    ["part/data_batch_1", "part/data_batch_1 is pickled"],
    [
      "x.pkl",
      "it is pickled, which only weights and CIFAR may be; save its arrays with numpy.savez",
    ],
  ];
  for (const [name, why] of cases) {
    await assertRejects(() => open(folder.at(name)), InputError, why);
  }
});

Deno.test("a set that is nearly black is told of, and what to do if it is masks", async () => {
  await using folder = await Folder.make();
  const masks = Uint8Array.from({ length: 48 }, (_, i) => i % 2);
  await folder.write("masks.npy", makeNpy("|u1", [3, 4, 4], masks));
  await folder.write("bool.npy", makeNpy("|b1", [3, 4, 4], masks));
  await folder.write("classes.npy", makeNpy("|u1", [3, 4, 4], masks.map((x) => 20 * x)));
  await folder.write("black.npy", makeNpy("|u1", [3, 4, 4], new Uint8Array(48)));
  await folder.write("last.npy", makeNpy("|u1", [3, 4, 4], new Uint8Array(48).with(47, 99)));
  await Deno.mkdir(folder.at("files"));
  for (let i = 0; i < 3; i++) await folder.write(`files/${i}.bmp`, makeBmp(9, 7, [1, 1, 0]));
  await Deno.mkdir(folder.at("glyphs"));
  await folder.write("glyphs/a.png", await pictureFile("rgba.png"));
  const told = async (name: string) => {
    const quiet = new Quiet();
    await open(folder.at(name), {}, {}, quiet);
    return quiet.said;
  };
  const notice = (text: string) => [`notice      the images are nearly black: no level is ${text}`];
  assertEquals(
    await told("masks.npy"),
    notice("above 1 of 255; if they are masks, multiply them by 255"),
  );
  assertEquals(
    await told("files"),
    notice("above 1 of 255; if they are masks, multiply them by 255"),
  );
  assertEquals(
    await told("classes.npy"),
    notice("above 20 of 255; if they are masks, multiply them by 12"),
  );
  assertEquals(await told("black.npy"), notice("above 0 of 255"));
  for (const name of ["bool.npy", "last.npy", "glyphs"]) assertEquals(await told(name), [], name);
});

Deno.test("labels that are no classes are no hindrance until classes are asked for", async () => {
  await using folder = await Folder.make();
  const images = makeNpy("|u1", [3, 8, 8], new Uint8Array(192).fill(200));
  const scores = makeNpy("<f8", [3], new Float64Array([0.5, 1, 2]));
  await folder.write("x.npz", makeZip({ "images.npy": images, "scores.npy": scores }));
  await folder.write("tiny.json", { unet: tinyUNet, scheduler: { num_train_timesteps: 10 } });
  const sizes = { sample_size: 8, in_channels: 1, out_channels: 1, num_class_embeds: 3 };
  await folder.write("classes.json", { unet: { ...tinyUNet, ...sizes } });
  const train = (config: string, ...more: string[]) => [
    ...["train", "--config", config, "--out", "run", "--steps", "1", "--batch-size", "2"],
    ...["--data", "x.npz", "--device", "cpu", ...more],
  ];
  await folder.refuse(
    train("tiny.json", "--label-dropout", "0.1"),
    /--label-dropout needs classes, but x.npz has no labels: its scores have the number 0.5/,
  );
  await folder.refuse(
    train("classes.json"),
    /the network has classes, but x.npz has no labels: its scores have the number 0.5/,
  );
  await folder.succeed(...train("tiny.json"));
});

Deno.test("an array becomes what the options say", async () => {
  await using folder = await Folder.make();
  await folder.write("hwc.npy", await pictureFile("hwc.npy"));
  const data = await open(folder.at("hwc.npy"), { size: [8, 8], channels: 1, flip: true });
  assertEquals([...data.shape, data.count], [8, 8, 1, 5]);
  await draw(data, 2);
});

Deno.test("training on photos is resumed exactly, with workers, flips and bad files", async () => {
  await using folder = await Folder.make();
  await using photos = await Folder.make();
  await makePhotos(photos, 12);
  await photos.write("odd/012.bmp", "no image");
  await folder.write("tiny.json", { unet: tinyUNet, scheduler: { num_train_timesteps: 10 } });
  const train = (out: string, steps: number, ...more: string[]) => [
    ...["train", "--config", "tiny.json", "--out", out, "--steps", `${steps}`, "--batch-size", "3"],
    ...["--data", photos.path, "--device", "cpu", "--log-every", "3", "--max-bad", "1", ...more],
  ];
  const images = ["--size", "8", "--flip", "--shift", "1"];
  const arrays = async (run: string) => {
    const file = await Deno.readFile(folder.at(`${run}/state.safetensors`));
    return [...readSafetensors(file, run).tensors].map(([name, { bytes }]) => [name, bytes]);
  };
  const { code, stderr } = await folder.run(...train("a", 9, ...images));
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^data .*: 13 images of 8x8x3$/m);
  assertMatch(stderr, /^left out +Cannot read odd\/012\.bmp: it is no PNG.* \(1 of at most 1\)$/m);
  await folder.succeed(...train("b", 4, ...images));
  await folder.succeed(...train("b", 9, "--resume", "--cache"));
  assertEquals(await arrays("b"), await arrays("a"));
  await folder.refuse(
    train("b", 12, "--resume", "--shift", "2"),
    /Cannot resume: shift is 1 in b and 2 in this command/,
  );
  // Until it is found again, a bad file is no error; with none allowed it is.
  const strict = await folder.run(...train("c", 9, ...images, "--max-bad", "0"));
  assertEquals(strict.code, 2);
  assertMatch(strict.stderr, /error: .*1 of 13 images are bad, but --max-bad is 0; the last one: /);
});

Deno.test("a training that finds too many bad files keeps what it learnt until then", async () => {
  await using folder = await makeFolder();
  await makePhotos(folder, 60, "photos");
  await folder.write("photos/odd/029.bmp", "no image");
  const photos = (out: string, steps: number, ...more: string[]) => [
    ...train(out, steps, "--data", "photos", "--size", "8", "--batch-size", "2", ...more),
    ...["--device", "cpu", "--micro-batch", "1", "--save-every", "1000"],
  ];
  const { code, stderr } = await folder.run(...photos("a", 30, "--max-bad", "0"));
  assertEquals(code, 2, stderr);
  assertMatch(stderr, /\nerror: .*1 of 60 images are bad, but --max-bad is 0; the last one: .*\n$/);
  const { step } = await readState(folder, "a");
  assertStringIncludes(stderr, `saved after step ${step}; --resume continues\n`);
  assert(step > 0 && step < 30, `it ended after step ${step}`);

  await folder.succeed(...photos("a", 30, "--max-bad", "1", "--resume"));
  await folder.succeed(...photos("b", 30, "--max-bad", "1"));
  assertEquals(await readState(folder, "a"), await readState(folder, "b"));
  assertEquals(await readLog(folder, "a"), await readLog(folder, "b"));
});

Deno.test("a bad file among those that are held out costs no step either", async () => {
  await using folder = await makeFolder();
  await makePhotos(folder, 20, "photos");
  const split = trainValidationSplit(20, parseTraining({ held_out: 0.1 }));
  // Those with even numbers come first.
  const [bad] = split.heldOut, number = bad < 10 ? 2 * bad : 2 * bad - 19;
  const name = `photos/${number % 2 ? "odd" : "even"}/${String(number).padStart(3, "0")}.bmp`;
  await Deno.stat(folder.at(name));
  await folder.write(name, "no image");
  const flags = ["--data", "photos", "--size", "8", "--held-out", "0.1", "--max-bad", "0"];
  const { code, stderr } = await folder.run(...train("a", 9, ...flags, "--device", "cpu"));
  assertEquals(code, 2, stderr);
  assertMatch(stderr, /\nsaved after step 4; --resume continues\nerror: .*1 of 20 images are bad/);
  assertEquals((await readState(folder, "a")).step, 4);
});

Deno.test("what a training is to make of images is checked before they are read", async () => {
  await using folder = await Folder.make();
  await folder.write("rgb.png", await pictureFile("rgb.png"));
  const train = (...more: string[]) => [
    ...["train", "--data", ".", "--out", "run", "--device", "cpu", ...more],
  ];
  const cases: [string[], RegExp][] = [
    [["--size", "0"], /--size must be like 64 or 64x48, sides from 1 to 4096, not 0/],
    [["--size", "64 x 48"], /--size must be like 64/],
    [["--size", "9999"], /--size must be like 64/],
    [["--channels", "2"], /--channels must be 1 for grey or 3 for color, not 2/],
    [["--background", "blue"], /--background must be a color like #ffffff, not blue/],
    [["--crop", "middle"], /--crop must be one of center, random/],
    [["--max-bad", "-1"], /--max-bad must be like 1% or 20, not -1/],
    [["--max-bad", "200%"], /--max-bad must be like/],
    [["--size", "10"], /Images of 10x10 do not fit .*: sides must be multiples of 4, 12x12/],
  ];
  for (const [flags, message] of cases) await folder.refuse(train(...flags), message);
});

Deno.test("workers end with a training that is interrupted, or fails", async () => {
  await using folder = await Folder.make();
  await using photos = await Folder.make();
  await makePhotos(photos, 12);
  await folder.write("tiny.json", { unet: tinyUNet, scheduler: { num_train_timesteps: 10 } });
  const train = (out: string) => [
    ...["train", "--config", "tiny.json", "--out", out, "--steps", "100000", "--size", "8"],
    ...["--data", photos.path, "--device", "cpu", "--batch-size", "3", "--log-every", "2"],
  ];
  const child = folder.start(...train("a")), decoder = new TextDecoder();
  let told = "", isDone = false;
  for await (const chunk of child.stderr) {
    told += decoder.decode(chunk, { stream: true });
    if (!isDone && told.includes("step 4 of")) child.kill("SIGINT"), isDone = true;
  }
  await child.stdout.cancel();
  assertEquals((await child.status).code, 130, told);

  // A file that is damaged while the training goes on is one bad file too many.
  const other = folder.start(...train("b"));
  told = "", isDone = false;
  for await (const chunk of other.stderr) {
    told += decoder.decode(chunk, { stream: true });
    if (isDone || !told.includes("step 4 of")) continue;
    await photos.write("odd/005.bmp", "no image");
    isDone = true;
  }
  await other.stdout.cancel();
  assertEquals((await other.status).code, 2, told);
  assertMatch(told, /^saved after step (?!0;)\d+; --resume continues\nerror: /m);
  assertMatch(
    told,
    /error: .*1 of 12 images are bad, but --max-bad is 1%; the last one: .*005\.bmp/,
  );
});
