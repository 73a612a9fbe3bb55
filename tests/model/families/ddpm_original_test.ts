import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import type { FileTensor } from "../../../src/formats/safetensors.ts";
import { findFamily, readFamily } from "../../../src/model/families/mod.ts";
import { type NameTable, rename, type TensorMap } from "../../../src/model/families/family.ts";
import { parseSchedule } from "../../../src/diffusion/schedule.ts";
import { assertGolden, fixtureOf } from "./golden.ts";

const fixture = fixtureOf("ddpm-original"), config = await fixture.json("config.json");
const { tensors: original } = await fixture.tensors("model.safetensors");
const family = findFamily(original)!;

for (const name of ["model.ckpt", "model-legacy.ckpt", "model.safetensors"]) {
  Deno.test(`a model with the names of TensorFlow's predicts what the original does: ${name}`, async () => {
    const { tensors } = await fixture.tensors(name);
    const { model, notes } = readFamily(findFamily(tensors)!, tensors, name, { config });
    const io = (await fixture.tensors("io.safetensors")).tensors;
    const [sample, timestep, output] = ["x", "t", "output"].map((key) => io.get(key)!);
    await assertGolden(model, { sample, timestep, output });
    assertEquals(model.network.itemShape, [16, 16, 3]);
    assertEquals([model.schedule.betaSchedule, model.schedule.betaEnd], ["linear", 0.02]);
    assertEquals(family.name, "pesser/pytorch_diffusion and ermongroup/ddim");
    assertEquals(model.card, { family: family.name });
    assertEquals(notes, [
      `its tensors have the names of ${family.name}`,
      "the noise is that of Ho et al. 2020, as of all its models",
    ]);
  });
}

/** The published tensors under their former names; they have no numbers. */
async function published(name: string, levels: number): Promise<TensorMap> {
  const keys: Record<string, number[]> = await fixtureOf(".").json(`${name}.keys.json`);
  const former: NameTable = [
    [/time_embedding\.linear_1/, "temb.dense.0"],
    [/time_embedding\.linear_2/, "temb.dense.1"],
    [/conv_norm_out/, "norm_out"],
    [/mid_block\.resnets\.0/, "mid.block_1"],
    [/mid_block\.resnets\.1/, "mid.block_2"],
    [/mid_block\.attentions\.0/, "mid.attn_1"],
    [/^up_blocks\.(\d)/, (_, i) => `up.${levels - 1 - Number(i)}`],
    [/^down_blocks/, "down"],
    [/samplers\.0/, "sample"],
    [/resnets/, "block"],
    [/attentions/, "attn"],
    [/time_emb_proj/, "temb_proj"],
    [/conv_shortcut/, "nin_shortcut"],
    [/group_norm/, "norm"],
    [/query|to_q/, "q"],
    [/key|to_k/, "k"],
    [/value|to_v/, "v"],
    [/proj_attn|to_out\.0/, "proj_out"],
  ];
  const tensors = Object.entries(keys).map(([key, shape]) =>
    [key, { dtype: "F32", shape, bytes: new Uint8Array() }] as const
  );
  return rename(new Map(tensors), former);
}

for (
  const [name, channels, attention] of [
    ["ddpm-cifar10-32", [128, 256, 256, 256], 1],
    ["ddpm-256", [128, 128, 256, 256, 512, 512], 4],
  ] as const
) {
  Deno.test(`published sizes are told by shapes alone: ${name}`, async () => {
    const tensors = await published(name, channels.length);
    const { model, notes } = readFamily(findFamily(tensors)!, tensors, name);
    const { config } = model.network, types = config.down_block_types as string[];
    assertEquals(config.block_out_channels, channels);
    assertEquals(types.map((type, i) => type.startsWith("Attn") ? i : -1).filter((i) => i >= 0), [
      attention,
    ]);
    const side = 2 ** (attention + 4);
    assertEquals(model.network.itemShape, [side, side, 3]);
    assert(notes[1].startsWith(`its pictures are ${side}x${side}, so that it attends at 16x16`));
    assertEquals([config.norm_num_groups, config.layers_per_block], [32, 2]);
  });
}

Deno.test("other tensors are not taken for them", async () => {
  assertEquals(findFamily(new Map()), undefined);
  const keys = await fixtureOf(".").json("ddpm-cifar10-32.keys.json");
  const today = new Map(
    Object.keys(keys).map((key) => [key, { dtype: "F32", shape: [1], bytes: new Uint8Array() }]),
  );
  assertEquals(findFamily(today), undefined);
});

Deno.test("what is missing, superfluous, unknown or contradicts itself is named", () => {
  const fails = (fields: object, change: (tensors: Map<string, FileTensor>) => void = () => {}) => {
    const tensors = new Map<string, FileTensor>(original);
    change(tensors);
    const { message } = assertThrows(
      () => readFamily(family, tensors, "x.ckpt", { config: { ...config, ...fields } }),
      InputError,
    );
    assert(message.startsWith("Cannot load x.ckpt"), message);
    return message;
  };
  const includes = (message: string, part: string) => assert(message.includes(part), message);
  const { norm_num_groups: _, ...rest } = config;
  includes(
    assertThrows(() => readFamily(family, original, "x.ckpt", { config: rest }), InputError)
      .message,
    `whose tensors have the names of ${family.name}: Bad UNet configuration: 8 of block_out_channels is ` +
      "no multiple of norm_num_groups, 32",
  );
  includes(
    fails({ ch_mult: [1, 4] }),
    "its configuration says ch_mult [1,4], but its tensors are of [1,2]",
  );
  includes(
    fails({ attn_resolutions: [16] }),
    "says attn_resolutions [16], but its tensors are of [8]",
  );
  includes(fails({ num_heads: 1 }), "num_heads");
  includes(fails({ resamp_with_conv: false }), "resamp_with_conv");
  includes(
    fails({}, (t) => t.delete("up.1.attn.0.q.bias")),
    "it lacks up_blocks.0.attentions.0.to_q.bias",
  );
  includes(
    fails({}, (t) => t.set("down.0.block.0.more", original.get("conv_in.bias")!)),
    "the network has no place for down_blocks.0.resnets.0.more",
  );
});

Deno.test("a schedule that is known replaces the usual one, of which nothing is said then", () => {
  const schedule = parseSchedule({ num_train_timesteps: 7 });
  const { model, notes } = readFamily(family, original, "x", { config, schedule });
  assertEquals([model.schedule.numTrainTimesteps, notes.length], [7, 1]);
});
