import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { type Device, DeviceError, LimitError } from "../../src/gpu/device.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { initializeModel } from "../../src/model/model.ts";
import { NoiseSchedule } from "../../src/diffusion/schedule.ts";
import type { SamplerOptions, Samples } from "../../src/sample/options.ts";
import { type MethodName, methods } from "../../src/sample/solvers/mod.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { makeUpdateTable } from "../../src/sample/timesteps.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, smallNetwork, tinyNetwork } from "../networks.ts";

/** A network whose images are not clipped to black and white, in which differences would drown. */
const soft = { clip_sample_range: 5 };
const tiny = randomModel(tinyNetwork(), soft), small = randomModel(smallNetwork(), soft);
/** One whose predictions change slowly with x, as those of trained networks do. */
const calm = {
  ...tiny,
  parameters: tiny.parameters.map((x) => x / 2),
  schedule: { ...tiny.schedule, clipSample: false },
};
const classes = randomModel(tinyNetwork({ num_class_embeds: 3 }), soft);

/** The images of a batch, one by one. */
const split = ({ count, data }: Samples) =>
  Array.from(
    { length: count },
    (_, i) => data.slice(i * data.length / count, (i + 1) * data.length / count),
  );

for (const method of ["ddim", "ddpm"] as const) {
  Deno.test(`image k of a seed is the same for any batch size and count by ${method}`, async () => {
    using device = await openGpu();
    const sample = async (batchSize: number, count: number, first = 0) => {
      const options = { method, steps: 4, batchSize };
      using sampler = await Sampler.create(device, small, options);
      return split(await sampler.sample({ count, first, seed: 3 }));
    };
    const all = await sample(5, 7);
    assertEquals([all.length, all[0].length], [7, 64]);
    for (const [batchSize, count, first] of [[1, 3, 0], [3, 7, 0], [5, 2, 0], [3, 4, 2]]) {
      (await sample(batchSize, count, first)).forEach((image, i) => {
        const what = `image ${first + i} of ${count} in batches of ${batchSize}`;
        assertClose(image, all[first + i], 1e-5, what);
      });
    }
    for (let i = 1; i < 7; i++) assert(all[0].some((x, j) => Math.abs(x - all[i][j]) > 0.1));
  });

  Deno.test(`all devices make the same images by ${method}`, async () => {
    const images = [];
    for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
      using _ = device;
      using sampler = await Sampler.create(device, small, { method, steps: 5, batchSize: 2 });
      images.push(await sampler.sample({ count: 2, seed: 2 ** 33 + 1 }));
    }
    for (const { data } of images) assertClose(data, images[0].data, 1e-3);
    assertEquals({ ...images[0], data: 0 }, { count: 2, shape: [8, 8, 1], data: 0 });
  });
}

Deno.test("all devices make the same images with dynamic thresholding", async () => {
  const schedule = { thresholding: true, clip_sample: false, sample_max_value: 2 };
  const model = randomModel(tinyNetwork(), schedule), images = [];
  for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
    using _ = device;
    const options = { method: "ddim", steps: 3, batchSize: 3 } as const;
    using sampler = await Sampler.create(device, model, options);
    images.push((await sampler.sample({ count: 3, seed: 1 })).data);
  }
  for (const data of images) {
    assert(data.every((x) => Math.abs(x) <= 1) && data.some((x) => Math.abs(x) > 0.9));
    assertClose(data, images[0], 1e-4);
  }
});

Deno.test("the same seed gives the same images again, another seed others", async () => {
  using device = await openGpu();
  for (const eta of [undefined, 0, 1]) {
    const options = eta === undefined ? {} : { method: "ddim", eta } as const;
    using sampler = await Sampler.create(device, tiny, { ...options, steps: 3, batchSize: 1 });
    const of = async (seed: number) => (await sampler.sample({ seed })).data;
    const zero = await of(0), again = await of(0);
    assertEquals(again, zero);
    for (const seed of [1, 2 ** 32]) {
      const other = await of(seed);
      assert(zero.some((x, i) => Math.abs(x - other[i]) > 0.1), `seed ${seed}`);
    }
  }
});

Deno.test("every step of ddpm adds fresh normal noise", async () => {
  // A fresh network predicts zero. If that is x_0, then x_s = c x_t + d z, and z can be seen.
  const schedule = { prediction_type: "sample" }, steps = 8, seen: Float32Array[] = [];
  const model = initializeModel(tinyNetwork(), schedule, 0);
  const plan = makeUpdateTable(methods.ddpm, new NoiseSchedule(model.schedule), steps, {});
  const weights = plan.map(({ next }) => next.x);
  using device = await openGpu();
  using sampler = await Sampler.create(device, model, { method: "ddpm", steps, batchSize: 8 });
  for await (const { noisy } of sampler.stream({ count: 8 })) seen.push(noisy.data);
  const power = seen[0].reduce((sum, x) => sum + x * x, 0) / seen[0].length;
  const expected = weights[0].x ** 2 + weights[0].noise ** 2;
  assertAlmostEquals(power / expected, 1, 0.2, "the first step's noise is not that of the start");

  const noise = Array.from({ length: steps - 2 }, (_, i) =>
    Array.from(
      seen[i + 1],
      (x, j) => (x - weights[i + 1].x * seen[i][j]) / weights[i + 1].noise,
    ));
  for (const [i, a] of noise.entries()) {
    for (const [j, b] of noise.entries()) {
      const product = a.reduce((sum, x, k) => sum + x * b[k], 0) / a.length;
      // Of 512 independent pairs, 0.05 is the standard deviation.
      assert(Math.abs(product - (i === j ? 1 : 0)) < 0.2, `steps ${i} and ${j}: ${product}`);
    }
    for (const lag of [1, 64]) {
      const product = a.reduce((sum, x, k) => sum + x * a[(k + lag) % 512], 0) / a.length;
      assert(Math.abs(product) < 0.2, `pixels or images of step ${i}: ${product}`);
    }
  }
});

Deno.test("eta changes where ddim gets to from the same start", async () => {
  using device = await openGpu();
  const of = async (eta: number) => {
    using sampler = await Sampler.create(device, tiny, {
      method: "ddim",
      eta,
      steps: 3,
      batchSize: 1,
    });
    return (await sampler.sample()).data;
  };
  const [none, some] = [await of(0), await of(0.5)];
  assert(none.some((x, i) => Math.abs(x - some[i]) > 0.01));
});

Deno.test("a sampler makes images of any size that fits, not only of the model's", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, small, { size: [4, 6], steps: 2, batchSize: 2 });
  const images = await sampler.sample({ count: 3 });
  assertEquals([images.count, ...images.shape, images.data.length], [3, 4, 6, 1, 72]);
  assert(images.data.every((x) => Number.isFinite(x) && x !== 0));
});

Deno.test("images are clipped to [-1, 1] by default", async () => {
  using device = await openGpu();
  const model = randomModel(tinyNetwork());
  for (const method of ["ddim", "ddpm"] as const) {
    using sampler = await Sampler.create(device, model, { method, steps: 3, batchSize: 4 });
    const { data } = await sampler.sample({ count: 4 });
    assert(data.every((x) => Math.abs(x) <= 1) && data.some((x) => Math.abs(x) === 1));
  }
});

Deno.test("progress counts all steps of all batches, and reaches their number", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, tiny, { steps: 10, batchSize: 2 });
  const told: [number, number][] = [];
  await sampler.sample({ count: 5, onProgress: (...numbers) => told.push(numbers) });
  assert(told.every(([done, total], i) => total === 30 && done > (told[i - 1]?.[0] ?? 0)));
  assertEquals(told.at(-1), [30, 30]);
  assert(told.some(([done]) => done === 10) && told.some(([done]) => done === 20));
});

Deno.test("a stream shows x_t and x_0 of every batch, as often as asked", async () => {
  using device = await openGpu();
  for (const method of ["ddpm", "heun"] as const) {
    using sampler = await Sampler.create(device, tiny, { method, steps: 6, batchSize: 2 });
    assertEquals([sampler.steps, sampler.evaluations], [6, method === "heun" ? 11 : 6]);
    const expected = await sampler.sample({ count: 3 });
    const follow = async (every?: number) => {
      const stream = sampler.stream({ count: 3, ...(every ? { every } : {}) }), seen = [];
      let next = await stream.next();
      for (; !next.done; next = await stream.next()) seen.push(next.value);
      assertEquals(next.value, expected, "to be watched changes nothing");
      return seen;
    };
    const seen = await follow();
    assertEquals(seen.map(({ step }) => step), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6]);
    assertEquals(seen.map(({ index }) => index), [...Array(6).fill(0), ...Array(6).fill(2)]);
    assertEquals(seen.map(({ noisy }) => noisy.count), [...Array(6).fill(2), ...Array(6).fill(1)]);
    assertEquals(seen[5].noisy.data, expected.data.slice(0, 128));
    assertClose(
      seen[5].sample.data,
      expected.data.slice(0, 128),
      1e-5,
      "the last x_0 is the image",
    );
    assert(seen[0].noisy.data.some((x, i) => Math.abs(x - expected.data[i]) > 0.1));
    assert(seen[0].sample.data.some((x, i) => Math.abs(x - seen[0].noisy.data[i]) > 0.1));

    const some = await follow(4);
    assertEquals(some.map(({ step }) => step), [4, 6, 4, 6]);
    assertEquals(some[0].noisy.data, seen[3].noisy.data);
  }
});

Deno.test("a signal stops sampling between steps, and what is done is returned", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, tiny, { steps: 50, batchSize: 2 });
  const expected = await sampler.sample({ seed: 4, count: 4 });
  const controller = new AbortController(), told: number[] = [];
  const images = await sampler.sample({
    ...{ seed: 4, count: 4, signal: controller.signal },
    onProgress(done) {
      told.push(done);
      if (done > 50) controller.abort(new RangeError("enough"));
    },
  });
  assert(told.at(-1)! > 50 && told.at(-1)! < 100);
  assertEquals([images.count, images.data.length], [4, 256]);
  assertEquals(images.data.slice(0, 128), expected.data.slice(0, 128), "the first batch is done");
  const rest = images.data.slice(128);
  assert(rest.every((x) => Math.abs(x) <= 5) && rest.some((x, i) => x !== expected.data[128 + i]));
  assertEquals(await sampler.sample({ seed: 4, count: 4 }), expected, "it is as new");

  const onProgress = () => assert(false, "nothing is done");
  const nothing = await sampler.sample({ signal: controller.signal, onProgress });
  assertEquals([nothing.count, nothing.data.length], [0, 0]);
});

Deno.test("a stream that nobody reads to its end leaves the sampler as new", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, tiny, { steps: 4, batchSize: 1 });
  const expected = await sampler.sample();
  for await (const { step } of sampler.stream()) if (step === 2) break;
  assertEquals(await sampler.sample(), expected);
});

Deno.test("images can start from given noise, and go back to it", async () => {
  using device = await openGpu();
  const options = { steps: 40, batchSize: 2 };
  using forward = await Sampler.create(device, calm, { ...options, method: "ddim" });
  using back = await Sampler.create(device, calm, { ...options, method: "ddim_inverse" });
  const images = await forward.sample({ count: 3, seed: 2 });
  const noise = await back.sample({ count: 3, start: images });
  assert(noise.data.some((x, i) => Math.abs(x - images.data[i]) > 0.1));
  const again = await forward.sample({ count: 3, start: noise });
  assertClose(again.data, images.data, 0.02);

  await assertRejects(
    () => back.sample(),
    InputError,
    "by ddim_inverse: give the images to invert",
  );
  for (const count of [1, 4]) {
    await assertRejects(
      () => forward.sample({ count, start: noise }),
      InputError,
      `Cannot start from 3 images of 8x8x1: ${count} of 8x8x1 are needed`,
    );
  }
});

Deno.test("all methods make the same images on all devices", async () => {
  const reference = new ReferenceDevice(), gpu = await openGpu(), cpu = await openCpuAs(2, {});
  using _ = gpu;
  using __ = cpu;
  for (const method of Object.keys(methods) as MethodName[]) {
    if (methods[method].isInverse) continue;
    const images: Samples[] = [];
    for (const device of [reference, gpu, cpu]) {
      using sampler = await Sampler.create(device, tiny, { method, steps: 5, batchSize: 2 });
      images.push(await sampler.sample({ count: 2, seed: 5 }));
    }
    for (const { data } of images) assertClose(data, images[0].data, 1e-3, method);
  }
});

Deno.test("a network that predicts what is no number is an error, not a clipped image", async () => {
  const damaged = { ...tiny, parameters: tiny.parameters.map((x, i) => i === 9 ? NaN : x) };
  for (const device of [new ReferenceDevice(), await openGpu(), await openCpuAs(2, {})]) {
    using _ = device;
    using sampler = await Sampler.create(device, damaged, { steps: 3, batchSize: 1 });
    const error = await assertRejects(() => sampler.sample(), Error, "predicts what is no number");
    assert(!(error instanceof InputError), "it is no fault of the settings");
    using good = await Sampler.create(device, tiny, { steps: 3, batchSize: 1 });
    assertEquals((await good.sample()).count, 1);
  }
});

Deno.test("a network may choose its variances, and be one of EDM's", async () => {
  using device = new ReferenceDevice();
  const learned = randomModel(tinyNetwork({ out_channels: 2 }), { variance_type: "learned_range" });
  const edm = randomModel(tinyNetwork(), { beta_schedule: "edm", prediction_type: "edm" });
  for (const [model, method] of [[learned, "ddpm"], [learned, "heun"], [edm, "edm"]] as const) {
    using sampler = await Sampler.create(device, model, { method, steps: 3, batchSize: 1 });
    const { shape, data } = await sampler.sample();
    assertEquals([...shape, data.length], [8, 8, 1, 64]);
    assert(data.every(Number.isFinite) && new Set(data).size > 10);
  }
});

Deno.test("labels reach the images they are for, over batches", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, classes, { steps: 3, batchSize: 2 });
  const of = async (labels: number[]) => split(await sampler.sample({ count: 3, labels }));
  const mixed = await of([0, 1, 2]);
  for (const label of [0, 1, 2]) {
    const pure = await of([label, label, label]);
    pure.forEach((image, i) => {
      const isSame = image.every((x, j) => Math.abs(x - mixed[i][j]) < 1e-5);
      assertEquals(isSame, i === label, `image ${i} of label ${label}`);
    });
  }
});

Deno.test("labels are refused where there are none, too few, or of no class", async () => {
  using device = new ReferenceDevice();
  const of = async (model: typeof tiny, labels?: number[]) => {
    using sampler = await Sampler.create(device, model, { steps: 1, batchSize: 2 });
    await sampler.sample({ count: 2, ...(labels ? { labels } : {}) });
  };
  await assertRejects(() => of(tiny, [0, 0]), InputError, "no classes: labels make no sense");
  await assertRejects(() => of(classes), InputError, "3 classes: give a label for each image");
  await assertRejects(() => of(classes, [1]), InputError, "a label for each image");
  await assertRejects(() => of(classes, [0, 3]), InputError, "Label 3 is not one of 0 to 2");
  await assertRejects(() => of(classes, [0, -1]), InputError, "Label -1");
  await assertRejects(() => of(classes, [0.5, 0]), InputError, "Label 0.5");
  await of(classes, [0, 2]);
});

Deno.test("a sampler uses parameters that somebody else owns as they are at the time", async () => {
  using device = await openGpu();
  using parameters = device.buffer(tiny.network.layout.size);
  using own = await Sampler.create(device, tiny, { steps: 2, batchSize: 1 });
  const options: SamplerOptions = { steps: 2, batchSize: 1, parameters: { parameters } };
  {
    using borrowing = await Sampler.create(device, tiny, options);
    const before = await borrowing.sample();
    parameters.write(tiny.parameters);
    const after = await borrowing.sample();
    assert(before.data.some((x, i) => x !== after.data[i]));
    assertEquals(after, await own.sample());
  }
  assertEquals(await parameters.read(), tiny.parameters, "they live on");
});

/** What is wrong, options that are wrong in this way, and what the message has to mention. */
const refusals: readonly [string, SamplerOptions, string][] = [
  ["no steps", { steps: 0 }, "Cannot sample in 0 steps: this model allows 1 to 1000"],
  ["too many steps", { steps: 1001 }, "1001 steps"],
  ["half a step", { steps: 2.5, method: "ddpm" }, "2.5 steps"],
  ["a negative eta", { method: "ddim", eta: -0.1 }, "eta -0.1: it must lie between 0 and 1"],
  ["too large an eta", { method: "ddim", eta: 2 }, "eta 2"],
  ["an eta where there is none", { method: "ddpm", eta: 0 }, "by ddpm with eta: that is for ddim"],
  ["empty batches", { batchSize: 0 }, "the batch size is 0, but must be an integer from 1 on"],
  ["half an image", { batchSize: 1.5 }, "the batch size is 1.5"],
  ["a size that cannot be halved", { size: [7, 8] }, "Images of 7x8 do not fit"],
  ["a size of nothing", { size: [8, 0] }, "Bad size 8x0"],
  [
    "an unknown method",
    { method: "leap" as MethodName },
    "by leap: the methods are ddpm, ddim,",
  ],
  ["a method of Object's", { method: "toString" as MethodName }, "by toString"],
];

for (const [what, options, why] of refusals) {
  Deno.test(`Sampler.create() refuses ${what}`, async () => {
    using device = new ReferenceDevice();
    await assertRejects(() => Sampler.create(device, small, options), InputError, why);
  });
}

for (
  const [what, fields, why] of [
    ["of any size", { sample_size: null }, "images of any size: give one"],
    [
      "that predicts other channels",
      { out_channels: 2 },
      "predicts 2 channels of images that have 1",
    ],
  ] as const
) {
  Deno.test(`Sampler.create() refuses a network ${what}`, async () => {
    using device = new ReferenceDevice();
    const model = randomModel(tinyNetwork(fields));
    await assertRejects(() => Sampler.create(device, model), InputError, why);
  });
}

Deno.test("networks may take timesteps or vectors for classes, without a default", async () => {
  using device = new ReferenceDevice();
  for (const [class_embed_type, each] of [["timestep", 1], ["identity", 32]] as const) {
    const model = randomModel(tinyNetwork({ class_embed_type }), soft);
    using sampler = await Sampler.create(device, model, { steps: 2, batchSize: 2 });
    await assertRejects(() => sampler.sample(), InputError, "needs the condition labels");
    const of = async (value: number) => {
      const labels = new Array(each).fill(value);
      return (await sampler.sample({ count: 2, conditions: { labels } })).data;
    };
    assertEquals(await of(3), await of(3));
    const [a, b] = [await of(3), await of(400)];
    assert(a.some((x, i) => Math.abs(x - b[i]) > 1e-4), class_embed_type);
  }
});

Deno.test("calls at the same time take turns, and streams may be followed side by side", async () => {
  for (const open of [openGpu, () => openCpuAs(2, {})]) {
    using device = await open();
    using sampler = await Sampler.create(device, tiny, { steps: 6, batchSize: 2 });
    const one = await sampler.sample({ count: 3, seed: 1 });
    const two = await sampler.sample({ count: 3, seed: 2 });
    assert(one.data.some((x, i) => Math.abs(x - two.data[i]) > 0.1));
    const both = await Promise.all([1, 2].map((seed) => sampler.sample({ count: 3, seed })));
    assertEquals(both, [one, two]);

    const follow = async (seed: number) => {
      const stream = sampler.stream({ count: 3, seed, every: 1 });
      for (;;) {
        const { done, value } = await stream.next();
        if (done) return value;
      }
    };
    assertEquals(await Promise.all([follow(1), follow(2), follow(1)]), [one, two, one]);
    // Within a stream, too, where its consumer wants something else meanwhile.
    const stream = sampler.stream({ count: 3, seed: 1, every: 2 });
    for (;;) {
      const { done, value } = await stream.next();
      if (done) {
        assertEquals(value, one);
        break;
      }
      assertEquals(await sampler.sample({ count: 3, seed: 2 }), two);
    }
  }
});

Deno.test("sample() refuses numbers that make no sense", async () => {
  using device = new ReferenceDevice();
  using sampler = await Sampler.create(device, tiny, { steps: 1, batchSize: 1 });
  for (
    const [options, why] of [
      [{ count: 0 }, "the number of images is 0"],
      [{ count: 1.5 }, "the number of images is 1.5"],
      [{ count: NaN }, "the number of images is NaN"],
      [{ seed: -1 }, "the seed is -1"],
      [{ seed: 2 ** 60 }, "the seed is"],
      [{ first: -1 }, "the number of the first image is -1"],
    ] as const
  ) {
    await assertRejects(() => sampler.sample(options), InputError, why);
  }
  assertThrows(() => sampler.stream({ every: 0 }), InputError, "shown is 0");
});

Deno.test("a sampler tells what it takes, and a device that is closed is an error", async () => {
  const device = await openGpu();
  using one = await Sampler.create(device, tiny, { steps: 2, batchSize: 1 });
  using four = await Sampler.create(device, tiny, { steps: 2, batchSize: 4 });
  assertEquals(four.flops, 4 * one.flops);
  assert(one.flops > 0 && four.memory > one.memory);
  device[Symbol.dispose]();
  await assertRejects(() => one.sample(), DeviceError, "closed");
});

Deno.test("weights are kept transformed only where that fits, and plans say so", async () => {
  using device = await WasmDevice.open();
  const compiled: number[] = [];
  /** A device that has no memory for transformed weights. */
  const small: Device = {
    ...{ kind: device.kind, name: device.name },
    buffer: (length, dtype) => device.buffer(length, dtype),
    compile(graph, options) {
      const { length = 0 } = options?.constant ?? [];
      compiled.push(length);
      if (length) return Promise.reject(new LimitError("It takes too much", 2, 1));
      return device.compile(graph, options);
    },
    plan(graph, options) {
      const plan = device.plan(graph, options);
      const excess = { what: "it", wanted: 2, limit: 1, unit: "bytes", scope: "" } as const;
      return options?.constant?.length ? { ...plan, bytes: plan.bytes + 1000, excess } : plan;
    },
    idle: () => device.idle(),
    [Symbol.dispose]: () => {},
  };
  const options = { steps: 2, batchSize: 1 };
  using sampler = await Sampler.create(small, tiny, options);
  assertEquals(compiled, [0, 1, 0]);
  assertEquals(Sampler.plan(small, tiny, options).excess, undefined);
  using roomy = await Sampler.create(device, tiny, options);
  assertClose((await sampler.sample()).data, (await roomy.sample()).data, 1e-4);
  const { bytes } = Sampler.plan(device, tiny, options), weights = 4 * tiny.parameters.length;
  const states = bytes - weights - roomy.memory;
  assert(0 < states && states < 0.2 * bytes, `${bytes} and ${roomy.memory}`);
});
