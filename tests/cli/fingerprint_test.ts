import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { join } from "@std/path";
import { parseImages } from "../../src/data/image_options.ts";
import { openTrainingData } from "../../src/cli/data/data.ts";
import type { Fingerprint } from "../../src/cli/data/fingerprint.ts";
import { writeSealed } from "../../src/cli/run/state_file.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { makeBmp, makeTar, pictureFile } from "../pictures.ts";
import { type Folder, imagesFile, labelsFile } from "./cli.ts";
import { IMAGES, LABELS, makeFolder, train } from "./training.ts";

class Quiet extends Progress {
  override say(): void {}
}

async function take(path: string, images: object = {}): Promise<Fingerprint> {
  using progress = new Quiet();
  return (await openTrainingData(path, parseImages(images), progress)).fingerprint;
}

/** Eight pictures of one size in two classes. */
async function writePhotos(folder: Folder, within = "photos"): Promise<void> {
  for (const [k, name] of ["cats", "dogs"].entries()) {
    await Deno.mkdir(folder.at(`${within}/${name}`), { recursive: true });
    for (let i = 0; i < 4; i++) {
      await folder.write(`${within}/${name}/${i}.bmp`, makeBmp(8, 8, [20 * i, 99 * k, 7]));
    }
  }
}

Deno.test("a fingerprint of image files changes with names, sizes and contents", async () => {
  await using folder = await makeFolder();
  await writePhotos(folder);
  await writePhotos(folder, "others");
  const classes = { classes: "folders" }, path = folder.at("photos");
  const first = await take(path, classes);
  assertEquals([first.count, first.classes], [8, ["cats", "dogs"]]);
  assertEquals(await take(folder.at("others"), classes), first);
  const { labels, classes: _, ...rest } = await take(path);
  assertEquals([labels, rest.pictures], [null, first.pictures]);

  const seen = new Set([first.pictures]);
  const changes: [string, () => Promise<void>][] = [
    [
      "a picture of the same size",
      () => folder.write("photos/dogs/2.bmp", makeBmp(8, 8, [1, 2, 3])),
    ],
    ["another name", () => Deno.rename(join(path, "dogs/2.bmp"), join(path, "dogs/9.bmp"))],
    ["another size", () => folder.write("photos/cats/0.bmp", makeBmp(9, 8, [0, 0, 7]))],
    ["no picture at all", () => folder.write("photos/cats/0.bmp", "")],
    ["one less", () => Deno.remove(join(path, "cats/0.bmp"))],
  ];
  for (const [what, change] of changes) {
    await change();
    const { pictures } = await take(path, { size: 8 });
    assert(!seen.has(pictures), what);
    seen.add(pictures);
  }
});

Deno.test("a fingerprint of an archive or an array changes with what is in it", async () => {
  await using folder = await makeFolder();
  const tar = (level: number) =>
    makeTar({ "a/1.bmp": makeBmp(8, 8, [9, 9, 9]), "b/2.bmp": makeBmp(8, 8, [9, level, 9]) });
  await folder.write("x.tar", tar(1));
  const archive = await take(folder.at("x.tar"));
  assertEquals(await take(folder.at("x.tar")), archive);
  await folder.write("x.tar", tar(2));
  assertNotEquals(await take(folder.at("x.tar")), archive);

  const array = await take(folder.at("data"));
  await folder.write(`data/${IMAGES}`, imagesFile().with(16 + 700, 1));
  const other = await take(folder.at("data"));
  assertEquals(other.labels, array.labels);
  assertNotEquals(other.pictures, array.pictures);
  await folder.write(`data/${LABELS}`, labelsFile().with(10, 9));
  assertNotEquals((await take(folder.at("data"))).labels, array.labels);

  for (const name of ["images.zip", "chw.npz", "hwc.npy"]) {
    const bytes = await pictureFile(name);
    await folder.write(name, bytes);
    const found = await take(folder.at(name), { size: 8 });
    assertEquals(await take(folder.at(name), { size: 8 }), found);
  }
});

const cpu = ["--device", "cpu"];

/** The arguments of a training that goes on to a step. */
const goOn = (out: string, steps: number): string[] => [
  ...["train", "--out", out, "--resume", "--steps", `${steps}`, ...cpu],
];

Deno.test("a training that goes on with other pictures says so, once", async () => {
  await using folder = await makeFolder();
  await writePhotos(folder);
  const photos = ["--data", "photos", "--size", "8", ...cpu];
  await folder.succeed(...train("a", 2, ...photos));
  const resume = async (steps: number) => {
    const { code, stderr } = await folder.run(...goOn("a", steps));
    assertEquals(code, 0, stderr);
    return stderr.match(/^note: the pictures of .*$/m)?.[0];
  };
  assertEquals(await resume(3), undefined);
  await folder.write("photos/dogs/2.bmp", makeBmp(8, 8, [1, 2, 3]));
  const note = "note: the pictures of photos are not those that the training was saved with ";
  const end = "; the training continues with them";
  assertEquals(await resume(4), `${note}(names, sizes or contents differ)${end}`);
  assertEquals(await resume(5), undefined);
  await Deno.remove(folder.at("photos/dogs/2.bmp"));
  assertEquals(await resume(6), `${note}(there were 8, there are 7)${end}`);
  // Where no classes are learnt, their folders are names like any other.
  await Deno.rename(folder.at("photos/cats"), folder.at("photos/tigers"));
  assertEquals(await resume(7), `${note}(names, sizes or contents differ)${end}`);
});

Deno.test("a training does not go on with labels that mean something else", async () => {
  await using folder = await makeFolder();
  await writePhotos(folder);
  const photos = ["--data", "photos", "--size", "8", "--classes", "folders", ...cpu];
  await folder.succeed(...train("a", 2, ...photos, "--label-dropout", "0.1"));
  const resume = goOn("a", 4),
    at = (name: string) => folder.at(`photos/${name}`);
  await Deno.rename(at("cats"), at("tigers"));
  await folder.refuse(
    resume,
    /Cannot resume: class 0 of photos is dogs, and was cats when the training was saved; name the classes as they were \(cats, dogs\), or start a new training with another --out/,
  );
  await Deno.rename(at("tigers"), at("bats"));
  await folder.refuse(resume, /class 0 of photos is bats, and was cats/);
  await Deno.rename(at("bats"), at("cats"));
  await folder.succeed(...resume);

  // A class that comes last and is gone leaves the others as they were.
  await Deno.remove(at("dogs"), { recursive: true });
  const { code, stderr } = await folder.run(...goOn("a", 5));
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^note: the pictures of photos .*\(there were 8, there are 4\)/m);

  await folder.succeed(...train("b", 2, ...cpu, "--label-dropout", "0.1"));
  await folder.succeed(...train("c", 2, ...cpu));
  await folder.write(`data/${LABELS}`, labelsFile().with(10, 9));
  await folder.refuse(
    goOn("b", 4),
    /Cannot resume: the pictures of data are those that .*, but they have other labels; give/,
  );
  await folder.succeed(...goOn("c", 4));
});

Deno.test("a training of an earlier version, without a fingerprint, goes on", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 2, ...cpu, "--label-dropout", "0.1"));
  const state = folder.at("a/state.safetensors");
  const { tensors, metadata } = readSafetensors(await Deno.readFile(state));
  const { sha256: _, pictures, ...rest } = metadata;
  assert(pictures.length > 64);
  const buffers = Object.fromEntries([...tensors].map(([name, tensor]) => {
    const values = toFloat32(tensor), { length } = values;
    const read = (from = 0, count = length) => Promise.resolve(values.slice(from, from + count));
    return [name, { length, read }];
  }));
  await folder.write(`data/${LABELS}`, labelsFile().with(10, 9));
  // It told its time as well.
  for (const former of [{ ...rest, seconds: "12.345" }, { ...rest, pictures: "{}" }]) {
    await writeSealed(state, buffers, former);
    const { code, stderr } = await folder.run(...goOn("a", 4));
    assertEquals(code, 0, stderr);
    assertMatch(stderr, /^resuming +after step 2$/m);
    assert(!stderr.includes("note:"), stderr);
  }
});
