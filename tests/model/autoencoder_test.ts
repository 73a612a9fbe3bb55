import { assert, assertEquals, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { InputError } from "../../src/errors.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { input } from "../../src/gpu/tensor.ts";
import { readTensorFile } from "../../src/formats/torch.ts";
import { findAutoencoderFamily, readAutoencoderFamily } from "../../src/model/families/mod.ts";
import type { TensorMap } from "../../src/model/families/family.ts";
import "../../src/model/model.ts";
import { autoencoderNetwork, formatNetwork, parseNetwork } from "../../src/model/network.ts";
import {
  fileShape,
  flatten,
  initializeParameters,
  viewParameters,
} from "../../src/model/parameters.ts";
import { readAutoencoder } from "../autoencoders.ts";

const folder = (name: string) =>
  fromFileUrl(new URL(`../fixtures/autoencoder/${name}`, import.meta.url));
const readJson = async (name: string) =>
  JSON.parse(await Deno.readTextFile(new URL(`../fixtures/${name}`, import.meta.url)));

const parse = (fields: Record<string, unknown> = {}, className = "AutoencoderKL") =>
  autoencoderNetwork(parseNetwork({ _class_name: className, ...fields }));

Deno.test("the autoencoder of Stable Diffusion has the tensors of its file", async () => {
  const { config, shapes, elements } = await readJson("sd15-vae.keys.json");
  const network = parse(config), { specs, count } = network.layout;
  const own = Object.fromEntries(specs.map((spec) => [spec.name, [...fileShape(spec)]]));
  assertEquals(own, shapes);
  assertEquals([count, network.factor, network.latentChannels], [elements, 8, 4]);
  assertEquals([network.scalingFactor, network.shiftFactor], [0.18215, 0]);
});

Deno.test("configurations of autoencoders are read and written as diffusers does", async () => {
  for (const name of ["kl", "vq"]) {
    const { _diffusers_version, ...fields } = await readJson(`autoencoder/${name}/config.json`);
    const written = formatNetwork(parseNetwork(fields)), { vq_embed_dim: _, ...given } = fields;
    assertEquals(written, given);
    assertEquals(formatNetwork(parseNetwork(written)), written);
  }
  const old = await readJson("autoencoder/kl-old-names/config.json");
  assertEquals(parse(old).scalingFactor, 0.18215);
  const later = parse({ scaling_factor: 1.5305, shift_factor: 0.0609, latents_mean: null });
  assertEquals([later.scalingFactor, later.shiftFactor], [1.5305, 0.0609]);
  assertEquals(formatNetwork(later).shift_factor, 0.0609);
});

Deno.test("quantising convolutions and attention are there if they are said to be", () => {
  const names = (fields: Record<string, unknown>, className?: string) =>
    parse({ block_out_channels: [32], ...fields }, className).layout.specs.map(({ name }) => name);
  const bare = names({
    ...{ use_quant_conv: false, use_post_quant_conv: false, mid_block_add_attention: false },
  });
  assert(!bare.some((name) => /quant_conv|attentions/.test(name)));
  const attending = names({
    down_block_types: ["AttnDownEncoderBlock2D"],
    up_block_types: ["AttnUpDecoderBlock2D"],
  }, "VQModel");
  for (const name of ["encoder.down_blocks.0.attentions.0", "decoder.up_blocks.0.attentions.1"]) {
    assert(attending.includes(`${name}.to_q.weight`), name);
  }
});

Deno.test("what an autoencoder cannot be is refused by name", () => {
  const refuse = (fields: Record<string, unknown>, message: string, className?: string) =>
    void assertThrows(() => parse(fields, className), InputError, message);
  refuse({ latents_mean: [0, 0, 0, 0] }, "latents_mean [0,0,0,0] is not supported");
  refuse({ latents_std: [1] }, "latents_std");
  refuse({ out_channels: 4 }, "in_channels 3 and out_channels 4 must be equal");
  refuse({ block_out_channels: [32, 64] }, "2 block_out_channels need as many");
  refuse({ block_out_channels: [48] }, "48 of block_out_channels is no multiple");
  refuse({ scaling_factor: 0 }, "scaling_factor");
  refuse({ surprising: 1 }, "surprising");
  refuse({ num_vq_embeddings: 3 }, "num_vq_embeddings");
  refuse({ down_block_types: ["DownBlock2D"] }, "down_block_types");
  refuse({ norm_type: "spatial" }, 'norm_type "spatial" is not supported', "VQModel");
  refuse({ lookup_from_codebook: true }, "lookup_from_codebook", "VQModel");
  refuse({ num_vq_embeddings: 0 }, "num_vq_embeddings", "VQModel");
  assertThrows(
    () => autoencoderNetwork(parseNetwork({ _class_name: "InceptionV3" })),
    InputError,
    "it is a feature extractor; AutoencoderKL and VQModel are autoencoders",
  );
  const network = parse({ block_out_channels: [32] });
  const parameter = viewParameters(network.layout, [input("parameters", [network.layout.size])]);
  const latents = input("latents", [1, 4, 4, 3]);
  assertThrows(() => network.decode({ parameter }, latents), InputError, "of 4 channels, not 3");
});

Deno.test("latents are limited where variances would overflow", async () => {
  const { network, parameters } = await readAutoencoder(folder("kl"));
  const pictures = input("pictures", [1, 2, 2, 3]),
    weights = input("parameters", [
      network.layout.size,
    ]);
  const parameter = viewParameters(network.layout, [weights]);
  const { logVariance } = network.encode({ parameter }, pictures);
  const device = new ReferenceDevice();
  using program = await device.compile(makeGraph({ logVariance: logVariance! }));
  const flat = flatten(network.layout, parameters).slice();
  const bias = network.layout.specs.findIndex(({ name }) => name === "quant_conv.bias");
  flat.set([1e4, -1e4], network.layout.offsets[bias] + 4);
  program.buffers.parameters.write(flat);
  program.run();
  assertEquals([...await program.buffers.logVariance.read()].slice(0, 2), [20, -30]);
});

Deno.test("first values are finite for both, and the codebook is no zero", () => {
  const network = parse({ block_out_channels: [32] }, "VQModel"), { layout } = network;
  const values = initializeParameters(layout, 1);
  const at = layout.specs.findIndex(({ name }) => name === "quantize.embedding.weight");
  assert(values.every(Number.isFinite));
  assert(values[layout.offsets[at]] !== 0);
});

/** A file of latent diffusion, and what is known beside it. */
async function ldm(name: string): Promise<{ tensors: TensorMap; config: Record<string, unknown> }> {
  const file = await Deno.readFile(`${folder(name)}/model.ckpt`);
  const config = await readJson(`autoencoder/${name}/config.json`);
  return { tensors: (await readTensorFile(file, name)).tensors, config };
}

Deno.test("files of latent diffusion tell what their autoencoders are", async () => {
  for (const name of ["kl", "vq"]) {
    const { tensors, config } = await ldm(`${name}-ldm`), family = findAutoencoderFamily(tensors)!;
    const { autoencoder, notes } = readAutoencoderFamily(family, tensors, "x.ckpt", config);
    const golden = await readJson(`autoencoder/${name}/config.json`);
    const { _diffusers_version, vq_embed_dim: _, scaling_factor, ...given } = golden;
    const { vq_embed_dim, force_upcast, scaling_factor: scale, ...told } = formatNetwork(
      autoencoder.network,
    );
    assertEquals({ ...told, ...(name === "kl" ? { force_upcast } : {}) }, given);
    if (name === "vq") assertEquals(vq_embed_dim, 3);
    else assertEquals(scale, scaling_factor);
    // The file of a whole model tells the factor, that of an autoencoder alone does not.
    assertEquals(notes.some((note) => note.startsWith("nothing tells the factor")), name === "kl");
  }
  const { tensors, config } = await ldm("kl-ldm"), family = findAutoencoderFamily(tensors)!;
  const { autoencoder } = readAutoencoderFamily(family, tensors, "x", {
    ...config,
    scale_factor: 0.25,
  });
  assertEquals(autoencoder.network.scalingFactor, 0.25);
});

Deno.test("autoencoders whose tensors contradict what is said are refused", async () => {
  const { tensors, config } = await ldm("kl-ldm"), family = findAutoencoderFamily(tensors)!;
  const refuse = (message: string, given: unknown, of: TensorMap = tensors) =>
    void assertThrows(
      () => readAutoencoderFamily(family, of, "x.ckpt", given),
      InputError,
      message,
    );
  const { params } = config as { params: { ddconfig: Record<string, unknown> } };
  const withFields = (fields: Record<string, unknown>) => ({
    ...config,
    params: { ...params, ddconfig: { ...params.ddconfig, ...fields } },
  });
  refuse("says z_channels 3", withFields({ z_channels: 3 }));
  refuse("says ch_mult [1,4]", withFields({ ch_mult: [1, 4] }));
  refuse("8 of block_out_channels is no multiple of norm_num_groups, 32", {});
  refuse("says embed_dim 8", { ...config, params: { ...params, embed_dim: 8 } });
  const prefix = "state_dict.";
  const without = new Map(tensors);
  without.delete(`${prefix}decoder.mid.attn_1.q.bias`);
  refuse("it lacks decoder.mid_block.attentions.0.to_q.bias", config, without);
  const more = new Map(tensors);
  more.set(`${prefix}encoder.more.weight`, tensors.get(`${prefix}encoder.conv_in.bias`)!);
  refuse("no place for encoder.more.weight", config, more);
});
