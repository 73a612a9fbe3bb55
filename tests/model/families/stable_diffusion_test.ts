import { assert, assertEquals, assertThrows } from "@std/assert";
import { makeTables } from "../../../src/diffusion/betas.ts";
import { parseSchedule } from "../../../src/diffusion/schedule.ts";
import { InputError } from "../../../src/errors.ts";
import type { FileTensor } from "../../../src/formats/safetensors.ts";
import { findAutoencoderFamily, findFamily } from "../../../src/model/families/mod.ts";
import { below, type TensorMap } from "../../../src/model/families/family.ts";
import { ldmUnet } from "../../../src/model/families/ldm_unet.ts";
import { findPipelineFamily, readPipelineFamily } from "../../../src/model/families/pipelines.ts";
import { stableDiffusion } from "../../../src/model/families/stable_diffusion.ts";
import { networkOf } from "../../../src/model/network.ts";
import { fileShape, flatten, type ParameterLayout } from "../../../src/model/parameters.ts";
import { assembleNetwork, type Weighted } from "../../../src/model/weights.ts";
import { fixtureOf } from "./golden.ts";

const single = fixtureOf("pipelines/single-file"), folder = fixtureOf("pipelines/txt2img");
const config = await single.json("config.json");
const original: TensorMap = (await single.tensors("model.safetensors")).tensors;
const read = (tensors: TensorMap, fields: unknown = config) =>
  readPipelineFamily(stableDiffusion, tensors, "x.ckpt", { config: fields });

const without = (pattern: RegExp) =>
  new Map(original.entries().filter(([name]) => !pattern.test(name)));
const numbers = (shape: number[], values: number[]): FileTensor => ({
  ...{ dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) },
});

type AnyWeighted = Weighted<{ readonly layout: ParameterLayout }>;
const flat = ({ network: { layout }, parameters }: AnyWeighted) => flatten(layout, parameters);

Deno.test("a file of Stable Diffusion has the networks and numbers of its folder of diffusers", async () => {
  assertEquals(findPipelineFamily(original), stableDiffusion);
  assertEquals(findFamily(original), undefined);
  const { denoiser, autoencoder, textEncoder, missing, dtypes, notes } = read(original);
  assertEquals(missing, []);
  assertEquals(dtypes, { unet: "F32", vae: "F32", text_encoder: "F32" });
  const pieces = { unet: denoiser!, vae: autoencoder!, text_encoder: textEncoder! };
  for (const [name, piece] of Object.entries(pieces)) {
    const file = name === "text_encoder" ? "model" : "diffusion_pytorch_model";
    const { tensors } = await folder.tensors(`${name}/${file}.safetensors`);
    const copy = assembleNetwork(
      networkOf(await folder.json(`${name}/config.json`)),
      tensors,
      name,
    );
    assertEquals(flat(piece), flat(copy), name);
    assertEquals(
      { ...piece.network.config, scaling_factor: 0 },
      { ...copy.network.config, scaling_factor: 0 },
      name,
    );
  }
  assertEquals(autoencoder!.network.scalingFactor, 0.18215);
  const { _class_name: _, ...noise } = await folder.json("scheduler/scheduler_config.json");
  assertEquals(denoiser!.schedule, parseSchedule(noise));
  assertEquals(notes, [
    `its tensors have the names of ${stableDiffusion.name}`,
    "a moving average is not in the file, which may have its numbers as the weights",
    "the noise is as its configuration says",
  ]);
});

Deno.test("it is the same under state_dict, with what a training leaves beside it", () => {
  const dict = new Map<string, FileTensor>(
    original.entries().map(([name, tensor]) => [`state_dict.${name}`, tensor]),
  );
  dict.set("optimizer_states.0.state.0.exp_avg", numbers([1], [0]));
  dict.set("state_dict.model_ema.decay", numbers([], [0.9999]));
  assertEquals(findPipelineFamily(dict), stableDiffusion);
  assertEquals(flat(read(dict).denoiser!), flat(read(original).denoiser!));
  assertThrows(
    () => read(new Map(original).set("control_model.time_embed.0.weight", numbers([1], [0]))),
    InputError,
    "it holds control_model.time_embed.0.weight, which belongs to no network",
  );
});

Deno.test("the names and shapes of Stable Diffusion 1.5 are complete, with and without tables", async () => {
  const bytes = await Deno.readFile(
    new URL("../../fixtures/keys/sd15-single-file.json.gz", import.meta.url),
  );
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { shapes, tensors: count } = await new Response(stream).json();
  const betas = [...makeTables(parseSchedule(config.scheduler)).betas];
  const file = new Map<string, FileTensor>(
    Object.entries(shapes as Record<string, number[]>).map((
      [name, shape],
    ) => [name, { dtype: "F16", shape, bytes: new Uint8Array() }]),
  );
  assertEquals(file.size, count);
  const tables = file.has("betas");
  if (tables) file.set("betas", numbers([1000], betas));
  const bare = new Map(file.entries().filter(([name]) => /^(model\.|first|cond)/.test(name)));
  const published = {
    denoiser: await fixtureOf("keys").json("sd15-unet.json"),
    autoencoder: await fixtureOf(".").json("sd15-vae.keys.json"),
    textEncoder: await fixtureOf(".").json("clip-vit-l-14-text.keys.json"),
  };
  for (const tensors of [file, bare]) {
    assertEquals(findPipelineFamily(tensors), stableDiffusion);
    const pieces = read(tensors, {});
    assertEquals(pieces.missing, []);
    for (const name of ["denoiser", "autoencoder", "textEncoder"] as const) {
      const { layout, config } = pieces[name]!.network, expected = published[name];
      const found = layout.specs.map((spec) => [spec.name, fileShape(spec)] as const);
      const shapes = Object.entries<number[]>(expected.shapes)
        .filter(([name]) => !name.endsWith("position_ids"));
      assertEquals(Object.fromEntries(found), Object.fromEntries(shapes));
      for (const field of ["attention_head_dim", "num_attention_heads", "hidden_act", "act_fn"]) {
        if (field in expected.config) assertEquals(config[field], expected.config[field], field);
      }
    }
    assertEquals(pieces.denoiser!.schedule.betaSchedule, "scaled_linear");
    assertEquals(pieces.denoiser!.schedule.setAlphaToOne, false);
    assertEquals(pieces.denoiser!.network.itemShape, [64, 64, 4]);
    const said = pieces.notes.join("\n");
    for (
      const what of [
        "8 heads",
        "32 groups",
        "heads of 64",
        "0.18215",
        "the noise and what",
        "64x64",
      ]
    ) {
      assert(said.includes(what), `${what} in ${said}`);
    }
  }
});

Deno.test("the moving average is taken where it is complete, and it is said", () => {
  const average = new Map<string, FileTensor>();
  for (const [name, tensor] of below(original, "model.diffusion_model.")) {
    const { dtype, shape, bytes } = tensor;
    const zeros = { dtype, shape, bytes: new Uint8Array(bytes.length) };
    average.set(`model_ema.diffusion_model${name.replaceAll(".", "")}`, zeros);
  }
  const both = read(new Map([...original, ...average]));
  assert(flat(both.denoiser!).every((x) => x === 0));
  assert(both.notes.includes("the moving average of the weights was taken"));
  assertEquals(both.denoiser!.card.weight_source, "the moving average of the weights was taken");
  average.delete("model_ema.diffusion_modelout2bias");
  const part = read(new Map([...original, ...average]));
  assertEquals(flat(part.denoiser!), flat(read(original).denoiser!));
  assert(
    part.notes.some((note) => note.startsWith("a moving average is not complete: it lacks 1")),
  );
});

Deno.test("the original's own settings serve as well as those of diffusers", () => {
  const params = {
    ...{ linear_start: 0.00085, linear_end: 0.012, timesteps: 1000, scale_factor: 0.18215 },
    image_size: 8,
    unet_config: {
      params: {
        ...{ image_size: 32, in_channels: 4, out_channels: 4, model_channels: 8 },
        ...{ attention_resolutions: [1], num_res_blocks: 2, channel_mult: [1, 2], num_heads: 4 },
        ...{ use_spatial_transformer: true, transformer_depth: 1, context_dim: 24 },
      },
    },
    first_stage_config: { params: { embed_dim: 4, ddconfig: { z_channels: 4, ch: 8 } } },
  };
  const groups = { norm_num_groups: 4 };
  const rest = { unet: groups, vae: groups, text_encoder: { num_attention_heads: 4 } };
  const pieces = read(original, { model: { params }, ...rest }), expected = read(original);
  for (const name of ["denoiser", "autoencoder", "textEncoder"] as const) {
    assertEquals(flat(pieces[name]!), flat(expected[name]!));
  }
  assertEquals(pieces.denoiser!.network.config.attention_head_dim, 4);
  assertEquals(pieces.denoiser!.network.itemShape, [8, 8, 4]);
  assertEquals(pieces.denoiser!.schedule.stepsOffset, 1);
  const changed = (fields: object) => () =>
    read(original, { model: { params: { ...params, ...fields } }, ...rest });
  assertEquals(
    changed({ parameterization: "v" })().denoiser!.schedule.predictionType,
    "v_prediction",
  );
  assertThrows(changed({ linear_end: 0.02 }), InputError, "another noise than the table betas");
  const unet = { params: { ...params.unet_config.params, context_dim: 32 } };
  assertThrows(changed({ unet_config: unet }), InputError, "says cross_attention_dim 32, but");
  const heads = { params: { ...params.unet_config.params, num_heads: -1, num_head_channels: 4 } };
  assertEquals(
    changed({ unet_config: heads })().denoiser!.network.config.attention_head_dim,
    [2, 4],
  );
});

Deno.test("noise of its own is taken from the table in the file", () => {
  const betas = Array.from({ length: 10 }, (_, t) => 0.01 + t / 1000);
  const tensors = new Map(original).set("betas", numbers([10], betas));
  const { scheduler: _, ...rest } = config, { denoiser, notes } = read(tensors, rest);
  assertEquals(denoiser!.schedule.numTrainTimesteps, 10);
  assertEquals(denoiser!.schedule.trainedBetas, betas.map(Math.fround));
  assert(notes.some((note) => note.startsWith("the noise is as the file has it")));
  assertThrows(() => read(tensors), InputError, "another noise than the table betas in the file");
});

Deno.test("networks that are missing, or of another kind, are named", () => {
  const missing = (tensors: TensorMap) => read(tensors).missing;
  assertEquals(missing(without(/^first_stage_model\./)), ["vae (no first_stage_model)"]);
  assertEquals(missing(without(/^cond_stage_model\./)), ["text_encoder (no cond_stage_model)"]);
  const other = without(/^cond_stage_model\./);
  other.set("cond_stage_model.model.token_embedding.weight", original.get("betas")!);
  assertEquals(missing(other), ["text_encoder (cond_stage_model of OpenCLIP)"]);
  // Latent diffusion without text: no attention to one, no encoder of texts.
  const unconditional = without(/^cond_stage_model\.|\.attn2\./);
  assertEquals(findFamily(unconditional), undefined);
  assertEquals(findPipelineFamily(unconditional), stableDiffusion);
  const { autoencoder, denoiser, missing: names } = read(unconditional);
  assertEquals([autoencoder!.network.className, denoiser], ["AutoencoderKL", undefined]);
  assertEquals(names, [
    "unet (model.diffusion_model without attention to a text)",
    "text_encoder (no cond_stage_model)",
  ]);
});

Deno.test("the text encoder of latent diffusion is read in the place of CLIP", async () => {
  const { tensors } = await fixtureOf("clip/bert").tensors("model.safetensors");
  const { textEncoder } = read(new Map([...without(/^cond_stage_model\./), ...tensors]), {
    ...config,
    text_encoder: {},
  });
  assertEquals(textEncoder!.network.className, "BERTEmbedder");
  assertEquals(textEncoder!.network.config, {
    ...{ n_embed: 8, n_layer: 2, vocab_size: 120, max_seq_len: 77, heads: 8, dim_head: 64 },
  });
});

Deno.test("what contradicts the tensors is refused by name", () => {
  const given = (piece: string, fields: object) => () =>
    read(original, { ...config, [piece]: { ...config[piece], ...fields } });
  const cases: [() => unknown, string][] = [
    [given("vae", { latent_channels: 3 }), "says latent_channels 3, but its tensors are of 4"],
    [
      () => read(new Map(original).set("scale_factor", numbers([], [0.5]))),
      "says scaling_factor 0.18215, but its tensor scale_factor 0.5",
    ],
    [given("text_encoder", { hidden_size: 32 }), "says hidden_size 32, but its tensors are of 24"],
    [given("unet", { in_channels: 9 }), "says in_channels 9, but its tensors are of 4"],
    [() => read(without(/final_layer_norm\.bias/)), "lacks text_model.final_layer_norm.bias"],
    [
      () => read(original, { ...config, text_encoder: {} }),
      "num_attention_heads of text_encoder",
    ],
  ];
  for (const [run, message] of cases) {
    const error = assertThrows(run, InputError, message);
    assert(error.message.startsWith("Cannot load x.ckpt"), error.message);
  }
});

Deno.test("parts of such files alone are still what they are", async () => {
  const unet = await fixtureOf("unet-condition/depth-8heads").tensors("ldm-fp16.ckpt");
  assertEquals(findPipelineFamily(unet.tensors), undefined);
  assertEquals(findFamily(unet.tensors), ldmUnet);
  for (const name of ["kl-ldm", "vq-ldm"]) {
    const { tensors } = await fixtureOf(`autoencoder/${name}`).tensors("model.ckpt");
    assertEquals(findPipelineFamily(tensors), undefined);
    assertEquals(findFamily(tensors), undefined);
    assert(findAutoencoderFamily(tensors));
  }
});
