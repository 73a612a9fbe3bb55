import { assertAlmostEquals, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { readEdit } from "../../src/cli/commands/edit.ts";
import { encodePng } from "../../src/cli/media/picture_files.ts";
import { InputError } from "../../src/errors.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { Autoencoder } from "../../src/sample/autoencoder.ts";
import { inpaint } from "../../src/sample/editing/inpaint.ts";
import { keepKnown, latentMask } from "../../src/sample/latent_pictures.ts";
import type { Samples } from "../../src/sample/options.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import {
  clip,
  isPainted,
  latentAutoencoder,
  latentModel,
  picture,
  pixelMask,
  valueAt,
} from "../latent_model.ts";
import { randomModel } from "../networks.ts";
import { encodeIdx, Folder } from "./cli.ts";

const model = latentModel, autoencoder = latentAutoencoder;
const mask = latentMask(pixelMask, [8, 8], 2);

/** A grey picture of 8 × 8 as PNG. */
const png = async (at: (i: number) => number) => {
  const rgba = new Uint8ClampedArray(256).fill(255);
  for (let i = 0; i < 64; i++) rgba.fill(at(i), 4 * i, 4 * i + 3);
  return new Uint8Array(await encodePng({ width: 8, height: 8, rgba }, {}));
};

async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", serializeModel(model));
  await folder.write("a.png", await png(valueAt));
  await folder.write("half.png", await png((i) => isPainted(i) ? 255 : 0));
  return folder;
}

const args = ["--model", "m.safetensors", "--device", "cpu", "--class", "1"];

/** The floats that a command writes, `[count, height, width]`. */
async function floats(folder: Folder, command: string, ...rest: string[]): Promise<number[]> {
  await folder.succeed(command, ...args, ...rest, "--out", "x.safetensors");
  const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")), "x");
  const images = [...tensors.values()].find(({ shape }) => shape.length === 4)!;
  return Array.from(toFloat32(images));
}

const clipped = ({ data }: Samples) => Array.from(data, clip);
const near = (actual: number[], expected: number[], what: string) =>
  assertClose(actual, expected, 1e-4, what);

Deno.test("models of latents edit pictures as the pipeline of their networks does", async () => {
  await using folder = await makeFolder();
  using device = await WasmDevice.open();
  using both = await Autoencoder.create(device, autoencoder, { size: [8, 8] });
  const latents = await both.encode(picture, { seed: 3 });
  const edit = ["--init", "a.png", "--seed", "3", "--count", "2"];
  const labels = [1, 1];

  using painter = await Sampler.create(device, model, { method: "ddim", steps: 4, batchSize: 2 });
  const strength = { count: 2, seed: 3, labels, init: latents, strength: 0.5 };
  const moved = await both.decode(await painter.sample(strength));
  const ddim = ["--sampler", "ddim", "--steps", "4"];
  near(
    await floats(folder, "sample", ...edit, ...ddim, "--strength", "0.5"),
    clipped(moved),
    "image to image",
  );

  using filler = await Sampler.create(device, model, {
    ...{ method: "ddpm", steps: 6, batchSize: 2, resample: { jump: 2, times: 2 } },
    wrap: [inpaint()],
  });
  const conditions = { known: latents.data, mask };
  const filled = await filler.sample({ count: 2, seed: 3, labels, conditions });
  near(
    await floats(folder, "sample", ...[...edit, "--mask", "half.png", "--steps", "6"], ...[
      ...["--resample", "2", "--jump", "2"],
    ]),
    clipped(await both.decode(keepKnown(filled, latents, mask))),
    "inpainting",
  );
  const inverse = { method: "ddim_inverse", steps: 4 } as const;
  using inverter = await Sampler.create(device, model, inverse);
  const means = await both.encode(picture, { sample: false });
  const start = await inverter.sample({ count: 1, labels: [1], start: means });
  using again = await Sampler.create(device, model, { method: "ddim", steps: 4 });
  const varied = await again.sample({ count: 1, labels: [1], start });
  const flags = ["--init", "a.png", "--count", "1", "--steps", "4", "--variation", "0"];
  near(
    await floats(folder, "sample", ...flags),
    clipped(await both.decode(varied)),
    "variation",
  );

  // A walk begins and ends with what its ends are by themselves.
  const walk = ["--count", "3", "--steps", "4"];
  const images = await floats(folder, "interpolate", ...walk, "--images", "a.png,a.png");
  near(images.slice(64, 128), clipped(await both.decode(varied)), "between pictures");
  const seeds = await floats(folder, "interpolate", ...walk, "--seeds", "1,2");
  for (const [k, seed] of [[0, 1], [2, 2]]) {
    const end = await again.sample({ count: 1, labels: [1], seed });
    near(seeds.slice(64 * k, 64 * (k + 1)), clipped(await both.decode(end)), `seed ${seed}`);
  }
});

Deno.test("eval compares the pictures of a model of latents, which has no likelihood of them", async () => {
  await using folder = await makeFolder();
  await folder.write(
    "f.safetensors",
    serializeModel(randomModel(parseNetwork({
      ...{ _class_name: "FeatureClassifier", sample_size: 8, num_classes: 3 },
      ...{ block_out_channels: [4, 6], feature_size: 5 },
    }))),
  );
  const bytes = Uint8Array.from({ length: 20 * 64 }, (_, i) => i ** 2 % 251);
  await folder.write("train-images-idx3-ubyte", encodeIdx([20, 8, 8], bytes));
  const sampling = ["--steps", "3", "--seed", "4", "--count", "10"];
  const eval_ = ["--data", "train-images-idx3-ubyte", "--features", "f.safetensors", "--json"];
  const told = async (...rest: string[]) =>
    JSON.parse(
      await folder.succeed("eval", "--device", "cpu", ...eval_, "--metric", "fd", ...rest),
    );
  const found = await told("--model", "m.safetensors", "--class", "1", ...sampling);
  // Those of files are in [0, 1].
  const images = await floats(folder, "sample", ...sampling);
  const values = Float32Array.from(images, (x) => (x + 1) / 2);
  const tensor = { name: "images", shape: [10, 1, 8, 8], values };
  await folder.write("y.safetensors", writeSafetensors([tensor], {}));
  assertAlmostEquals((await told("--samples", "y.safetensors")).fd, found.fd, 1e-4 * found.fd);
  const likelihood = ["eval", "--model", "m.safetensors", "--data", "train-images-idx3-ubyte"];
  const message = /Cannot measure bits .* model of latents, .* --metric fd compares its images/;
  await folder.refuse(likelihood, message);
  const features = ["--features", "f.safetensors", "--metric", "bpd,fd", "--class", "1"];
  await folder.refuse([...likelihood, ...features], message);
});

Deno.test("masks are refused where nothing is left of them in latents", async () => {
  const pictures: Record<string, Uint8Array<ArrayBuffer>> = {
    "a.png": await png(valueAt),
    "half.png": await png((i) => isPainted(i) ? 255 : 0),
    // A line of one pixel that no latent begins with.
    "line.png": await png((i) => i % 8 === 3 ? 255 : 0),
  };
  const read = (flags: Record<string, string>) => {
    const open = (path: string) => Promise.resolve(pictures[path]);
    return readEdit(flags, [8, 8, 1], undefined, { say: () => {} }, 2, open);
  };
  const edit = await read({ init: "a.png", mask: "half.png" });
  assertEquals(edit.sample.conditions?.mask, pixelMask);
  // What is kept are latents, so that no pixels are put back.
  const zeros = { ...picture, data: new Float32Array(64) };
  assertEquals(edit.finish(zeros), zeros);
  const fine: [Record<string, string>, string][] = [
    [{ init: "a.png", mask: "line.png" }, "mask"],
    [{ init: "a.png", outpaint: "0,0,1,0" }, "outpaint"],
    [{ region: "line.png", "other-class": "1" }, "region"],
  ];
  for (const [flags, name] of fine) {
    const { message } = await assertRejects(() => read(flags), InputError);
    assertMatch(message, new RegExp(`^--${name} is too fine: .* one for 2x2 pixels`));
  }
});
