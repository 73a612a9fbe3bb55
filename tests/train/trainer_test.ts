import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { initializeModel, type Model, parseModel, serializeModel } from "../../src/model/model.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import type { Dataset } from "../../src/data/dataset.ts";
import { HISTORY } from "../../src/train/step.ts";
import {
  emaDecayAt,
  learningRateAt,
  parseTraining,
  type TrainingConfig,
} from "../../src/train/config.ts";
import type { TrainingState } from "../../src/train/state.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose, assertParametersClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, smallNetwork, tinyNetwork, tinyUpscaler } from "../networks.ts";

/** Four pictures of one side light and the other dark, and which side it is. */
const halves: Dataset = {
  ...{ name: "halves", count: 4, shape: [4, 4, 1], labels: [0, 1, 2, 3] },
  read(index, out, offset) {
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 4; x++) {
        out[offset + 4 * y + x] = [y < 2, x < 2, y > 1, x > 1][index] ? 1 : -1;
      }
    }
  },
};

const create = (device: Device, model: Model, fields: Record<string, unknown> = {}) =>
  Trainer.create(device, model, halves, parseTraining({ batch_size: 4, ...fields }));

async function run(trainer: Trainer, steps: number): Promise<void> {
  for (let i = 0; i < steps; i++) await trainer.run();
}

const average = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;

Deno.test("a network that is trained on four pictures paints the one it is asked for", async () => {
  using device = await openGpu();
  const config = tinyNetwork({ sample_size: 4, num_class_embeds: 4, block_out_channels: [16] });
  using trainer = await create(device, initializeModel(config, {}, 0), {
    ...{ batch_size: 16, learning_rate: 0.01, warmup_steps: 10, ema_decay: 0.98 },
  });
  await run(trainer, 200);
  const losses = (await trainer.records(200)).map(({ loss }) => loss);
  const [first, last] = [average(losses.slice(0, 5)), average(losses.slice(-20))];
  assert(first > 0.5, "a fresh network predicts no noise, whose variance is 1");
  assert(last < first / 8, `the loss went from ${first} to ${last}`);

  const model = await trainer.model();
  using sampler = await Sampler.create(device, model, { method: "ddpm", batchSize: 8 });
  const labels = [0, 1, 2, 3, 3, 2, 1, 0];
  const { data } = await sampler.sample({ count: 8, seed: 5, labels });
  labels.forEach((label, k) => {
    const picture = new Float32Array(16);
    halves.read(label, picture, 0);
    const distance = average([...picture].map((x, i) => Math.abs(x - data[16 * k + i])));
    assert(distance < 0.3, `image ${k} is ${distance} off; other pictures are 1 or 2 off`);
  });
});

const withEverything = {
  model: randomModel(smallNetwork({ sample_size: 4, num_class_embeds: 4, dropout: 0.2 })),
  settings: { batch_size: 3, weight_decay: 0.01, warmup_steps: 4, seed: 5 },
};

function assertSameState(actual: TrainingState, expected: TrainingState): void {
  assertEquals(actual.step, expected.step);
  assertEquals(Object.keys(actual.arrays), Object.keys(expected.arrays));
  for (const [name, values] of Object.entries(expected.arrays)) {
    const other = actual.arrays[name as keyof TrainingState["arrays"]];
    assertEquals(other!.findIndex((x, i) => !Object.is(x, values[i])), -1, `${name} differ`);
  }
}

const enlarging = {
  model: randomModel(tinyUpscaler({ sample_size: 4, num_class_embeds: 5 })),
  settings: { batch_size: 4, micro_batch: 2, label_dropout: 0.3, warmup_steps: 4, seed: 5 },
};

for (
  const [kind, open, { model, settings }] of [
    ["of images, on the GPU", openGpu, withEverything],
    ["of images, on the CPU", () => openCpuAs(2, {}), withEverything],
    ["of super-resolution, on the GPU", openGpu, enlarging],
    ["of super-resolution, on the CPU", () => openCpuAs(2, {}), enlarging],
  ] as const
) {
  Deno.test(`an interrupted training ends where it would have, ${kind}`, async () => {
    using device = await open();
    using whole = await create(device, model, settings);
    await run(whole, 7);
    const expected = await whole.state();
    assert(expected.arrays.parameters.every(Number.isFinite));

    using first = await create(device, model, settings);
    await run(first, 3);
    const state = await first.state();
    using another = await open();
    using second = await create(another, initializeModel(model.network, {}, 9), settings);
    await run(second, 1);
    second.restore(state);
    await run(second, 4);
    assertSameState(await second.state(), expected);
    assertEquals(await second.records(7), await whole.records(7));
    // A state that was taken is a copy: it can be gone back to.
    first.restore(state);
    await run(first, 4);
    assertSameState(await first.state(), expected);
  });
}

Deno.test("seeds draw other noise, and the same seed the same", async () => {
  using device = await openGpu();
  const model = randomModel(tinyNetwork());
  const losses = async (seed: number) => {
    // With a single image, its order is all that seeds can not change.
    const data = { ...halves, count: 1 }, settings = parseTraining({ seed, batch_size: 4 });
    using trainer = await Trainer.create(device, model, data, settings);
    await run(trainer, 2);
    return (await trainer.records(2)).map(({ loss }) => loss);
  };
  const [zero, one, again] = [await losses(0), await losses(1), await losses(0)];
  assertEquals(zero, again);
  assert(zero[0] !== one[0] && zero[1] !== one[1] && zero[0] !== zero[1]);
});

for (const batch_size of [1, 3]) {
  Deno.test(`all devices agree on steps with batches of ${batch_size}`, async () => {
    const { model, settings } = withEverything;
    const results = [];
    for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
      using _ = device;
      using trainer = await create(device, model, { ...settings, batch_size });
      await run(trainer, 3);
      results.push({ records: await trainer.records(3), ...(await trainer.state()).arrays });
    }
    const [expected, ...others] = results;
    for (const actual of others) {
      for (const field of ["loss", "gradientNorm"] as const) {
        const [a, b] = [actual, expected].map(({ records }) => records.map((r) => r[field]));
        assertClose(a, b, 1e-4, field);
      }
      assertParametersClose(
        model.network.layout,
        actual.moment1,
        expected.moment1,
        1e-3,
        "moment1",
      );
      const [scales, expectedScales] = [actual, expected].map((r) => r.moment2.map(Math.sqrt));
      assertParametersClose(model.network.layout, scales, expectedScales, 1e-3, "root of moment2");
      for (const name of ["parameters", "ema"] as const) {
        // Weights hardly move in three steps: what is compared is how far they moved.
        const [a, b] = [actual, expected].map((r) =>
          r[name].map((x, i) => x - model.parameters[i])
        );
        assertParametersClose(model.network.layout, a, b, 0.01, `movement of ${name}`, 0.02);
      }
    }
  });
}

Deno.test("settings act on the step: warm-up, average of the weights, clipping", async () => {
  using device = new ReferenceDevice();
  const model = randomModel(tinyNetwork()), before = model.parameters;
  const step = async (fields: Record<string, unknown>) => {
    using trainer = await create(device, model, { learning_rate: 0.01, ...fields });
    await trainer.run();
    const [{ gradientNorm }] = await trainer.records(1);
    return { gradientNorm, ...(await trainer.state()).arrays };
  };
  const largestStep = (after: Float32Array) =>
    after.reduce((most, x, i) => Math.max(most, Math.abs(x - before[i])), 0);

  const warm = await step({ warmup_steps: 0 }), cold = await step({ warmup_steps: 10 });
  assertAlmostEquals(largestStep(warm.parameters), 0.01, 1e-5);
  assertAlmostEquals(largestStep(cold.parameters), 0.001, 1e-6);
  // At the first step the average keeps a tenth, unless it is to keep even less.
  for (const [ema_decay, kept] of [[0.999, 0.1], [0.05, 0.05]]) {
    const { ema, parameters } = await step({ ema_decay, warmup_steps: 0 });
    assertClose(ema, parameters.map((x, i) => kept * before[i] + (1 - kept) * x), 1e-6);
  }
  const { moment1, gradientNorm } = await step({ max_grad_norm: 1e-3 });
  assert(gradientNorm > 0.1, "there is something to clip");
  assertAlmostEquals(Math.hypot(...moment1), 1e-4, 1e-6);
});

Deno.test("training drops out what the configuration says", async () => {
  using device = await openGpu();
  const loss = async (dropout: number) => {
    using trainer = await create(device, randomModel(tinyNetwork({ dropout })));
    await trainer.run();
    return (await trainer.records(1))[0].loss;
  };
  const [none, half] = [await loss(0), await loss(0.5)];
  assert(Math.abs(none - half) > 1e-3, `the loss is ${half} with and ${none} without dropout`);
});

Deno.test("images reach the network with their labels", async () => {
  using device = await openGpu();
  const model = randomModel(tinyNetwork({ num_class_embeds: 4 }));
  const data: Dataset = { ...halves, labels: [2, 2, 2, 2] };
  using trainer = await Trainer.create(device, model, data, parseTraining({ batch_size: 2 }));
  await trainer.run();
  const { moment1 } = (await trainer.state()).arrays;
  const table = model.network.layout.specs.findIndex(({ name }) =>
    name === "class_embedding.weight"
  );
  const rows = [0, 1, 2, 3].map((label) => {
    const from = model.network.layout.offsets[table] + 32 * label;
    return moment1.subarray(from, from + 32);
  });
  assertEquals(rows.map((row) => row.some((x) => x !== 0)), [false, false, true, false]);
});

Deno.test("records() tells of the last steps, and of no more than there were", async () => {
  using device = await openGpu();
  using trainer = await create(device, randomModel(tinyNetwork()));
  assertEquals(await trainer.records(5), []);
  assertEquals(trainer.step, 0);
  await run(trainer, 3);
  assertEquals(trainer.step, 3);
  const all = await trainer.records(5);
  assertEquals(all.map(({ step }) => step), [1, 2, 3]);
  assert(all.every(({ loss, gradientNorm }) => loss > 0 && gradientNorm > 0));
  assertEquals(await trainer.records(2), all.slice(1));

  const state = await trainer.state();
  trainer.restore({ ...state, step: HISTORY + 1 });
  await trainer.run();
  const late = await trainer.records(HISTORY + 10);
  assertEquals([late.length, late[0].step, late.at(-1)!.step], [HISTORY, 3, HISTORY + 2]);
  assertEquals(late[0].loss, all[2].loss, "the ring holds what it was not time to overwrite");
  assert(late.at(-1)!.loss > 0);
});

Deno.test("model() has the moving average of the weights and the size of the images", async () => {
  using device = await openGpu();
  using trainer = await create(device, randomModel(smallNetwork()), { learning_rate: 0.1 });
  await run(trainer, 2);
  const model = await trainer.model({ steps: "2" }), { arrays } = await trainer.state();
  assertEquals(model.parameters, arrays.ema);
  assertEquals(await trainer.average.parameters.read(), arrays.ema);
  assert(arrays.ema.some((x, i) => x !== arrays.parameters[i]));
  assertEquals(model.network.itemShape.slice(0, 2), [4, 4]);
  assertEquals(model.card, { steps: "2" });
  assertEquals(parseModel(serializeModel(model)).card, { steps: "2" });
});

Deno.test("a trainer tells what it takes", async () => {
  using device = await openGpu();
  const model = randomModel(tinyNetwork());
  using small = await create(device, model, { batch_size: 1 });
  using large = await create(device, model, { batch_size: 8 });
  assert(
    small.memory > 4 * 4 * model.network.layout.size,
    "weights, their average and two moments",
  );
  assert(large.memory > small.memory);
  assertEquals(large.flops, 8 * small.flops);
  assert(small.dispatches > 10 && small.dispatches < 1000);
});

Deno.test("restore() refuses the state of another network, and what is no state", async () => {
  using device = new ReferenceDevice();
  using trainer = await create(device, randomModel(tinyNetwork()));
  using other = await create(device, randomModel(smallNetwork()));
  const state = await trainer.state(), { moment2: _, ...rest } = state.arrays;
  assertThrows(
    () => trainer.restore({ step: 0, arrays: { ...state.arrays, ema: new Float32Array(3) } }),
    InputError,
    "the state has 3 ema, but the training wants",
  );
  assertThrows(
    () => trainer.restore({ step: 0, arrays: rest as TrainingState["arrays"] }),
    InputError,
    "the state has no moment2",
  );
  for (const step of [-1, 0.5, NaN]) {
    assertThrows(() => trainer.restore({ ...state, step }), InputError, `${step} is no number of`);
  }
  const foreign = await other.state();
  assertThrows(() => trainer.restore(foreign), InputError, "parameters, but the training wants");
  assertSameState(await trainer.state(), state);
});

/** What is wrong with a training, its network and data, and what the message has to mention. */
const refusals: readonly [
  string,
  Record<string, unknown>,
  Partial<Dataset & TrainingConfig>,
  string,
][] = [
  ["images of another number of channels", {}, { shape: [4, 4, 3] }, "images of 1 channels, not 3"],
  ["images that cannot be halved", {}, { shape: [4, 5, 1] }, "Images of 4x5 do not fit"],
  [
    "a network that predicts more than it sees",
    { out_channels: 2 },
    {},
    "has out_channels 1, not 2",
  ],
  [
    "a label that is no class",
    { num_class_embeds: 3 },
    {},
    "label 3, but the network has classes 0",
  ],
  [
    "a class that is kept for none",
    { num_class_embeds: 4 },
    { labelDropout: 0.1 },
    "label 3, but the network has classes 0 to 2, and one more for label_dropout",
  ],
  ["a label that is no number", { num_class_embeds: 4 }, { labels: [0, 1, NaN, 2] }, "label NaN"],
  [
    "classes that are no numbers",
    { class_embed_type: "timestep" },
    {},
    "class_embed_type timestep",
  ],
];

for (const [what, fields, changes, why] of refusals) {
  Deno.test(`Trainer.create() refuses ${what}`, async () => {
    using device = new ReferenceDevice();
    const model = randomModel(smallNetwork(fields)), data = { ...halves, ...changes };
    const settings = { ...parseTraining({ batch_size: 2 }), ...changes };
    await assertRejects(
      () => Trainer.create(device, model, data, settings),
      InputError,
      why,
    );
  });
}

Deno.test("Trainer.create() refuses classes for data without labels", async () => {
  using device = new ReferenceDevice();
  const { labels: _, ...data } = halves, model = randomModel(smallNetwork({ num_class_embeds: 4 }));
  await assertRejects(
    () => Trainer.create(device, model, data, parseTraining({})),
    InputError,
    "halves has no labels",
  );
});

Deno.test("a trainer frees what it took", async () => {
  using device = await openGpu();
  const destroyed = new Set<GPUBuffer>(), made = new Set<GPUBuffer>();
  const create = device.allocate.bind(device);
  device.allocate = (...args) => {
    const buffer = create(...args), destroy = buffer.destroy.bind(buffer);
    made.add(buffer);
    buffer.destroy = () => {
      destroyed.add(buffer);
      destroy();
    };
    return buffer;
  };
  {
    using trainer = await Trainer.create(
      device,
      randomModel(tinyNetwork()),
      halves,
      parseTraining({ batch_size: 1 }),
    );
    await trainer.run();
    await trainer.records(1);
  }
  assert(made.size > 5);
  assertEquals(made.size, destroyed.size);
});

Deno.test("the moving average of the weights keeps as much as its schedule says", () => {
  const kept = (fields: Record<string, unknown>) => {
    const config = parseTraining({ ema_decay: 0.99, ...fields });
    return [0, 8, 99, 1e6].map((step) => emaDecayAt(config, step));
  };
  assertEquals(kept({}), [0.1, 0.5, 100 / 109, 0.99]);
  assertEquals(kept({ ema_schedule: "constant" }), [0.99, 0.99, 0.99, 0.99]);
  assertClose(
    kept({ ema_schedule: "power", ema_power: 0.5 }),
    [0, 1 - 1 / 3, 0.9, 0.99],
    1e-12,
  );
  assertClose(
    kept({ ema_schedule: "power" }),
    [0, 1 - 9 ** (-2 / 3), 1 - 100 ** (-2 / 3), 0.99],
    1e-12,
  );
});

Deno.test("a step that does not fit recomputes blocks, as one does that is told to", async () => {
  const model = randomModel(smallNetwork({ sample_size: 4 })), fields = { batch_size: 256 };
  const settings = { ...fields, gradient_checkpointing: true };
  using device = await openCpuAs(2, {});
  const bytes = [fields, settings].map((f) =>
    Trainer.plan(device, model, halves, parseTraining(f)).bytes
  );
  assert(bytes[1] < 0.8 * bytes[0], `${bytes[1]} bytes are not much less than ${bytes[0]}`);
  const states = [], recomputes = [];
  const room = (bytes[0] + bytes[1]) / 2, { available } = device;
  for (const [f, limit] of [[fields, available], [settings, available], [fields, room]] as const) {
    Object.defineProperty(device, "available", { value: limit, configurable: true });
    using trainer = await create(device, model, f);
    await run(trainer, 2);
    recomputes.push(trainer.recomputes);
    states.push((await trainer.state()).arrays.moment1);
  }
  assertEquals(recomputes, [false, true, true]);
  assertEquals(states[2], states[1]);
  assertParametersClose(model.network.layout, states[1], states[0], 1e-5, "moment1");
});

for (const open of [openGpu, () => openCpuAs(2, {})]) {
  Deno.test(`a batch in parts equals one in one go, on ${open === openGpu ? "GPU" : "CPU"}`, async () => {
    const { model, settings } = withEverything;
    using device = await open();
    const results = [];
    for (const micro_batch of [null, 2, 1]) {
      using trainer = await create(device, model, { ...settings, batch_size: 6, micro_batch });
      await run(trainer, 3);
      results.push({ records: await trainer.records(3), ...(await trainer.state()).arrays });
      assertEquals(trainer.config.microBatch, micro_batch);
    }
    const [whole, ...parts] = results;
    for (const part of parts) {
      for (const field of ["loss", "gradientNorm"] as const) {
        const [a, b] = [part, whole].map(({ records }) => records.map((r) => r[field]));
        assertClose(a, b, 1e-4, field);
      }
      for (const [i, { quartiles }] of part.records.entries()) {
        const expected = whole.records[i].quartiles;
        assertEquals(quartiles.map((q) => q.count), expected.map((q) => q.count));
        assertEquals(quartiles.reduce((n, q) => n + q.count, 0), 6);
        assertClose(quartiles.map((q) => q.sum), expected.map((q) => q.sum), 1e-3);
      }
      assertParametersClose(model.network.layout, part.moment1, whole.moment1, 1e-3, "moment1");
    }
  });
}

Deno.test("labels are dropped as often as they should be, the same ones every time", async () => {
  using device = await openGpu();
  const model = randomModel(tinyNetwork({ num_class_embeds: 5 }));
  const table = model.network.layout.specs.findIndex(({ name }) =>
    name === "class_embedding.weight"
  );
  const data: Dataset = { ...halves, labels: [2, 2, 2, 2] };
  const rows = async (label_dropout: number, seed: number) => {
    const settings = parseTraining({ batch_size: 8, label_dropout, seed });
    using trainer = await Trainer.create(device, model, data, settings);
    await trainer.run();
    const { moment1 } = (await trainer.state()).arrays;
    return [0, 1, 2, 3, 4].map((label) => {
      const from = model.network.layout.offsets[table] + 32 * label;
      return moment1.slice(from, from + 32);
    });
  };
  const isUsed = (row: Float32Array) => row.some((x) => x !== 0);
  assertEquals((await rows(0, 1)).map(isUsed), [false, false, true, false, false]);
  assertEquals((await rows(0.5, 1)).map(isUsed), [false, false, true, false, true]);
  assertEquals((await rows(0.999, 1)).map(isUsed), [false, false, false, false, true]);
  assertEquals(await rows(0.5, 1), await rows(0.5, 1));
});

Deno.test("images that are held out are not learnt from, and their loss is measured", async () => {
  using device = await openGpu();
  const seen = new Set<number>();
  const data: Dataset = {
    ...{ ...halves, count: 20, labels: Array.from({ length: 20 }, (_, i) => i % 4) },
    read(index, out, offset) {
      seen.add(index);
      halves.read(index % 4, out, offset);
    },
  };
  const settings = { batch_size: 4, held_out: 0.25, learning_rate: 0.01, warmup_steps: 0, seed: 3 };
  const model = randomModel(tinyNetwork({ dropout: 0.5 }));
  using trainer = await Trainer.create(device, model, data, parseTraining(settings));
  await run(trainer, 30);
  const learnt = new Set(seen);
  assertEquals(learnt.size, 15);
  seen.clear();
  const loss = await trainer.evaluate();
  assertEquals(seen.size, 5);
  assert(seen.isDisjointFrom(learnt));
  assertEquals(await trainer.evaluate(), loss, "nothing is drawn anew");
  assert(Number.isFinite(loss) && loss > 0);
  await run(trainer, 100);
  assert(await trainer.evaluate() < loss);

  using whole = await create(device, model);
  await assertRejects(() => whole.evaluate(), RangeError, "no images are held out");
});

Deno.test("the learning rate warms up, then stays, falls along a cosine, or in steps", () => {
  const rates = (fields: Record<string, unknown>, steps: number[]) => {
    const config = parseTraining({ learning_rate: 1, warmup_steps: 100, ...fields });
    return steps.map((step) => learningRateAt(config, step));
  };
  assertEquals(rates({}, [0, 49, 99, 100, 1e6]), [0.01, 0.5, 1, 1, 1]);
  const cosine = rates({ learning_rate_schedule: "cosine", decay_steps: 400 }, [
    ...[49, 100, 200, 250, 300, 400, 500],
  ]);
  assertClose(cosine, [0.5, 1, 0.75, 0.5, 0.25, 0, 0], 1e-12);
  const steps = rates({ learning_rate_schedule: "step", decay_steps: 150 }, [
    49,
    149,
    150,
    299,
    300,
  ]);
  assertClose(steps, [0.5, 1, 0.1, 0.1, 0.01], 1e-12);
});

Deno.test("parseTraining() has the defaults that are documented", () => {
  assertEquals(parseTraining({}), {
    ...{ batchSize: 64, learningRate: 2e-4, warmupSteps: 500, betas: [0.9, 0.999], eps: 1e-8 },
    ...{ weightDecay: 0, maxGradNorm: 1, emaDecay: 0.999, seed: 0, precision: "f32" },
    ...{
      learningRateSchedule: "constant",
      decaySteps: null,
      gradientCheckpointing: false,
      microBatch: null,
    },
    ...{ optimizer: "adamw", emaSchedule: "warmup", emaPower: null, labelDropout: 0, heldOut: 0 },
    ...{ objective: "mse", huberDelta: null, lossWeighting: "constant", snrGamma: null },
    ...{ timestepSampling: "uniform", logSigmaMean: null, logSigmaStd: null },
  });
});

for (
  const [fields, why] of [
    [{ batch_size: 0 }, "batch_size"],
    [{ batch_size: 2.5 }, "batch_size"],
    [{ batch_size: 1e9 }, "batch_size"],
    [{ learning_rate: 0 }, "learning_rate"],
    [{ learning_rate: "fast" }, "learning_rate"],
    [{ warmup_steps: -1 }, "warmup_steps"],
    [{ learning_rate_schedule: "linear" }, "learning_rate_schedule"],
    [{ learning_rate_schedule: "cosine" }, "decay_steps"],
    [{ decay_steps: 1000 }, "decay_steps"],
    [{ learning_rate_schedule: "cosine", decay_steps: 500 }, "decay_steps: is not beyond"],
    [{ betas: [0.9] }, "betas"],
    [{ betas: [0.9, 1] }, "betas"],
    [{ eps: 0 }, "eps"],
    [{ weight_decay: -1 }, "weight_decay"],
    [{ max_grad_norm: 0 }, "max_grad_norm"],
    [{ ema_decay: 1.1 }, "ema_decay"],
    [{ ema_schedule: "none" }, "ema_schedule"],
    [{ ema_power: 0.5 }, "ema_power: goes with the ema_schedule power"],
    [{ batch_size: 6, micro_batch: 4 }, "micro_batch: does not divide batch_size"],
    [{ micro_batch: 0 }, "micro_batch"],
    [{ micro_batch: 32, timestep_sampling: "antithetic" }, "micro_batch: goes with"],
    [{ optimizer: "sgd" }, "optimizer"],
    [{ label_dropout: 1 }, "label_dropout"],
    [{ held_out: 0.6 }, "held_out"],
    [{ seed: -1 }, "seed"],
    [{ learningRate: 1 }, "learningRate"],
    [{ objective: "l2" }, "objective"],
    [{ objective: "mse", huber_delta: 1 }, "huber_delta: goes with the objective huber"],
    [{ snr_gamma: 5 }, "snr_gamma: goes with the loss_weighting min_snr"],
    [{ objective: "vlb", loss_weighting: "min_snr" }, "loss_weighting: goes with"],
    [{ objective: "hybrid", timestep_sampling: "log_normal" }, "timestep_sampling: the objectives"],
    [{ log_sigma_mean: 0 }, "log_sigma_mean: goes with"],
    [{ timestep_sampling: "uniform", log_sigma_std: 1 }, "log_sigma_std: goes with"],
    [{ timestep_sampling: "log_normal", log_sigma_std: 0 }, "log_sigma_std"],
    [null, "training configuration"],
  ] as const
) {
  Deno.test(`parseTraining() refuses ${JSON.stringify(fields)}`, () => {
    const { message } = assertThrows(() => parseTraining(fields), InputError, why);
    assert(message.startsWith("Bad training configuration: ") && !message.includes("\n"), message);
  });
}

Deno.test("a network learns to enlarge by what its step makes of the images", async () => {
  using device = await openCpuAs(2, {});
  const network = tinyUpscaler({ sample_size: 4, block_out_channels: [16] });
  using trainer = await create(device, initializeModel(network, {}, 0), {
    ...{ batch_size: 16, learning_rate: 0.01, warmup_steps: 10, ema_decay: 0.98 },
  });
  await run(trainer, 150);
  const model = await trainer.model();
  using sampler = await Sampler.create(device, model, { method: "ddpm", steps: 50, batchSize: 4 });
  // Of the four pictures; without them, the network could not know which is which.
  const low = [[1, 1, -1, -1], [1, -1, 1, -1], [-1, -1, 1, 1], [-1, 1, -1, 1]];
  const conditions = { low_resolution: low.flat() };
  const { data } = await sampler.sample({ count: 4, seed: 5, conditions });
  for (let k = 0; k < 4; k++) {
    const picture = new Float32Array(16);
    halves.read(k, picture, 0);
    const distance = average([...picture].map((x, i) => Math.abs(x - data[16 * k + i])));
    assert(distance < 0.3, `image ${k} is ${distance} off; other pictures are 1 or 2 off`);
  }
});
