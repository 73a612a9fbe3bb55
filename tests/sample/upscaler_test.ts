import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import type { Samples } from "../../src/sample/options.ts";
import { agree, layTiles } from "../../src/sample/tiles.ts";
import { type UpscaleOptions, Upscaler } from "../../src/sample/upscaler.ts";
import type { Model } from "../../src/model/model.ts";
import { sizeOf } from "../../src/shape.ts";
import { assertClose } from "../close.ts";
import { devices, openCpuAs } from "../device.ts";
import { randomModel, tinyNetwork, tinyUpscaler } from "../networks.ts";
import { Random } from "../random.ts";

/** Pictures of random pixels. */
function pictures(count: number, ...shape: number[]): Samples {
  const random = new Random(`${count} ${shape}`);
  const data = Float32Array.from({ length: count * sizeOf(shape) }, () => random.between(-1, 1));
  return { count, shape, data };
}

const model = randomModel(tinyUpscaler());

async function upscale(
  device: Device,
  options: UpscaleOptions,
  { batchSize = 4, steps = 3, method = "dpmpp_2m_sde" as const, of = model }: {
    batchSize?: number;
    steps?: number;
    method?: "dpmpp_2m_sde" | "ddim";
    of?: Model;
  } = {},
): Promise<Samples> {
  using upscaler = await Upscaler.create(device, of, { batchSize, steps, method });
  return await upscaler.upscale(options);
}

/** Means of squares of pixels, in plain arithmetic. */
function reduce({ count, shape: [height, width, channels], data }: Samples, factor: number) {
  const h = height / factor, w = width / factor;
  return Float64Array.from({ length: count * h * w * channels }, (_, i) => {
    const c = i % channels, x = Math.floor(i / channels) % w;
    const y = Math.floor(i / channels / w) % h, n = Math.floor(i / channels / w / h);
    let sum = 0;
    for (let k = 0; k < factor ** 2; k++) {
      const row = n * height + y * factor + Math.floor(k / factor);
      sum += data[(row * width + x * factor + k % factor) * channels + c];
    }
    return sum / factor ** 2;
  });
}

Deno.test("tiles cover any side, and their shares add up to one", () => {
  for (const length of [1, 2, 3, 7, 14, 16]) {
    for (const size of [1, 2, length, length + 1, length + 2, 2 * length, 3 * length + 1, 101]) {
      const { starts, weights } = layTiles(size, length, 2);
      assertEquals([starts[0], starts.at(-1)], [0, Math.max(0, size - length)]);
      const total = new Float64Array(2 * Math.max(size, length));
      starts.forEach((start, i) => {
        assert(!i || (start > starts[i - 1] && start <= starts[i - 1] + length));
        assertEquals(weights[i].length, 2 * length);
        weights[i].forEach((weight, pixel) => {
          assert(weight >= 0 && weight <= 1);
          total[2 * start + pixel] += weight;
        });
      });
      assertClose(total, total.map(() => 1), 1e-6, `tiles of ${length} in ${size}`);
    }
  }
  // The edge of a tile that another one covers counts for nothing.
  const { weights: [first, second] } = layTiles(26, 16, 2);
  assert(first[31] < 1e-5 && second[0] < 1e-5 && first[0] === 1 && second[31] === 1);
});

Deno.test("pixels are moved to agree with their cells, by as little as can be", () => {
  const random = new Random("agree"), width = 6, channels = 2, factor = 3;
  const rows = Float32Array.from({ length: 6 * width * channels }, () => random.between(-2, 2));
  const low = Float32Array.from({ length: 2 * 2 * channels }, () => random.between(-1, 1));
  low[0] = 1;
  low[1] = -1;
  const before = rows.slice();
  agree(rows, low, width, channels, factor);
  const shape = [6, width, channels];
  assertClose(reduce({ count: 1, shape, data: rows }, factor), low, 1e-6);
  assert(rows.every((x) => Math.abs(x) <= 1));
  // The nearest: within a cell, all that are not at an end were moved by the same.
  for (let cell = 0; cell < low.length; cell++) {
    const c = cell % 2, x = (cell >> 1) % 2, y = cell >> 2;
    const places = Array.from(
      { length: 9 },
      (_, k) => ((y * 3 + Math.floor(k / 3)) * width + x * 3 + k % 3) * channels + c,
    );
    const inner = places.filter((p) => Math.abs(rows[p]) < 1);
    const shifts = inner.map((p) => rows[p] - before[p]);
    for (const shift of shifts) assert(Math.abs(shift - shifts[0]) < 1e-5);
  }
});

for (const [name, open] of Object.entries(devices)) {
  Deno.test(`pictures are enlarged alike by ${name}`, async () => {
    using device = await open();
    using reference = await openCpuAs(1, {});
    const options = { pictures: pictures(1, 5, 7, 1), seed: 4, noiseLevel: 0.2 };
    const [made, expected] = [await upscale(device, options), await upscale(reference, options)];
    assertEquals(made.shape, [10, 14, 1]);
    assertClose(made.data, expected.data, 1e-3);
  });
}

Deno.test("a picture that fits is what it would be without tiles, and as a part of many", async () => {
  using device = await openCpuAs(2, {});
  const many = pictures(3, 4, 4, 1), options = { pictures: many, seed: 7, noiseLevel: 0.1 };
  const all = await upscale(device, options);
  assertEquals((await upscale(device, options, { batchSize: 2 })).data, all.data);
  for (let k = 0; k < 3; k++) {
    const one = { ...many, count: 1, data: many.data.slice(16 * k, 16 * (k + 1)) };
    const alone = await upscale(device, { ...options, pictures: one, first: k });
    assertEquals(alone.data, all.data.slice(64 * k, 64 * (k + 1)));
  }
  // And it is chance that decides.
  assert((await upscale(device, { ...options, seed: 8 })).data.some((x, i) => x !== all.data[i]));
});

/** A network that says the same of every pixel, so that all that differs is noise. */
function uniform(size: number): Model {
  const model = randomModel(tinyUpscaler({ sample_size: size })), { layout } = model.network;
  const bias = layout.specs.findIndex(({ name }) => name === "conv_out.bias");
  const parameters = new Float32Array(layout.size), at = layout.offsets[bias];
  parameters[at] = 0.1;
  return { ...model, parameters };
}

Deno.test("tiles make what a network as large as the picture makes", async () => {
  using device = await openCpuAs(2, {});
  const options = { pictures: pictures(1, 12, 10, 1), seed: 3, noiseLevel: 0.3 };
  const tiles = await upscale(device, options, { of: uniform(8) });
  const whole = await upscale(device, options, { of: uniform(24), batchSize: 1 });
  assertClose(tiles.data, whole.data, 1e-5);
});

Deno.test("the middle of a row of pictures is the same whatever is beside it", async () => {
  using device = await openCpuAs(2, {});
  const long = pictures(1, 4, 40, 1), shorter = { ...long, data: long.data.slice() };
  // Other pixels at the right end only.
  for (let y = 0; y < 4; y++) shorter.data[40 * y + 39] *= -1;
  const [a, b] = [
    await upscale(device, { pictures: long }),
    await upscale(device, { pictures: shorter }),
  ];
  const differs = Array.from(
    { length: 80 },
    (_, x) => [...Array(8).keys()].some((y) => a.data[80 * y + x] !== b.data[80 * y + x]),
  );
  assert(differs.slice(72).some(Boolean) && !differs.slice(0, 70).some(Boolean));
});

Deno.test("results agree with their pictures, of any size, and no more where noise is added", async () => {
  using device = await openCpuAs(2, {});
  for (const shape of [[1, 1, 1], [1, 9, 1], [13, 1, 1], [5, 6, 1], [4, 4, 1], [17, 11, 1]]) {
    const given = pictures(2, ...shape), made = await upscale(device, { pictures: given });
    assertEquals([made.count, made.shape], [2, [2 * shape[0], 2 * shape[1], 1]]);
    assert(made.data.every((x) => Math.abs(x) <= 1));
    assertClose(reduce(made, 2), given.data, 1e-6, `${shape}`);
  }
  const given = pictures(1, 9, 9, 1);
  const noisy = await upscale(device, { pictures: given, noiseLevel: 0.1 });
  assert(reduce(noisy, 2).some((x, i) => Math.abs(x - given.data[i]) > 0.01));
});

Deno.test("classes and colors are those of each picture", async () => {
  using device = await openCpuAs(2, {});
  const network = tinyUpscaler({ in_channels: 3, out_channels: 3, num_class_embeds: 3 });
  const of = randomModel(network), both = pictures(2, 5, 5, 3);
  const half = { ...both, count: 1, data: both.data.slice(75) };
  const made = await upscale(device, { pictures: both, labels: [0, 2] }, { of });
  const alone = await upscale(device, { pictures: half, first: 1, labels: [2] }, { of });
  assertEquals(made.data.slice(300), alone.data);
  const other = await upscale(device, { pictures: half, first: 1, labels: [1] }, { of });
  assert(other.data.some((x, i) => x !== alone.data[i]));
});

Deno.test("rows come from top to bottom, few at a time, and a signal ends them", async () => {
  using device = await openCpuAs(2, {});
  using upscaler = await Upscaler.create(device, model, { batchSize: 2, steps: 2 });
  const given = pictures(2, 21, 9, 1), abort = new AbortController();
  const whole = await upscaler.upscale({ pictures: given }), progress: [number, number][] = [];
  let next = 0, most = 0;
  const options = {
    ...{ pictures: given, signal: abort.signal },
    onProgress: (done: number, total: number) => void progress.push([done, total]),
  };
  for await (const { picture, top, data } of upscaler.rows(options)) {
    assertEquals(picture * 42 + top, next);
    assertEquals(data, whole.data.slice(18 * next, 18 * next + data.length));
    next += data.length / 18;
    most = Math.max(most, data.length / 18);
    if (picture === 1) abort.abort();
  }
  assert(most <= 8 && next < 84);
  assert(
    progress.every(([done, total], i) =>
      total === progress[0][1] && (!i || done > progress[i - 1][0])
    ),
  );
  // Only whole pictures count as done.
  abort.abort();
  const late = new AbortController();
  const stopped = await upscaler.upscale({
    ...{ pictures: given, signal: late.signal },
    onProgress: (done, total) => done > 0.75 * total && late.abort(),
  });
  assertEquals([stopped.count, stopped.data], [1, whole.data.slice(0, stopped.data.length)]);
});

Deno.test("what cannot be enlarged is refused", async () => {
  using device = await openCpuAs(1, {});
  const refuse = (make: () => Promise<unknown>, message: string) =>
    assertRejects(make, InputError, message);
  await refuse(
    () => Upscaler.create(device, randomModel(tinyNetwork())),
    "does not enlarge pictures: it is a UNet2DModel",
  );
  using upscaler = await Upscaler.create(device, model, { steps: 1 });
  const fits = pictures(2, 3, 3, 1);
  await refuse(
    () => upscaler.upscale({ pictures: pictures(1, 3, 3, 3) }),
    "of 3 channels: the model is for 1",
  );
  await refuse(
    () => upscaler.upscale({ pictures: fits, noiseLevel: 0.6 }),
    "networks know 0 to 0.5",
  );
  await refuse(() => upscaler.upscale({ pictures: fits, labels: [1] }), "2 pictures by 1 labels");
  await refuse(() => upscaler.upscale({ pictures: { ...fits, count: 3 } }), "27 numbers, not 18");
});

/**
 * A network that makes something smooth of a smooth picture, but looks at all of a tile for it, so that
 * tiles disagree where they meet: it predicts images, and sees nothing of the noise.
 */
function smooth(): Model {
  const network = tinyUpscaler({
    ...{ sample_size: 16, block_out_channels: [8, 8] },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
  });
  const model = randomModel(network, { prediction_type: "sample" }),
    { specs, offsets } = network.layout;
  const first = offsets[specs.findIndex(({ name }) => name === "conv_in.weight")];
  // Of [3, 3, 2, 8], those of the noisy channel.
  for (let i = 0; i < 9 * 2 * 8; i++) if (i % 16 < 8) model.parameters[first + i] = 0;
  return model;
}

Deno.test("where tiles meet, neighbouring pixels differ no more than elsewhere", async () => {
  using device = await openCpuAs(2, {});
  const height = 40, width = 60, low = new Float32Array(height * width);
  for (let i = 0; i < low.length; i++) {
    const x = i % width, y = Math.floor(i / width);
    low[i] = 0.6 * Math.sin(x / 7 + y / 5) + 0.3 * Math.cos(y / 4 - x / 11);
  }
  // A little noise, so that nothing is made to agree with the picture afterwards.
  const pictures = { count: 1, shape: [height, width, 1], data: low };
  const settings = { pictures, noiseLevel: 0.01 };
  const { data } = await upscale(device, settings, {
    ...{ of: smooth(), method: "ddim", steps: 8, batchSize: 16 },
  });
  // Mean squares of steps over the left edges of cells.
  const stepTo = (x: number) => {
    let sum = 0;
    for (let y = 0; y < 2 * height; y++) {
      const at = 2 * width * y + x;
      sum += (data[at] - data[at - 1]) ** 2 / (2 * height);
    }
    return sum;
  };
  const mean = (columns: number[]) => columns.reduce((s, x) => s + stepTo(x), 0) / columns.length;
  const { starts } = layTiles(width, 8, 2), usual = mean(even(width));
  const edges = starts.slice(1).map((start, i) => [starts[i] + 8, start]);
  // Without fading, it would be twice as much at the edges; with cuts, 2.5 times in the middle.
  for (
    const [where, columns] of Object.entries({
      "where tiles begin": edges.map(([, start]) => 2 * start),
      "where tiles end": edges.map(([end]) => 2 * end),
      "in the middle": edges.flatMap(([end, start]) =>
        [Math.floor, Math.ceil].map((round) => 2 * round((end + start) / 2))
      ),
    })
  ) {
    const found = mean(columns);
    assert(found < 1.3 * usual, `${found} ${where} of what they share, ${usual} everywhere`);
  }
});

/** The left edges of cells within a picture of so many. */
const even = (width: number) => Array.from({ length: width - 2 }, (_, i) => 2 * i + 2);
