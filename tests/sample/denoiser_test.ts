import { assert, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant } from "../../src/gpu/tensor.ts";
import { parseSchedule } from "../../src/model/schedule.ts";
import { denoise } from "../../src/sample/denoiser.ts";
import { assertClose } from "../close.ts";

const image = [0.5, -1, 0.25, 1], noise = [1.5, -0.5, 2, -2], alpha = 0.6, sigma = 0.8;
const mix = (a: number[], b: number[], sign: number) =>
  a.map((x, i) => alpha * x + sign * sigma * b[i]);
const noisy = mix(image, noise, 1);

/** What each kind of network says if it is right. */
const outputs = { epsilon: noise, sample: image, v_prediction: mix(noise, image, -1) };

const estimate = (fields: Record<string, unknown>, output: number[]) => {
  const level = { alpha: constant([alpha]), sigma: constant([sigma]) };
  const { sample, epsilon } = denoise(
    parseSchedule(fields),
    constant(noisy),
    constant(output),
    level,
  );
  return interpret(makeGraph({ sample, epsilon }), {});
};

for (const [prediction_type, output] of Object.entries(outputs)) {
  Deno.test(`denoise() finds image and noise from a prediction of ${prediction_type}`, () => {
    const { sample, epsilon } = estimate({ prediction_type }, output);
    assertClose(sample, image, 1e-12);
    assertClose(epsilon, noise, 1e-12);
  });

  Deno.test(`denoise() clips the image of ${prediction_type}, and leaves the noise alone`, () => {
    const fields = { prediction_type, clip_sample_range: 0.5 };
    const { sample, epsilon } = estimate(fields, output);
    assertClose(sample, [0.5, -0.5, 0.25, 0.5], 1e-12);
    assertClose(epsilon, noise, 1e-12);
  });
}

Deno.test("denoise() clips only if the schedule says so", () => {
  const wrong = noise.map((x) => 3 * x);
  assert(estimate({ clip_sample: false }, wrong).sample.some((x) => Math.abs(x) > 1));
  assertEquals(Math.max(...estimate({}, wrong).sample.map(Math.abs)), 1);
});
