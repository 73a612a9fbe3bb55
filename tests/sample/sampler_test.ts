import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { DeviceError } from "../../src/gpu/device.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { initializeModel } from "../../src/model/model.ts";
import { NoiseSchedule } from "../../src/model/schedule.ts";
import {
  type Images,
  type MethodName,
  methods,
  Sampler,
  type SamplerOptions,
} from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, smallConfig, tinyConfig } from "../networks.ts";

/** A network whose images are not clipped to black and white, in which differences would drown. */
const soft = { clip_sample_range: 5 };
const tiny = randomModel(tinyConfig(), soft), small = randomModel(smallConfig(), soft);
const classes = randomModel(tinyConfig({ num_class_embeds: 3 }), soft);

/** The images of a batch, one by one. */
const split = ({ count, data }: Images) =>
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
    assertEquals({ ...images[0], data: 0 }, {
      ...{ count: 2, height: 8, width: 8, channels: 1, data: 0 },
    });
  });
}

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
  const model = initializeModel(tinyConfig(), schedule, 0);
  const { columns } = methods.ddpm.plan(new NoiseSchedule(model.schedule), steps, {});
  using device = await openGpu();
  using sampler = await Sampler.create(device, model, { method: "ddpm", steps, batchSize: 8 });
  await sampler.sample({ count: 8, onSnapshot: ({ data }) => void seen.push(data) });
  const power = seen[0].reduce((sum, x) => sum + x * x, 0) / seen[0].length;
  const expected = columns.x[0] ** 2 + columns.noise[0] ** 2;
  assertAlmostEquals(power / expected, 1, 0.2, "the first step's noise is not that of the start");

  const noise = Array.from({ length: steps - 2 }, (_, i) =>
    Array.from(
      seen[i + 1],
      (x, j) => (x - columns.x[i + 1] * seen[i][j]) / columns.noise[i + 1],
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
  assertEquals([images.count, images.height, images.width, images.data.length], [3, 4, 6, 72]);
  assert(images.data.every((x) => Number.isFinite(x) && x !== 0));
});

Deno.test("images are clipped to [-1, 1] by default", async () => {
  using device = await openGpu();
  const model = randomModel(tinyConfig());
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

Deno.test("snapshots are of the first batch, as often as asked, and end at the images", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, tiny, { steps: 6, batchSize: 2 });
  const sample = async (snapshotEvery?: number) => {
    const seen: { images: Images; step: number }[] = [];
    const images = await sampler.sample({
      count: 3,
      onSnapshot: (images, step) => void seen.push({ images, step }),
      ...(snapshotEvery ? { snapshotEvery } : {}),
    });
    return { seen, images };
  };
  const { seen, images } = await sample();
  assertEquals(seen.map(({ step }) => step), [1, 2, 3, 4, 5, 6]);
  assertEquals(seen.map(({ images }) => images.count), Array(6).fill(2));
  assertEquals(seen[5].images.data, images.data.slice(0, 128));
  assert(seen[0].images.data.some((x, i) => Math.abs(x - images.data[i]) > 0.1));

  const { seen: some, images: same } = await sample(4);
  assertEquals(some.map(({ step }) => step), [4]);
  assertEquals(some[0].images.data, seen[3].images.data);
  assertEquals(same.data, images.data, "to be watched changes nothing");
});

Deno.test("a signal stops sampling between steps, after which the sampler is as new", async () => {
  using device = await openGpu();
  using sampler = await Sampler.create(device, tiny, { steps: 50, batchSize: 1 });
  const expected = await sampler.sample({ seed: 4 });
  const controller = new AbortController(), told: number[] = [];
  const error = await assertRejects(() =>
    sampler.sample({
      count: 2,
      signal: controller.signal,
      onProgress(done) {
        told.push(done);
        controller.abort(new RangeError("enough"));
      },
    }), RangeError);
  assertEquals([error.message, told.length], ["enough", 1]);
  assert(told[0] < 50);
  assertEquals(await sampler.sample({ seed: 4 }), expected);

  const onProgress = () => assert(false, "nothing is done");
  await assertRejects(() => sampler.sample({ signal: controller.signal, onProgress }), RangeError);
  await assertRejects(() => sampler.sample({ signal: AbortSignal.abort() }), DOMException);
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
  using parameters = device.buffer(tiny.layout.size);
  using own = await Sampler.create(device, tiny, { steps: 2, batchSize: 1 });
  const options: SamplerOptions = { steps: 2, batchSize: 1, parameters };
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
  ["an eta where there is none", { method: "ddpm", eta: 0 }, "by ddpm with an eta"],
  ["empty batches", { batchSize: 0 }, "the batch size is 0, but must be an integer from 1 on"],
  ["half an image", { batchSize: 1.5 }, "the batch size is 1.5"],
  ["a size that cannot be halved", { size: [7, 8] }, "Images of 7x8 do not fit"],
  ["a size of nothing", { size: [8, 0] }, "the height or width is 0"],
  [
    "an unknown method",
    { method: "euler" as MethodName },
    "by euler: the methods are ddpm and ddim",
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
    ["with timesteps for classes", { class_embed_type: "timestep" }, "class_embed_type timestep"],
  ] as const
) {
  Deno.test(`Sampler.create() refuses a network ${what}`, async () => {
    using device = new ReferenceDevice();
    const model = randomModel(tinyConfig(fields));
    await assertRejects(() => Sampler.create(device, model), InputError, why);
  });
}

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
      [{ snapshotEvery: 0 }, "the number of steps between snapshots is 0"],
    ] as const
  ) {
    await assertRejects(() => sampler.sample(options), InputError, why);
  }
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
