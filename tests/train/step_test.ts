import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { interpret } from "../../src/gpu/reference.ts";
import { type HostArray, input } from "../../src/gpu/tensor.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { initializeModel, type LoadedModel } from "../../src/model/model.ts";
import { SIMPLE } from "../../src/train/objective.ts";
import {
  encodeRates,
  HISTORY,
  type OptimizerConfig,
  type Rates,
  ROW,
  trainingStep,
} from "../../src/train/step.ts";
import { assertParametersClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { batch } from "./batch.ts";
import { randomModel, tinyNetwork } from "../networks.ts";

const settings: OptimizerConfig = {
  precision: "f32",
  ...{ optimizer: "adamw", betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1e9 },
};
const rates: Rates = { learningRate: 0.01, emaDecay: 0.75, step: 0 };
const model = randomModel(tinyNetwork());

/** The state after a step from scratch, in double precision. */
function takeStep(
  { network, schedule, parameters }: LoadedModel = model,
  changes: Partial<OptimizerConfig & Rates> = {},
  before: Readonly<Record<string, HostArray>> = {},
): Record<string, HostArray> {
  const all = { ...settings, ...rates, ...changes };
  const graph = trainingStep(
    { network: denoisingNetwork({ network }), schedule, objective: SIMPLE, batch, images: 2 },
    all,
  );
  const state = {
    parameters: Float64Array.from(parameters),
    ema: Float64Array.from(parameters),
    moment1: new Float64Array(network.layout.size),
    moment2: new Float64Array(network.layout.size),
    history: new Float64Array(ROW * HISTORY),
    ...before,
  };
  interpret(graph, { ...state, rates: Float64Array.from(encodeRates(all, all)) });
  return state;
}

const norm = (x: HostArray) => Math.hypot(...x);

Deno.test("encodeRates() corrects the bias of Adam's moments and wraps the history", () => {
  const [rate, decay, first, second, slot] = encodeRates({ ...rates, step: 2 }, settings);
  assertEquals([rate, decay, slot], [0.01, 0.75, 2]);
  assertAlmostEquals(first, 1 / (1 - 0.9 ** 3), 1e-12);
  assertAlmostEquals(second, 1 / Math.sqrt(1 - 0.999 ** 3), 1e-12);
  assertEquals(encodeRates({ ...rates, step: HISTORY + 5 }, settings)[4], 5);
});

/** Compares flat arrays, parameter by parameter. */
const assertClose = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number) =>
  assertParametersClose(model.network.layout, actual, expected, tolerance, "values");

Deno.test("Adam's first step moves every weight by the learning rate against its gradient", () => {
  const { parameters, moment1 } = takeStep();
  let moved = 0;
  moment1.forEach((m, i) => {
    if (Math.abs(m) < 1e-5) return;
    assertAlmostEquals(parameters[i] - model.parameters[i], -0.01 * Math.sign(m), 1e-5);
    moved++;
  });
  assert(
    moved > 0.9 * model.network.layout.count,
    `${moved} of ${model.network.layout.count} weights moved`,
  );
});

Deno.test("a step lowers the loss of its batch", () => {
  const first = takeStep(model, { learningRate: 1e-3 });
  const second = takeStep(model, { step: 1 }, first);
  assert(second.history[ROW] < 0.95 * second.history[0], `${second.history.slice(0, 4)}`);
});

Deno.test("moments are moving averages of the gradient and of its square", () => {
  const { moment1, moment2, history } = takeStep();
  assertAlmostEquals(norm(moment1) / 0.1, history[1], 1e-9 * history[1]);
  assertClose(moment2, moment1.map((m) => 0.001 * (m / 0.1) ** 2), 1e-9);
  const learningRate = 0;
  const again = takeStep(model, { learningRate, step: 1 }, {
    ...takeStep(model, { learningRate }),
  });
  assertClose(again.moment1, moment1.map((m) => 1.9 * m), 1e-9);
  assertClose(again.moment2, moment2.map((v) => 1.999 * v), 1e-9);
});

Deno.test("gradients with too large a norm are scaled down to it, others are left alone", () => {
  const free = takeStep(), size = free.history[1];
  assert(size > 0.1, "there is something to clip");
  const clipped = takeStep(model, { maxGradNorm: size / 4 });
  assertAlmostEquals(norm(clipped.moment1) / 0.1, size / 4, 1e-5 * size);
  assertClose(clipped.moment1, free.moment1.map((m) => m / 4), 1e-5);
  assertEquals(clipped.history[1], size, "the norm before clipping is recorded");
  assertEquals(takeStep(model, { maxGradNorm: 2 * size }).moment1, free.moment1);
});

Deno.test("weight decay takes a share of the weights, times the learning rate", () => {
  const { parameters: plain } = takeStep(), { parameters } = takeStep(model, { weightDecay: 0.1 });
  const lost = plain.map((x, i) => x - parameters[i]);
  assertClose(lost, Array.from(model.parameters, (x) => 0.01 * 0.1 * x), 1e-9);
});

Deno.test("with adam, weight decay is added to the gradient", () => {
  const changes = { weightDecay: 0.1, optimizer: "adam" } as const;
  const { moment1 } = takeStep(), { moment1: decayed } = takeStep(model, changes);
  assertClose(decayed, moment1.map((m, i) => m + 0.1 * 0.1 * model.parameters[i]), 1e-9);
  const without = { ...changes, weightDecay: 0 };
  assertEquals(takeStep(model, without), takeStep(model, { weightDecay: 0 }));
});

Deno.test("the moving average keeps its share of old weights and takes the rest of new", () => {
  const old = Float64Array.from(model.parameters, (x) => x + 1);
  const { ema, parameters } = takeStep(model, {}, { ema: old.slice() });
  assertClose(ema, old.map((x, i) => 0.75 * x + 0.25 * parameters[i]), 1e-12);
});

Deno.test("the history takes one row a step and keeps the others", () => {
  const history = Float64Array.from({ length: ROW * HISTORY }, (_, i) => i);
  const after = takeStep(model, { step: HISTORY + 3 }, { history: history.slice() }).history;
  const row = takeStep().history.slice(0, ROW);
  assertEquals(after.slice(3 * ROW, 4 * ROW), row);
  after.forEach((x, i) => Math.floor(i / ROW) === 3 || assertEquals(x, i));
  // Of the timesteps 100 and 900, one is in the first quarter and one in the last.
  const [loss, , first, second, third, last, ...counts] = row;
  assertEquals([second, third, ...counts], [0, 0, 1, 0, 0, 1]);
  assertAlmostEquals((first + last) / 2, loss, 1e-12);
});

Deno.test("parameters that are fixed neither move nor decay", () => {
  const fourier = randomModel(tinyNetwork({ time_embedding_type: "fourier" }));
  const { parameters } = takeStep(fourier, { weightDecay: 0.5 });
  const index = fourier.network.layout.specs.findIndex((spec) => !spec.isTrained);
  const from = fourier.network.layout.offsets[index],
    to = from + fourier.network.layout.specs[index].shape[0];
  assertEquals(
    Array.from(parameters.slice(from, to)),
    Array.from(fourier.parameters.slice(from, to)),
  );
  assert(parameters.some((x, i) => x !== fourier.parameters[i]));
});

Deno.test("gaps between parameters stay zero", () => {
  const isGap = new Uint8Array(model.network.layout.size).fill(1);
  model.network.layout.specs.forEach(({ shape }, i) => {
    const from = model.network.layout.offsets[i];
    isGap.fill(0, from, from + shape.reduce((a, b) => a * b, 1));
  });
  const before = initializeModel(tinyNetwork(), {}, 1).parameters;
  const after = takeStep({ ...model, parameters: before }, { weightDecay: 0.5 });
  for (const values of [after.parameters, after.ema]) {
    values.forEach((x, i) => isGap[i] && assertEquals(x, 0));
  }
});

for (const [name, open] of Object.entries({ GPU: openGpu, CPU: () => openCpuAs(2, {}) })) {
  Deno.test(`weights, moments and averages are updated where they are, on a ${name}`, async () => {
    const wide = parseNetwork({
      ...{ sample_size: 4, in_channels: 1, out_channels: 1, block_out_channels: [128] },
      ...{ layers_per_block: 1, norm_num_groups: 8, add_attention: false },
      ...{ down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] },
    });
    const { network, schedule } = initializeModel(wide, {}, 1), shape = [1, 4, 4, 1];
    const one = {
      ...{ images: input("images", shape), noise: input("noise", shape) },
      timesteps: input("timesteps", [1], "i32"),
    };
    const spec = {
      network: denoisingNetwork({ network }),
      schedule,
      objective: SIMPLE,
      batch: one,
      images: 1,
    };
    using device = await open();
    const { temporary } = device.plan(trainingStep(spec, settings));
    // There is one gradient, and activations are next to nothing; parts of sums are something.
    const sizes = temporary / (4 * network.layout.size);
    assert(sizes > 1 && sizes < 2, `temporary memory is ${sizes.toFixed(2)} times the weights`);
  });
}
