import { assert, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { denoiserFrom, limited } from "../../src/diffusion/denoiser.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";

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

/**
 * What `_threshold_sample` of diffusers makes of three images, by PyTorch in double precision: of each
 * the sum, the sum of magnitudes, and element 5.
 */
const thresholded = [
  {
    ...{ ratio: 0.9, most: 10 },
    sums: [0.042126471604946564, 0.8135294429063616, 0.7424449123672427],
    magnitudes: [31.060455683182838, 23.03757004647202, 22.667363996786506],
    fifths: [0.8130465536271894, -0.006320634582077882, 1.0],
  },
  {
    ...{ ratio: 0.995, most: 2.5 },
    sums: [0.04865488507436702, 0.8208486358358914, 0.7692490982653193],
    magnitudes: [34.33293605886095, 23.19558676777291, 23.262314156883008],
    fifths: [0.9581845351481884, -0.006379175956393007, 1.0],
  },
  {
    ...{ ratio: 0.5, most: 1 },
    sums: [0.15572093415962107, 1.922580843333978, 0.8605276333715899],
    magnitudes: [42.92749873701067, 35.120827222259464, 36.37684772902429],
    fifths: [1.0, -0.015947939890982518, 1.0],
  },
];
const images = Float64Array.from({ length: 3 * 48 }, (_, j) => {
  const k = Math.floor(j / 48), i = j % 48;
  return 3 * Math.sin(1.7 * i + k) * Math.cos(0.3 * i * k);
});

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`dynamic thresholding is that of diffusers, on ${kind}`, async () => {
    using device = await open();
    for (const { ratio, most, sums, magnitudes, fifths } of thresholded) {
      const schedule = parseSchedule({
        ...{ prediction_type: "sample", thresholding: true },
        ...{ dynamic_thresholding_ratio: ratio, sample_max_value: most },
      });
      const x = input("x", [3, 4, 4, 3]), one = constant([1]), zero = constant(new Int32Array(1));
      const { sample } = limited(denoiserFrom((x) => x, {
        schedule: new NoiseSchedule(schedule),
        itemShape: [4, 4, 3],
      })).estimate({
        ...{ x, level: { time: one, alpha: one, sigma: one }, conditions: {} },
        random: { seed: constant(new Int32Array(2)), first: zero, step: zero },
      });
      using program = await device.compile(makeGraph({ sample }));
      assert(program.dispatches <= 5, `${program.dispatches} dispatches`);
      program.buffers.x.write(images);
      program.run();
      const found = await program.buffers.sample.read();
      const each = [0, 48, 96].map((start) => [...found.subarray(start, start + 48)]);
      const sum = (values: number[]) => values.reduce((a, b) => a + b);
      assertClose(each.map(sum), sums, 1e-5, `sums, ${ratio}`);
      assertClose(each.map((xs) => sum(xs.map(Math.abs))), magnitudes, 1e-6, `${ratio}`);
      assertClose(each.map((xs) => xs[5]), fifths, 1e-6, `elements, ${ratio}`);
    }
  });
}
