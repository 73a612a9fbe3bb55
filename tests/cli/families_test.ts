import { assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import {
  collect,
  encodeSafetensors,
  readSafetensors,
  toFloat32,
} from "../../src/formats/safetensors.ts";
import { serializeModel } from "../../src/model/model.ts";
import { ldmConfig, ldmModel, ldmTensors } from "../ldm.ts";
import { makeBmp } from "../pictures.ts";
import { pickledTensor, torchArchive } from "../torch.ts";
import { Folder } from "./cli.ts";

const fixture = (name: string, folder = "ddpm-original") =>
  Deno.readFile(new URL(`../fixtures/${folder}/${name}`, import.meta.url));
const sample = ["--count", "1", "--steps", "2", "--device", "cpu", "--out", "x.safetensors"];

Deno.test("a file of another project is described and sampled, and what is guessed is told", async () => {
  await using folder = await Folder.make();
  for (const name of ["model.ckpt", "config.json"]) await folder.write(name, await fixture(name));
  const { code, stdout, stderr } = await folder.run(
    "info",
    "model.ckpt",
    "--json",
    "--device",
    "cpu",
  );
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /model\.ckpt: its tensors have the names of pesser\/pytorch_diffusion/);
  assertMatch(stderr, /model\.ckpt: the noise is that of Ho et al\. 2020/);
  const facts = JSON.parse(stdout);
  assertEquals([facts.sample_size, facts.norm_eps, facts.numTrainTimesteps], [16, 1e-6, 1000]);
  assertMatch(facts.family, /pesser/);
  assertEquals(facts["moving average"], "not told");

  const paint = async (model: string) => {
    await folder.succeed("sample", "--model", model, ...sample);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return tensors.values().map(({ bytes }) => bytes).toArray();
  };
  const expected = await paint("model.ckpt");
  for (const name of ["model-legacy.ckpt", "model.safetensors"]) {
    await folder.write(name, await fixture(name));
    assertEquals(await paint(name), expected, name);
  }

  await folder.write("scheduler_config.json", { num_train_timesteps: 50 });
  const own = await folder.run("info", "model.ckpt", "--json", "--device", "cpu");
  assertEquals(own.stderr.includes("the noise is that of"), false);
  assertEquals(JSON.parse(own.stdout).numTrainTimesteps, 50);
});

Deno.test("without the configuration of the original, what its file does not tell is asked for", async () => {
  await using folder = await Folder.make();
  await folder.write("model.ckpt", await fixture("model.ckpt"));
  await folder.refuse(
    ["info", "model.ckpt"],
    /8 of block_out_channels is no multiple of norm_num_groups, 32/,
  );
  await folder.refuse(
    ["info", "model.ckpt"],
    /config\.json beside it, or a file of its name and \.json, can tell/,
  );
  await folder.write("config.json", { norm_num_groups: 4, ch_mult: [1, 1] });
  await folder.refuse(
    ["info", "model.ckpt"],
    /says ch_mult \[1,1\], but its tensors are of \[1,2\]/,
  );
  await folder.write("config.json", { norm_num_groups: 4 });
  // The published ones attend at 16 x 16, this one does at 8 x 8.
  const { stderr } = await folder.run("info", "model.ckpt", "--device", "cpu");
  assertMatch(stderr, /its pictures are 32x32, so that it attends at 16x16/);
  await folder.succeed("sample", "--model", "model.ckpt", ...sample);
});

Deno.test("the average of a trainer's file is sampled, once the size of its pictures is told", async () => {
  await using folder = await Folder.make();
  await folder.write("model-1.pt", await fixture("model-1.pt", "lucidrains/v2"));
  const { code, stderr } = await folder.run("sample", "--model", "model-1.pt", ...sample);
  assertEquals(code, 2);
  assertMatch(
    stderr,
    /the size of its pictures is not in the file; a config\.json beside it can tell/,
  );
  assertMatch(
    stderr,
    /error: Cannot sample from model-1\.pt: its configuration has no sample_size/,
  );
  await folder.write("config.json", { GaussianDiffusion: { image_size: 16 } });
  const run = await folder.run("sample", "--model", "model-1.pt", ...sample);
  assertEquals(run.code, 0, run.stderr);
  assertMatch(run.stderr, /the moving average of the weights was taken/);
  const facts = JSON.parse(await folder.succeed("info", "model-1.pt", "--json", "--device", "cpu"));
  assertEquals([facts.network, facts.sample_size], ["DenoisingDiffusionUnet", 16]);
  assertEquals([facts.predictionType, facts.trainedBetas.length], ["v_prediction", 20]);
  assertEquals(facts["moving average"], "the moving average of the weights was taken");
  assertEquals(facts.weight_source, undefined);
  // What was found out is kept.
  await folder.succeed("export", "model-1.pt", "--out", "own", "--format", "safetensors");
  const own = JSON.parse(await folder.succeed("info", "own", "--json", "--device", "cpu"));
  assertEquals([own.family, own["moving average"]], [facts.family, facts["moving average"]]);
});

Deno.test("a denoiser and a classifier of guided-diffusion work together, each with flags of its own", async () => {
  await using folder = await Folder.make();
  for (const [name, source] of [["model", "uncond-updown"], ["judge", "classifier"]]) {
    await folder.write(`${name}.pt`, await fixture("model.pt", `adm/${source}`));
    await folder.write(`${name}.json`, await fixture("config.json", `adm/${source}`));
  }
  const images = async (...args: string[]) => {
    await folder.succeed("sample", "--model", "model.pt", ...sample, ...args);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return tensors.values().map(({ bytes }) => bytes).toArray();
  };
  const plain = await images(), guided = await images("--classifier", "judge.pt", "--class", "3");
  assertNotEquals(plain, guided);
  const facts = JSON.parse(await folder.succeed("info", "judge.pt", "--json", "--device", "cpu"));
  assertEquals([facts.network, facts.num_classes], ["GuidedDiffusionClassifier", 10]);
});

Deno.test("an upsampler of guided-diffusion enlarges pictures, and what another model paints", async () => {
  await using folder = await Folder.make();
  for (const [name, source] of [["base", "class-new-order"], ["up", "superres"]]) {
    await folder.write(`${name}.pt`, await fixture("model.pt", `adm/${source}`));
    await folder.write(`${name}.json`, await fixture("config.json", `adm/${source}`));
  }
  await folder.write("small.bmp", makeBmp(8, 8, [200, 100, 50]));
  const flags = ["--class", "2", "--steps", "2", "--device", "cpu"];
  await folder.succeed("upscale", "small.bmp", "--model", "up.pt", ...flags, "--out", "large.png");
  const png = new DataView((await Deno.readFile(folder.at("large.png"))).buffer);
  assertEquals([png.getUint32(16), png.getUint32(20)], [16, 16]);
  const noisy = [...flags, "--noise-level", "0.2", "--out", "noisy.png"];
  const refused = await folder.run("upscale", "small.bmp", "--model", "up.pt", ...noisy);
  assertEquals(refused.code, 2);
  assertMatch(refused.stderr, /error: Cannot enlarge with noise of level 0\.2: the model was not/);
  await folder.succeed("sample", "--model", "base.pt,up.pt", "--count", "1", ...flags);
  const alone = await folder.run("sample", "--model", "up.pt", ...flags);
  assertEquals(alone.code, 2);
  assertMatch(alone.stderr, /Cannot paint with up\.pt: it enlarges/);
});

Deno.test("a file of PyTorch of no project that is known says so, and one that would run something", async () => {
  await using folder = await Folder.make();
  const pickle = `(S'x'\n${pickledTensor("0", [2], 2)}d.`;
  await folder.write("x.pt", torchArchive(pickle, { "archive/data/0": new Uint8Array(8) }));
  await folder.refuse(["info", "x.pt"], /its tensors do not have the names of pesser/);
  await folder.write("x.pt", torchArchive("cos\nsystem\n(S'touch run'\ntR."));
  await folder.refuse(["info", "x.pt"], /it calls os\.system, which is not run/);
});

Deno.test("a model of latent diffusion without texts is described, and paints pictures", async () => {
  await using folder = await Folder.make();
  const named = [...await ldmTensors()].map(([name, tensor]) => ({
    ...{ name, shape: tensor.shape, values: toFloat32(tensor) },
  }));
  await folder.write("model.safetensors", collect(encodeSafetensors(named)));
  await folder.write("model.json", ldmConfig);
  await folder.write("own.safetensors", serializeModel(await ldmModel()));
  const info = await folder.run("info", "model.safetensors", "--json", "--device", "cpu");
  assertEquals(info.code, 0, info.stderr);
  const facts = JSON.parse(info.stdout);
  assertEquals([facts.network, facts.image, facts.latents], [
    ...["GuidedDiffusionUNet", "16x16, 3 channels", "8x8, 3 channels"],
  ]);
  assertMatch(facts.autoencoder, /^VQModel, \d+ parameters, scale 1$/);
  assertMatch(facts.family, /latent-diffusion without texts/);
  assertMatch(info.stderr, /a moving average is not in the file/);
  const images = async (model: string) => {
    await folder.succeed("sample", "--model", model, ...sample);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return [...tensors.values()].map((tensor) => ({
      ...{ shape: tensor.shape, values: toFloat32(tensor) },
    }));
  };
  const pictures = await images("model.safetensors");
  assertEquals(pictures[0].shape, [1, 3, 16, 16]);
  assertEquals(pictures, await images("own.safetensors"));

  const bare = named.filter(({ name }) => !name.includes("first_stage_model"));
  await folder.write("model.safetensors", collect(encodeSafetensors(bare)));
  await folder.refuse(["sample", "--model", "model.safetensors"], /it lacks first_stage_model/);
});
