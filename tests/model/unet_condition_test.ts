import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { grad, type Segment } from "../../src/gpu/grad.ts";
import { square } from "../../src/gpu/ops/map.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input, type Tensor } from "../../src/gpu/tensor.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import { type DenoisingNetwork, parseNetwork } from "../../src/model/network.ts";
import { fileShape, parameterInputs, viewParameters } from "../../src/model/parameters.ts";
import {
  formatUNetConditionConfig,
  parseUNetConditionConfig,
} from "../../src/model/unet_condition_config.ts";
import { assertClose } from "../close.ts";
import { randomModel } from "../networks.ts";

const fixtures = new URL("../fixtures/", import.meta.url);
const readJson = (path: string) => JSON.parse(Deno.readTextFileSync(new URL(path, fixtures)));

/** A network of two levels with 2 heads, for texts of 3 tokens of 6 numbers; fields as in files. */
function smallNetwork(fields: Readonly<Record<string, unknown>> = {}): DenoisingNetwork {
  const network = parseNetwork({
    ...{ _class_name: "UNet2DConditionModel", sample_size: 8, in_channels: 2, out_channels: 2 },
    ...{ block_out_channels: [8, 16], norm_num_groups: 4, layers_per_block: 1 },
    down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
    ...{ cross_attention_dim: 6, attention_head_dim: 2, encoder_sequence_length: 3 },
    ...fields,
  });
  return denoisingNetwork({ network });
}

const filled = (shape: readonly number[], seed: number) =>
  constant(
    Float32Array.from(
      { length: shape.reduce((a, b) => a * b) },
      (_, i) => Math.sin(seed + 1.7 * i),
    ),
    shape,
  );

/** What a network of random weights predicts, by the interpreter. */
function predict(
  network: DenoisingNetwork,
  shape: readonly number[],
  conditions: Readonly<Record<string, Tensor>> = {},
  text = 1,
): Float64Array {
  const { parameters } = randomModel(network), { layout } = network;
  const parameter = viewParameters(layout, parameterInputs(layout));
  const prediction = network.forward({ parameter }, {
    sample: filled(shape, 0),
    timestep: constant(new Array(shape[0]).fill(500)),
    conditions: { encoder_hidden_states: filled([shape[0], 3, 6], text), ...conditions },
  });
  return interpret(makeGraph({ prediction }), { parameters }).prediction as Float64Array;
}

const differ = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).some((x, i) => Math.abs(x - b[i]) > 1e-4);

Deno.test("the UNet of Stable Diffusion 1.5 has the parameters of the published files", () => {
  const { config, shapes, elements } = readJson("keys/sd15-unet.json");
  const { layout } = parseNetwork({ _class_name: "UNet2DConditionModel", ...config });
  const own = Object.fromEntries(layout.specs.map((spec) => [spec.name, fileShape(spec)]));
  assertEquals(own, shapes);
  assertEquals([layout.count, layout.specs.length], [elements, 686]);
});

for (const { name } of Deno.readDirSync(new URL("unet-condition/", fixtures))) {
  Deno.test(`a configuration with text survives being read and written: ${name}`, () => {
    const written = readJson(`unet-condition/${name}/config.json`);
    const config = parseUNetConditionConfig(written), formatted = formatUNetConditionConfig(config);
    assertEquals(parseUNetConditionConfig(JSON.parse(JSON.stringify(formatted))), config);
    for (const [key, value] of Object.entries(formatted)) assertEquals(value, written[key], key);
  });
}

Deno.test("the text changes the prediction, each image is told its own", () => {
  const network = smallNetwork(), two = predict(network, [2, 4, 4, 2]);
  assert(differ(two, predict(network, [2, 4, 4, 2], {}, 2)));
  const one = predict(network, [1, 4, 4, 2]);
  assertClose(two.subarray(0, 32), one, 1e-6);
});

Deno.test("images of any size come out in that size", () => {
  for (const shape of [[1, 1, 1, 2], [1, 7, 9, 2], [3, 5, 2, 2]]) {
    const prediction = predict(smallNetwork(), shape);
    assertEquals(prediction.length, shape.reduce((a, b) => a * b));
    assert(prediction.every((x) => Number.isFinite(x) && x !== 0));
  }
  const unpadded = smallNetwork({ downsample_padding: 0 });
  assertThrows(() => predict(unpadded, [1, 7, 9, 2]), InputError, "multiples of 2");
});

Deno.test("every option of layers changes what comes out", () => {
  const usual = predict(smallNetwork(), [1, 4, 4, 2]);
  const options: Record<string, unknown>[] = [
    { attention_head_dim: 4 },
    { attention_head_dim: [4, 2] },
    { num_attention_heads: 4 },
    { use_linear_projection: true, transformer_layers_per_block: 2 },
    { transformer_layers_per_block: [2, 1] },
    { only_cross_attention: true },
    { mid_block_type: null },
    { layers_per_block: [2, 1] },
    { center_input_sample: true },
    { resnet_time_scale_shift: "scale_shift" },
    { conv_in_kernel: 1 },
    { conv_out_kernel: 1 },
    { mid_block_scale_factor: 2 },
    { flip_sin_to_cos: false },
    { freq_shift: 1 },
    { downsample_padding: 0 },
    { norm_num_groups: 2 },
    { norm_eps: 0.1 },
  ];
  for (const option of options) {
    assert(differ(usual, predict(smallNetwork(option), [1, 4, 4, 2])), JSON.stringify(option));
  }
  assertEquals(predict(smallNetwork({ upcast_attention: true }), [1, 4, 4, 2]), usual);
});

Deno.test("a network with text can be told classes, in every way", () => {
  const told = (fields: Record<string, unknown>, a: Tensor, b: Tensor) => {
    const network = smallNetwork(fields);
    const [x, y] = [a, b].map((labels) => predict(network, [1, 4, 4, 2], { labels }));
    assert(differ(x, y), JSON.stringify(fields));
    assertThrows(() => predict(network, [1, 4, 4, 2]), InputError, "labels");
    return network.conditions([8, 8, 2]).labels?.shape;
  };
  const ints = [0, 2].map((i) => constant(new Int32Array([i])));
  assertEquals(told({ num_class_embeds: 3 }, ints[0], ints[1]), []);
  assertEquals(told({ class_embed_type: "timestep" }, constant([1]), constant([7])), []);
  assertEquals(
    told({ class_embed_type: "identity" }, filled([1, 32], 1), filled([1, 32], 2)),
    [32],
  );
  for (const class_embed_type of ["projection", "simple_projection"]) {
    const fields = { class_embed_type, projection_class_embeddings_input_dim: 5 };
    assertEquals(told(fields, filled([1, 5], 1), filled([1, 5], 2)), [5]);
  }
});

Deno.test("a network of latents, mask and masked image is for latents, and is shown the others", () => {
  const network = smallNetwork({ in_channels: 5 });
  assertEquals(network.itemShape, [8, 8, 2]);
  assertEquals(
    Object.entries(network.conditions([8, 4, 2])).map(([name, { shape }]) => [name, shape]),
    [["encoder_hidden_states", [3, 6]], ["mask", [8, 4, 1]], ["masked_image", [8, 4, 2]]],
  );
  const shown = (mask: number, image: number) =>
    predict(network, [1, 4, 4, 2], {
      mask: filled([1, 4, 4, 1], mask),
      masked_image: filled([1, 4, 4, 2], image),
    });
  const usual = shown(1, 1);
  assert(differ(usual, shown(2, 1)) && differ(usual, shown(1, 2)));
  assertThrows(() => predict(network, [1, 4, 4, 2]), InputError, "the condition mask is missing");
});

Deno.test("what is missing, does not fit or is not supported is refused by name", () => {
  const network = smallNetwork();
  const forward = (shape: number[], conditions: Record<string, Tensor>) => () =>
    network.forward({ parameter: ({ name, shape }) => input(name, shape) }, {
      ...{ sample: input("sample", shape), timestep: input("timestep", [1]), conditions },
    });
  assertThrows(forward([1, 8, 8, 2], {}), InputError, "encoder_hidden_states is missing");
  assertThrows(forward([1, 8, 8, 3], {}), InputError, "images of 2 channels, not 3");
  const refused: [Record<string, unknown>, string][] = [
    [{ dual_cross_attention: true }, "dual_cross_attention true is not supported"],
    [{ addition_embed_type: "text_time" }, 'addition_embed_type "text_time" is not supported'],
    [{ encoder_hid_dim: 4 }, "encoder_hid_dim 4"],
    [{ time_embedding_type: "fourier" }, 'time_embedding_type "fourier"'],
    [{ time_embedding_dim: 99 }, "time_embedding_dim 99 is not supported: here it can only be 32"],
    [{ time_cond_proj_dim: 9 }, "time_cond_proj_dim 9"],
    [{ class_embeddings_concat: true }, "class_embeddings_concat true"],
    [{ resnet_skip_time_act: true }, "resnet_skip_time_act true"],
    [{ resnet_out_scale_factor: 2 }, "resnet_out_scale_factor 2"],
    [{ attention_type: "gated" }, 'attention_type "gated"'],
    [{ cross_attention_dim: [6, 8] }, "cross_attention_dim [6,8] differs"],
    [
      { attention_head_dim: [2, 3] },
      "16 of block_out_channels is no multiple of attention_head_dim",
    ],
    [{ attention_head_dim: [2] }, "2 block_out_channels need as many attention_head_dim, not 1"],
    [{ norm_num_groups: null }, "norm_num_groups"],
    [{ norm_num_groups: 3 }, "no multiple of norm_num_groups, 3"],
    [{ act_fn: "gelu" }, "act_fn"],
    [{ mid_block_type: "UNetMidBlock2DSimpleCrossAttn" }, "mid_block_type"],
    [{ down_block_types: ["AttnDownBlock2D", "DownBlock2D"] }, "down_block_types"],
    [{ class_embed_type: "projection" }, "needs projection_class_embeddings_input_dim"],
    [{ freq_shift: 4 }, "freq_shift 4 leaves no frequencies"],
    [{ colour: 1 }, "colour"],
  ];
  for (const [fields, message] of refused) {
    assertThrows(() => smallNetwork(fields), InputError, message, JSON.stringify(fields));
  }
  // What means nothing to these blocks, or is as it always is, is no reason to refuse.
  smallNetwork({
    ...{ time_embedding_dim: 32, mid_block_only_cross_attention: true, encoder_hid_dim: null },
    ...{ addition_embed_type_num_heads: 64, dropout: 0.1, attention_type: "default" },
  });
});

Deno.test("gradients are the same where segments are computed again", () => {
  const network = smallNetwork({ transformer_layers_per_block: 2 }), { layout } = network;
  const { parameters } = randomModel(network), shards = parameterInputs(layout);
  const segments: Record<string, Segment[]> = { block: [], attention: [] };
  const prediction = network.forward({
    parameter: viewParameters(layout, shards),
    onSegment: (kind, segment) => segments[kind].push(segment),
  }, {
    ...{ sample: filled([1, 4, 4, 2], 0), timestep: constant([300]) },
    conditions: { encoder_hidden_states: filled([1, 3, 6], 1) },
  });
  assertEquals([segments.block.length, segments.attention.length], [9, 4]);
  const loss = sum(square(prediction));
  const [plain, blocks, attention] = [[], segments.block, segments.attention].map((some) =>
    interpret(makeGraph({ gradient: grad(loss, shards, some)[0] }), { parameters }).gradient
  );
  assertClose(blocks, plain, 1e-6);
  assertClose(attention, plain, 1e-6);
});
