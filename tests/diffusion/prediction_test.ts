import { assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, type Tensor } from "../../src/gpu/tensor.ts";
import {
  addNoise,
  askNetwork,
  estimatesOf,
  outputChannels,
  slopeOf,
  targetOf,
} from "../../src/diffusion/prediction.ts";
import { parseSchedule, type PredictionType } from "../../src/diffusion/schedule.ts";
import { assertClose } from "../close.ts";

const image = [0.5, -1, 0.25, 1], noise = [1.5, -0.5, 2, -2];
const clean = { sample: constant(image, [1, 2, 2, 1]), epsilon: constant(noise, [1, 2, 2, 1]) };
const levelOf = (alpha: number) => ({
  alpha: constant([alpha]),
  sigma: constant([Math.sqrt(1 - alpha ** 2)]),
});
const valuesOf = (tensors: Record<string, Tensor>) => interpret(makeGraph(tensors), {});

/** What each kind of network says of one element, as the papers write it. */
const formulas: Record<PredictionType, (x0: number, eps: number, a: number, s: number) => number> =
  {
    epsilon: (_, eps) => eps,
    sample: (x0) => x0,
    v_prediction: (x0, eps, a, s) => a * eps - s * x0,
    edm(x0, eps, a, s) {
      const sigma = s / a, data = 0.4, sum = sigma ** 2 + data ** 2;
      const skip = data ** 2 / sum, out = sigma * data / Math.sqrt(sum);
      return (x0 - skip * (x0 + sigma * eps)) / out;
    },
    flow_prediction: (x0, eps) => eps - x0,
  };

for (const [name, formula] of Object.entries(formulas)) {
  const config = parseSchedule({ prediction_type: name, sigma_data: 0.4 });

  Deno.test(`a network that predicts ${name} is taught what leads back to image and noise`, () => {
    for (const alpha of [0.999, 0.6, 0.01]) {
      const level = levelOf(alpha), x = addNoise(clean.sample, clean.epsilon, level);
      const target = targetOf(config, clean, level);
      const { sample, epsilon } = estimatesOf(config, x, target, level);
      const values = valuesOf({ target, sample, epsilon });
      const s = Math.sqrt(1 - alpha ** 2);
      assertClose(values.target, image.map((x0, i) => formula(x0, noise[i], alpha, s)), 1e-9);
      assertClose(values.sample, image, 1e-9, `sample at ${alpha}`);
      assertClose(values.epsilon, noise, 1e-9, `epsilon at ${alpha}`);
    }
  });
}

for (const name of Object.keys(formulas)) {
  Deno.test(`the slope of x_0 by what a network predicts is told: ${name}`, () => {
    const config = parseSchedule({ prediction_type: name, sigma_data: 0.4 });
    for (const alpha of [0.999, 0.6, 0.01]) {
      const level = levelOf(alpha), x = constant(noise, [1, 2, 2, 1]);
      const at = (y: number) =>
        estimatesOf(config, x, constant(image.map((v) => v + y), x.shape), level);
      const { slope, more, less } = valuesOf({
        ...{ slope: slopeOf(config, level), more: at(0.5).sample, less: at(-0.5).sample },
      });
      assertClose([...more].map((m, i) => m - less[i]), image.map(() => slope[0]), 1e-9);
    }
  });
}

Deno.test("networks that predict flows start from nothing but noise", () => {
  const level = levelOf(0), x = constant(noise, [1, 2, 2, 1]);
  const config = parseSchedule({ prediction_type: "flow_prediction" });
  const output = targetOf(config, clean, level);
  const { sample, epsilon } = valuesOf({ ...estimatesOf(config, x, output, level) });
  assertClose(sample, image, 1e-12);
  assertClose(epsilon, noise, 1e-12);
});

Deno.test("networks of EDM see images of unit variance, those of flows a mixture, others x_t", () => {
  const level = levelOf(0.6), x = addNoise(clean.sample, clean.epsilon, level);
  const shown = (prediction_type: string) => {
    const config = parseSchedule({ prediction_type, sigma_data: 0.4 });
    return valuesOf({ shown: askNetwork(config, x, level, (x) => x).output }).shown;
  };
  const noisy = image.map((x0, i) => 0.6 * x0 + 0.8 * noise[i]);
  assertClose(shown("epsilon"), noisy, 1e-12);
  const scale = 0.6 * Math.sqrt((0.8 / 0.6) ** 2 + 0.4 ** 2);
  assertClose(shown("edm"), noisy.map((x) => x / scale), 1e-12);
  // t = σ / (α + σ) is 4/7 here.
  assertClose(shown("flow_prediction"), image.map((x0, i) => 3 / 7 * x0 + 4 / 7 * noise[i]), 1e-12);
});

Deno.test("a network with a learned range has its variance in the second half of its channels", () => {
  const config = parseSchedule({ variance_type: "learned_range" });
  assertEquals([outputChannels(config, 3), outputChannels(parseSchedule({}), 3)], [6, 3]);
  const both = constant([1, 2, 10, 20, 3, 4, 30, 40], [1, 1, 2, 4]);
  const { output, variance } = askNetwork(config, both, levelOf(0.6), (x) => x);
  const values = valuesOf({ output, variance: variance! });
  assertEquals([[...values.output], [...values.variance]], [[1, 2, 3, 4], [10, 20, 30, 40]]);
  assertEquals(askNetwork(parseSchedule({}), both, levelOf(0.6), (x) => x).variance, undefined);
});
