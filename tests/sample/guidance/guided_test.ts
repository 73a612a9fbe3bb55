import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import type { Denoiser } from "../../../src/diffusion/denoiser.ts";
import { mul } from "../../../src/gpu/ops/map.ts";
import { ReferenceDevice } from "../../../src/gpu/reference.ts";
import type { GpuDevice } from "../../../src/gpu/wgsl/device.ts";
import { denoiserOf } from "../../../src/model/denoiser.ts";
import { guided } from "../../../src/sample/guidance/guided.ts";
import type { SampleOptions, Samples } from "../../../src/sample/options.ts";
import { Sampler } from "../../../src/sample/sampler.ts";
import { type MethodName, methods } from "../../../src/sample/solvers/mod.ts";
import { assertClose } from "../../close.ts";
import { devices, openCpuAs, openGpu } from "../../device.ts";
import { randomModel, tinyNetwork } from "../../networks.ts";
import { classModel, deviations, estimateOn, levelOf, noisy, ofItem } from "./guidance.ts";

const NONE = 3, labels = [0, 1, 2], scales = [2, 0.5, 7];
const model = classModel(), reference = new ReferenceDevice();

/** The estimates of both branches, each by itself, combined in double precision. */
async function byHand(
  denoiser: Denoiser,
  scale: (k: number) => number,
  negative = [NONE, NONE, NONE],
) {
  const [good, bad] = [
    await estimateOn(reference, denoiser, { labels }),
    await estimateOn(reference, denoiser, { labels: negative }),
  ];
  const combine = (name: "sample" | "epsilon") =>
    Array.from(good[name], (c, i) => bad[name][i] + scale(ofItem(i)) * (c - bad[name][i]));
  return { good, sample: combine("sample"), epsilon: combine("epsilon") };
}

const differs = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).some((x, i) => Math.abs(x - b[i]) > 1e-3);

const split = ({ count, data }: Samples) =>
  Array.from(
    { length: count },
    (_, i) => data.slice(i * data.length / count, (i + 1) * data.length / count),
  );

Deno.test("guidance agrees with both branches by themselves, on every device", async () => {
  const denoiser = denoiserOf(model), wrapper = guided({ scale: 2 })(denoiser);
  const ones = await byHand(denoiser, () => 2), other = await byHand(denoiser, (k) => scales[k]);
  const away = await byHand(denoiser, () => 2, [1, 2, 0]);
  assert(differs(ones.sample, other.sample) && differs(ones.sample, away.sample));
  const all = { "the interpreter": () => Promise.resolve(reference), ...devices };
  for (const [name, open] of Object.entries(all)) {
    using device = await open();
    const tolerance = name === "the interpreter" ? 1e-6 : 1e-4;
    for (
      const [expected, conditions] of [
        [ones, {}],
        [other, { guidance: scales }],
        [away, { negative_labels: [1, 2, 0] }],
      ] as const
    ) {
      const found = await estimateOn(device, wrapper, { labels, ...conditions });
      assertClose(found.sample, expected.sample, tolerance, `x_0 on ${name}`);
      assertClose(found.epsilon, expected.epsilon, tolerance, `noise on ${name}`);
    }
  }
});

for (const prediction_type of ["epsilon", "sample", "v_prediction", "edm"]) {
  Deno.test(`rescaling brings deviations of ${prediction_type} back as diffusers does`, async () => {
    const kind = classModel({
      prediction_type,
      ...(prediction_type === "edm" ? { beta_schedule: "edm" } : {}),
    });
    const denoiser = denoiserOf(kind), { alpha, sigma } = levelOf(kind), x = noisy();
    const { good, ...guess } = await byHand(denoiser, () => 5);
    const variance = sigma ** 2 + (alpha * 0.5) ** 2;
    /** What the network would have said. */
    const predicted = (e: { sample: ArrayLike<number>; epsilon: ArrayLike<number> }) =>
      Array.from(x, (x, i) => {
        switch (prediction_type) {
          case "epsilon":
            return e.epsilon[i];
          case "sample":
            return e.sample[i];
          case "v_prediction":
            return alpha * e.epsilon[i] - sigma * e.sample[i];
          default: {
            // c_skip x + c_out F, in the scale where x = x_0 + σ ε.
            const skip = 0.25 * alpha ** 2 / variance, out = 0.5 * sigma / Math.sqrt(variance);
            return (e.sample[i] - skip * x / alpha) / out;
          }
        }
      });
    const output = predicted(guess), aim = deviations(predicted(good)), is = deviations(output);
    const phi = 0.7;
    const wanted = output.map((v, i) => phi * v * aim[ofItem(i)] / is[ofItem(i)] + (1 - phi) * v);
    const wrapper = guided({ scale: 5, rescale: phi })(denoiser);
    const found = await estimateOn(reference, wrapper, { labels });
    assertClose(predicted(found), wanted, 1e-4);
    assert(differs(wanted, output), "there is something to rescale");
    const again = Array.from(x, (_, i) => alpha * found.sample[i] + sigma * found.epsilon[i]);
    assertClose(again, x, 1e-4, "both estimates belong to the same x");
  });
}

Deno.test("image k of a seed is the same for any batch size and count with guidance", async () => {
  using device = await openGpu();
  const sample = async (batchSize: number, count: number, first = 0) => {
    const options = { steps: 4, batchSize, wrap: [guided({ scale: 3, rescale: 0.5 })] };
    using sampler = await Sampler.create(device, model, options);
    const labels = Array.from({ length: count }, (_, k) => (first + k) % 3);
    return split(await sampler.sample({ count, first, seed: 3, labels }));
  };
  const all = await sample(5, 7);
  for (const [batchSize, count, first] of [[1, 3, 0], [3, 7, 0], [5, 2, 0], [3, 4, 2]]) {
    (await sample(batchSize, count, first)).forEach((image, i) => {
      assertClose(image, all[first + i], 1e-4, `image ${first + i} in batches of ${batchSize}`);
    });
  }
});

/** Counts what a GPU is asked to make, and to be read back. */
function countCalls(device: GpuDevice) {
  const calls: Record<string, number> = {};
  const count = (object: object, name: string) => {
    const original = Reflect.get(object, name);
    Object.defineProperty(object, name, {
      configurable: true,
      value(this: object, ...args: unknown[]) {
        calls[name] = (calls[name] ?? 0) + 1;
        return Reflect.apply(original, this, args);
      },
    });
    return () => Object.defineProperty(object, name, { configurable: true, value: original });
  };
  const made = ["createBuffer", "createBindGroup", "createComputePipeline", "createShaderModule"];
  for (const name of made) count(device.device, name);
  const restore = count(GPUBuffer.prototype, "mapAsync");
  return { calls, [Symbol.dispose]: restore };
}

Deno.test("another class or scale compiles nothing, and no step is read back", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, model, {
    ...{ steps: 6, batchSize: 2, wrap: [guided({ scale: 2, interval: [0.5, 5] })] },
  });
  const of = async (options: SampleOptions) =>
    (await sampler.sample({ count: 2, ...options })).data;
  const usual = await of({ labels: [0, 0] }), { pipelines } = device;
  using counted = countCalls(device);
  const others = [
    await of({ labels: [1, 2] }),
    await of({ labels: [0, 0], conditions: { guidance: [4] } }),
    await of({ labels: [0, 0], conditions: { negative_labels: [1, 1] } }),
  ];
  for (const other of others) assert(differs(other, usual));
  assertEquals(counted.calls, { createBuffer: 3, mapAsync: 3 }, "what each run is read back into");
  assertEquals(device.pipelines, pipelines);
});

Deno.test("outside of its interval a step is the unguided one, bit for bit", async () => {
  for (const open of [() => Promise.resolve(reference), openGpu, () => openCpuAs(2, {})]) {
    using device = await open();
    const follow = async (interval?: [number, number]) => {
      const wrap = interval ? [guided({ scale: 4, interval })] : [];
      const options = { method: "euler", steps: 6, batchSize: 2, wrap } as const;
      using sampler = await Sampler.create(device, model, options);
      const seen: Samples[] = [];
      const stream = sampler.stream({ count: 2, labels: [0, 2], seed: 1, every: 1 });
      for await (const { noisy } of stream) seen.push(noisy);
      return { seen, flops: sampler.flops };
    };
    const none = await follow(), all = await follow([0, Infinity]), low = await follow([0, 1e-9]);
    assertEquals(low.seen, none.seen);
    assertEquals(low.flops, none.flops, "and costs as much");
    assert(all.flops > 1.9 * none.flops && all.flops < 2.1 * none.flops);
    assert(all.seen.every(({ data }, i) => differs(data, none.seen[i].data)));
    // Of the timesteps 999, 799.2, ... 0, four have a σ/α above 2.
    const late = await follow([0, 2]);
    const alike = late.seen.map(({ data }, i) => !differs(data, none.seen[i].data));
    assertEquals(alike, [true, true, true, true, false, false]);
    assertEquals(late.seen.slice(0, 4), none.seen.slice(0, 4));
  }
});

Deno.test("all methods make the same guided images on all devices", async () => {
  const gpu = await openGpu(), cpu = await openCpuAs(2, {});
  using _ = gpu;
  using __ = cpu;
  // Estimates far out of range are what guidance makes of weights that were never trained.
  const calm = { ...model, parameters: model.parameters.map((x) => x / 2) };
  for (const method of Object.keys(methods) as MethodName[]) {
    if (methods[method].isInverse) continue;
    const images: Samples[] = [];
    for (const device of [reference, gpu, cpu]) {
      const wrap = [guided({ scale: 2, interval: [0.1, 20], rescale: 0.3 })];
      using sampler = await Sampler.create(device, calm, { method, steps: 4, batchSize: 2, wrap });
      images.push(await sampler.sample({ count: 2, seed: 5, labels: [1, 2] }));
    }
    for (const { data } of images) assertClose(data, images[0].data, 1e-3, method);
  }
});

Deno.test("guidance and a wrapper of one's own go around each other", async () => {
  const half = (denoiser: Denoiser): Denoiser => ({
    ...denoiser,
    conditions: { ...denoiser.conditions, strength: { shape: [], dtype: "f32", default: 1 } },
    estimate(query) {
      const estimates = denoiser.estimate(query);
      return { ...estimates, sample: mul(estimates.sample, 0.5) };
    },
  });
  const denoiser = denoiserOf(model), { sample, epsilon } = await byHand(denoiser, () => 3);
  for (const wrap of [[half, guided({ scale: 3 })], [guided({ scale: 3 }), half]]) {
    const outer = wrap.reduce<Denoiser>((inner, wrap) => wrap(inner), denoiser);
    const names = ["guidance", "labels", "negative_labels", "strength"];
    assertEquals(Object.keys(outer.conditions).sort(), names);
    const found = await estimateOn(reference, outer, { labels });
    assertClose(found.sample, sample.map((x) => x / 2), 1e-6);
    assertClose(found.epsilon, epsilon, 1e-6);
  }
  // Rescaling does not undo what a wrapper did within.
  const rescaled = guided({ scale: 3, rescale: 1 });
  const inner = await estimateOn(reference, rescaled(half(denoiser)), { labels });
  const plain = await estimateOn(reference, rescaled(denoiser), { labels });
  assert(differs(inner.sample, plain.sample));
});

Deno.test("guidance without classes, and settings that make no sense, are refused", async () => {
  const refusals = [
    [{ scale: NaN }, "at the scale NaN: it must be a number"],
    [{ interval: [2, 1] }, "at noise levels from 2 to 1"],
    [{ interval: [-1, 1] }, "at noise levels from -1 to 1"],
    [{ rescale: 1.5 }, "with a rescaling of 1.5: it must lie between 0 and 1"],
  ] as const;
  for (const [options, why] of refusals) {
    assertThrows(() => guided(options), InputError, `Cannot guide ${why}`);
  }
  const create = (of: typeof model, count = 1) =>
    Sampler.create(reference, of, { steps: 1, batchSize: 1, wrap: Array(count).fill(guided()) });
  await assertRejects(
    () => create(randomModel(tinyNetwork())),
    InputError,
    "Cannot guide the model: it has no classes",
  );
  await assertRejects(() => create(model, 2), InputError, "Cannot guide twice");

  // Without label dropout there is no "none", but there may be another class.
  const { classes: _, ...all } = model;
  using sampler = await create(all);
  await assertRejects(
    () => sampler.sample({ labels: [0] }),
    InputError,
    "The model needs the condition negative_labels",
  );
  for (const value of [4, -1, 0.5]) {
    const conditions = { negative_labels: [value] };
    await assertRejects(
      () => sampler.sample({ labels: [0], conditions }),
      InputError,
      `The condition negative_labels: ${value} is not one of 0 to 3`,
    );
  }
  await assertRejects(
    () => sampler.sample({ labels: [0], conditions: { negative_labels: [1], guidance: [NaN] } }),
    InputError,
    "The condition guidance holds NaN",
  );
  const given = await sampler.sample({ labels: [0], conditions: { negative_labels: [3] } });
  using named = await create(model);
  assertEquals(given, await named.sample({ labels: [0] }), "which is what none is otherwise");
});
