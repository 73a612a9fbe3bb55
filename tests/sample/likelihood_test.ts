import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import * as e from "../../src/gpu/expression.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { gather } from "../../src/gpu/ops/gather.ts";
import { map } from "../../src/gpu/ops/map.ts";
import { randomUniform } from "../../src/gpu/ops/random.ts";
import { reshape } from "../../src/gpu/ops/view.ts";
import { interpret, ReferenceDevice } from "../../src/gpu/reference.ts";
import { constant, type Tensor } from "../../src/gpu/tensor.ts";
import { type Denoiser, denoiserFrom } from "../../src/diffusion/denoiser.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { BIN_STREAM } from "../../src/sample/probability_flow.ts";
import { boundOf, densityOf, measureBound, measureDensity } from "../../src/sample/likelihood.ts";
import type { Samples } from "../../src/sample/options.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, tinyNetwork } from "../networks.ts";
import { Random } from "../random.ts";

/** Pixels are normally distributed, rounded to bytes. */
const MEAN = 0.1, DEVIATION = 0.25, COUNT = 12, SIDE = 8, VALUES = SIDE * SIDE;
const random = new Random("images");
const normal = () =>
  Math.sqrt(-2 * Math.log(random.between(0, 1))) * Math.cos(2 * Math.PI * random.between(0, 1));
const data = Float32Array.from({ length: COUNT * VALUES }, () => {
  const byte = Math.round((MEAN + DEVIATION * normal() + 1) * 127.5);
  return Math.min(Math.max(byte, 0), 255) / 127.5 - 1;
});
const images: Samples = { count: COUNT, shape: [SIDE, SIDE, 1], data };

/** The best there is for such pixels, at any time between timesteps. */
function oracle(fields: object): Denoiser {
  const schedule = new NoiseSchedule(parseSchedule({ clip_sample: false, ...fields }));
  const logs = constant(Array.from(schedule.sigmas, Math.log), [schedule.sigmas.length, 1]);
  const logAt = (t: Tensor) => gather(logs, map([t], (t) => t, "i32"));
  return denoiserFrom(
    (x, time) => {
      const whole = map([map([time], (t) => t, "i32")], (t) => t);
      const between = [whole, map([whole], (t) => e.add(t, 1))].map(logAt);
      const shape = [x.shape[0], 1, 1, 1];
      const [from, to, t, floor] = [...between, time, whole].map((x) => reshape(x, shape));
      const sigma = map(
        [from, to, t, floor],
        (from, to, t, floor) => e.exp(e.add(from, e.mul(e.sub(t, floor), e.sub(to, from)))),
      );
      // E[ε | x] for x / α and σ / α.
      return map([x, sigma], (x, s) => {
        const squares = e.mul(s, s), alpha = e.div(1, e.sqrt(e.add(1, squares)));
        const centred = e.sub(e.div(x, alpha), MEAN);
        return e.div(e.mul(s, centred), e.add(squares, DEVIATION ** 2));
      });
    },
    { schedule, itemShape: images.shape },
  );
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
const cdf = (x: number) => (1 + e.primitives.erf.value(x / Math.SQRT2, 0, 0)) / 2;

Deno.test("the bound of the best network is that of the formula, term by term", async () => {
  using device = await openCpuAs(2, {});
  for (const variance_type of ["fixed_small", "fixed_large"]) {
    const fields = { num_train_timesteps: 200, beta_start: 0.0005, beta_end: 0.1, variance_type };
    const judge = oracle(fields), { betas } = judge.schedule;
    const bound = await boundOf(device, judge, images, { batchSize: 5, seed: 3 });
    const bars = Array.from(betas);
    bars.forEach((_, t) => bars[t] = (t ? bars[t - 1] : 1) * (1 - betas[t]));
    const expected = Array.from(betas, (beta, t) => {
      const alpha = Math.sqrt(bars[t]), sigma = Math.sqrt(1 - bars[t]);
      const power = bars[t] * DEVIATION ** 2 + sigma ** 2;
      const bias = (x: number) => -(sigma ** 2) / power * (x - MEAN);
      const spread = alpha * DEVIATION ** 2 * sigma / power;
      const posterior = (k: number) => betas[k] * (1 - bars[k - 1]) / (1 - bars[k]);
      if (t === 0) {
        // The mean of the code length over the noise, as a sum over ±5 standard deviations.
        const scale = 1 / Math.sqrt(posterior(1));
        const grid = Array.from({ length: 101 }, (_, i) => (i - 50) / 10);
        const weights = grid.map((z) => Math.exp(-z * z / 2)),
          all = weights.reduce((a, b) => a + b);
        return mean(Array.from(data, (x) =>
          grid.reduce((sum, z, i) => {
            const error = bias(x) + spread * z;
            const upper = x > 0.999 ? 1 : cdf(scale * (1 / 255 - error));
            const lower = x < -0.999 ? 0 : cdf(scale * (-1 / 255 - error));
            return sum - weights[i] / all * Math.log2(Math.max(upper - lower, 1e-12));
          }, 0)));
      }
      const share = Math.sqrt(bars[t - 1]) * beta / (1 - bars[t]);
      const error = mean(Array.from(data, (x) => bias(x) ** 2 + spread ** 2));
      const ratio = variance_type === "fixed_small" ? 1 : beta / posterior(t);
      const variance = posterior(t) * ratio;
      return (Math.log(ratio) + 1 / ratio - 1 + share ** 2 * error / variance) / 2 / Math.LN2;
    });
    // With 768 values a mean of squares is off by a twentieth or so.
    bound.terms.forEach((term, t) => {
      assert(Math.abs(term - expected[t]) < 0.25 * expected[t], `${t}: ${term}, ${expected[t]}`);
    });
    const sum = (terms: readonly number[]) => terms.reduce((a, b) => a + b);
    assertAlmostEquals(sum(bound.terms), sum(expected), 0.01 * sum(expected));
    assertAlmostEquals(bound.terms[0], expected[0], 0.02 * expected[0]);
    assertAlmostEquals(bound.total, sum(bound.terms) + bound.prior, 1e-6);
    assertAlmostEquals(mean(bound.images), bound.total, 1e-6);
    // No code is shorter than the entropy of the pixels, and this one is not much longer.
    const entropy = Math.log2(DEVIATION * 127.5 * Math.sqrt(2 * Math.PI * Math.E));
    assert(
      bound.total > entropy - 0.05 && bound.total < entropy + 1.5,
      `${bound.total} ${entropy}`,
    );
  }
});

Deno.test("the density of the best network's flow is the normal density", async () => {
  using device = await openCpuAs(2, {});
  for (const fields of [{}, { beta_schedule: "squaredcos_cap_v2", num_train_timesteps: 300 }]) {
    const judge = oracle(fields), { alpha, sigma } = judge.schedule.levelAt(0);
    const { images: bits, total } = await densityOf(device, judge, images, {
      ...{ steps: 48, batchSize: 5, seed: 7 },
    });
    const state = { step: constant(new Int32Array(1)), first: constant(new Int32Array(1)) };
    const shape = [COUNT, SIDE, SIDE, 1], seed = constant(new Int32Array([7, 0]));
    const u = randomUniform(shape, { seed, ...state }, BIN_STREAM);
    const places = interpret(makeGraph({ u }), {}).u;
    const variance = (alpha * DEVIATION) ** 2 + sigma ** 2;
    const expected = bits.map((_, i) =>
      mean(Array.from(data.subarray(i * VALUES, (i + 1) * VALUES), (x, k) => {
        const z = x + (places[i * VALUES + k] - 0.5) / 127.5 - alpha * MEAN;
        return Math.log2(127.5) +
          (z * z / variance + Math.log(2 * Math.PI * variance)) / 2 / Math.LN2;
      }))
    );
    assertClose(bits, expected, 1e-3);
    assertAlmostEquals(total, mean(bits), 1e-9);
  }
});

Deno.test("the flow's density converges with the fourth power of the step", async () => {
  using device = await openCpuAs(1, {});
  const few = { ...images, count: 1, data: data.slice(0, VALUES) }, judge = oracle({});
  const at = async (steps: number) => (await densityOf(device, judge, few, { steps })).total;
  const exact = await at(128);
  const [coarse, fine] = [Math.abs(await at(16) - exact), Math.abs(await at(32) - exact)];
  assert(coarse / fine > 11 && coarse / fine < 20, `${coarse} ${fine}`);
});

/** Images of any kind. */
const some: Samples = {
  ...{ count: 3, shape: [8, 8, 1] },
  data: Float32Array.from({ length: 192 }, (_, i) => (i * 37 % 256) / 127.5 - 1),
};
const schedule = { num_train_timesteps: 6 };
const model = randomModel(tinyNetwork(), { ...schedule, prediction_type: "v_prediction" });

Deno.test("likelihoods are the same on all devices, for any batch size", async () => {
  const learned = randomModel(tinyNetwork({ out_channels: 2 }), {
    ...{ ...schedule, variance_type: "learned_range" },
  });
  const classes = randomModel(tinyNetwork({ num_class_embeds: 3 }), schedule);
  for (const judged of [model, learned, classes]) {
    const labels = judged === classes ? { labels: [2, 0, 1] } : {}, all = [];
    for (const device of [new ReferenceDevice(), await openCpuAs(2, {}), await openGpu()]) {
      using _ = device;
      for (const batchSize of [2, 3]) {
        const options = { batchSize, seed: 2 ** 33 + 5, ...labels };
        const { terms, images } = await measureBound(device, judged, some, options);
        const density = await measureDensity(device, judged, some, { ...options, steps: 3 });
        all.push([...terms, ...images, ...density.images]);
      }
    }
    for (const values of all) assertClose(values, all[0], 1e-3);
  }
  using device = await openCpuAs(1, {});
  const [a, b] = [await measureBound(device, model, some), await measureBound(device, model, some)];
  assertEquals(a, b);
  assert((await measureBound(device, model, some, { seed: 1 })).total !== a.total);
});

Deno.test("measuring can be stopped, and tells how far it is", async () => {
  using device = new ReferenceDevice();
  const told: number[][] = [], stop = new AbortController();
  const onProgress = (done: number, total: number) => {
    told.push([done, total]);
    if (done > 1) stop.abort(new Error("enough"));
  };
  const options = { batchSize: 2, onProgress, signal: stop.signal };
  await assertRejects(() => measureBound(device, model, some, options), Error, "enough");
  assert(told.every(([, total]) => total === 12));
});

Deno.test("likelihoods of images that do not fit are refused", async () => {
  using device = new ReferenceDevice();
  const refuse = (changes: object, options: object, why: string) =>
    assertRejects(
      () => measureBound(device, model, { ...some, ...changes }, options),
      InputError,
      why,
    );
  await refuse({ count: 2 }, {}, "are not 192 values");
  await refuse({ shape: [8, 8, 3], count: 1 }, {}, "3 channels");
  await refuse({}, { batchSize: 0 }, "batch size is 0");
  const classes = randomModel(tinyNetwork({ num_class_embeds: 3 }), schedule);
  await assertRejects(
    () => measureBound(device, classes, some),
    InputError,
    "3 classes: give a label",
  );
  await assertRejects(
    () => measureDensity(device, model, some, { steps: 0 }),
    InputError,
    "0 steps",
  );
});

Deno.test("a network that predicts what is no number has no likelihood, clipped or not", async () => {
  const damaged = { ...model, parameters: model.parameters.map((x, i) => i === 9 ? NaN : x) };
  for (const device of [new ReferenceDevice(), await openCpuAs(2, {}), await openGpu()]) {
    using _ = device;
    const why = "predicts what is no number";
    await assertRejects(() => measureBound(device, damaged, some), Error, why);
    await assertRejects(() => measureDensity(device, damaged, some, { steps: 2 }), Error, why);
  }
});
