import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { denoiserFrom } from "../../src/diffusion/denoiser.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { InputError } from "../../src/errors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import * as e from "../../src/gpu/expression.ts";
import { map } from "../../src/gpu/ops/map.ts";
import { broadcastTo } from "../../src/gpu/ops/view.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, type Tensor } from "../../src/gpu/tensor.ts";
import { operators } from "../../src/sample/guidance/operators.ts";
import { restored } from "../../src/sample/guidance/restored.ts";
import { measure, restore } from "../../src/sample/restore.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { devices, openCpuAs } from "../device.ts";
import { randomModel, smallNetwork } from "../networks.ts";
import { Random } from "../random.ts";

const schedule = new NoiseSchedule(parseSchedule({ prediction_type: "v_prediction" }));
const zero = (x: Tensor) => broadcastTo(constant([0]), x.shape);
/** Pictures whose pixels are normal and independent, of which v is known to be 0, with x_0 = α x. */
const normal = denoiserFrom(zero, { schedule, itemShape: [8, 8, 1] });
const random = new Random("restore"), count = 3;
const pictures = {
  ...{ count, shape: [8, 8, 1] },
  data: Float32Array.from({ length: 64 * count }, () => random.between(-0.9, 0.9)),
};
const operator = operators.superres(4);

/** What the wrapper makes of noisy pictures, in double precision. */
function estimate(options: Parameters<typeof restored>[1], x: Float64Array<ArrayBuffer>) {
  const { alpha, sigma } = schedule.levelAt(600), none = constant(new Int32Array([0]));
  const denoiser = restored(operator, options)(normal);
  const { sample, epsilon } = denoiser.estimate({
    x: constant(x, [2, 8, 8, 1]),
    level: {
      time: constant([600, 600]),
      alpha: constant([alpha], [1, 1, 1, 1]),
      sigma: constant([sigma], [1, 1, 1, 1]),
    },
    conditions: { measurement: constant(known, [2, 2, 2, 1]) },
    random: { seed: constant(new Int32Array([0, 0])), first: none, step: none },
  });
  const found = interpret(makeGraph({ sample, epsilon }), {});
  return { alpha, sigma, sample: found.sample, epsilon: found.epsilon };
}
const known = Float64Array.from({ length: 8 }, () => random.between(-1, 1));
const noisy = Float64Array.from({ length: 128 }, () => random.between(-9, 9));

/** The mean of the block that a pixel of two pictures is in, and the block's number. */
function blocksOf(x: ArrayLike<number>) {
  const block = (i: number) => 4 * (i >> 6) + 2 * ((i >> 5) & 1) + ((i >> 2) & 1);
  const means = new Float64Array(8);
  for (let i = 0; i < 128; i++) means[block(i)] += x[i] / 16;
  return { block, means };
}

Deno.test("ΠGDM adds the pseudoinverse of what is missing, through the network's gradient", () => {
  const { alpha, sigma, sample, epsilon } = estimate({}, noisy);
  const { block, means } = blocksOf(noisy);
  // x_0 = α x is not clipped for the gradient, which is α, and clipped where something is added.
  const expected = noisy.map((x, i) => {
    const missing = known[block(i)] - alpha * means[block(i)];
    return Math.max(-1, Math.min(1, alpha * x)) + alpha * missing;
  });
  assertClose(sample, expected, 1e-12);
  assert(sample.some((x) => Math.abs(x) > 1), "what comes of it is not clipped");
  assertClose(epsilon, noisy.map((x) => sigma * x), 1e-12);
});

Deno.test("DPS goes down the norm of what is missing, that of each picture", () => {
  const { alpha, sample } = estimate({ method: "dps", zeta: 0.7 }, noisy);
  const { block, means } = blocksOf(noisy);
  const rest = known.map((y, b) => y - alpha * means[b]);
  const norms = [0, 1].map((n) => Math.hypot(...rest.subarray(4 * n, 4 * n + 4)));
  const expected = noisy.map((x, i) => {
    const slope = -alpha * rest[block(i)] / 16 / norms[i >> 6];
    return Math.max(-1, Math.min(1, alpha * x)) - 0.7 * slope / alpha;
  });
  assertClose(sample, expected, 1e-9);
  assertClose(
    estimate({ method: "dps" }, noisy).sample,
    estimate({ method: "dps", zeta: 8 }, noisy).sample,
    0,
  );
});

Deno.test("restored pictures agree with what is known of them, by every task", async () => {
  using device = await openCpuAs(2, {});
  const mask = Float32Array.from({ length: 64 }, (_, i) => Number(i % 8 > 4));
  const color = denoiserFrom(zero, { schedule, itemShape: [8, 8, 3] });
  const colored = {
    ...{ count, shape: [8, 8, 3] },
    data: Float32Array.from({ length: 192 * count }, () => random.between(-0.9, 0.9)),
  };
  const tasks = [
    [operator, normal, pictures, {}],
    [operators.inpaint(), normal, pictures, { mask }],
    [operators.deblur(0.8), normal, pictures, {}],
    [operators.colorize(), color, colored, {}],
  ] as const;
  for (const [operator, denoiser, of, conditions] of tasks) {
    const measurement = await measure(device, operator, of, conditions);
    for (const method of ["pigdm", "dps"] as const) {
      const options = { conditions, method, steps: 40, batchSize: 2, seed: 4 };
      const { images, found, left } = await restore(
        device,
        denoiser,
        operator,
        measurement,
        options,
      );
      const again = await measure(device, operator, images, conditions);
      const each = measurement.data.length / count;
      left.forEach((rms, i) => {
        const [a, b] = [again, measurement].map(({ data }) =>
          data.subarray(i * each, (i + 1) * each)
        );
        const square = a.reduce((sum, v, k) => sum + (v - b[k]) ** 2, 0) / each;
        assert(Math.abs(rms - Math.sqrt(square)) < 1e-5);
        assert(rms < 0.01 && rms <= found[i], `${method} ${operator.norm}: ${found} then ${left}`);
      });
      assert(images.data.every((v) => v >= -1 && v <= 1));
      assertEquals([images.count, images.shape], [count, of.shape]);
    }
  }
});

const unet = randomModel(smallNetwork(), { clip_sample_range: 2 });

Deno.test("all devices restore alike, and a picture does not depend on its batch", async () => {
  const small = { count, shape: [2, 2, 1], data: pictures.data.slice(0, 4 * count) };
  const seen: Float32Array[] = [];
  for (const open of Object.values(devices)) {
    using device = await open();
    using sampler = await Sampler.create(device, unet, {
      ...{ method: "ddim", eta: 1, steps: 3, batchSize: 2, wrap: [restored(operator)] },
    });
    const options = { count, seed: 2, conditions: { measurement: small.data } };
    const { data } = await sampler.sample(options);
    seen.push(data);
    if (seen.length > 1) continue;
    const last = {
      ...options,
      count: 1,
      first: 2,
      conditions: { measurement: small.data.slice(8) },
    };
    assertClose((await sampler.sample(last)).data, data.subarray(128), 1e-4);
  }
  for (const data of seen) assertClose(data, seen[0], 2e-3);
});

Deno.test("a restoration that diverged is an error, as are measurements of another shape", async () => {
  using device = await openCpuAs(2, {});
  const measurement = await measure(device, operator, pictures), options = { steps: 10 };
  const fail = async (promise: Promise<unknown>, message: RegExp) => {
    const error = await assertRejects(() => promise, Error);
    assert(!(error instanceof InputError), error.message);
    assertMatch(error.message, message);
  };
  await fail(
    restore(device, normal, operator, measurement, { ...options, method: "dps", zeta: 5000 }),
    /^Cannot restore image \d: what was found is [\d.]+ from what is known of it .* a smaller zeta than 5000$/,
  );
  // A network that makes black pictures, whatever it is shown.
  const black = denoiserFrom((x) => map([x], (x) => e.sub(e.mul(x, 1e-9), 1)), {
    schedule: new NoiseSchedule(parseSchedule({ prediction_type: "sample" })),
    itemShape: [8, 8, 1],
  });
  const bright = { ...measurement, data: measurement.data.map(() => 0.9) };
  await fail(
    restore(device, black, operator, bright, options),
    /^Cannot restore image 0: what was found is 1\.90 .*the model knows no such pictures/,
  );
  const error = await assertRejects(
    () => restore(device, normal, operator, pictures, options),
    InputError,
  );
  assertEquals(error.message, "Cannot restore from 3 measurements of 8x8x1: they must be of 2x2x1");
  await assertRejects(
    () => restore(device, normal, operators.inpaint(), pictures, options),
    InputError,
    "mask",
  );
  const signal = AbortSignal.abort();
  await assertRejects(
    () => restore(device, normal, operator, measurement, { ...options, signal }),
    DOMException,
  );
});
