import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { decode, Image } from "imagescript";
import { encodePng } from "../../src/cli/media/picture_files.ts";
import { formatParameters } from "../../src/cli/media/parameters.ts";
import { fitMemory } from "../../src/cli/commands/text_memory.ts";
import { InputError } from "../../src/errors.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { tinyTextToImage, writePipeline } from "../text_to_image.ts";
import { Folder, tinyModelFile } from "./cli.ts";

/** As many tokens as CLIP has. */
const CLIP = 49408;
const sample = ["sample", "--device", "cpu", "--steps", "2", "--model"];

async function makeFolder(channels: 4 | 9 = 4): Promise<Folder> {
  const folder = await Folder.make();
  await writePipeline(folder, "sd", tinyTextToImage({ channels, vocabulary: CLIP }));
  return folder;
}

/** The text chunks of a PNG. */
function readTexts(png: Uint8Array): Record<string, string> {
  const texts: Record<string, string> = {};
  const view = new DataView(png.buffer, png.byteOffset), latin1 = new TextDecoder("latin1");
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at)) {
    const type = latin1.decode(png.subarray(at + 4, at + 8));
    const data = png.subarray(at + 8, at + 8 + view.getUint32(at)), end = data.indexOf(0);
    const key = latin1.decode(data.subarray(0, end));
    if (type === "tEXt") texts[key] = latin1.decode(data.subarray(end + 1));
    if (type === "iTXt") texts[key] = new TextDecoder().decode(data.subarray(end + 5));
  }
  return texts;
}

/** A picture of two colors, and a mask of its left half. */
async function drawPictures(folder: Folder): Promise<void> {
  for (
    const [name, left, right] of [["a.png", 0xc04020ff, 0x2060c0ff], ["m.png", ~0 >>> 0, 0xff]]
  ) {
    const image = new Image(16, 16).fill((x) => x <= 8 ? Number(left) : Number(right));
    await folder.write(String(name), await image.encode());
  }
}

Deno.test("sample paints texts, a folder of them, and tells how in two ways", async () => {
  await using folder = await makeFolder();
  await folder.write("p.txt", "a (red:1.3) heart\n\n愛 \n");
  const told = await folder.succeed(
    ...[...sample, "sd", "--prompts", "p.txt", "--count", "3", "--negative", "blurry"],
    ...["--guidance", "5", "--seed", "7", "--size", "24x16", "--out", "out/"],
  );
  assertMatch(told, /^out\/ \(3 files\): 3 images in [\d.]+ s\n$/);
  const texts = await Promise.all(["0000", "0001", "0002"].map(async (name) => {
    const png = await Deno.readFile(folder.at(`out/${name}.png`)),
      image = await decode(png) as Image;
    assertEquals([image.width, image.height], [24, 16]);
    return readTexts(png);
  }));
  const [first, second] = texts.map(({ parameters }) => parameters.split("\n"));
  assertEquals(first.slice(0, 2), ["a (red:1.3) heart", "Negative prompt: blurry"]);
  const facts = "Steps: 2, Sampler: DDIM, CFG scale: 5, Seed: 7, Size: 24x16, Model: sd, ";
  assert(first[2].startsWith(facts), first[2]);
  assertEquals(second[0], "愛");
  const { model, prompt, negative, sampler, image } = JSON.parse(texts[1].Comment);
  assertEquals([model, prompt], ["sd", "a (red:1.3) heart | 愛"]);
  assertEquals([negative, sampler, image], ["blurry", "ddim", 1]);

  // Image k of a seed is the same whatever the count, and may be one of a grid or of floats.
  const args = [...sample, "sd", "--prompt", "a (red:1.3) heart", "--negative", "blurry"];
  const rest = ["--guidance", "5", "--seed", "7", "--size", "24x16", "--out"];
  await folder.succeed(...args, ...rest, "one/");
  const [one, many] = await Promise.all(
    ["one", "out"].map(async (name) =>
      (await decode(await Deno.readFile(folder.at(`${name}/0000.png`))) as Image).bitmap
    ),
  );
  assertEquals(one, many);
  await folder.succeed(...args, ...rest, "one.apng");
});

Deno.test("sample begins with an image, and repaints a part of it", async () => {
  for (const channels of [4, 9] as const) {
    await using folder = await makeFolder(channels);
    await drawPictures(folder);
    const args = [...sample, "sd", "--prompt", "x", "--init", "a.png"];
    const mask = ["--mask", "m.png", "--tile", "8", "--weights", "f16"];
    await folder.succeed(...args, ...(channels === 9 ? mask : []), "--strength", "0.5");
    const { parameters, Comment } = readTexts(await Deno.readFile(folder.at("samples.png")));
    assertMatch(parameters, /Denoising strength: 0.5/);
    assertEquals(JSON.parse(Comment).init, "a.png");
    await folder.succeed(...args, ...mask, "--out", "masked.png");
    await folder.succeed(...args, "--outpaint", "4", "--out", "out.png");
    if (channels === 4) continue;
    const args9 = [...sample, "sd", "--prompt", "x"];
    await folder.refuse(args9, /sd fills holes .* 9 channels in all; give --init IMAGE and --mask/);
    await folder.refuse([...args9, "--init", "a.png"], /give --init IMAGE and --mask IMAGE/);
  }
});

Deno.test("sample tells what would be right where flags and model do not go together", async () => {
  await using folder = await makeFolder();
  await drawPictures(folder);
  await folder.write("m.safetensors", tinyModelFile(1));
  const args = [...sample, "sd", "--prompt", "x"];
  const cases: [string[], RegExp][] = [
    [[...sample, "sd"], /sd paints texts: say with --prompt what to paint/],
    [[...sample, "m.safetensors", "--prompt", "x"], /--prompt is for models that read/],
    [
      [...sample, "m.safetensors", "--size", "8"],
      /--size is for models that paint texts by way of/,
    ],
    [[...args, "--size", "21x17"], /--size 21x17: sides must be multiples of 2, as 2[02]x1[68]/],
    [[...args, "--tile", "9"], /--tile 9: sides must be multiples of 2/],
    [[...args, "--mask", "m.png"], /--mask needs an image to start from: --init IMAGE/],
    [[...args, "--class", "3"], /--class is not for sd, which paints texts/],
  ];
  for (const [args, message] of cases) await folder.refuse(args, message);
});

Deno.test("what does not fit is told by the stage that takes it, and what takes less", async () => {
  using device = await openDevice("cpu", { threads: 1 });
  const model = tinyTextToImage({ channels: 4, vocabulary: CLIP }), options = { steps: 2 };
  const about = { place: "sd", isBegun: false };
  assertEquals(fitMemory(device, model, { ...options, size: [64, 64] }, about).notice, undefined);
  assertThrows(
    () => fitMemory(device, model, { ...options, size: [2 ** 14, 2 ** 14] }, about),
    InputError,
    "Cannot paint with sd at 16384x16384: to denoise, it takes ",
  );
});

Deno.test("what is too long for the text encoder is told", async () => {
  await using folder = await makeFolder();
  const { code, stderr } = await folder.run(...sample, "sd", "--prompt", "very ".repeat(80));
  assertEquals(code, 0);
  assertMatch(stderr, /^"very very .*…" is too long: what is cut is "very very very very very"$/m);
});

Deno.test("an interrupted run writes the images that are done", async () => {
  await using folder = await makeFolder();
  const run = folder.start(
    ...["sample", "--device", "cpu", "--steps", "40", "--model", "sd", "--prompt", "x"],
    ...["--count", "50", "--out", "out/"],
  );
  const stdout = new Response(run.stdout).text(), decoder = new TextDecoder();
  let log = "", isKilled = false;
  for await (const chunk of run.stderr) {
    log += decoder.decode(chunk, { stream: true });
    if (!isKilled && log.includes("step 40 of ")) run.kill("SIGINT"), isKilled = true;
  }
  assertEquals((await run.status).code, 130, log);
  const told = await stdout;
  const [, files, made] = told.match(/\((\d+) files\): (\d+) of 50 images in .*, interrupted/)!;
  assert(files === made && Number(made) < 50, told);
});

Deno.test("parameters are what other tools read, in any language", async () => {
  const about = {
    ...{ prompt: "a cat", negative: "", steps: 20, method: "dpmpp_2m", sigmas: "karras" },
    ...{ guidance: 7.5, seed: 1, image: 2, size: [512, 768] as const, model: "a,b" },
  };
  const text = formatParameters(about);
  assertMatch(
    text,
    /^a cat\nSteps: 20, Sampler: DPM\+\+ 2M Karras, CFG scale: 7.5, Seed: 1, Size: 768x512,/,
  );
  assertMatch(text, /Model: "a,b", Image of the seed: 2, Version: @x\/ddpm/);
  const picture = { width: 1, height: 1, rgba: new Uint8ClampedArray(4) };
  const png = await encodePng(picture, {}, "é 愛");
  assertEquals(readTexts(png).parameters, "é 愛");
});
