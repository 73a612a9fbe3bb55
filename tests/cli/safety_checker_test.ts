import { assert, assertEquals, assertMatch } from "@std/assert";
import { decode, type Image } from "imagescript";
import { makeGraph } from "../../src/gpu/graph.ts";
import { input } from "../../src/gpu/tensor.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { flatten, viewParameters } from "../../src/model/parameters.ts";
import { makePicture } from "../../src/sample/pixels.ts";
import { prepareForClip } from "../../src/sample/safety_check.ts";
import type { SafetyChecker } from "../../src/model/text_to_image.ts";
import { TextToImage } from "../../src/sample/text_to_image.ts";
import { loadTextToImage } from "../../src/cli/run/text_to_image.ts";
import { readChecker, withParameters } from "../safety_checker.ts";
import { tinyTextToImage, writePipeline } from "../text_to_image.ts";
import { Folder } from "./cli.ts";
import { Served } from "./served.ts";

const base = { channels: 4, vocabulary: 49408 } as const;
const generate = { prompts: ["a red heart"], seed: 3, count: 3 };
const args = [
  "sample",
  "--device",
  "cpu",
  "--steps",
  "2",
  "--prompt",
  "a red heart",
  "--seed",
  "3",
];

/**
 * A checker that finds its concept 4 in image 1 of these: its vector is what it sees there, and its
 * threshold, 0.9999 or lower, is above what it sees in the others.
 */
async function checkerOf(withholdsAll = false): Promise<SafetyChecker> {
  const plain = await readChecker();
  const quiet = withParameters(
    plain,
    (name, values) => /_weights$/.test(name) ? values.fill(withholdsAll ? -2 : 2) : values,
  );
  if (withholdsAll) return quiet;
  const seen = await embeddings(quiet);
  const cosine = (a: Float32Array, b: Float32Array) => {
    const dot = (x: Float32Array, y: Float32Array) =>
      x.reduce((sum, value, i) => sum + value * y[i], 0);
    return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  };
  const next = Math.max(cosine(seen[0], seen[1]), cosine(seen[2], seen[1]));
  assert(next < 0.998, `the images look alike: ${next}`);
  return withParameters(quiet, (name, values) => {
    if (name === "concept_embeds_weights") values[4] = (1 + next) / 2;
    if (name === "concept_embeds") values.set(seen[1], 4 * seen[1].length);
    return values;
  });
}

/** What the checker sees in the images. */
async function embeddings(checker: SafetyChecker): Promise<Float32Array[]> {
  using device = await WasmDevice.open();
  const painter = await TextToImage.create(device, tinyTextToImage(base), { steps: 2 });
  const { images } = await painter.generate(generate), { layout, forward } = checker.network;
  const parameter = viewParameters(layout, [input("parameters", [layout.size])]);
  const { embeddings } = forward({ parameter }, input("picture", [1, 18, 18, 3]));
  using program = await device.compile(makeGraph({ embeddings }));
  program.buffers.parameters.write(flatten(layout, checker.parameters));
  const seen: Float32Array[] = [];
  for (let i = 0; i < images.count; i++) {
    const { width, height, rgba } = makePicture(images, i);
    const raster = { width, height, channels: 4, data: new Uint8Array(rgba.buffer) };
    program.buffers.picture.write(prepareForClip(raster, checker.processor));
    program.run();
    seen.push(Float32Array.from(await program.buffers.embeddings.read()));
  }
  return seen;
}

async function makeFolder(withholdsAll = false): Promise<Folder> {
  const folder = await Folder.make();
  const safetyChecker = await checkerOf(withholdsAll);
  await writePipeline(folder, "sd", { ...tinyTextToImage(base), safetyChecker });
  return folder;
}

const why = "withheld by the model's safety checker: it sees concept 4";
const bitmapOf = async (png: Uint8Array) => (await decode(png) as Image).bitmap;

Deno.test("what the safety checker of a pipeline withholds is told, and is in no file", async () => {
  await using folder = await makeFolder();
  await folder.succeed(
    ...args,
    "--model",
    "sd",
    "--count",
    "3",
    "--no-safety-checker",
    "--out",
    "all/",
  );
  await Deno.mkdir(folder.at("out"));
  // What an earlier run left is not to be taken for an image of this one.
  await Deno.copyFile(folder.at("all/0001.png"), folder.at("out/0001.png"));
  const run = (...more: string[]) => folder.run(...args, "--model", "sd", ...more);
  const { code, stdout, stderr } = await run("--count", "3", "--out", "out/");
  assertEquals(code, 3, stderr);
  assert(stderr.includes(`image 1 of seed 3 is ${why}\n`), stderr);
  assertMatch(stdout, /^out\/ \(2 files\): 2 of 3 images in/);
  assertEquals([...Deno.readDirSync(folder.at("out"))].map(({ name }) => name).sort(), [
    "0000.png",
    "0002.png",
  ]);
  for (const name of ["0000.png", "0002.png"]) {
    const [one, other] = ["out", "all"].map((at) => Deno.readFileSync(folder.at(`${at}/${name}`)));
    assertEquals(await bitmapOf(one), await bitmapOf(other));
  }

  assertEquals((await run("--count", "3", "--out", "x.safetensors")).code, 3);
  const { tensors, metadata } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
  const values = toFloat32(tensors.get("images")!), each = values.length / 3;
  assertEquals(metadata.withheld, "1");
  assertEquals(
    [0, 1, 2].map((i) => values.subarray(i * each, (i + 1) * each).every((x) => x === 0)),
    [false, true, false],
  );
  // In a grid a square is grey, and in an animation all that led to it.
  for (const name of ["x.png", "x.apng"]) {
    assertEquals((await run("--count", "3", "--out", name)).code, 3);
    const { width, bitmap } = await decode(await Deno.readFile(folder.at(name))) as Image;
    const pixels = new Set<number>();
    for (let y = 10; y < 100; y++) {
      for (let x = width / 2 + 20; x < width - 20; x++) pixels.add(bitmap[4 * (y * width + x)]);
    }
    assertEquals([...pixels], [128], name);
  }

  await folder.refuse(
    [...args, "--model", "sd", "--preview", "--count", "3"],
    /--preview/,
  );
  assertMatch(
    await folder.succeed("info", "sd"),
    /^safety_checker +StableDiffusionSafetyChecker, \d+ parameters, F32$/m,
  );
});

Deno.test("where all is withheld, nothing is written", async () => {
  await using folder = await makeFolder(true);
  const { code, stderr } = await folder.run(...args, "--model", "sd", "--out", "x.png");
  assertEquals(code, 3);
  assertMatch(
    stderr,
    /it sees concepts 0, 1, .*, 16\nnothing is written: all images are withheld\n$/,
  );
  assertEquals([...Deno.readDirSync(folder.at("."))].some(({ name }) => name === "x.png"), false);
});

Deno.test("the library tells of each image what the checker says, and takes no memory for it afterwards", async () => {
  using device = await WasmDevice.open();
  const safetyChecker = await checkerOf(), plain = tinyTextToImage(base);
  const model = { ...plain, safetyChecker };
  const plan = TextToImage.plan(device, model, { steps: 2 });
  assert(plan.check!.bytes > 0 && !("check" in TextToImage.plan(device, plain, { steps: 2 })));
  const painter = await TextToImage.create(device, model, { steps: 2 });
  const stages = new Set<string>();
  const { images, verdicts } = await painter.generate({
    ...generate,
    onProgress: (stage) => void stages.add(stage),
  });
  assertEquals(verdicts, [
    { isWithheld: false, concepts: [], special: [] },
    { isWithheld: true, concepts: [4], special: [] },
    { isWithheld: false, concepts: [], special: [] },
  ]);
  assertEquals([...stages].at(-1), "check");
  const each = images.data.length / 3;
  assert(images.data.subarray(each, 2 * each).every((x) => x === 0));
  assert(images.data.subarray(0, each).some((x) => x !== 0));
  const free = await TextToImage.create(device, plain, { steps: 2 });
  assertEquals((await free.generate(generate)).verdicts, undefined);
});

Deno.test("parts of a safety checker that are missing are named", async () => {
  await using folder = await makeFolder();
  const refuse = (message: RegExp) => folder.refuse([...args, "--model", "sd"], message);
  const hint = "; sample --no-safety-checker does without";
  const path = folder.at("sd/feature_extractor/preprocessor_config.json");
  const settings = await Deno.readTextFile(path);
  await Deno.remove(path);
  await refuse(new RegExp(`there is no preprocessor_config.json in its feature_extractor${hint}`));
  await Deno.writeTextFile(path, JSON.stringify({ ...JSON.parse(settings), resample: 0 }));
  await refuse(new RegExp(`resample: .*${hint}`));
  await Deno.writeTextFile(path, JSON.stringify({ size: 224 }));
  await refuse(new RegExp(`sees pictures of 18x18, but .* makes them 224x224${hint}`));
  await Deno.writeTextFile(path, settings);
  await Deno.rename(folder.at("sd/safety_checker/model.safetensors"), folder.at("m.safetensors"));
  await refuse(new RegExp(`sd/safety_checker: it holds neither model.safetensors nor .*${hint}`));
  assertEquals(await loadTextToImage(folder.at("sd")).catch(() => "refused"), "refused");
  await folder.succeed(...args, "--model", "sd", "--no-safety-checker", "--out", "x.png");
});

Deno.test("a server sends no pictures that are withheld, nor steps that nothing has looked at", async () => {
  await using folder = await makeFolder();
  // In a thread, which opens the models itself.
  await using served = await Served.start({ places: [folder.at("sd")], isShared: false });
  const id = await served.begin({ prompt: "a red heart", steps: 2, seed: 3, count: 3 });
  const events = await served.follow(id), last = events.at(-1)!;
  assertEquals(last.name, "done", JSON.stringify(last));
  assertEquals<unknown>([last.data.images, last.data.withheld], [3, { 1: why }]);
  assert(events.some(({ name }) => name === "step"));
  assert(events.every(({ data }) => data.preview === undefined));
  const statuses = await Promise.all([0, 1, 2, 3].map(async (k) => {
    const { status, body } = await served.ask(`api/jobs/${id}/images/${k}`);
    if (k === 1) assertMatch(body.detail, /^The picture is withheld by the model/);
    return status;
  }));
  assertEquals(statuses, [200, 403, 200, 404]);
});

Deno.test("front ends of the web UI are told what is withheld, and sent nothing of it", async () => {
  await using folder = await makeFolder(true);
  const request = { prompt: "a red heart", steps: 2, seed: 3, batch_size: 2 };
  for (const isUnchecked of [false, true]) {
    await using served = await Served.start({ places: [folder.at("sd")], isUnchecked });
    const { status, body } = await served.post("sdapi/v1/txt2img", request);
    const { withheld = {}, all_seeds: seeds } = JSON.parse(body.info);
    assertEquals([status, body.images.length], [200, isUnchecked ? 2 : 0]);
    assertEquals([Object.keys(withheld), seeds], isUnchecked ? [[], [3, 4]] : [["0", "1"], []]);
  }
});
