import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { decode, GIF, Image } from "imagescript";
import { formatSchedule } from "../../src/diffusion/schedule.ts";
import { formatNetwork } from "../../src/model/network.ts";
import { nameTensors } from "../../src/model/tensors.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.ts";
import { assertClose } from "../close.ts";
import { Folder, tinyModel, tinyModelFile } from "./cli.ts";
import manifest from "../../deno.json" with { type: "json" };

const sample = ["sample", "--model", "m.safetensors", "--device", "cpu", "--steps", "2"];
const software = `@x/ddpm ${manifest.version}`;

async function makeFolder(channels = 1): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile(channels));
  return folder;
}

/** The text chunks of a PNG. */
function readTexts(png: Uint8Array): Record<string, string> {
  const texts: Record<string, string> = {};
  const view = new DataView(png.buffer, png.byteOffset), latin1 = new TextDecoder("latin1");
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at)) {
    const type = latin1.decode(png.subarray(at + 4, at + 8));
    if (type !== "tEXt") continue;
    const [key, text] = latin1.decode(png.subarray(at + 8, at + 8 + view.getUint32(at))).split(
      "\0",
    );
    texts[key] = text;
  }
  return texts;
}

async function readPng(path: string): Promise<Image> {
  const image = await decode(await Deno.readFile(path));
  assert(image instanceof Image);
  return image;
}

async function readImages(path: string) {
  const { tensors, metadata } = readSafetensors(await Deno.readFile(path), path);
  return {
    shape: tensors.get("images")!.shape,
    values: toFloat32(tensors.get("images")!),
    metadata,
  };
}

Deno.test("sample draws a grid that tells how it was made, and how to make it again", async () => {
  await using folder = await makeFolder();
  const told = await folder.succeed(...sample, "--count", "5", "--seed", "3");
  assertMatch(told, /^samples\.png: 5 images in [\d.]+ s\n$/);
  const png = await Deno.readFile(folder.at("samples.png")), texts = readTexts(png);
  const facts = { model: "m.safetensors", seed: 3, steps: 2, sampler: "dpmpp_2m_sde" };
  assertEquals(JSON.parse(texts.Comment), { software, ...facts });
  assertEquals(texts.Software, software);
  assertEquals(Object.keys(texts).sort(), ["Comment", "Description", "Software"]);
  const { width, height } = await readPng(folder.at("samples.png"));
  assertEquals([width, height], [16 * (3 * 9 + 1), 16 * (2 * 9 + 1)]);

  await folder.succeed(...sample, "--count", "5", "--seed", "3", "--out", "again.png");
  assertEquals(await Deno.readFile(folder.at("again.png")), png);
  await folder.succeed(...sample, "--count", "5", "--seed", "4", "--out", "other.png");
  assertNotEquals(await Deno.readFile(folder.at("other.png")), png);
});

Deno.test("the outputs of a seed show the same images", async () => {
  await using folder = await makeFolder();
  const count = 3;
  await Deno.mkdir(folder.at("pngs"));
  for (const out of ["x.safetensors", "x.gif", "pngs", "new/", "x.PNG"]) {
    await folder.succeed(...sample, "--count", `${count}`, "--seed", "7", "--out", out);
  }
  const { shape, values, metadata } = await readImages(folder.at("x.safetensors"));
  assertEquals(shape, [count, 1, 8, 8]);
  assert(values.every((v) => v >= -1 && v <= 1) && new Set(values).size > 64);
  const { software: _, ...facts } = metadata;
  assertEquals(facts, { model: "m.safetensors", seed: "7", steps: "2", sampler: "dpmpp_2m_sde" });

  const bytes = new Uint8ClampedArray(Array.from(values, (v) => (v + 1) * 127.5));
  const grid = await readPng(folder.at("x.PNG"));
  for (let i = 0; i < count; i++) {
    const image = await readPng(folder.at(`pngs/000${i}.png`));
    assertEquals([image.width, image.height], [8, 8]);
    for (let p = 0; p < 64; p++) {
      const grey = bytes[64 * i + p], rgba = [grey, grey, grey, 255];
      assertEquals(Array.from(image.bitmap.subarray(4 * p, 4 * p + 4)), rgba);
      const x = 16 * (i % 2 * 9 + 1 + p % 8), y = 16 * (Math.floor(i / 2) * 9 + 1 + (p >> 3));
      const at = 4 * (y * grid.width + x);
      assertEquals(Array.from(grid.bitmap.subarray(at, at + 4)), rgba);
    }
    const png = await Deno.readFile(folder.at(`pngs/000${i}.png`));
    assertEquals(JSON.parse(readTexts(png).Comment).image, i);
    assertEquals(await Deno.readFile(folder.at(`new/000${i}.png`)), png);
  }

  const gif = await decode(await Deno.readFile(folder.at("x.gif")));
  assert(gif instanceof GIF);
  assertEquals(gif.length, 2);
  assertEquals([gif.width, gif.height], [grid.width, grid.height]);
  const last = gif[1].bitmap;
  // A GIF has 256 colours.
  assertClose(Float32Array.from(last), Float32Array.from(grid.bitmap), 0.1);
});

Deno.test("an animation has a frame a step, up to a limit", async () => {
  await using folder = await makeFolder();
  const run = ["--count", "1", "--out", "x.gif", "--sampler", "ddpm", "--steps", "10"];
  await folder.succeed(...sample, ...run);
  const bytes = await Deno.readFile(folder.at("x.gif")), gif = await decode(bytes);
  assert(gif instanceof GIF);
  assertEquals(gif.length, 10);
  await folder.succeed(...sample, ...run);
  assertEquals(await Deno.readFile(folder.at("x.gif")), bytes);
});

Deno.test("an animation may be a PNG", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...sample, "--count", "2", "--out", "x.apng", "--steps", "4");
  const png = await Deno.readFile(folder.at("x.apng"));
  assertEquals(new TextDecoder("latin1").decode(png).match(/fcTL/g)?.length, 4);
  assertEquals(JSON.parse(readTexts(png).Comment).steps, 4);
});

Deno.test("sample lists its samplers, and takes their settings", async () => {
  await using folder = await makeFolder();
  const list = await folder.succeed("sample", "--sampler", "list");
  assertMatch(list, /^sampler +order +evaluations +steps +noise +/);
  assertMatch(list, /\ndpmpp_2m +2 +1 +20 +no +timesteps, sigmas +DPM-Solver\+\+/);
  const run = ["sample", "--model", "m.safetensors", "--device", "cpu", "--out", "x.png"];
  await folder.succeed(...run, "--sampler", "heun", "--sigmas", "karras", "--steps", "3");
  const texts = readTexts(await Deno.readFile(folder.at("x.png")));
  const facts = { model: "m.safetensors", seed: 0, steps: 3, sampler: "heun", sigmas: "karras" };
  assertEquals(JSON.parse(texts.Comment), { software, ...facts });
  await folder.succeed(...run, "--timesteps", "9,5,1,0");
  const { timesteps, steps } = JSON.parse(
    readTexts(await Deno.readFile(folder.at("x.png"))).Comment,
  );
  assertEquals([timesteps, steps], ["9,5,1,0", 4]);
});

Deno.test("image k of a seed does not depend on how many are made", async () => {
  await using folder = await makeFolder();
  const make = async (count: number) => {
    const out = ["--out", `${count}.safetensors`, "--sampler", "ddpm", "--count", `${count}`];
    await folder.succeed(...sample, ...out);
    return (await readImages(folder.at(`${count}.safetensors`))).values;
  };
  const many = await make(65);
  assertClose(await make(1), many.subarray(0, 64), 1e-6);
  assertClose(await make(2), many.subarray(0, 128), 1e-6);
  assertEquals(new Set(Array.from({ length: 65 }, (_, i) => many[64 * i])).size > 20, true);
});

Deno.test("wide mode draws the same, and is of the CPU", async () => {
  await using folder = await makeFolder();
  const make = async (name: string, ...mode: string[]) => {
    await folder.succeed(...sample, ...mode, "--out", `${name}.safetensors`);
    return (await readImages(folder.at(`${name}.safetensors`))).values;
  };
  assertClose(await make("wide", "--wide"), await make("narrow"), 1e-6);
  const wrong = ["--wide", "--precision", "f16"];
  await folder.refuse([...sample, ...wrong], /f16 is for a GPU, not for --wide/);
});

Deno.test("the GPU and the interpreter draw the same", async () => {
  await using folder = await makeFolder(3);
  const make = async (device: string) => {
    const flags = [
      "--device",
      device,
      "--sampler",
      "ddim",
      "--eta",
      "0.5",
      "--count",
      "2",
      "--out",
    ];
    await folder.succeed(...sample, ...flags, `${device}.safetensors`);
    return (await readImages(folder.at(`${device}.safetensors`))).values;
  };
  assertClose(await make("gpu"), await make("cpu"), 1e-4);
});

Deno.test("few noise levels make few steps, unless more are asked for", async () => {
  await using folder = await makeFolder();
  const run = ["sample", "--model", "m.safetensors", "--device", "cpu", "--count", "1"];
  await folder.succeed(...run);
  assertEquals(
    JSON.parse(readTexts(await Deno.readFile(folder.at("samples.png"))).Comment).steps,
    10,
  );
  await folder.refuse([...run, "--steps", "11"], /Cannot sample in 11 steps: .* 1 to 10/);
});

Deno.test("names that are not Latin reach the text chunks as JSON escapes", async () => {
  await using folder = await makeFolder();
  await Deno.rename(folder.at("m.safetensors"), folder.at("模型 é.safetensors"));
  const model = ["sample", "--model", "模型 é.safetensors"];
  await folder.succeed(...model, "--device", "cpu", "--count", "1", "--steps", "1");
  const { Comment } = readTexts(await Deno.readFile(folder.at("samples.png")));
  assertMatch(Comment, /^[ -~]+$/);
  assertEquals(JSON.parse(Comment).model, "模型 é.safetensors");
});

Deno.test("a folder as diffusers writes it is a model", async () => {
  await using folder = await makeFolder();
  const { network, parameters, schedule } = tinyModel();
  const weights = writeSafetensors(nameTensors(network.layout, parameters));
  for (const name of ["pipe", "pipe/unet", "pipe/scheduler"]) await Deno.mkdir(folder.at(name));
  await folder.write("pipe/unet/config.json", formatNetwork(network));
  await folder.write("pipe/unet/diffusion_pytorch_model.safetensors", weights);
  await folder.write("pipe/scheduler/scheduler_config.json", formatSchedule(schedule));
  const one = [...sample, "--count", "1", "--sampler", "ddim"];
  await folder.succeed(...one, "--out", "own.safetensors");
  await folder.succeed(...one, "--model", "pipe", "--out", "their.safetensors");
  const [own, their] = await Promise.all(
    ["own", "their"].map((name) => readImages(folder.at(`${name}.safetensors`))),
  );
  assertEquals(their.values, own.values);
});

Deno.test("sampling that is interrupted writes what is done, and says so", async () => {
  await using folder = await makeFolder();
  const flags = ["--seed", "5", "--steps", "10", "--out"], many = 100_000;
  const long = ["--count", `${many}`, ...flags, "part.safetensors"];
  const child = folder.start(...sample, ...long), decoder = new TextDecoder();
  const stdout = new Response(child.stdout).text();
  let told = "", isKilled = false;
  for await (const chunk of child.stderr) {
    told += decoder.decode(chunk, { stream: true });
    // By then the first batch is done.
    if (!isKilled && told.includes("step 10 of 15630")) child.kill("SIGINT"), isKilled = true;
  }
  assertEquals((await child.status).code, 130, told);
  assertMatch(told, /^interrupted: writing what is done; press Ctrl-C again to exit at once$/m);
  const { shape: [count, ...rest], values, metadata } = await readImages(
    folder.at("part.safetensors"),
  );
  assertEquals(rest, [1, 8, 8]);
  assert(count >= 64 && count < many, `${count} images`);
  assertEquals(metadata.interrupted, "yes");
  assertMatch(
    await stdout,
    new RegExp(`^part\\.safetensors: ${count} of ${many} images in [\\d.]+ s, interrupted\n$`),
  );
  await folder.succeed(...sample, "--count", "64", ...flags, "whole.safetensors");
  const whole = await readImages(folder.at("whole.safetensors"));
  assertEquals(values.subarray(0, 64 * 64), whole.values);
  assertEquals(whole.metadata.interrupted, undefined);
});
