import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant } from "../../src/gpu/tensor.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { denoiserFrom, limited, quantile } from "../../src/diffusion/denoiser.ts";
import { assertClose } from "../close.ts";
import { Random } from "../random.ts";

const shape = [1, 2, 2, 1];
const image = [0.5, -1, 0.25, 1], noise = [1.5, -0.5, 2, -2], alpha = 0.6, sigma = 0.8;
const mix = (a: number[], b: number[], sign: number) =>
  a.map((x, i) => alpha * x + sign * sigma * b[i]);
const noisy = mix(image, noise, 1);

/** What each kind of network says if it is right. */
const outputs = { epsilon: noise, sample: image, v_prediction: mix(noise, image, -1) };

const estimate = (fields: Record<string, unknown>, output: number[]) => {
  const zero = constant(new Int32Array([0])), time = constant([0]);
  const { sample, epsilon } = limited(denoiserFrom(() => constant(output, shape), {
    schedule: new NoiseSchedule(parseSchedule(fields)),
    itemShape: shape.slice(1),
  })).estimate({
    x: constant(noisy, shape),
    level: { time, alpha: constant([alpha]), sigma: constant([sigma]) },
    conditions: {},
    random: { seed: constant(new Int32Array([0, 0])), first: zero, step: zero },
  });
  return interpret(makeGraph({ sample, epsilon }), {});
};

for (const [prediction_type, output] of Object.entries(outputs)) {
  Deno.test(`a denoiser finds image and noise from a prediction of ${prediction_type}`, () => {
    const { sample, epsilon } = estimate({ prediction_type }, output);
    assertClose(sample, image, 1e-12);
    assertClose(epsilon, noise, 1e-12);
  });

  Deno.test(`a denoiser clips the image of ${prediction_type}, and leaves the noise alone`, () => {
    const fields = { prediction_type, clip_sample_range: 0.5 };
    const { sample, epsilon } = estimate(fields, output);
    assertClose(sample, [0.5, -0.5, 0.25, 0.5], 1e-12);
    assertClose(epsilon, noise, 1e-12);
  });
}

Deno.test("a denoiser clips only if the schedule says so", () => {
  const wrong = noise.map((x) => 3 * x);
  assert(estimate({ clip_sample: false }, wrong).sample.some((x) => Math.abs(x) > 1));
  assertEquals(Math.max(...estimate({}, wrong).sample.map(Math.abs)), 1);
});

/** torch.quantile of magnitudes: linear between neighbours. */
function quantileOf(values: number[], ratio: number): number {
  const sorted = values.map(Math.abs).sort((a, b) => a - b), place = ratio * (values.length - 1);
  const below = Math.floor(place), next = sorted[Math.min(below + 1, sorted.length - 1)];
  return sorted[below] + (place - below) * (next - sorted[below]);
}

Deno.test("quantile() finds what sorting finds, for each image", () => {
  const random = new Random("quantile"), shape = [3, 5, 4, 3];
  const values = Array.from({ length: 180 }, (_, i) => random.between(-1, 1) * 10 ** (i % 5));
  values.fill(0.25, 60, 100);
  values.fill(0, 100, 120);
  for (const ratio of [0.005, 0.5, 0.9, 0.995, 1]) {
    const found = interpret(makeGraph({ q: quantile(constant(values, shape), ratio) }), {}).q;
    const expected = [0, 1, 2].map((i) => quantileOf(values.slice(60 * i, 60 * i + 60), ratio));
    assertEquals(found.length, 3);
    expected.forEach((q, i) => assertAlmostEquals(found[i], q, 1e-9 + 1e-6 * q, `${ratio} ${i}`));
  }
});

Deno.test("dynamic thresholding divides by the quantile, limited, instead of clipping", () => {
  const output = [0.5, -3, 0.25, 1.5];
  const of = (fields: Record<string, unknown>) =>
    estimate({ prediction_type: "sample", thresholding: true, ...fields }, output).sample;
  const q = quantileOf(output, 0.9);
  const limited = output.map((x) => Math.max(-q, Math.min(q, x)) / q);
  assertClose(of({ dynamic_thresholding_ratio: 0.9, sample_max_value: 10 }), limited, 1e-6);
  const clipped = output.map((x) => Math.max(-1, Math.min(1, x)));
  assertClose(of({ dynamic_thresholding_ratio: 0.9 }), clipped, 1e-6, "limited to 1");
  assertClose(of({ dynamic_thresholding_ratio: 0.01, sample_max_value: 10 }), clipped, 1e-6);
});
