import { assert, assertEquals, assertThrows } from "@std/assert";
import { idxDataset } from "../../../src/data/mod.ts";
import { NoiseSchedule } from "../../../src/diffusion/schedule.ts";
import { InputError } from "../../../src/errors.ts";
import { type FileTensor, toFloat32 } from "../../../src/formats/safetensors.ts";
import { openDevice } from "../../../src/gpu/open.ts";
import { findFamily, readFamily } from "../../../src/model/families/mod.ts";
import { initializeModel } from "../../../src/model/model.ts";
import { nameTensors } from "../../../src/model/tensors.ts";
import { formatNetwork, parseNetwork } from "../../../src/model/network.ts";
import { parseTraining } from "../../../src/train/config.ts";
import { Trainer } from "../../../src/train/trainer.ts";
import { assertClose } from "../../close.ts";
import { assertGolden, fixtureOf } from "./golden.ts";

const fixtures = await Promise.all(
  ["v1", "v2"].map(async (version) => {
    const folder = fixtureOf(`lucidrains/${version}`);
    const { tensors } = await folder.tensors("model-1.pt");
    const io = (await folder.tensors("io.safetensors")).tensors;
    return { version, tensors, io, config: await folder.json("config.json") };
  }),
);
const [v1, v2] = fixtures, family = findFamily(v1.tensors)!;

const without = (tensors: ReadonlyMap<string, FileTensor>, prefix: string) =>
  new Map([...tensors].filter(([name]) => !name.startsWith(prefix)));

for (const { version, tensors, io, config } of fixtures) {
  for (const device of ["cpu", "gpu"] as const) {
    Deno.test(`a trainer's file predicts what the original does, average and weights: ${version}, on a ${device.toUpperCase()}`, async () => {
      const [sample, timestep, average, output] = ["x", "time", "output_ema", "output"]
        .map((key) => io.get(key)!);
      const ema = readFamily(family, tensors, "model-1.pt", { config });
      await assertGolden(ema.model, { sample, timestep, output: average }, device);
      assertEquals(ema.notes, [
        "its tensors have the names of lucidrains/denoising-diffusion-pytorch",
        "the moving average of the weights was taken",
        "the noise and what is predicted are as the file has them",
      ]);
      assertEquals(ema.model.card.weight_source, "the moving average of the weights was taken");
      const own = readFamily(family, without(tensors, "ema."), "model-1.pt", { config });
      await assertGolden(own.model, { sample, timestep, output }, device);
      assertEquals(own.notes[1], "the weights are no moving average: the file has none");
    });
  }

  Deno.test(`the schedule is that of the file: ${version}`, () => {
    const { model } = readFamily(family, tensors, "model-1.pt", { config });
    const { schedule } = model, levels = new NoiseSchedule(schedule);
    assertEquals([schedule.predictionType, model.network.itemShape], ["v_prediction", [16, 16, 3]]);
    const alphas = toFloat32(io.get("buffers.alphas_cumprod")!);
    assertClose(alphas.map((_, t) => levels.alphaCumprod(t)), alphas, 1e-6);
  });
}

Deno.test("what is predicted is told by the weights of the loss, whichever they are", () => {
  const alphas = toFloat32(v1.tensors.get("model.alphas_cumprod")!);
  const weighted = (f: (snr: number) => number) => {
    const values = alphas.map((a) => f(a / (1 - a)));
    const tensor = { dtype: "F32", shape: [20], bytes: new Uint8Array(values.buffer) };
    return new Map([...without(v1.tensors, "ema."), ["model.loss_weight", tensor]]);
  };
  const { GaussianDiffusion: { objective: _, ...rest }, ...others } = v1.config;
  const config = { ...others, GaussianDiffusion: rest };
  const predicted = (f: (snr: number) => number) =>
    readFamily(family, weighted(f), "x.pt", { config }).model.schedule.predictionType;
  assertEquals(predicted(() => 1), "epsilon");
  assertEquals(predicted((snr) => snr), "sample");
  assertEquals(predicted((snr) => Math.min(snr, 5)), "sample");
  assertEquals(predicted((snr) => Math.min(snr, 5) / (snr + 1)), "v_prediction");
  assertEquals(predicted((snr) => Math.min(snr, 5) / snr), "epsilon");
  const { message } = assertThrows(() => predicted((snr) => 3 * snr), InputError);
  assert(message.includes("what it predicts must be told: objective"), message);
});

Deno.test("heads are told by later versions, of earlier ones the usual are taken or asked for", () => {
  const read = (fixture: typeof v1, config: object) =>
    readFamily(family, fixture.tensors, "x.pt", { config }).model.network.config;
  assertEquals(read(v2, {}).attn_heads, [2, 2]);
  assertEquals(read(v2, {}).sample_size, null);
  const fails = (fixture: typeof v1, config: object) =>
    assertThrows(() => read(fixture, config), InputError).message;
  const includes = (message: string, part: string) => assert(message.includes(part), message);
  includes(fails(v1, {}), "downs.0.2 has 8 channels, of how many heads must be told: attn_heads");
  const groups = { resnet_block_groups: 2 };
  const wide = read(v1, { Unet: { ...groups, attn_heads: [1, 4] } });
  assertEquals([wide.attn_heads, wide.attn_dim_head], [[1, 4], [8, 2]]);
  assertEquals([wide.mid_attn_heads, wide.mid_attn_dim_head], [4, 32]);
  includes(
    fails(v1, { Unet: { attn_heads: 2 } }),
    "4 channels are no multiple of resnet_block_groups, 8",
  );
  includes(fails(v1, { Unet: { attn_heads: 3 } }), "of how many heads must be told");
  includes(
    fails(v1, { Unet: { attn_heads: 2, attn_dim_head: 8 } }),
    "its configuration says attn_dim_head 8, but its tensors are of 4",
  );
  includes(fails(v2, { Unet: { attn_heads: 4 } }), "says attn_heads 4, but its tensors are of 2");
  includes(fails(v2, { Unet: { dim: 8 } }), "says dim 8, but its tensors are of 4");
  includes(fails(v2, { Unet: { self_condition: true } }), "Unet.self_condition");
  includes(fails(v2, { GaussianDiffusion: { timesteps: 1000 } }), "says timesteps 1000, but its");
  includes(fails(v2, { GaussianDiffusion: { objective: "pred_x0" } }), 'says objective "pred_x0"');
  includes(fails(v2, { GaussianDiffusion: { auto_normalize: false } }), "auto_normalize");
});

Deno.test("tensors that are missing or superfluous are named, and networks that are not supported", () => {
  const fails = (change: (tensors: Map<string, FileTensor>) => void) => {
    const tensors = without(v2.tensors, "ema.");
    change(tensors);
    return assertThrows(() => readFamily(family, tensors, "x.pt"), InputError).message;
  };
  const some = v2.tensors.get("model.betas")!;
  assertEquals(
    fails((t) => t.delete("model.model.downs.1.2.mem_kv")),
    "Cannot load x.pt, whose tensors have the names of lucidrains/denoising-diffusion-pytorch: downs.1.2 " +
      "has 12 channels, of how many heads must be told: attn_heads; a config.json beside it, or a " +
      "file of its name and .json, can tell what they do not",
  );
  assert(
    fails((t) => t.delete("model.model.final_conv.bias")).includes("it lacks final_conv.bias"),
  );
  assert(
    fails((t) => t.set("model.model.time_mlp.0.weights", some))
      .includes("the network has no place for time_mlp.0.weights"),
  );
  const wide = { dtype: "F32", shape: [6, 4, 1, 1], bytes: new Uint8Array(96) };
  assert(
    fails((t) => t.set("model.model.final_conv.weight", wide)).includes(
      "networks with self_condition or learned_variance are not supported",
    ),
  );
  assertEquals(findFamily(without(without(v2.tensors, "ema."), "model.betas")), undefined);
});

Deno.test("its network is one like others: it is trained, and written as it is read", async () => {
  const { model } = readFamily(family, v2.tensors, "x.pt", v2);
  const names = new Set(
    nameTensors(model.network.layout, model.parameters).map(({ name }) => name),
  );
  const there = [...v2.tensors.keys()].filter((name) => name.startsWith("model.model."));
  assertEquals([...names].sort(), there.map((name) => name.slice("model.model.".length)).sort());
  assertEquals(parseNetwork(formatNetwork(model.network)).config, model.network.config);
  const fields = { ...formatNetwork(model.network), channels: 1, sample_size: 8 };
  const data = idxDataset("noise", {
    shape: [4, 8, 8],
    data: Uint8Array.from({ length: 256 }, (_, i) => i * 37),
  });
  const fresh = initializeModel(parseNetwork(fields), { num_train_timesteps: 10 }, 0);
  using device = await openDevice("cpu");
  const config = parseTraining({ batch_size: 4, learning_rate: 0.01, warmup_steps: 1 });
  using trainer = await Trainer.create(device, fresh, data, config);
  for (let i = 0; i < 30; i++) await trainer.run();
  const losses = (await trainer.records(30)).map(({ loss }) => loss);
  assert(losses.every(Number.isFinite));
  const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
  assert(mean(losses.slice(-10)) < mean(losses.slice(0, 10)), `${losses}`);
  assertThrows(
    () => parseNetwork({ ...fields, dim_mults: [1, 2, 3] }),
    InputError,
    "as many full_attn",
  );
  assertThrows(() => parseNetwork({ ...fields, attn_heads: [] }), InputError, "attn_heads");
});
