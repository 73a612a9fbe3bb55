import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import type { FileTensor } from "../../../src/formats/safetensors.ts";
import { findFamily, readFamily } from "../../../src/model/families/mod.ts";
import { below, rename, type TensorMap } from "../../../src/model/families/family.ts";
import { findLdmUnet, ldmUnet, renameLdmUnet } from "../../../src/model/families/ldm_unet.ts";
import { parseNetwork } from "../../../src/model/network.ts";
import { fileShape, flatten } from "../../../src/model/parameters.ts";
import { assembleModel } from "../../../src/model/model.ts";
import { parseSchedule } from "../../../src/diffusion/schedule.ts";
import { fixtureOf } from "./golden.ts";

const fixture = fixtureOf("unet-condition/depth-8heads");
const config = await fixture.json("config.json");
const { tensors: original } = await fixture.tensors("ldm-fp16.ckpt");
const { tensors: renamed } = await fixture.tensors("diffusion_pytorch_model.fp16.safetensors");
const PLACE = "state_dict.model.diffusion_model.";

/** Tensors of real shapes, without numbers. */
const withoutNumbers = (shapes: Record<string, number[]>): TensorMap =>
  new Map(
    Object.entries(shapes).map((
      [name, shape],
    ) => [name, { dtype: "F32", shape, bytes: new Uint8Array() }]),
  );

Deno.test("a UNet of latent diffusion alone in a file has the numbers of its copy in diffusers", () => {
  assertEquals(findFamily(original), ldmUnet);
  const { model, notes } = readFamily(ldmUnet, original, "x.ckpt", { config });
  const copy = assembleModel(parseNetwork(config), parseSchedule({}), renamed, "copy");
  assertEquals(
    flatten(model.network.layout, model.parameters),
    flatten(copy.network.layout, copy.parameters),
  );
  assertEquals(model.network.config, copy.network.config);
  assertEquals([model.schedule.betaSchedule, model.schedule.betaEnd], ["scaled_linear", 0.012]);
  assertEquals(notes, [
    `its tensors have the names of ${ldmUnet.name}`,
    "a moving average is not in the file, which may have its numbers as the weights",
    "the noise and what is predicted are those of Stable Diffusion 1",
  ]);
});

Deno.test("it is found without state_dict, without a prefix, and under unet in what is known", () => {
  const bare = below(original, PLACE);
  const short = rename(original, [[/^state_dict\./, ""]]);
  for (const tensors of [bare, short]) {
    assertEquals(findFamily(tensors), ldmUnet);
    const { model } = readFamily(ldmUnet, tensors, "x", { config: { unet: config } });
    assertEquals(model.network.layout.specs.length, renamed.size);
  }
  // A file of a whole pipeline is for others.
  const whole = new Map(original).set("first_stage_model.x", original.values().next().value!);
  assertEquals(findFamily(whole), undefined);
});

Deno.test("a moving average is taken where it is complete, and it is said", () => {
  const average = new Map<string, FileTensor>();
  for (const [name, tensor] of below(original, PLACE)) {
    const { dtype, shape, bytes } = tensor;
    const zeros = { dtype, shape, bytes: new Uint8Array(bytes.length) };
    average.set(`state_dict.model_ema.diffusion_model${name.replaceAll(".", "")}`, zeros);
  }
  const both = new Map([...original, ...average]);
  const { model } = readFamily(ldmUnet, both, "x", { config });
  assert(flatten(model.network.layout, model.parameters).every((x) => x === 0));
  assertEquals(model.card.weight_source, "the moving average of the weights was taken");
  average.delete("state_dict.model_ema.diffusion_modelout2bias");
  const part = findLdmUnet(new Map([...original, ...average]))!;
  assertEquals(part.tensors.get("out.2.bias"), original.get(`${PLACE}out.2.bias`));
  assertEquals(
    part.weightSource,
    `a moving average is not complete: it lacks 1 of ${renamed.size} tensors`,
  );
});

Deno.test("the names of Stable Diffusion 1.5 become those of diffusers, by shapes alone", async () => {
  const bytes = await Deno.readFile(
    new URL("../../fixtures/keys/sd15-single-file.json.gz", import.meta.url),
  );
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const { shapes } = await new Response(stream).json();
  const net = findLdmUnet(withoutNumbers(shapes))!.tensors;
  const { network, tensors, guesses } = renameLdmUnet(net, {});
  const published = await fixtureOf("keys").json("sd15-unet.json");
  assertEquals(
    Object.fromEntries([...tensors].map(([name, { shape }]) => [name, shape])),
    published.shapes,
  );
  const { layout, config } = parseNetwork(network);
  assertEquals(
    Object.fromEntries(layout.specs.map((spec) => [spec.name, fileShape(spec)])),
    published.shapes,
  );
  const { sample_size: _, ...known } = published.config;
  for (const [key, value] of Object.entries(known)) assertEquals(config[key], value, key);
  assertEquals(guesses, [
    "its attention has 8 heads, as in Stable Diffusion 1; a config.json beside it can tell " +
    "attention_head_dim",
    "its normalisations have 32 groups; a config.json beside it can tell norm_num_groups",
  ]);
});

Deno.test("with dense projections, heads of 64 are guessed, as in Stable Diffusion 2", () => {
  const wide = new Map<string, FileTensor>();
  const { tensors } = renameLdmUnet(below(original, PLACE), config);
  assert(tensors.size);
  for (const [name, tensor] of below(original, PLACE)) {
    const scale = (n: number) => n % 8 === 0 ? 8 * n : n;
    const isDense = /proj_(in|out)\.weight$/.test(name);
    const shape = (isDense ? tensor.shape.slice(0, 2) : tensor.shape).map(scale);
    wide.set(name, { ...tensor, shape });
  }
  const { network, guesses } = renameLdmUnet(wide, { norm_num_groups: 4 });
  assertEquals(network.use_linear_projection, true);
  assertEquals(network.attention_head_dim, [1, 2]);
  assertEquals(guesses.length, 1);
});

Deno.test("what is missing, superfluous, or contradicts the tensors is named", () => {
  const read = (tensors: TensorMap, fields: unknown = config) => () =>
    readFamily(ldmUnet, tensors, "x.ckpt", { config: fields });
  const without = (name: string) => {
    const tensors = new Map(original);
    tensors.delete(PLACE + name);
    return tensors;
  };
  assertThrows(read(without("out.2.weight")), InputError, "lacks out.2.weight");
  assertThrows(
    read(without("output_blocks.0.0.in_layers.0.bias")),
    InputError,
    "it lacks up_blocks.0.resnets.0.norm1.bias",
  );
  const more = new Map(original).set(`${PLACE}more.weight`, original.values().next().value!);
  assertThrows(read(more), InputError, "no place for more.weight");
  assertThrows(
    read(original, { ...config, cross_attention_dim: 24 }),
    InputError,
    "says cross_attention_dim 24, but its tensors are of 12",
  );
  assertThrows(
    read(original, { ...config, block_out_channels: [8, 32] }),
    InputError,
    "block_out_channels [8,32]",
  );
  assertThrows(read(original, { ...config, attention_head_dim: 3 }), InputError, "heads");
  assertThrows(read(original, {}), InputError, "norm_num_groups, 32");
});
