import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { formatUNetConfig, parseUNetConfig } from "../../src/model/unet_config.ts";

const fixtures = new URL("../fixtures/unet/", import.meta.url);

Deno.test("parseUNetConfig() has the defaults of diffusers", () => {
  assertEquals(parseUNetConfig({}), {
    sampleSize: null,
    inChannels: 3,
    outChannels: 3,
    centerInputSample: false,
    timeEmbeddingType: "positional",
    freqShift: 0,
    flipSinToCos: true,
    downBlockTypes: ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    upBlockTypes: ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    blockOutChannels: [224, 448, 672, 896],
    layersPerBlock: 2,
    midBlockScaleFactor: 1,
    downsamplePadding: 1,
    downsampleType: "conv",
    upsampleType: "conv",
    actFn: "silu",
    attentionHeadDim: 8,
    normNumGroups: 32,
    normEps: 1e-5,
    resnetTimeScaleShift: "default",
    addAttention: true,
    classEmbedType: null,
    numClassEmbeds: null,
    dropout: 0,
  });
});

for (const { name } of Deno.readDirSync(fixtures)) {
  Deno.test(`a configuration that diffusers wrote survives being read and written: ${name}`, () => {
    const written = JSON.parse(Deno.readTextFileSync(new URL(`${name}/config.json`, fixtures)));
    const config = parseUNetConfig(written), formatted = formatUNetConfig(config);
    const { _diffusers_version, ...fields } = written;
    assertEquals(formatted, fields);
    assertEquals(parseUNetConfig(JSON.parse(JSON.stringify(formatted))), config);
  });
}

Deno.test("sizes of images are one number if they are square, and two if they are not", () => {
  assertEquals(parseUNetConfig({ sample_size: 32 }).sampleSize, [32, 32]);
  assertEquals(parseUNetConfig({ sample_size: [32, 48] }).sampleSize, [32, 48]);
  assertEquals(formatUNetConfig(parseUNetConfig({ sample_size: [32, 32] })).sample_size, 32);
  assertEquals(formatUNetConfig(parseUNetConfig({ sample_size: [32, 48] })).sample_size, [32, 48]);
  assertEquals(formatUNetConfig(parseUNetConfig({})).sample_size, null);
});

Deno.test("dropout is written only if there is some, since old readers do not know it", () => {
  assert(!("dropout" in formatUNetConfig(parseUNetConfig({}))));
  assertEquals(formatUNetConfig(parseUNetConfig({ dropout: 0.1 })).dropout, 0.1);
  assertEquals(parseUNetConfig(formatUNetConfig(parseUNetConfig({ dropout: 0.1 }))).dropout, 0.1);
});

Deno.test("parseUNetConfig() ignores private fields and those that other tools fill in", () => {
  const extra = { _name_or_path: "x", attn_norm_num_groups: null, num_train_timesteps: 1000 };
  const average = {
    ...{ decay: 0.9999, min_decay: 0, optimization_step: 500, update_after_step: 0 },
    ...{ use_ema_warmup: true, inv_gamma: 1, power: 0.75 },
  };
  assertEquals(parseUNetConfig({ ...extra, ...average }), parseUNetConfig({}));
});

/** Every field of every version of diffusers, and its defaults. */
const { UNet2DModel: known } = JSON.parse(
  Deno.readTextFileSync(new URL("../fixtures/diffusers-fields.json", import.meta.url))
    .replaceAll("-Infinity", "-1"),
) as { UNet2DModel: Record<string, [unknown]> };

Deno.test("all fields of UNet2DModel are read, at their defaults, as null, and without one", () => {
  const all = Object.fromEntries(Object.entries(known).map(([name, [value]]) => [name, value]));
  assertEquals(Object.keys(all).length, 28);
  const _class_name = "UNet2DModel", bare = parseUNetConfig({});
  assertEquals(parseUNetConfig({ _class_name, _diffusers_version: "0.36.0", ...all }), bare);
  for (const name of Object.keys(all)) {
    const { [name]: _, ...rest } = all;
    assertEquals(parseUNetConfig(rest), bare, name);
    // For these, null is a value.
    if (name === "mid_block_type" || name === "attention_head_dim") continue;
    assertEquals(parseUNetConfig({ ...all, [name]: null }), bare, name);
  }
  assertEquals(parseUNetConfig({ attention_head_dim: null }).attentionHeadDim, null);
});

Deno.test("fields that repeat what follows from others are read, and unknown ones that are null", () => {
  const same = { time_embedding_dim: 896, attn_norm_num_groups: 32, num_train_timesteps: 1000 };
  assertEquals(parseUNetConfig({ ...same, of_the_future: null, _note: [1] }), parseUNetConfig({}));
});

Deno.test("blocks are read by the names that they first had", () => {
  const config = parseUNetConfig({
    ...{
      block_out_channels: [32, 64],
      up_block_types: ["UNetResAttnUpBlock2D", "UNetResUpBlock2D"],
    },
    down_block_types: ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"],
  });
  assertEquals(config.downBlockTypes, ["DownBlock2D", "AttnDownBlock2D"]);
  assertEquals(config.upBlockTypes, ["AttnUpBlock2D", "UpBlock2D"]);
});

/** Fields of a configuration that is refused, and what the message has to mention. */
const refusals: readonly [unknown, string][] = [
  [null, "UNet configuration"],
  [undefined, "UNet configuration"],
  [5, "UNet configuration"],
  ["{}", "UNet configuration"],
  [[], "UNet configuration"],
  [{ block_out_chanels: [32] }, "block_out_chanels"],
  [{ blockOutChannels: [32] }, "blockOutChannels"],
  [{ in_channels: "3" }, "in_channels"],
  [{ in_channels: 0 }, "in_channels"],
  [{ out_channels: 1.5 }, "out_channels"],
  [{ sample_size: -1 }, "sample_size"],
  [{ sample_size: [28] }, "sample_size"],
  [{ layers_per_block: 0 }, "layers_per_block"],
  [{ layers_per_block: 1e9 }, "layers_per_block"],
  [{ block_out_channels: new Array(17).fill(32) }, "block_out_channels"],
  [{ block_out_channels: [1e8] }, "block_out_channels.0"],
  [{ dropout: 1 }, "dropout"],
  [{ dropout: -0.1 }, "dropout"],
  [{ norm_eps: 0 }, "norm_eps"],
  [{ act_fn: "tanh" }, "act_fn"],
  [{ downsample_padding: 2 }, "downsample_padding"],
  [{ time_embedding_type: "learned" }, "time_embedding_type"],
  [{ class_embed_type: "projection" }, "class_embed_type"],
  [{ attn_norm_num_groups: 8 }, "attn_norm_num_groups 8 is not supported: here it can only be 32"],
  [
    { attn_norm_num_groups: 32, resnet_time_scale_shift: "scale_shift" },
    "attn_norm_num_groups 32 is not supported: here it can only be null",
  ],
  [{ mid_block_type: null }, 'mid_block_type null is not supported: here it can only be "UNetMid'],
  [{ mid_block_type: "UNetMidBlock2DCrossAttn" }, "mid_block_type"],
  [{ time_embedding_dim: 512 }, "time_embedding_dim 512 is not supported: here it can only be 896"],
  [
    { _class_name: "UNet2DConditionModel" },
    'a "UNet2DConditionModel", but what can be read is UNet2D',
  ],
  [{ down_block_types: ["CrossAttnDownBlock2D"] }, "down_block_types.0"],
  [{ block_out_channels: [] }, "block_out_channels"],
  [{ block_out_channels: [32, 64] }, "2 block_out_channels need as many down_block_types"],
  [
    { block_out_channels: [32], down_block_types: ["DownBlock2D"] },
    "1 block_out_channels need as many down_block_types and up_block_types, not 1 and 4",
  ],
  [{ block_out_channels: [224, 448, 672, 900] }, "900 of block_out_channels is no multiple of"],
  [{ norm_num_groups: 48 }, "224 of block_out_channels is no multiple of norm_num_groups, 48"],
  [{ attention_head_dim: 500 }, "448 of block_out_channels make no attention head"],
  [{ freq_shift: 112 }, "freq_shift 112 leaves no frequencies"],
];

for (const [json, why] of refusals) {
  Deno.test(`parseUNetConfig() refuses ${JSON.stringify(json)}`, () => {
    const { message } = assertThrows(() => parseUNetConfig(json), InputError, why);
    assert(message.startsWith("Bad UNet configuration: ") && !message.includes("\n"), message);
  });
}

Deno.test("parseUNetConfig() minds the size of heads only where there is attention", () => {
  const fields = {
    ...{ block_out_channels: [8, 16], norm_num_groups: 4, attention_head_dim: 16 },
    ...{ down_block_types: ["DownBlock2D", "AttnDownBlock2D"] },
  };
  parseUNetConfig({ ...fields, up_block_types: ["AttnUpBlock2D", "UpBlock2D"] });
  const up_block_types = ["UpBlock2D", "AttnUpBlock2D"];
  assertThrows(() => parseUNetConfig({ ...fields, up_block_types }), InputError, "8 of block_out");
});
