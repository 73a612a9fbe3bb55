import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { interpolate, startNoise } from "../../src/sample/interpolate.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { randomModel, tinyNetwork } from "../networks.ts";

const noise = (seed: number) => startNoise([8, 8, 1], { seed });
const power = (data: Float32Array) => data.reduce((sum, x) => sum + x * x, 0) / data.length;

Deno.test("startNoise() is what samplers start from", async () => {
  using device = new ReferenceDevice();
  const model = randomModel(tinyNetwork(), { clip_sample_range: 5 });
  using sampler = await Sampler.create(device, model, { method: "ddim", steps: 2, batchSize: 3 });
  const expected = await sampler.sample({ count: 3, seed: 2 ** 40 + 5, first: 4 });
  const start = startNoise([8, 8, 1], { seed: 2 ** 40 + 5, first: 4, count: 3 });
  assertClose((await sampler.sample({ count: 3, start })).data, expected.data, 1e-5);
});

Deno.test("interpolate() goes from one end to the other, and keeps the variance of noise", () => {
  const [a, b] = [noise(1), noise(2)], path = interpolate(a, b, 5);
  assertEquals([path.count, path.data.length], [5, 5 * 64]);
  assertClose(path.data.slice(0, 64), a.data, 1e-6);
  assertClose(path.data.slice(256), b.data, 1e-6);
  const middle = path.data.slice(128, 192);
  assertAlmostEquals(power(middle) / ((power(a.data) + power(b.data)) / 2), 1, 0.02);
  // Both ends are as far from the middle.
  const distance = (x: Float32Array) => Math.hypot(...x.map((v, i) => v - middle[i]));
  assertAlmostEquals(distance(a.data) / distance(b.data), 1, 0.1);
  assertClose(interpolate(a, a, 3).data.slice(64, 128), a.data, 1e-6, "nowhere to go");
});

Deno.test("interpolate() refuses what has no middle", () => {
  const two = startNoise([8, 8, 1], { count: 2 }), wide = startNoise([8, 9, 1]);
  assertThrows(() => interpolate(two, two, 3), InputError, "one image each");
  assertThrows(() => interpolate(noise(1), wide, 3), InputError, "1x8x8x1 and 1x8x9x1");
  assertThrows(() => interpolate(noise(1), noise(2), 1), InputError, "by 1 images: it takes 2");
});
