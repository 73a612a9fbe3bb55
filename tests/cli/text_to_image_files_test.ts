import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.ts";
import { loadTextToImage } from "../../src/cli/run/text_to_image.ts";
import { flatten, type ParameterLayout } from "../../src/model/parameters.ts";
import type { TextToImageModel } from "../../src/model/text_to_image.ts";
import type { Weighted } from "../../src/model/weights.ts";
import { makeTorch } from "../torch.ts";
import { Folder, tinyModelFile } from "./cli.ts";
import { HubServer } from "./hub_server.ts";
import { type Changes, fixture, pipelineFiles, pipelineFolder, singleFile } from "./pipelines.ts";

const flat = (piece: Weighted<{ readonly layout: ParameterLayout }>) =>
  flatten(piece.network.layout, piece.parameters);
const load = async (folder: Folder, place: string): Promise<TextToImageModel> =>
  (await loadTextToImage(folder.at(place)))!;

/** Tensors of a file of the fixtures as ones to write. */
async function tensorsOf(path: string) {
  const { tensors } = readSafetensors(await fixture(path));
  return [...tensors].filter(([, { dtype }]) => dtype === "F32").map(([name, tensor]) => ({
    ...{ name, shape: tensor.shape, values: toFloat32(tensor) },
  }));
}

/** The weights in two files, and their index. */
function shards(tensors: Awaited<ReturnType<typeof tensorsOf>>, stem: string): Changes {
  const half = tensors.length >> 1, parts = [tensors.slice(0, half), tensors.slice(half)];
  const names = [1, 2].map((k) => `${stem}-0000${k}-of-00002.safetensors`);
  const map = parts.flatMap((part, k) => part.map(({ name }) => [name, names[k].split("/")[1]]));
  return {
    [names[0]]: writeSafetensors(parts[0]),
    [names[1]]: writeSafetensors(parts[1]),
    [`${stem}.safetensors.index.json`]: { weight_map: Object.fromEntries(map) },
  };
}

const text = "text_encoder/model", unet = "unet/diffusion_pytorch_model";
const vae = "vae/diffusion_pytorch_model", index = "model_index.json";
const pieces = JSON.parse(new TextDecoder().decode(await fixture(`pipelines/txt2img/${index}`)));

Deno.test("a pipeline and the single file of it are the same model", async () => {
  await using folder = await pipelineFolder();
  await using single = await singleFile();
  const [a, b] = [await load(folder, "pipe"), await load(single, "one/model.safetensors")];
  for (const name of ["denoiser", "autoencoder", "textEncoder"] as const) {
    assertEquals(flat(a[name]), flat(b[name]), name);
  }
  assertEquals(a.denoiser.schedule, b.denoiser.schedule);
  assertEquals(a.denoiser.scheduler?._class_name, "DDIMScheduler");
  assertEquals(
    [a.autoencoder.network.scalingFactor, a.textEncoder.network.width],
    [0.18215, 24],
  );
  for (const { tokenizer } of [a, b]) {
    assertEquals(tokenizer.length, 77);
    assertEquals([...tokenizer.encode("red b").ids.slice(0, 5)], [298, 53, 27, 299, 299]);
  }
});

Deno.test("variants, pickles, shards and old names of pieces are taken as those of any network", async () => {
  const texts = await tensorsOf(`pipelines/txt2img/${text}.safetensors`);
  const changes: Changes[] = [
    { [`${text}.safetensors`]: undefined, "text_encoder/pytorch_model.bin": makeTorch(texts) },
    { [`${text}.safetensors`]: undefined, ...shards(texts, text) },
    {
      [`${text}.safetensors`]: undefined,
      [`${text}.fp16.safetensors`]: await fixture(`pipelines/txt2img/${text}.safetensors`),
    },
  ];
  await using folder = await pipelineFolder();
  const expected = flat((await load(folder, "pipe")).textEncoder);
  for (const change of changes) {
    await using other = await pipelineFolder(change);
    assertEquals(flat((await load(other, "pipe")).textEncoder), expected);
  }
  const old = "autoencoder/kl-old-names";
  await using former = await pipelineFolder({
    "vae/config.json": await fixture(`${old}/config.json`),
    [`${vae}.safetensors`]: undefined,
    [`${vae}.bin`]: await fixture(`${old}/diffusion_pytorch_model.bin`),
  });
  const { network } = (await load(former, "pipe")).autoencoder;
  assertEquals(network.scalingFactor, 0.18215);
});

Deno.test("weights of 16 bits are widened when they are read", async () => {
  const all = await tensorsOf(`pipelines/txt2img/${unet}.safetensors`);
  const halves = all.map((tensor) => ({ ...tensor, values: new Float16Array(tensor.values) }));
  await using folder = await pipelineFolder({
    [`${unet}.safetensors`]: undefined,
    [`${unet}.fp16.safetensors`]: writeSafetensors(halves),
  });
  const { denoiser } = await load(folder, "pipe"), { layout } = denoiser.network;
  const at = layout.specs.findIndex(({ name }) => name === "conv_in.bias");
  const values = flat(denoiser).subarray(layout.offsets[at], layout.offsets[at] + 8);
  assertEquals([...values], [...halves.find(({ name }) => name === "conv_in.bias")!.values]);
  const { stderr, stdout } = await folder.run("info", "pipe");
  assertMatch(stderr, /^the weights are the variant fp16: unet\/diff\S+\.fp16\.safetensors$/m);
  assertMatch(stdout, /^unet +UNet2DConditionModel, 73292 parameters, F16$/m);
});

Deno.test("models that do not read texts are none of these", async () => {
  await using folder = await pipelineFolder({
    "plain/model.safetensors": tinyModelFile(),
  });
  for (const place of ["pipe/plain", "pipe/plain/model.safetensors", "pipe/unet", "pipe/vae"]) {
    assertEquals(await loadTextToImage(folder.at(place)), undefined, place);
  }
  assertEquals(await loadTextToImage("mnist"), undefined);
});

Deno.test("pieces that are missing, or do not fit, are named", async () => {
  const cases: [Changes, RegExp][] = [
    [{ [index]: { ...pieces, vae: [null, null] } }, /lacks a vae \(AutoencoderKL or VQModel\)/],
    [
      { [index]: { ...pieces, text_encoder: undefined } },
      /lacks a text_encoder \(CLIPTextModel or LDMB/,
    ],
    [
      { [index]: { ...pieces, text_encoder_2: ["transformers", "CLIPTextModelWithProjection"] } },
      /does not paint with text_encoder_2 \(CLIPTextModelWithProjection\)/,
    ],
    [{ "vae/config.json": undefined }, /pipe\/vae: there is no config\.json in it/],
    [
      { [`${text}.safetensors`]: undefined },
      /pipe\/text_encoder: it holds neither model\.safetensors nor pyt/,
    ],
    [{ [`${vae}.safetensors`]: undefined }, /pipe\/vae: it holds neither/],
    [{ "tokenizer/merges.txt": undefined }, /there is no tokenizer\/merges\.txt/],
    [
      { "tokenizer/merges.txt": undefined, "tokenizer/vocab.json": undefined },
      /its text encoder knows 300 tokens, which is not the vocabulary of CLIP/,
    ],
    [
      {
        "tokenizer/vocab.json": { "<|startoftext|>": 0, "<|endoftext|>": 300 },
        "tokenizer/merges.txt": "",
      },
      /its tokenizer has 301 tokens, but its text encoder knows 300/,
    ],
    [
      { "tokenizer/special_tokens_map.json": { pad_token: "?" } },
      /its pad_token "\?" is none of the vocabulary/,
    ],
    [
      {
        "vae/config.json": await fixture("autoencoder/vq/config.json"),
        [`${vae}.safetensors`]: await fixture("autoencoder/vq/diffusion_pytorch_model.safetensors"),
      },
      /its UNet denoises 4 channels, but its autoencoder makes latents of 3/,
    ],
    [
      {
        "text_encoder/config.json": await fixture("clip/text/config.json"),
        [`${text}.safetensors`]: await fixture("clip/text/model.safetensors"),
      },
      /its UNet reads 24 numbers a token, but its text encoder says 32 of each/,
    ],
  ];
  for (const [changes, message] of cases) {
    await using folder = await pipelineFolder(changes);
    const { message: said } = await assertRejects(() => load(folder, "pipe"), InputError);
    assertMatch(said, message);
    assertMatch(said, /^Cannot (load|use) /);
  }
});

Deno.test("a tokenizer fills texts up as its settings say", async () => {
  await using folder = await pipelineFolder({
    "tokenizer/tokenizer_config.json": { pad_token: "<|endoftext|>" },
    "tokenizer/special_tokens_map.json": { pad_token: { content: "b" } },
  });
  const { tokenizer } = await load(folder, "pipe");
  assertEquals([...tokenizer.encode("red").ids.slice(0, 4)], [298, 53, 299, 1]);
});

Deno.test("info describes pipelines and single files, and other commands say what would be right", async () => {
  const checker = { safety_checker: ["x", "Checker"], feature_extractor: ["x", "Extractor"] };
  await using folder = await pipelineFolder({ [index]: { ...pieces, ...checker } });
  await using single = await singleFile();
  const told = await folder.run("info", "pipe", "--json");
  assertEquals(told.code, 0, told.stderr);
  assertEquals(
    told.stderr,
    "pipe: passing over safety_checker (Checker), since only a StableDiffusionSafetyChecker is known: " +
      "nothing looks at what is painted\n",
  );
  const { sha256, ...facts } = JSON.parse(told.stdout);
  assertEquals(sha256.length, 3);
  assertEquals(facts, {
    ...{ family: "diffusers", pipeline: "StableDiffusionPipeline" },
    unet: "UNet2DConditionModel, 73292 parameters, F32",
    vae: "AutoencoderKL, 43711 parameters, F32",
    text_encoder: "CLIPTextModel, 23544 parameters, F32",
    ...{ tokenizer: "300 tokens, 77 a text", image: "16x16, 3 channels" },
    latents: "2 times smaller, 4 channels, times 0.18215",
    ...{ schedule: "1000 timesteps, scaled_linear", prediction: "epsilon", dtype: "F32" },
    ...{ missing: "nothing", parameters: 140547, weights: "562 kB" },
  });
  const one = JSON.parse(await single.succeed("info", "one/model.safetensors", "--json"));
  assertEquals([one.unet, one.vae, one.parameters], [facts.unet, facts.vae, facts.parameters]);
  assertMatch(one.family, /Stable Diffusion/);
  await folder.refuse(
    ["export", "pipe", "--out", "x"],
    /a StableDiffusionPipeline, which paints texts.*, and pipe\/unet is its UNet alone/,
  );
  await single.refuse(
    ["export", "one/model.safetensors", "--out", "x"],
    /which paints texts with a t/,
  );
});

Deno.test("a file of latent diffusion without text is told, and what it would need", async () => {
  const all = await tensorsOf("pipelines/single-file/model.safetensors");
  const some = all.filter(({ name }) => !/^cond_stage_model|\.attn2\./.test(name));
  await using folder = await singleFile({ "model.safetensors": writeSafetensors(some) });
  const path = "one/model.safetensors";
  await folder.refuse(
    ["sample", "--model", path],
    /has not, its unet \(model\.diffusion_model without attention to a text\), text_encoder \(no cond/,
  );
  const facts = JSON.parse(await folder.succeed("info", path, "--json"));
  assertEquals(facts.vae, "AutoencoderKL, 43711 parameters, F32");
  assertEquals(facts.unet, undefined);
  assertMatch(facts.missing, /^unet \(.*\), text_encoder \(no cond_stage_model\)$/);
});

Deno.test("of a pipeline of the hub nothing is fetched that is not needed", async () => {
  const files: Changes = {
    ...await pipelineFiles(),
    [index]: { ...pieces, safety_checker: ["x", "Checker"] },
    "safety_checker/pytorch_model.bin": new Uint8Array(100),
    [`${unet}.bin`]: new Uint8Array(100),
    [`${unet}.fp16.safetensors`]: new Uint8Array(100),
    "v1-5-pruned.ckpt": new Uint8Array(100),
    "v1-5-pruned.safetensors": new Uint8Array(100),
  };
  const bytes = (content: Changes[string]) =>
    content instanceof Uint8Array
      ? content
      : new TextEncoder().encode(typeof content === "string" ? content : JSON.stringify(content));
  await using hub = new HubServer(
    new Map(Object.entries(files).map(([path, content]) => [path, bytes(content)])),
  );
  await using folder = await Folder.make();
  const cache = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" };
  Object.assign(folder.env, cache);
  const { stdout, stderr, code } = await folder.run("info", "hf:google/tiny");
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /^missing +nothing$/m);
  assertEquals(hub.fetched.toSorted(), [
    ...[
      index,
      "scheduler/scheduler_config.json",
      "text_encoder/config.json",
      `${text}.safetensors`,
    ],
    ...["tokenizer/merges.txt", "tokenizer/vocab.json", "unet/config.json", `${unet}.safetensors`],
    ...["vae/config.json", `${vae}.safetensors`],
  ]);
});
