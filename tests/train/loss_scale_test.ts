import { assert, assertEquals, assertRejects } from "@std/assert";
import { DeviceError } from "../../src/gpu/device.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { sizeOf } from "../../src/shape.ts";
import { input } from "../../src/gpu/tensor.ts";
import { initializeModel } from "../../src/model/model.ts";
import { parameterInputs, viewParameters } from "../../src/model/parameters.ts";
import { parseTraining } from "../../src/train/config.ts";
import type { Dataset } from "../../src/data/dataset.ts";
import { LossScale, unlessSkipped } from "../../src/train/loss_scale.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, smallNetwork, tinyNetwork } from "../networks.ts";

/** Sixteen pictures, each of another wave. */
const waves: Dataset = {
  ...{ name: "waves", count: 16, shape: [8, 8, 1] },
  read(index, out, offset) {
    for (let i = 0; i < 64; i++) out[offset + i] = Math.sin(i * (index + 1) / 7);
  },
};

const settingsOf = (fields: Record<string, unknown>) =>
  parseTraining({ batch_size: 4, warmup_steps: 4, precision: "f16", ...fields });

/** The state of the scale and a weight after steps whose gradients have these norms. */
function play(norms: readonly number[], state: readonly number[] = LossScale.first) {
  const scaling = new LossScale(), norm = input("norm", [1]), weight = input("weight", [1]);
  const judgement = scaling.judge(norm, [0.5, 0.75]);
  const [correction1, correction2] = judgement.corrections;
  const graph = makeGraph({ norm: judgement.norm, correction1, correction2 }, [
    ...unlessSkipped([[weight, norm]], judgement.isGood),
    ...judgement.updates,
  ]);
  const data = { scaling: Float64Array.from(state), weight: new Float64Array(1) };
  const outputs = norms.map((n) => interpret(graph, { ...data, norm: Float64Array.of(n) }));
  return { state: [...data.scaling], weight: data.weight[0], outputs };
}

Deno.test("a scale is halved where gradients overflow, and doubled after 2,000 good steps", () => {
  assertEquals(play([]).state, [65536, 0, 1, 1]);
  assertEquals(play([3, 5]).state, [65536, 2, 0.25, 0.5625]);
  assertEquals(play([3, Infinity, NaN, 5]).state, [16384, 1, 0.25, 0.5625]);
  assertEquals(play([5], [1024, 1998, 0, 0]).state, [1024, 1999, 0, 0]);
  assertEquals(play([5], [1024, 1999, 0, 0]).state, [2048, 0, 0, 0]);
  assertEquals(play([5], [2 ** 24, 1999, 0, 0]).state, [2 ** 24, 0, 0, 0]);
  assertEquals(play([Infinity], [1, 7, 0, 0]).state, [1, 0, 0, 0]);
});

Deno.test("a step that is skipped leaves the weights and Adam's count of steps alone", () => {
  const { weight, outputs } = play([3, Infinity, NaN, 5, Infinity]);
  assertEquals(weight, 5);
  const [first, second, , third] = outputs;
  assertEquals(first.norm[0], 3 / 65536);
  assertEquals([first, third].map((o) => o.correction1[0]), [2, 1 / 0.75]);
  assertEquals([first, third].map((o) => o.correction2[0]), [2, 1 / Math.sqrt(1 - 0.5625)]);
  assert(!Number.isFinite(second.norm[0]));
});

Deno.test("a network with halves predicts what it does without", async () => {
  using device = await openGpu();
  const network = smallNetwork({ sample_size: 16 }), { layout } = network;
  const { parameters } = randomModel(network);
  const parameter = viewParameters(layout, parameterInputs(layout));
  const prediction = network.forward({ parameter }, {
    ...{ sample: input("sample", [3, 16, 16, 1]), timestep: input("timestep", [3]) },
    conditions: {},
  });
  const graph = makeGraph({ prediction }), predictions = [];
  for (const precision of ["f32", "f16"] as const) {
    using program = await device.compile(graph, { precision });
    program.buffers.parameters.write(parameters);
    program.buffers.sample.write(Float32Array.from({ length: 768 }, (_, i) => Math.sin(i)));
    program.buffers.timestep.write([10, 500, 900]);
    program.run();
    predictions.push(await program.buffers.prediction.read());
  }
  const [expected, actual] = predictions;
  assertClose(actual, expected, 5e-3);
  assert(actual.some((x, i) => x !== expected[i]));
});

Deno.test("a training with halves goes as one without, in one go and in parts", async () => {
  using device = await openGpu();
  const model = initializeModel(tinyNetwork(), {}, 0);
  const lossesOf = async (fields: Record<string, unknown>) => {
    using trainer = await Trainer.create(device, model, waves, settingsOf(fields));
    for (let i = 0; i < 40; i++) await trainer.run();
    const records = await trainer.records(40);
    assert(records.every((r) => !r.isSkipped && r.lossScale === (fields.precision ? 1 : 65536)));
    return { losses: records.map((r) => r.loss), norms: records.map((r) => r.gradientNorm) };
  };
  const expected = await lossesOf({ precision: "f32", learning_rate: 0.01 });
  assert(expected.losses[39] < expected.losses[0] / 2, "it learns nothing");
  for (const fields of [{}, { micro_batch: 2 }]) {
    const { losses, norms } = await lossesOf({ learning_rate: 0.01, ...fields });
    assertClose(losses, expected.losses, 0.01, "losses");
    assertClose(norms, expected.norms, 0.05, "norms");
  }
});

Deno.test("a step whose gradients overflow is skipped, and the training goes on", async () => {
  using device = await openGpu();
  const model = randomModel(tinyNetwork()), settings = settingsOf({ learning_rate: 0.001 });
  using trainer = await Trainer.create(device, model, waves, settings);
  const before = await trainer.state(), { specs, offsets } = model.network.layout;
  const scaling = Float32Array.from([2 ** 24, 5, 1, 1]);
  // With large weights at the end, gradients of such a scale are beyond 65,504.
  const last = specs.findIndex(({ name }) => name === "conv_out.weight");
  const [begin, end] = [offsets[last], offsets[last] + sizeOf(specs[last].shape)];
  const parameters = before.arrays.parameters.map((x, i) => i >= begin && i < end ? 30 * x : x);
  trainer.restore({ step: 0, arrays: { ...before.arrays, parameters, ema: parameters, scaling } });
  await trainer.run();
  const [record] = await trainer.records(1), { arrays } = await trainer.state();
  assert(record.isSkipped && Number.isFinite(record.loss), JSON.stringify(record));
  assertEquals(record.lossScale, 2 ** 24);
  assertEquals(arrays.parameters, parameters);
  assertEquals(arrays.ema, parameters);
  assertEquals(arrays.moment1, before.arrays.moment1);
  assertEquals([...arrays.scaling!], [2 ** 23, 0, 1, 1]);
  for (let i = 0; i < 24; i++) await trainer.run();
  const records = await trainer.records(25), after = await trainer.state();
  const first = records.findIndex((r) => !r.isSkipped);
  assert(first > 0 && first < 25, `the first good step is ${first}`);
  assert(records.slice(0, first).every((r, i) => r.lossScale === 2 ** (24 - i)));
  assert(after.arrays.parameters.some((x, i) => x !== parameters[i]));
  assert(after.arrays.parameters.every(Number.isFinite));
});

for (const fields of [{}, { micro_batch: 2 }]) {
  Deno.test(`an interrupted training with halves ends where it would have: ${JSON.stringify(fields)}`, async () => {
    using device = await openGpu();
    const model = randomModel(smallNetwork()), settings = settingsOf(fields);
    using whole = await Trainer.create(device, model, waves, settings);
    for (let i = 0; i < 6; i++) await whole.run();
    using first = await Trainer.create(device, model, waves, settings);
    for (let i = 0; i < 3; i++) await first.run();
    const state = await first.state();
    using second = await Trainer.create(
      device,
      initializeModel(model.network, {}, 9),
      waves,
      settings,
    );
    second.restore(state);
    for (let i = 0; i < 3; i++) await second.run();
    assertEquals(await second.state(), await whole.state());
    assertEquals(await second.records(6), await whole.records(6));
  });
}

Deno.test("devices without 16-bit floats refuse a training with them", async () => {
  using device = await openCpuAs(1, {});
  const model = initializeModel(tinyNetwork(), {}, 0);
  for (const fields of [{}, { micro_batch: 2 }]) {
    const settings = settingsOf(fields);
    const error = await assertRejects(
      () => Trainer.create(device, model, waves, settings),
      DeviceError,
    );
    assert(error.message.includes("feature shader-f16"), error.message);
  }
});
