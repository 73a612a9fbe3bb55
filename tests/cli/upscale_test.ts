import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { decodeImage } from "../../src/cli/data/decode.ts";
import { checkMemory } from "../../src/cli/commands/upscale.ts";
import { enlarge } from "../../src/cli/commands/cascade.ts";
import { writePng } from "../../src/cli/media/png_stream.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { toCamelCase } from "../../src/config.ts";
import { InputError } from "../../src/errors.ts";
import type { Raster } from "../../src/data/raster.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { type Model, serializeModel } from "../../src/model/model.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { Upscaler } from "../../src/sample/upscaler.ts";
import { assertClose } from "../close.ts";
import { openCpuAs } from "../device.ts";
import { randomModel, tinyUpscaler } from "../networks.ts";
import { Random } from "../random.ts";
import { Folder, tinyModel, tinyModelFile } from "./cli.ts";

const upscaler = (channels: number, fields = {}): Model =>
  randomModel(
    tinyUpscaler({ in_channels: channels, out_channels: channels, ...fields }),
    { num_train_timesteps: 10 },
  );

async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("grey.safetensors", serializeModel(upscaler(1)));
  await folder.write("color.safetensors", serializeModel(upscaler(3)));
  await folder.write("m.safetensors", tinyModelFile());
  return folder;
}

async function* once(data: Uint8Array) {
  yield await Promise.resolve(data);
}

/** Writes a picture of random bytes. */
async function writePicture(path: string, width: number, height: number, channels: 1 | 3) {
  const random = new Random(`${width}x${height}`);
  const data = Uint8Array.from({ length: width * height * channels }, () => random.below(256));
  using file = await Deno.open(path, { write: true, create: true });
  await writePng(file, { width, height, channels, texts: {} }, once(data));
  return data;
}

const readPicture = async (path: string): Promise<Raster> =>
  await decodeImage(await Deno.readFile(path), path);

/** Means of squares of four pixels. */
function halve({ width, height, channels, data }: Raster): Float64Array {
  const w = width / 2;
  return Float64Array.from({ length: w * height / 2 * channels }, (_, i) => {
    const c = i % channels, x = Math.floor(i / channels) % w, y = Math.floor(i / channels / w);
    const at = (dx: number, dy: number) => data[((2 * y + dy) * width + 2 * x + dx) * channels + c];
    return (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1)) / 4;
  });
}

const flags = ["--device", "cpu", "--steps", "2", "--model"];

Deno.test("PNG files that are written row by row are read as they were", async () => {
  await using folder = await Folder.make();
  for (
    const [width, height, channels] of [[1, 1, 1], [1, 40, 3], [300, 2, 1], [37, 25, 3]] as const
  ) {
    const random = new Random("rows"), stride = width * channels;
    // Smooth, striped and random rows, so that all filters are used.
    const data = Uint8Array.from({ length: height * stride }, (_, i) => {
      const y = Math.floor(i / stride);
      return [3 * i, 7 * y, random.below(256), i % 2 * 255, 2 * i + 5 * y][y % 5];
    });
    const parts = async function* () {
      for (let y = 0; y < height; y += 3) yield await data.subarray(y * stride, (y + 3) * stride);
    };
    {
      using file = await Deno.open(folder.at("x.png"), {
        write: true,
        create: true,
        truncate: true,
      });
      await writePng(file, { width, height, channels, texts: { Comment: "it's so" } }, parts());
    }
    const picture = await readPicture(folder.at("x.png"));
    assertEquals([picture.width, picture.height, picture.channels], [width, height, channels]);
    assertEquals(picture.data, data);
  }
});

Deno.test("upscale enlarges pictures of any size, and what it makes agrees with them", async () => {
  await using folder = await makeFolder();
  for (const [width, height, channels] of [[5, 3, 1], [11, 1, 1], [9, 6, 3]] as const) {
    const given = await writePicture(folder.at("in.png"), width, height, channels);
    const model = channels === 1 ? "grey.safetensors" : "color.safetensors";
    const told = await folder.succeed("upscale", "in.png", ...flags, model, "--out", "out.png");
    assertMatch(told, new RegExp(`^out\\.png: ${2 * width}x${2 * height} pixels in [\\d.]+ s\\n$`));
    const made = await readPicture(folder.at("out.png"));
    assertEquals([made.width, made.height, made.channels], [2 * width, 2 * height, channels]);
    // Four bytes were rounded.
    halve(made).forEach((mean, i) => assert(Math.abs(mean - given[i]) <= 0.5 + 1e-6));
    if (width > 5) continue;
    await folder.succeed("upscale", "in.png", ...flags, model, "--out", "again.png");
    assertEquals((await readPicture(folder.at("again.png"))).data, made.data);
    await folder.succeed("upscale", "in.png", ...flags, model, "--out", "seed.png", "--seed", "1");
    assert((await readPicture(folder.at("seed.png"))).data.some((x, i) => x !== made.data[i]));
  }
});

Deno.test("upscale takes grey, color and transparency as the model wants them, and says so", async () => {
  await using folder = await makeFolder();
  const grey = await writePicture(folder.at("grey.png"), 4, 3, 1);
  await folder.succeed("upscale", "grey.png", ...flags, "color.safetensors", "--out", "a.png");
  const inColor = await readPicture(folder.at("a.png"));
  assertEquals(inColor.channels, 3);
  halve(inColor).forEach((x, i) => assert(Math.abs(x - grey[Math.floor(i / 3)]) <= 0.5 + 1e-6));

  await writePicture(folder.at("color.png"), 4, 3, 3);
  const toGrey = await folder.run("upscale", "color.png", ...flags, "grey.safetensors");
  assertEquals(toGrey.code, 0);
  assertMatch(toGrey.stderr, /^note: the model is of grey images: color.png loses its color\n$/);
  assertEquals((await readPicture(folder.at("upscaled.png"))).channels, 1);

  const { Image } = await import("imagescript");
  const clear = new Image(3, 3);
  clear.fill(0x00000000);
  await folder.write("clear.png", await clear.encode());
  const laid = await folder.run("upscale", "clear.png", ...flags, "color.safetensors");
  assertMatch(laid.stderr, /^note: clear.png is transparent: it is laid over white\n$/);
  const white = await readPicture(folder.at("upscaled.png"));
  assert(white.data.every((x) => x === 255));
});

Deno.test("upscale enlarges many pictures into a folder", async () => {
  await using folder = await makeFolder();
  await Deno.mkdir(folder.at("b"));
  for (const [name, width] of [["a.png", 3], ["b/c.d.png", 8], ["b/a.png", 2]] as const) {
    await writePicture(folder.at(name), width, 4, 1);
  }
  const model = [...flags, "grey.safetensors", "--sampler", "ddim"];
  await folder.succeed("upscale", "a.png", "b/c.d.png", ...model, "--out", "made");
  const names = [...Deno.readDirSync(folder.at("made"))].map(({ name }) => name).sort();
  assertEquals(names, ["a.png", "c.d.png"]);
  assertEquals((await readPicture(folder.at("made/c.d.png"))).width, 16);
  await folder.refuse(
    ["upscale", "a.png", "b/a.png", ...model, "--out", "made"],
    /a\.png and b\/a\.png would both be made\/a\.png/,
  );
  await folder.refuse(
    ["upscale", "a.png", "b/a.png", ...model, "--out", "x.png"],
    /Cannot write 2 pictures to x\.png: give --out a folder/,
  );
});

Deno.test("upscale refuses what it cannot do, before it opens a device", async () => {
  await using folder = await makeFolder();
  await writePicture(folder.at("a.png"), 3, 3, 1);
  await folder.write("bad.png", "no picture");
  const classes = upscaler(1, { num_class_embeds: 4 });
  await folder.write("classes.safetensors", serializeModel(classes));
  const refuse = (args: string[], message: RegExp) => folder.refuse(["upscale", ...args], message);
  await refuse([...flags, "grey.safetensors"], /upscale needs pictures/);
  await refuse(["a.png", "--device", "cpu"], /upscale needs --model/);
  await refuse(
    ["a.png", ...flags, "m.safetensors"],
    /does not enlarge pictures: it is a UNet2DModel/,
  );
  await refuse(["a.png", ...flags, "none"], /Cannot load the model none/);
  await refuse(
    ["none.png", ...flags, "grey.safetensors"],
    /Cannot read none\.png: it does not exist/,
  );
  await refuse(["bad.png", ...flags, "grey.safetensors"], /Cannot read bad\.png: it is no PNG/);
  await refuse(["a.png", ...flags, "grey.safetensors", "--out", "x.jpg"], /ends in \.png/);
  await refuse(["a.png", ...flags, "grey.safetensors", "--noise-level", "0.6"], /from 0 to 0\.5/);
  await refuse(["a.png", ...flags, "grey.safetensors", "--label", "1"], /for models with classes/);
  const wrong = ["a.png", ...flags, "classes.safetensors", "--class", "7"];
  await refuse(wrong, /has no class 7: its classes are 0, 1, 2 and 3/);
  await refuse(["a.png", ...flags, "grey.safetensors", "--eta", "1"], /with eta: that is for ddim/);
});

Deno.test("a picture that needs more memory than there is says how much", () => {
  const size = { width: 10_000, height: 8000 };
  checkMemory("big.png", size, 3, 2e9);
  checkMemory("big.png", size, 3, undefined);
  assertThrows(
    () => checkMemory("big.png", size, 3, 1.5e9),
    InputError,
    "Cannot enlarge big.png: its 10000x8000 pixels take 1.84 GB of memory, and 1.50 GB are free",
  );
});

async function readImages(path: string) {
  const { tensors } = readSafetensors(await Deno.readFile(path), path);
  return { shape: tensors.get("images")!.shape, values: toFloat32(tensors.get("images")!) };
}

Deno.test("a cascade is what its models make one after the other", async () => {
  await using folder = await makeFolder();
  const second = upscaler(1, { factor: 3, sample_size: 12 });
  await folder.write("second.safetensors", serializeModel(second));
  const sample = ["sample", "--device", "cpu", "--steps", "2", "--count", "3", "--seed", "5"];
  const made = ["--noise-level", "0.2", "--out", "x.safetensors"];
  const models = "m.safetensors,grey.safetensors,second.safetensors";
  const told = await folder.succeed(...sample, ...made, "--model", models);
  assertMatch(told, /^x\.safetensors: 3 images in [\d.]+ s\n$/);
  const { shape, values } = await readImages(folder.at("x.safetensors"));
  assertEquals(shape, [3, 1, 48, 48]);

  using device = await openCpuAs(2, {});
  using sampler = await Sampler.create(device, tinyModel(), { steps: 2, batchSize: 3 });
  let pictures = await sampler.sample({ count: 3, seed: 5 });
  for (const model of [upscaler(1), second]) {
    using upscaler = await Upscaler.create(device, model, { steps: 2, batchSize: 3 });
    pictures = await upscaler.upscale({ pictures, seed: 5, noiseLevel: 0.2 });
  }
  assertClose(values, pictures.data, 1e-5);
  // Without noise, every model keeps to what it is given.
  await folder.succeed(
    ...sample,
    "--noise-level",
    "0",
    "--out",
    "y.safetensors",
    "--model",
    models,
  );
  const clean = await readImages(folder.at("y.safetensors"));
  assert(clean.values.some((x, i) => Math.abs(x - values[i]) > 0.01));
  await folder.succeed(...sample, "--out", "base.safetensors", "--model", "m.safetensors");
  const base = await readImages(folder.at("base.safetensors"));
  const reduced = Float64Array.from(base.values, (_, i) => {
    const x = i % 8, y = Math.floor(i / 8) % 8, n = Math.floor(i / 64);
    let sum = 0;
    for (let k = 0; k < 36; k++) {
      sum += clean.values[(n * 48 + 6 * y + Math.floor(k / 6)) * 48 + 6 * x + k % 6];
    }
    return sum / 36;
  });
  assertClose(reduced, base.values.map((x) => Math.max(-1, Math.min(1, x))), 1e-5);
});

Deno.test("a cascade that is interrupted keeps the images that went through all its models", async () => {
  using device = await openCpuAs(1, {});
  const pictures = { count: 3, shape: [4, 4, 1], data: new Float32Array(48).fill(0.5) };
  const options = { steps: 10, seed: 0, noiseLevel: 0.1, batchSize: 1 };
  const run = async (models: number, end = Infinity) => {
    const abort = new AbortController();
    using progress = new Progress();
    progress.update = (text) => {
      if (Number(/^step (\d+) of 30/.exec(text)?.[1] ?? 0) > end) abort.abort();
    };
    const stages = Array.from({ length: models }, () => ({ place: "m", model: upscaler(1) }));
    return await enlarge(device, pictures, stages, progress, { ...options, signal: abort.signal });
  };
  const whole = await run(1);
  assertEquals([whole.images.count, whole.isStopped], [3, false]);
  // The first picture is done by then, and the second one begun.
  const { images, isStopped } = await run(1, 10);
  assertEquals([images.count, isStopped], [1, true]);
  assertEquals(images.data, whole.images.data.slice(0, images.data.length));
  const between = await run(2, 10);
  assertEquals([between.images.count, between.isStopped], [0, true], "that is no result");
});

Deno.test("a cascade of models with dynamic thresholding is what they make one after the other", async () => {
  await using folder = await makeFolder();
  const thresholding = { thresholding: true, dynamic_thresholding_ratio: 0.9, sample_max_value: 2 };
  const models = [tinyModel(), upscaler(1), upscaler(1)].map((model) => ({
    ...model,
    schedule: { ...model.schedule, ...toCamelCase(thresholding) },
  }));
  for (const [i, model] of models.entries()) {
    await folder.write(`t${i}.safetensors`, serializeModel(model));
  }
  const flags = ["--steps", "3", "--count", "2", "--seed", "5", "--out", "x.safetensors"];
  const [base, ...others] = models;
  for (const name of ["cpu", "gpu"] as const) {
    await folder.succeed(
      ...["sample", "--device", name, ...flags, "--noise-level", "0.2"],
      ...["--model", "t0.safetensors,t1.safetensors,t2.safetensors"],
    );
    const { shape, values } = await readImages(folder.at("x.safetensors"));
    assertEquals(shape, [2, 1, 32, 32]);
    using device = await openCpuAs(2, {});
    using sampler = await Sampler.create(device, base, { steps: 3, batchSize: 2 });
    let pictures = await sampler.sample({ count: 2, seed: 5 });
    for (const model of others) {
      using upscaler = await Upscaler.create(device, model, { steps: 3, batchSize: 2 });
      pictures = await upscaler.upscale({ pictures, seed: 5, noiseLevel: 0.2 });
    }
    assertClose(values, pictures.data, 1e-3);
  }
});

Deno.test("each model of a cascade is gone from the device before the next one comes", async () => {
  using device = await openCpuAs(1, {});
  let alive = 0;
  const before: number[] = [];
  const counted = <T extends Disposable>(resource: T): T => {
    const dispose = resource[Symbol.dispose].bind(resource);
    alive++;
    return Object.assign(resource, {
      [Symbol.dispose]() {
        alive--;
        dispose();
      },
    });
  };
  const buffer = device.buffer.bind(device), compile = device.compile.bind(device);
  Object.assign(device, {
    buffer(...args: Parameters<Device["buffer"]>) {
      // Of all buffers only that of the weights, which is the first, is so large.
      if (args[0] > 1000) before.push(alive);
      return counted(buffer(...args));
    },
    async compile(...args: Parameters<Device["compile"]>) {
      return counted(await compile(...args));
    },
  });
  using progress = new Progress();
  const pictures = { count: 1, shape: [4, 4, 1], data: new Float32Array(16) };
  const stages = [{ place: "a", model: upscaler(1) }, { place: "b", model: upscaler(1) }];
  const { signal } = new AbortController();
  const options = { steps: 1, seed: 0, noiseLevel: 0, batchSize: 1, signal };
  const { images } = await enlarge(device, pictures, stages, progress, options);
  assertEquals([images.shape, stages.length], [[16, 16, 1], 0]);
  assertEquals([before, alive], [[0, 0], 0]);
});

Deno.test("a cascade that cannot be is refused at once", async () => {
  await using folder = await makeFolder();
  await folder.write("classes.safetensors", serializeModel(upscaler(1, { num_class_embeds: 4 })));
  const refuse = (message: RegExp, model: string, ...more: string[]) =>
    folder.refuse(["sample", "--device", "cpu", "--model", model, ...more], message);
  await refuse(/Cannot paint with grey\.safetensors: it enlarges images/, "grey.safetensors");
  await refuse(/does not enlarge pictures/, "m.safetensors,m.safetensors");
  await refuse(
    /what m\.safetensors makes by color\.safetensors: it has 1 channels, not 3/,
    "m.safetensors,color.safetensors",
  );
  await refuse(/Cannot load the model none/, "m.safetensors,none");
  await refuse(/models with commas between them/, "m.safetensors,");
  await refuse(/classes\.safetensors has 4 classes/, "m.safetensors,classes.safetensors");
  await refuse(/--noise-level goes with models/, "m.safetensors", "--noise-level", "0.1");
  await refuse(
    /An animation shows the denoising by a single model/,
    ...["m.safetensors,grey.safetensors", "--out", "x.gif"] as const,
  );
});

Deno.test("a model whose name has a comma in it is a single one", async () => {
  await using folder = await makeFolder();
  await Deno.rename(folder.at("m.safetensors"), join(folder.path, "a,b.safetensors"));
  const told = await folder.succeed(
    ...["sample", "--model", "a,b.safetensors", "--steps", "1", "--count", "1", "--device", "cpu"],
  );
  assertMatch(told, /^samples\.png: 1 image/);
});
