import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import {
  type Denoiser,
  denoiserFrom,
  type DenoiserWrapper,
  wrapped,
} from "../../../src/diffusion/denoiser.ts";
import { NoiseSchedule, parseSchedule } from "../../../src/diffusion/schedule.ts";
import { InputError } from "../../../src/errors.ts";
import type { Device } from "../../../src/gpu/device.ts";
import { makeGraph } from "../../../src/gpu/graph.ts";
import { mul, square } from "../../../src/gpu/ops/map.ts";
import { sum } from "../../../src/gpu/ops/sum.ts";
import { reshape, slice } from "../../../src/gpu/ops/view.ts";
import { interpret } from "../../../src/gpu/reference.ts";
import { constant, input, type Tensor } from "../../../src/gpu/tensor.ts";
import { classify, logSoftmax } from "../../../src/model/classifier.ts";
import { denoiserOf } from "../../../src/model/denoiser.ts";
import { initializeModel } from "../../../src/model/model.ts";
import { viewParameters } from "../../../src/model/parameters.ts";
import { classifierGuided } from "../../../src/sample/guidance/classifier_guided.ts";
import { guidedBy } from "../../../src/sample/guidance/guided_by.ts";
import { Sampler } from "../../../src/sample/sampler.ts";
import { assertClose } from "../../close.ts";
import { devices, openCpuAs } from "../../device.ts";
import { randomModel, smallClassifier, smallNetwork, tinyNetwork } from "../../networks.ts";
import { Random } from "../../random.ts";

const network = smallClassifier({ attention_head_dim: null });
const classifier = randomModel(network);
const unet = randomModel(tinyNetwork()), count = 2, shape = [count, 8, 8, 1];
const random = new Random("guidance"), level = new NoiseSchedule(unet.schedule).levelAt(400);
const noisy = Float64Array.from({ length: 128 }, () => random.between(-2, 2));

/** Weights in double precision. */
const weights = {
  parameters: Float64Array.from(unet.parameters),
  classifier: Float64Array.from(classifier.parameters),
};

/** What a denoiser says of the noisy images, in double precision. */
function estimate(
  denoiser: Denoiser,
  conditions: Record<string, number[]> = {},
  x: Float64Array<ArrayBuffer> = noisy,
) {
  const zero = constant(new Int32Array([0]));
  const { sample, epsilon } = denoiser.estimate({
    x: input("x", shape),
    level: {
      time: constant([level.time, level.time]),
      alpha: constant([level.alpha], [1, 1, 1, 1]),
      sigma: constant([level.sigma], [1, 1, 1, 1]),
    },
    conditions: Object.fromEntries(
      Object.entries(conditions).map(([name, values]) =>
        [name, constant(name === "labels" ? Int32Array.from(values) : values)] as const
      ),
    ),
    random: { seed: constant(new Int32Array([0, 0])), first: zero, step: zero },
  });
  return interpret(makeGraph({ sample, epsilon }), { ...weights, x });
}

/** log p of each class of both images. */
function logProbabilities(x: Float64Array<ArrayBuffer>): number[] {
  const flat = input("classifier", [network.layout.size]);
  const parameter = viewParameters(network.layout, [flat]);
  const [alpha, sigma] = [level.alpha, level.sigma].map((v) => constant([v], [1, 1, 1, 1]));
  const time = constant([level.time, level.time]), at = { time, alpha, sigma };
  const logits = classify(network, classifier.schedule, { parameter }, input("x", shape), at);
  return [...interpret(makeGraph({ logs: logSoftmax(logits) }), { ...weights, x }).logs];
}

/** Some directions, and how a function changes along them. */
function slopes(
  f: (x: Float64Array<ArrayBuffer>) => number,
): { direction: Float64Array; slope: number }[] {
  return Array.from({ length: 4 }, () => {
    const direction = noisy.map(() => random.between(-1, 1)), h = 1e-4;
    const at = (s: number) => f(noisy.map((x, i) => x + s * direction[i]));
    return { direction, slope: (at(h) - at(-h)) / (2 * h) };
  });
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i], 0);

Deno.test("a classifier adds s σ times the gradient of its log probability, for each image", () => {
  const denoiser = denoiserOf(unet), guided = classifierGuided(classifier)(denoiser);
  const labels = [2, 0], scales = [3, 0.5];
  const plain = estimate(denoiser);
  const found = estimate(guided, { labels, classifier_scale: scales });
  const change = plain.epsilon.map((eps, i) => eps - found.epsilon[i]);
  const weighted = slopes((x) => {
    const logs = logProbabilities(x);
    return scales.reduce((sum, s, i) => sum + s * logs[3 * i + labels[i]], 0);
  });
  for (const { direction, slope } of weighted) {
    assertAlmostEquals(dot(change, direction), level.sigma * slope, 1e-6 * Math.abs(slope) + 1e-8);
  }
  // Both estimates still make up what was seen.
  const { alpha, sigma } = level;
  assertClose(found.sample.map((x, i) => alpha * x + sigma * found.epsilon[i]), noisy, 1e-12);
  // What is no class of the classifier's is left alone, and so is what has the scale 0.
  const left = estimate(guided, { labels: [3, 1], classifier_scale: [3, 0] });
  assertClose(left.epsilon, plain.epsilon, 1e-12);
  assertClose(left.sample, plain.sample, 1e-12);
});

const items = (x: Tensor) => reshape(sum(x, [1, 2, 3]), [count]);

Deno.test("a loss of x_0 is followed through the network, for each image", () => {
  const loss = (x0: Tensor, x: Tensor) => items(mul(square(slice(x0, 1, 0, 4)), slice(x, 1, 4, 4)));
  const denoiser = denoiserOf(unet), guided = guidedBy(loss)(denoiser), scales = [0.3, -2];
  const found = estimate(guided, { guide_scale: scales }), plain = estimate(denoiser);
  const change = found.epsilon.map((eps, i) => eps - plain.epsilon[i]);
  const weighted = slopes((x) => {
    const { sample } = estimate(denoiser, {}, x);
    return scales.reduce((sum, s, n) => {
      for (let i = 64 * n; i < 64 * n + 32; i++) sum += s * sample[i] ** 2 * x[i + 32];
      return sum;
    }, 0);
  });
  for (const { direction, slope } of weighted) {
    assertAlmostEquals(dot(change, direction), level.sigma * slope, 1e-6 * Math.abs(slope) + 1e-8);
  }
  const { alpha, sigma } = level;
  assertClose(found.sample.map((x, i) => alpha * x + sigma * found.epsilon[i]), noisy, 1e-12);
});

Deno.test("guidance by several is the sum of them, in any order", () => {
  const linear = guidedBy((x0) => items(mul(x0, 0.5)), { scale: 2 });
  const other = guidedBy((x0) => items(slice(x0, 2, 0, 3)), { name: "edge" });
  const byClass = classifierGuided(classifier), plain = denoiserOf(unet);
  const given = {
    labels: [1, 2],
    classifier_scale: [2, 2],
    guide_scale: [2, 2],
    edge_scale: [1, 1],
  };
  const of = (...wrappers: DenoiserWrapper[]) => {
    const denoiser = wrapped(plain, wrappers);
    assertEquals(
      Object.keys(denoiser.conditions).sort(),
      Object.keys(given).filter((name) => denoiser.conditions[name]).sort(),
    );
    return estimate(denoiser, given).epsilon;
  };
  const base = of(), expected = base.slice();
  for (const wrapper of [linear, other, byClass]) {
    of(wrapper).forEach((eps, i) => expected[i] += eps - base[i]);
  }
  assertClose(of(linear, other, byClass), expected, 1e-10);
  assertClose(of(byClass, other, linear), expected, 1e-10);
});

Deno.test("guidance where nothing is left of the image says nothing of it", () => {
  const zero = parseSchedule({ rescale_betas_zero_snr: true, prediction_type: "v_prediction" });
  const schedule = new NoiseSchedule(zero), { alpha, sigma } = schedule.levelAt(999);
  const denoiser = denoiserFrom((x) => mul(x, 0.5), { schedule, itemShape: [8, 8, 1] });
  const guided = guidedBy((x0) => items(square(x0)))(denoiser),
    start = constant(new Int32Array([0]));
  const { sample } = guided.estimate({
    x: constant(noisy, shape),
    level: {
      time: constant([999, 999]),
      alpha: constant([alpha], [1, 1, 1, 1]),
      sigma: constant([sigma], [1, 1, 1, 1]),
    },
    conditions: { guide_scale: constant([1, 1]) },
    random: { seed: constant(new Int32Array([0, 0])), first: start, step: start },
  });
  assertEquals(alpha, 0);
  assertClose(interpret(makeGraph({ sample }), {}).sample, noisy.map((x) => -x / 2), 1e-12);
});

const soft = { clip_sample_range: 5 };
const conditional = randomModel(smallNetwork({ num_class_embeds: 4 }), soft);
const unconditional = randomModel(smallNetwork(), soft);

for (const [what, model] of Object.entries({ conditional, unconditional })) {
  Deno.test(`all devices guide ${what} models alike, and each image by its own class`, async () => {
    const loss = guidedBy((x0) => reshape(sum(square(x0), [1, 2, 3]), [x0.shape[0]]));
    const wrap = [classifierGuided(classifier), loss], seen: Float32Array[] = [];
    const sampleOn = async (open: () => Promise<Device>, isLast = false) => {
      using device = await open();
      const options = { method: "ddim", steps: 3, batchSize: 2, wrap } as const;
      using sampler = await Sampler.create(device, model, options);
      const of = async (labels: number[], scales: number[]) =>
        (await sampler.sample({
          ...{ count: labels.length, seed: 3, labels },
          conditions: { classifier_scale: scales, guide_scale: [0.01] },
        })).data;
      const data = await of([0, 2, 1], [2, 1, 3]);
      seen.push(data);
      if (!isLast) return;
      // The same sampler, other classes and scales: only those images change.
      const other = await of([0, 2, 2], [2, 1, 3]);
      assertEquals(other.subarray(0, 128), data.subarray(0, 128));
      assert(other.subarray(128).some((x, i) => Math.abs(x - data[128 + i]) > 1e-3));
      const stronger = await of([0, 2, 1], [2, 4, 3]);
      assertEquals(stronger.subarray(0, 64), data.subarray(0, 64));
      assert(stronger.subarray(64, 128).some((x, i) => Math.abs(x - data[64 + i]) > 1e-3));
    };
    for (const open of Object.values(devices)) await sampleOn(open);
    await sampleOn(() => openCpuAs(2, {}), true);
    for (const data of seen) assertClose(data, seen[0], 1e-3);
  });
}

Deno.test("guidance by a classifier takes the operations of both, and no more", async () => {
  using device = await openCpuAs(1, {});
  const options = { method: "ddim", steps: 2, batchSize: 2 } as const;
  const flops = async (model: Parameters<typeof Sampler.create>[1], wrap: DenoiserWrapper[]) => {
    using sampler = await Sampler.create(device, model, { ...options, wrap });
    return sampler.flops;
  };
  const nothing = denoiserFrom((x) => mul(x, 0.5), {
    ...{ schedule: new NoiseSchedule(unconditional.schedule), itemShape: [8, 8, 1] },
  });
  const wrap = [classifierGuided(classifier)], guided = await flops(unconditional, wrap);
  const apart = await flops(unconditional, []) + await flops(nothing, wrap);
  assert(guided <= 1.01 * apart, `${guided} FLOP, ${apart} apart`);
});

Deno.test("a classifier that does not fit is refused", () => {
  const refuse = (f: () => unknown, message: string) =>
    assertEquals(assertThrows(f, InputError).message, message);
  const denoiser = denoiserOf(unet), cannot = "Cannot guide by this classifier: ";
  const of = (fields: Record<string, unknown>, schedule: unknown = {}) =>
    classifierGuided(initializeModel(smallClassifier(fields), schedule, 0));
  refuse(
    () => classifierGuided(unet),
    "The model is a denoiser, a UNet2DModel, which tells no classes apart; train --objective " +
      "classifier makes one that does",
  );
  refuse(
    () => of({ sample_size: 16 })(denoiser),
    cannot + "it is for items of 16x16x1, and the model's are 8x8x1",
  );
  refuse(
    () => of({ in_channels: 3 })(denoiser),
    cannot + "it is for items of 8x8x3, and the model's are 8x8x1",
  );
  const noise = cannot + "it was trained on another noise schedule than the model";
  refuse(() => of({}, { beta_end: 0.03 })(denoiser), noise);
  refuse(() => of({}, { num_train_timesteps: 10 })(denoiser), noise);
  refuse(() => of({}, { prediction_type: "edm" })(denoiser), noise);
  refuse(
    () => of({ num_classes: 5 })(denoiserOf(conditional)),
    cannot + "it has 5 classes, and the model 4",
  );
  refuse(
    () => of({})(of({})(denoiser)),
    "Cannot guide twice by classifier: give one of the wrappers another name",
  );
  const loss = guidedBy((x0) => items(x0));
  refuse(
    () => loss(loss(denoiser)),
    "Cannot guide twice by the condition guide_scale: give one of the wrappers another name",
  );
  // Any size will do for a classifier of any size; and predictions of other kinds know the same noise.
  const open = of({ sample_size: null }, { prediction_type: "v_prediction" })(denoiser);
  assertEquals(open.conditions.labels.below, 3);
});
