import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { philox, toNormals, toUniform } from "../../src/gpu/philox.ts";
import { input } from "../../src/gpu/tensor.ts";
import { parseModel, serializeModel } from "../../src/model/model.ts";
import { formatNetwork, parseNetwork, resizeNetwork } from "../../src/model/network.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";
import { randomModel, tinyUpscaler } from "../networks.ts";
import { Random } from "../random.ts";

Deno.test("a network that enlarges is told a small picture and its noise, and classes too", () => {
  const network = tinyUpscaler({ in_channels: 3, out_channels: 3, factor: 4, num_class_embeds: 5 });
  assertEquals([network.itemShape, network.outChannels], [[8, 8, 3], 3]);
  assertEquals(network.conditions([8, 12, 3]), {
    labels: { shape: [], dtype: "i32", below: 5 },
    low_resolution: { shape: [2, 3, 3], dtype: "f32" },
    noise_level: { shape: [], dtype: "f32", none: 0 },
  });
  const { specs } = network.layout;
  const shapeOf = (name: string) => specs.find((spec) => spec.name === name)?.shape;
  assertEquals(shapeOf("conv_in.weight"), [3, 3, 6, 8]);
  assertEquals(shapeOf("noise_level_embedding.linear_1.weight"), [32, 8]);
  assertThrows(() => network.conditions([8, 10, 3]), InputError, "multiples of 4, not for 10x8");
});

Deno.test("sides are multiples of the factor and of what halves them", () => {
  const multiple = (factor: number, levels: number) =>
    tinyUpscaler({
      ...{ factor, sample_size: null, block_out_channels: new Array(levels).fill(8) },
      down_block_types: new Array(levels).fill("DownBlock2D"),
      up_block_types: new Array(levels).fill("UpBlock2D"),
    }).multiple;
  assertEquals([multiple(2, 1), multiple(2, 3), multiple(3, 2), multiple(4, 3)], [2, 4, 6, 4]);
});

Deno.test("its configuration is the same after files and another size", () => {
  const network = tinyUpscaler({ factor: 4 }), fields = formatNetwork(network);
  assertEquals(formatNetwork(parseNetwork(fields)), fields);
  assertEquals([fields._class_name, fields.factor], ["SuperResolutionUNet2DModel", 4]);
  assertEquals(resizeNetwork(network, [16, 12, 1]).itemShape, [16, 12, 1]);
  const file = serializeModel(randomModel(network)), read = parseModel(file);
  assertEquals(read.network.config, network.config);
  assertEquals(serializeModel(read), file);
  for (const factor of [undefined, 1, 2.5, "2"]) {
    assertThrows(
      () => parseNetwork({ _class_name: "SuperResolutionUNet2DModel", factor }),
      InputError,
      "factor of a super-resolution network",
    );
  }
});

/** The degradation as plain arithmetic, image by image. */
function degrade(
  images: Float32Array,
  [count, height, width, channels]: readonly number[],
  factor: number,
  { seed, first, step }: { seed: [number, number]; first: number; step: number },
) {
  const h = height / factor, w = width / factor, each = h * w * channels;
  const levels = new Float64Array(count), low = new Float64Array(count * each);
  const words = new Uint32Array(4);
  for (let n = 0; n < count; n++) {
    philox([0, first + n, step, 50], seed, words);
    const s = levels[n] = Math.max(0, (toUniform(words[0]) - 1 / 6) * 0.6);
    for (let i = 0; i < each; i++) {
      philox([i >> 2, first + n, step, 51], seed, words);
      const pair = i & 2, noise = toNormals(words[pair], words[pair + 1])[i & 1];
      const c = i % channels, x = Math.floor(i / channels) % w, y = Math.floor(i / channels / w);
      let sum = 0;
      for (let dy = 0; dy < factor; dy++) {
        for (let dx = 0; dx < factor; dx++) {
          const row = n * height + y * factor + dy;
          sum += images[(row * width + x * factor + dx) * channels + c];
        }
      }
      low[n * each + i] = Math.sqrt(1 - s * s) * sum / factor ** 2 + s * noise;
    }
  }
  return { levels, low };
}

for (const [name, open] of Object.entries(devices)) {
  Deno.test(`training degrades pictures as it says, on ${name}`, async () => {
    using device = await open();
    for (const [factor, shape] of [[2, [7, 6, 4, 3]], [3, [5, 3, 9, 1]]] as const) {
      const { derived } = tinyUpscaler({ factor, sample_size: null });
      const random = {
        seed: input("seed", [2], "i32"),
        first: input("first", [1], "i32"),
        step: input("step", [1], "i32"),
      };
      const images = input("images", shape);
      const outputs = Object.entries(derived!).map(([name, make]) =>
        [name, make(images, random)] as const
      );
      using program = await device.compile(makeGraph(Object.fromEntries(outputs)));
      const { buffers } = program, numbers = new Random("pictures");
      const data = Float32Array.from(
        { length: buffers.images.length },
        () => numbers.between(-1, 1),
      );
      buffers.images.write(data);
      buffers.seed.write([9, 1]);
      buffers.first.write([3]);
      buffers.step.write([40]);
      program.run();
      const expected = degrade(data, shape, factor, { seed: [9, 1], first: 3, step: 40 });
      assertClose(await buffers.noise_level.read(), expected.levels, 1e-6, "levels");
      assertClose(await buffers.low_resolution.read(), expected.low, 2e-6, "pictures");
      assert(expected.levels.every((s) => s >= 0 && s < 0.5));
    }
  });
}

Deno.test("a sixth of the pictures is shown without noise", () => {
  const images = new Float32Array(3000 * 4), seed: [number, number] = [1, 0];
  const { levels } = degrade(images, [3000, 2, 2, 1], 2, { seed, first: 0, step: 0 });
  const clean = levels.filter((s) => s === 0).length / levels.length;
  assert(Math.abs(clean - 1 / 6) < 0.02, `${clean}`);
});

Deno.test("what a network makes depends on the picture and on the noise it is told of", async () => {
  using device = await devices["a CPU with one thread"]();
  const model = randomModel(tinyUpscaler());
  using sampler = await Sampler.create(device, model, { method: "ddim", steps: 2, batchSize: 2 });
  const make = async (low: number, noise_level?: number[]) => {
    const low_resolution = new Float32Array(16).fill(low);
    const conditions = { low_resolution, ...(noise_level ? { noise_level } : {}) };
    return (await sampler.sample({ count: 2, seed: 3, conditions })).data;
  };
  const plain = await make(0.5);
  assertEquals(await make(0.5, [0]), plain);
  const others = await Promise.all([make(-0.5), make(0.5, [0.4])]);
  for (const other of others) assert(plain.some((x, i) => Math.abs(x - other[i]) > 1e-3));
});
