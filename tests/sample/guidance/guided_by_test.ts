import { assert } from "@std/assert";
import { openDevice } from "../../../src/gpu/open.ts";
import {
  averagePool,
  concat,
  constant,
  mean,
  mul,
  reshape,
  slice,
  square,
  sub,
  sum,
} from "../../../src/gpu/mod.ts";
import { fetchModel } from "../../../src/model/pretrained.ts";
import { type GuidanceLoss, guidedBy } from "../../../src/sample/guidance/guided_by.ts";
import { Sampler } from "../../../src/sample/sampler.ts";

const COUNT = 4, PIXELS = 784;

/** Digits with guidance of several scales, of one seed. */
async function paint(loss: GuidanceLoss, scales: readonly number[]) {
  using device = await openDevice("cpu");
  const settings = { steps: 10, batchSize: COUNT, wrap: [guidedBy(loss)] };
  using sampler = await Sampler.create(device, await fetchModel("mnist-unconditional"), settings);
  const results: Float32Array[] = [];
  for (const scale of scales) {
    const conditions = { guide_scale: new Array(COUNT).fill(scale) };
    results.push((await sampler.sample({ count: COUNT, seed: 1, conditions })).data);
  }
  return results;
}

/** The mean over all digits of what is measured of one. */
const average = (digits: Float32Array, measure: (digit: Float32Array) => number) =>
  Array.from({ length: COUNT }, (_, i) => measure(digits.subarray(i * PIXELS, (i + 1) * PIXELS)))
    .reduce((sum, x) => sum + x) / COUNT;

const brightness = (digit: Float32Array) => digit.reduce((sum, x) => sum + x) / PIXELS;

Deno.test("digits are as bright as they are guided to be", async () => {
  const [plain, bold] = await paint((x0) => {
    const mean1 = reshape(mean(x0, [1, 2, 3]), [x0.shape[0]]);
    return mul(square(sub(mean1, -0.5)), PIXELS);
  }, [0, 0.5]);
  assert(average(plain, brightness) < -0.65, `${average(plain, brightness)}`);
  assert(Math.abs(average(bold, brightness) + 0.5) < 0.06, `${average(bold, brightness)}`);
});

Deno.test("digits are as symmetric as they are guided to be", async () => {
  const asymmetry = (digit: Float32Array) =>
    digit.reduce((sum, x, i) => sum + (x - digit[i - i % 28 + 27 - i % 28]) ** 2, 0);
  const [plain, mirrored] = await paint((x0) => {
    const columns = Array.from({ length: 28 }, (_, i) => slice(x0, 2, 27 - i, 1));
    return reshape(sum(square(sub(x0, concat(columns, 2))), [1, 2, 3]), [x0.shape[0]]);
  }, [0, 0.25]);
  const [before, after] = [plain, mirrored].map((digits) => average(digits, asymmetry));
  assert(after < 0.2 * before, `${after} and ${before} without`);
});

Deno.test("digits agree with a picture of low resolution that they are guided to", async () => {
  const small = Float32Array.from(
    { length: 49 },
    (_, i) => i % 7 === 3 && i > 7 && i < 42 ? 0.5 : -1,
  );
  const error = (digit: Float32Array) => {
    const reduced = new Float32Array(49);
    digit.forEach((x, i) => reduced[7 * Math.floor(i / 112) + Math.floor(i % 28 / 4)] += x / 16);
    return Math.sqrt(reduced.reduce((sum, x, i) => sum + (x - small[i]) ** 2, 0) / 49);
  };
  const [plain, agreeing] = await paint((x0) => {
    const difference = square(sub(averagePool(averagePool(x0)), constant(small, [1, 7, 7, 1])));
    return reshape(sum(difference, [1, 2, 3]), [x0.shape[0]]);
  }, [0, 5]);
  const [before, after] = [plain, agreeing].map((digits) => average(digits, error));
  assert(after < 0.25 * before, `${after} and ${before} without`);
});
