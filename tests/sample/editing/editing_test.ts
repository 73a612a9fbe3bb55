import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { makeGraph } from "../../../src/gpu/graph.ts";
import { randomNormal } from "../../../src/gpu/ops/random.ts";
import { interpret, ReferenceDevice } from "../../../src/gpu/reference.ts";
import { constant } from "../../../src/gpu/tensor.ts";
import { denoiserFrom } from "../../../src/diffusion/denoiser.ts";
import { NoiseSchedule, parseSchedule } from "../../../src/diffusion/schedule.ts";
import { inpaint } from "../../../src/sample/editing/inpaint.ts";
import { regions } from "../../../src/sample/editing/regions.ts";
import { resampled, stretches } from "../../../src/sample/editing/resample.ts";
import { startNoise, vary } from "../../../src/sample/interpolate.ts";
import type { Samples } from "../../../src/sample/options.ts";
import { Sampler } from "../../../src/sample/sampler.ts";
import { type MethodName, methods } from "../../../src/sample/solvers/mod.ts";
import { makeSteps, makeUpdateTable } from "../../../src/sample/timesteps.ts";
import { assertClose } from "../../close.ts";
import { openCpuAs, openGpu } from "../../device.ts";
import { randomModel, tinyNetwork } from "../../networks.ts";
import { follow, momentsOf, noiseFor } from "../oracle.ts";

const soft = { clip_sample_range: 5, num_train_timesteps: 100, beta_end: 0.15 };
const tiny = randomModel(tinyNetwork(), soft);
const classes = { ...randomModel(tinyNetwork({ num_class_embeds: 3 }), soft) };

/** A picture of 8 x 8. */
const picture: Samples = {
  ...{ count: 1, shape: [8, 8, 1] },
  data: Float32Array.from({ length: 64 }, (_, i) => Math.sin(i) * 0.8),
};
/** The lower half is to be painted. */
const mask = Float32Array.from({ length: 64 }, (_, i) => i < 32 ? 0 : 1);
const distance = (a: Float32Array, b: Float32Array) =>
  Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i % b.length]) ** 2, 0) / a.length);

Deno.test("image to image returns the image at strength 0, ignores it at 1, and moves away between", async () => {
  for (const open of [openGpu, () => openCpuAs(2, {})]) {
    using device = await open();
    using sampler = await Sampler.create(device, tiny, { method: "ddim", steps: 20, batchSize: 2 });
    const of = async (strength: number) =>
      (await sampler.sample({ count: 3, seed: 4, init: picture, strength })).data;
    assertEquals(
      await of(0),
      new Float32Array([...picture.data, ...picture.data, ...picture.data]),
    );
    assertEquals(await of(1), (await sampler.sample({ count: 3, seed: 4 })).data);
    const distances: number[] = [];
    for (const strength of [0, 0.1, 0.3, 0.6]) {
      distances.push(distance(await of(strength), picture.data));
    }
    distances.forEach((d, i) => assert(!i || d > distances[i - 1], distances.join(" ")));
  }
});

Deno.test("every method can begin in the middle, on every device alike", async () => {
  const devices = [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})];
  const options = { count: 2, seed: 3, init: picture } as const;
  for (const method of Object.keys(methods) as MethodName[]) {
    if (methods[method].isInverse) continue;
    const results: Float32Array[] = [];
    for (const device of devices) {
      using sampler = await Sampler.create(device, tiny, { method, steps: 10, batchSize: 2 });
      const { data } = await sampler.sample({ ...options, strength: 0.5 });
      results.push(data);
      const told: number[][] = [];
      const again = await sampler.sample({
        ...options,
        strength: 0.5,
        onProgress: (...numbers) => told.push(numbers),
      });
      assertEquals(again.data, data);
      assertEquals(told.at(-1), [told.at(-1)![1], told.at(-1)![1]]);
    }
    for (const data of results) assertClose(data, results[0], 1e-3, method);
    assert(results[0].every(Number.isFinite), method);
  }
  for (const device of devices) device[Symbol.dispose]();
});

Deno.test("what an image begins with is refused where it makes no sense", async () => {
  using device = new ReferenceDevice();
  using sampler = await Sampler.create(device, tiny, { method: "ddim", steps: 3, batchSize: 1 });
  const wrong = { ...picture, shape: [4, 16, 1] };
  for (
    const [options, why] of [
      [{ init: picture, strength: 1.2 }, "strength 1.2: it lies between 0 and 1"],
      [{ init: picture, strength: NaN }, "strength NaN"],
      [{ init: wrong }, "1 images of 4x16x1: 1 or 1 of 8x8x1"],
    ] as const
  ) await assertRejects(() => sampler.sample(options), InputError, why);
  using back = await Sampler.create(device, tiny, { method: "ddim_inverse", steps: 3 });
  await assertRejects(() => back.sample({ init: picture, start: undefined! }), InputError);
});

Deno.test("inpainting keeps what is known, exactly, and makes the rest", async () => {
  for (const method of ["ddpm", "ddim", "dpmpp_2m_sde", "heun", "plms"] as const) {
    const results: Float32Array[] = [];
    for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
      using _ = device;
      const noise = methods[method].isStochastic ? "fresh" : "fixed";
      const options = { method, steps: 6, batchSize: 2, wrap: [inpaint({ noise })] };
      using sampler = await Sampler.create(device, tiny, options);
      const conditions = { known: picture.data, mask };
      const { data } = await sampler.sample({ count: 3, seed: 1, conditions });
      for (let i = 0; i < 3; i++) {
        const kept = data.slice(64 * i, 64 * i + 32), exact = picture.data.slice(0, 32);
        if (method === "ddpm" || method === "ddim") assertEquals(kept, exact, method);
        else assertClose(kept, exact, 1e-6, method);
        assert(data.slice(64 * i + 32, 64 * i + 64).some((x, k) => x !== picture.data[32 + k]));
      }
      results.push(data);
    }
    for (const data of results) assertClose(data, results[0], 1e-3, method);
  }
});

Deno.test("an inpainting with nothing to keep is sampling, another mask compiles nothing", async () => {
  using device = await openCpuAs(1, {});
  const settings = { method: "ddpm", steps: 5, batchSize: 2 } as const;
  using plain = await Sampler.create(device, tiny, settings);
  using sampler = await Sampler.create(device, tiny, { ...settings, wrap: [inpaint()] });
  const expected = (await plain.sample({ count: 2, seed: 6 })).data;
  assertEquals((await sampler.sample({ count: 2, seed: 6 })).data, expected);
  let compiled = 0;
  const compile = device.compile.bind(device);
  device.compile = (...args) => (compiled++, compile(...args));
  for (const half of [0, 1]) {
    const other = mask.map((m) => half ? 1 - m : m);
    const { data } = await sampler.sample({ conditions: { known: picture.data, mask: other } });
    const from = half ? 32 : 0;
    assertEquals(data.slice(from, from + 32), picture.data.slice(from, from + 32));
  }
  assertEquals(compiled, 0);
});

Deno.test("what is shown where it is known has the noise of the level", () => {
  const schedule = new NoiseSchedule(parseSchedule({ clip_sample: false })), shape = [1, 8, 8, 1];
  const zero = constant(new Int32Array([0])), seed = constant(new Int32Array([5, 0]));
  const random = { seed, first: zero, step: constant(new Int32Array([7])) };
  // A network that says what it is shown.
  const echo = denoiserFrom((x) => x, { schedule, itemShape: [8, 8, 1] });
  const x = Float32Array.from({ length: 64 }, (_, i) => Math.cos(3 * i));
  const said = inpaint()(echo).estimate({
    ...{ x: constant(x, shape), random },
    level: { time: constant([10]), alpha: constant([0.6]), sigma: constant([0.8]) },
    conditions: { known: constant(picture.data, shape), mask: constant(mask, shape) },
  });
  const { sample, epsilon, z } = interpret(
    makeGraph({ ...said, z: randomNormal(shape, random, 40) }),
    {},
  );
  assertClose(sample.slice(0, 32), picture.data.slice(0, 32), 1e-12);
  assertClose(epsilon.slice(0, 32), z.slice(0, 32), 1e-12);
  assertClose(epsilon.slice(32), x.slice(32), 1e-12);
});

Deno.test("resampling takes as many steps as RePaint's schedule", () => {
  const count = (steps: number, jump: number, times: number) =>
    stretches(steps, { jump, times }).reduce((sum, [from, to]) => sum + to - from, 0);
  assertEquals(count(50, 10, 3), 130);
  assertEquals(count(50, 5, 5), 230);
  assertEquals(count(100, 10, 5), 460);
  assertEquals(count(250, 10, 10), 2410);
  assertEquals(stretches(7, { jump: 3, times: 1 }), [[0, 7]]);
  assertEquals(stretches(2, { jump: 5, times: 5 }), [[0, 2]]);
  // Down to t = 3, up again, down to t = 0, up again, and to the end.
  assertEquals(stretches(7, { jump: 3, times: 2 }), [[0, 3], [0, 6], [3, 7]]);
  for (const bad of [{ jump: 0 }, { times: 0.5 }]) {
    assertThrows(() => stretches(5, bad), InputError, "a whole number from 1 on");
  }
});

Deno.test("going up again leaves images as they should be", () => {
  const schedule = new NoiseSchedule(parseSchedule({ clip_sample: false }));
  for (const name of ["ddpm", "heun", "dpmpp_2m"] as const) {
    const method = methods[name], plain = makeUpdateTable(method, schedule, 100, {});
    const steps = makeSteps(method, schedule, 100, {});
    const table = resampled(method, steps, schedule, {}, { jump: 10, times: 2 });
    assert(table.length > 1.8 * plain.length);
    // Independent noise of jumps, told apart by evaluation as that of steps is.
    const twice = table.flatMap(({ next, ...rest }) => {
      const { jump = 0, ...x } = next.x;
      const own = { ...rest, next: { ...next, x } };
      return jump ? [own, { ...rest, input: { x: 1 }, next: { x: { x: 1, noise: jump } } }] : [own];
    });
    const { mean, variance } = momentsOf(follow(twice, noiseFor(twice)));
    const expected = momentsOf(follow(plain, noiseFor(plain)));
    assertAlmostEquals(mean, expected.mean, 0.02, name);
    assertAlmostEquals(variance, expected.variance, 0.02, name);
  }
});

Deno.test("resampling gives the same images on all devices, with learned variances too", async () => {
  const learned = randomModel(tinyNetwork({ out_channels: 2 }), {
    ...{ ...soft, variance_type: "learned_range" },
  });
  for (const [model, method] of [[tiny, "ddpm"], [learned, "ddpm"], [tiny, "dpmpp_2m"]] as const) {
    const results: Float32Array[] = [];
    for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
      using _ = device;
      using sampler = await Sampler.create(device, model, {
        ...{ method, steps: 8, batchSize: 2, wrap: [inpaint()], resample: { jump: 2, times: 2 } },
      });
      assertEquals(sampler.steps, 14);
      const conditions = { known: picture.data, mask };
      results.push((await sampler.sample({ count: 2, conditions })).data);
      // With a beginning in the middle as well.
      const half = { count: 2, conditions, init: picture, strength: 0.5 };
      assert((await sampler.sample(half)).data.every(Number.isFinite));
    }
    for (const data of results) assertClose(data, results[0], 1e-3, method);
  }
});

Deno.test("regions of two classes are what each class makes there", async () => {
  for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
    using _ = device;
    const settings = { method: "ddim", steps: 1, batchSize: 2 } as const;
    using plain = await Sampler.create(device, classes, settings);
    using sampler = await Sampler.create(device, classes, { ...settings, wrap: [regions] });
    const of = async (label: number) => (await plain.sample({ labels: [label] })).data;
    const [one, other] = [await of(0), await of(2)];
    const conditions = { other_labels: [2], region: mask };
    const { data } = await sampler.sample({ labels: [0], conditions });
    assertClose(data, one.map((x, i) => i < 32 ? x : other[i]), 1e-5);
    assert(one.some((x, i) => Math.abs(x - other[i]) > 1e-3));
  }
  assertThrows(
    () =>
      regions(denoiserFrom((x) => x, {
        schedule: new NoiseSchedule(parseSchedule({})),
        itemShape: [8, 8, 1],
      })),
    InputError,
    "no classes",
  );
});

Deno.test("an edit goes around another one", async () => {
  using device = await openCpuAs(1, {});
  const wrap = [regions, inpaint()], settings = { method: "ddim", steps: 3, batchSize: 1 } as const;
  using sampler = await Sampler.create(device, classes, { ...settings, wrap });
  const region = mask.map((_, i) => i % 8 < 4 ? 0 : 1);
  const conditions = { other_labels: [2], region, known: picture.data, mask };
  const { data } = await sampler.sample({ labels: [0], conditions });
  assertEquals(data.slice(0, 32), picture.data.slice(0, 32));
});

Deno.test("noise is varied along a circle, from nothing to fresh", () => {
  const noise = startNoise([16, 16, 1], { seed: 1 }), fresh = startNoise([16, 16, 1], { seed: 2 });
  assertClose(vary(noise, 0, { seed: 2 }).data, noise.data, 1e-6);
  assertClose(vary(noise, 1, { seed: 2 }).data, fresh.data, 1e-6);
  const power = (x: Float32Array) => x.reduce((sum, v) => sum + v * v, 0) / x.length;
  const { count, data } = vary(noise, 0.5, { seed: 2, count: 3 });
  assertEquals([count, data.length], [3, 768]);
  assert(Math.abs(power(data.slice(0, 256)) - 1) < 0.25);
  assertThrows(() => vary(noise, 2), InputError, "between 0 and 1");
});
