import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input, type Tensor } from "../../src/gpu/tensor.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { initializeModel } from "../../src/model/model.ts";
import { parseTraining } from "../../src/train/config.ts";
import { drawTimesteps, REMEMBERED } from "../../src/train/timesteps.ts";
import { idxDataset } from "../../src/data/datasets/idx.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { devices, openCpuAs } from "../device.ts";
import { tinyNetwork } from "../networks.ts";

const random = {
  seed: constant(new Int32Array([5, 6])),
  first: constant(new Int32Array([0])),
  step: input("step", [1], "i32"),
};
const at = (step: number) => ({ step: new Int32Array([step]) });

/** The drawing of a batch. */
const draw = (fields: object, schedule: object, batch: number) =>
  drawTimesteps(parseTraining(fields), parseSchedule(schedule), batch, random);

/** All timesteps of some steps. */
function timestepsOf(fields: object, schedule: object, batch: number, steps: number): number[] {
  const graph = makeGraph({ t: draw(fields, schedule, batch).timesteps });
  return Array.from({ length: steps }, (_, k) => [...interpret(graph, at(k)).t]).flat();
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
const deviation = (values: readonly number[]) =>
  Math.sqrt(mean(values.map((x) => (x - mean(values)) ** 2)));

Deno.test("uniform timesteps are all equally likely", () => {
  const drawn = timestepsOf({}, { num_train_timesteps: 8 }, 100, 80);
  for (let t = 0; t < 8; t++) {
    const count = drawn.filter((x) => x === t).length;
    assert(Math.abs(count - 1000) < 150, `${t} was drawn ${count} times`);
  }
});

Deno.test("antithetic timesteps come in pairs whose sum is T - 1", () => {
  for (const batch of [1, 6, 7]) {
    const half = Math.ceil(batch / 2), fields = { timestep_sampling: "antithetic" };
    for (let step = 0; step < 20; step++) {
      const graph = makeGraph({ t: draw(fields, {}, batch).timesteps });
      const t = [...interpret(graph, at(step)).t];
      for (let i = half; i < batch; i++) assertEquals(t[i], 999 - t[i - half]);
    }
  }
  assertEquals(
    new Set(timestepsOf({ timestep_sampling: "antithetic" }, {}, 4, 50)).size > 150,
    true,
  );
});

Deno.test("log_normal draws the logarithm of the noise from a normal distribution", () => {
  const fields = { timestep_sampling: "log_normal", log_sigma_mean: 0.3, log_sigma_std: 0.8 };
  const { sigmas } = new NoiseSchedule(parseSchedule({}));
  const logs = timestepsOf(fields, {}, 500, 8).map((t) => Math.log(sigmas[t]));
  assertAlmostEquals(mean(logs), 0.3, 0.05);
  assertAlmostEquals(deviation(logs), 0.8, 0.04);

  const { sigmas: drawn, timesteps } = draw(
    { timestep_sampling: "log_normal" },
    { prediction_type: "edm" },
    2000,
  );
  const { s, t } = interpret(makeGraph({ s: drawn!, t: timesteps }), at(0));
  const exact = Array.from(s, Math.log);
  assertAlmostEquals(mean(exact), -1.2, 0.1);
  assertAlmostEquals(deviation(exact), 1.2, 0.07);
  // The timestep is the nearest by log σ.
  exact.forEach((log, i) => {
    const distances = Array.from(sigmas, (sigma) => Math.abs(Math.log(sigma) - log));
    assertAlmostEquals(distances[t[i]], Math.min(...distances), 1e-9);
  });
  assertEquals(draw({ timestep_sampling: "log_normal" }, {}, 4).sigmas, undefined);
});

const byLoss = { timestep_sampling: "loss_second_moment" };
const few = { num_train_timesteps: 7 };

/** A memory in which timestep t had losses around `size(t)`. */
const remember = (size: (t: number) => number) =>
  Float64Array.from({ length: 7 * REMEMBERED }, (_, i) => {
    const t = Math.floor(i / REMEMBERED), k = i % REMEMBERED;
    return (size(t) * (1 + 0.1 * k)) ** 2;
  });

Deno.test("loss_second_moment draws all alike until it has seen each timestep often enough", () => {
  const { timesteps, importance } = draw(byLoss, few, 2000);
  const graph = makeGraph({ t: timesteps, w: importance! });
  const almost = remember((t) => 1 + t);
  almost[3 * REMEMBERED + REMEMBERED - 1] = 0;
  for (const squaredLosses of [new Float64Array(7 * REMEMBERED), almost]) {
    const { t, w } = interpret(graph, { ...at(1), squaredLosses });
    assertEquals(new Set(w), new Set([1]));
    for (let i = 0; i < 7; i++) {
      assert(Math.abs(t.filter((x) => x === i).length - 2000 / 7) < 60, `timestep ${i}`);
    }
  }
});

Deno.test("loss_second_moment draws by the root of the mean squared loss, and weighs against it", () => {
  const count = 4000, { timesteps, importance } = draw(byLoss, few, count);
  const squaredLosses = remember((t) => 1 + t);
  const graph = makeGraph({ t: timesteps, w: importance! });
  const { t, w } = interpret(graph, { ...at(1), squaredLosses });
  for (let i = 0; i < 7; i++) {
    const share = 0.999 * (1 + i) / 28 + 0.001 / 7;
    const drawn = t.filter((x) => x === i).length;
    assert(Math.abs(drawn - share * count) < 4 * Math.sqrt(share * count), `${drawn} of ${i}`);
    assertAlmostEquals(w[t.indexOf(i)], 1 / 7 / share, 1e-9);
  }
});

Deno.test("loss_second_moment remembers the last ten losses of each timestep", () => {
  const { timesteps, observe } = draw(byLoss, few, 3), losses = [2, 3, 4];
  const [state, next] = observe!(constant(losses));
  const graph = makeGraph({ t: timesteps }, [[state, next]]);
  const expected = Array.from({ length: 7 }, () => new Array<number>(REMEMBERED).fill(0));
  const squaredLosses = new Float64Array(7 * REMEMBERED);
  let repeated = 0;
  for (let step = 0; step < 60; step++) {
    const { t } = interpret(graph, { ...at(step), squaredLosses });
    for (const drawn of new Set(t)) {
      const own = losses.filter((_, i) => t[i] === drawn);
      repeated += own.length - 1;
      expected[drawn].unshift(mean(own.map((x) => x * x)));
      expected[drawn].pop();
    }
    assertClose(squaredLosses, expected.flat(), 1e-12);
  }
  assert(repeated > 10, "a batch had a timestep twice");
  assert(expected.flat().every((x) => x > 0));
});

Deno.test("all devices draw the same timesteps", async () => {
  const settings: readonly [string, object, object][] = [
    ["antithetic", { timestep_sampling: "antithetic" }, {}],
    ["log_normal", { timestep_sampling: "log_normal" }, { prediction_type: "edm" }],
    ["loss_second_moment", byLoss, { num_train_timesteps: 1000 }],
  ];
  const losses = constant([0.5, 1, 2, 0.1, 0.3]);
  for (const [name, fields, schedule] of settings) {
    const { timesteps, sigmas, importance, observe } = draw(fields, schedule, 5);
    const outputs: Record<string, Tensor> = { timesteps };
    if (sigmas) outputs.sigmas = sigmas;
    if (importance) outputs.importance = importance;
    const graph = makeGraph(outputs, observe ? [observe(losses)] : []);
    const memory = Float32Array.from({ length: 1000 * REMEMBERED }, (_, i) => 1 + i % 97 / 10);
    for (const [kind, open] of Object.entries(devices)) {
      using device = await open();
      using program = await device.compile(graph);
      const squaredLosses = Float64Array.from(memory);
      program.buffers.squaredLosses?.write(memory);
      for (let step = 0; step < 3; step++) {
        const expected = interpret(graph, { ...at(step), squaredLosses });
        program.buffers.step.write([step]);
        program.run();
        for (const [output, values] of Object.entries(expected)) {
          const actual = await program.buffers[output].read();
          assertClose(actual, values, output === "timesteps" ? 0 : 1e-4, `${name} on ${kind}`);
        }
      }
      const after = await program.buffers.squaredLosses?.read();
      if (after) assertClose(after, squaredLosses, 1e-6, `${name} on ${kind}`);
    }
  }
});

Deno.test("a training that draws by losses goes on as if it had not stopped", async () => {
  using device = await openCpuAs(2, {});
  const data = idxDataset("bytes", {
    ...{ shape: [20, 8, 8], data: Uint8Array.from({ length: 20 * 64 }, (_, i) => i * 37) },
  });
  const model = initializeModel(tinyNetwork(), { num_train_timesteps: 3 }, 0);
  const settings = parseTraining({ ...byLoss, batch_size: 8, warmup_steps: 0 });
  using first = await Trainer.create(device, model, data, settings);
  for (let i = 0; i < 15; i++) await first.run();
  const state = await first.state(), memory = state.arrays.squaredLosses!;
  assert(memory.every((x) => x > 0), "all timesteps were drawn ten times");
  assertEquals(memory.length, 3 * REMEMBERED);
  using second = await Trainer.create(device, model, data, settings);
  second.restore(state);
  for (const trainer of [first, second]) for (let i = 0; i < 5; i++) await trainer.run();
  assertEquals(await second.state(), await first.state());

  const { squaredLosses: _, ...arrays } = state.arrays;
  const without = { ...state, arrays };
  assertThrows(() => second.restore(without), InputError, "no squaredLosses");
  second.restore({ ...state, arrays: { ...arrays, squaredLosses: memory.map((_, i) => i + 1) } });
  for (let i = 0; i < 5; i++) await second.run();
  assertNotEquals(
    (await second.state()).arrays.parameters,
    (await first.state()).arrays.parameters,
  );
});
