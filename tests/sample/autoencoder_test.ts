import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { InputError } from "../../src/errors.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { toFloat32 } from "../../src/formats/safetensors.ts";
import { Autoencoder, type AutoencoderOptions } from "../../src/sample/autoencoder.ts";
import type { Samples } from "../../src/sample/options.ts";
import { layBlended } from "../../src/sample/tiles.ts";
import { sizeOf } from "../../src/shape.ts";
import { goldenOf, readAutoencoder } from "../autoencoders.ts";
import { assertClose } from "../close.ts";
import { openGpu } from "../device.ts";
import { channelsLast } from "../families.ts";
import { Random } from "../random.ts";

const folder = (name: string) =>
  fromFileUrl(new URL(`../fixtures/autoencoder/${name}`, import.meta.url));
const kl = await readAutoencoder(folder("kl")), vq = await readAutoencoder(folder("vq"));
const SCALE = 0.18215;

/** Tensors of a file as what is encoded and decoded. */
async function goldenSamples(name: string): Promise<Record<string, Samples>> {
  const { io } = await goldenOf(folder(name));
  return Object.fromEntries(
    [...io].filter(([, { shape }]) => shape.length === 4).map(([name, tensor]) => {
      const { shape: [count, ...shape], values: data } = channelsLast(tensor);
      return [name, { count, shape, data }];
    }),
  );
}

/** Random numbers in [-1, 1]. */
function items(count: number, ...shape: number[]): Samples {
  const random = new Random(`${count} ${shape}`);
  const data = Float32Array.from({ length: count * sizeOf(shape) }, () => random.between(-1, 1));
  return { count, shape, data };
}

const open = async (options: Partial<AutoencoderOptions> = {}, of = kl) => {
  const device = await WasmDevice.open(1);
  const autoencoder = await Autoencoder.create(device, of, { size: [16, 24], ...options });
  return { device, autoencoder };
};

const devices = {
  GPU: openGpu,
  CPU: () => WasmDevice.open(),
  interpreter: () => Promise.resolve(new ReferenceDevice()),
};

for (const [kind, openDevice] of Object.entries(devices)) {
  Deno.test(`latents and pictures are those of diffusers, on the ${kind}`, async () => {
    using device = await openDevice();
    const { image, mean, noise, latent, decoded } = await goldenSamples("kl");
    for (const weightDType of ["f32", "f16"] as const) {
      const tolerance = weightDType === "f32" ? 1e-5 : 1e-2;
      using autoencoder = await Autoencoder.create(device, kl, { size: [16, 24], weightDType });
      const drawn = await autoencoder.encode(image, { noise: noise.data });
      const means = await autoencoder.encode(image, { sample: false });
      assertEquals([drawn.count, ...drawn.shape], [2, 8, 12, 4]);
      assertClose(drawn.data, latent.data.map((z) => z * SCALE), tolerance, "latents");
      assertClose(means.data, mean.data.map((z) => z * SCALE), tolerance, "means");
      const scaled = { ...latent, data: latent.data.map((z) => z * SCALE) };
      assertClose((await autoencoder.decode(scaled)).data, decoded.data, tolerance, "pictures");
    }
  });

  Deno.test(`latents with a codebook are those of diffusers, on the ${kind}`, async () => {
    using device = await openDevice();
    const { image, latents, quantized, decoded } = await goldenSamples("vq");
    const indices = toFloat32((await goldenOf(folder("vq"))).io.get("indices")!);
    using autoencoder = await Autoencoder.create(device, vq, { size: [16, 16], batchSize: 3 });
    const encoded = await autoencoder.encode(image);
    assertClose(encoded.data, latents.data.map((z) => z * SCALE), 1e-5, "latents");
    const codes = await autoencoder.quantize(encoded);
    assertEquals([...codes.indices], [...indices]);
    assertClose(codes.quantized.data, quantized.data.map((z) => z * SCALE), 1e-5, "entries");
    assertClose((await autoencoder.decode(encoded)).data, decoded.data, 1e-5, "pictures");
    assertClose((await autoencoder.decode(codes.quantized)).data, decoded.data, 1e-5, "again");
  });
}

Deno.test("latents of a picture depend on seed and number, not on the batch", async () => {
  const pictures = items(3, 16, 24, 3), results: number[][] = [];
  for (const batchSize of [1, 3]) {
    const { device, autoencoder } = await open({ batchSize });
    using _device = device, _autoencoder = autoencoder;
    results.push([...(await autoencoder.encode(pictures, { seed: 5 })).data]);
    const last = { ...pictures, count: 1, data: pictures.data.slice(2 * 16 * 24 * 3) };
    const alone = await autoencoder.encode(last, { seed: 5, first: 2 });
    assertClose(alone.data, results[0].slice(2 * 8 * 12 * 4), 1e-5);
    const other = await autoencoder.encode(last, { seed: 6, first: 2 });
    assert(other.data.some((x, i) => Math.abs(x - alone.data[i]) > 1e-3));
  }
  assertClose(results[1], results[0], 1e-5);
});

Deno.test("tiles that fade in cover any side, and their shares add up to one", () => {
  for (const length of [1, 2, 3, 4, 7, 16]) {
    for (const size of [length, length + 1, 2 * length, 3 * length + 1, 101]) {
      for (const factor of [1, 4]) {
        const { starts, weights } = layBlended(size, length, factor);
        const total = new Float64Array(factor * size);
        weights.forEach((own, i) =>
          own.forEach((weight, pixel) => {
            assert(weight >= 0);
            total[factor * starts[i] + pixel] += weight;
          })
        );
        assertEquals([starts[0], starts.at(-1)], [0, size - length]);
        assertClose(total, total.map(() => 1), 1e-6, `${size} by ${length}`);
      }
    }
  }
  // As tiles of 64 cells lie in diffusers, and the second fades in over 16 of them.
  const { starts, weights } = layBlended(112, 64, 1);
  assertEquals(starts, [0, 48]);
  assertClose(weights[1].slice(0, 17), Array.from({ length: 17 }, (_, i) => i / 16), 1e-6);
});

Deno.test("what is computed in tiles is the blend of what each gives", async () => {
  const size = [16, 24] as const, tile = 16, latents = items(2, 8, 12, 4);
  const { device, autoencoder: tiled } = await open({ size, tile, batchSize: 3 });
  using _device = device, _tiled = tiled;
  using one = await Autoencoder.create(device, kl, { size: [16, 16] });
  const cut = ({ count, shape: [h, w, c], data }: Samples, left: number, columns: number) => ({
    ...{ count, shape: [h, columns, c] },
    data: Float32Array.from({ length: count * h * columns * c }, (_, i) => {
      const x = Math.floor(i / c) % columns, row = Math.floor(i / c / columns);
      return data[(row * w + left + x) * c + i % c];
    }),
  });
  const { data } = await tiled.decode(latents);
  const parts = [0, 4].map((left) => one.decode(cut(latents, left, 8)));
  const [first, second] = await Promise.all(parts);
  // Two tiles of 8 cells begin 4 cells apart: the second fades in over 2 cells, 4 pixels.
  const blended = data.map((_, i) => {
    const c = i % 3, x = Math.floor(i / 3) % 24, row = Math.floor(i / 72);
    const share = Math.min(1, Math.max(0, (x - 8) / 4));
    const at = (part: Samples, x: number) =>
      x < 0 || x > 15 ? 0 : part.data[(row * 16 + x) * 3 + c];
    return (1 - share) * at(first, x) + share * at(second, x - 8);
  });
  assertClose(data, blended, 1e-5);
  const pictures = items(1, 16, 24, 3);
  const means = await tiled.encode(pictures, { sample: false });
  const [left, right] = await Promise.all(
    [0, 8].map((x) => one.encode(cut(pictures, x, 16), { sample: false })),
  );
  const expected = means.data.map((_, i) => {
    const c = i % 4, x = Math.floor(i / 4) % 12, row = Math.floor(i / 48);
    const share = Math.min(1, Math.max(0, (x - 4) / 2));
    const at = (part: Samples, x: number) => x < 0 || x > 7 ? 0 : part.data[(row * 8 + x) * 4 + c];
    return (1 - share) * at(left, x) + share * at(right, x - 4);
  });
  assertClose(means.data, expected, 1e-5);
});

Deno.test("codes are the same whether pictures are computed in tiles or not", async () => {
  const latents = items(1, 8, 12, 3), found: number[][] = [];
  for (const tile of [8, undefined]) {
    const { device, autoencoder } = await open(tile ? { tile } : {}, vq);
    using _device = device, _autoencoder = autoencoder;
    found.push([...(await autoencoder.quantize(latents)).indices]);
  }
  assertEquals(found[0], found[1]);
});

Deno.test("calls at the same time take turns, and a signal stops them", async () => {
  const { device, autoencoder } = await open();
  using _device = device, _autoencoder = autoencoder;
  const latents = [items(2, 8, 12, 4), items(3, 8, 12, 4)];
  const alone: Float32Array[] = [];
  for (const one of latents) alone.push((await autoencoder.decode(one)).data);
  const together = await Promise.all(latents.map((one) => autoencoder.decode(one)));
  together.forEach(({ data }, i) => assertEquals(data, alone[i]));
  const controller = new AbortController(), seen: number[][] = [];
  await assertRejects(
    () =>
      autoencoder.decode(latents[1], {
        signal: controller.signal,
        onProgress(done, total) {
          seen.push([done, total]);
          if (done === 2) controller.abort(new Error("enough"));
        },
      }),
    Error,
    "enough",
  );
  assertEquals(seen, [[1, 3], [2, 3]]);
  assertEquals((await autoencoder.decode(latents[0])).data, alone[0]);
});

Deno.test("memory is told beforehand", async () => {
  const options = { size: [16, 24], batchSize: 3 } as const;
  const { device, autoencoder } = await open(options);
  using _device = device, _autoencoder = autoencoder;
  const { bytes, excess } = Autoencoder.plan(device, kl.network, options);
  assertEquals(excess, undefined);
  assertEquals(bytes, autoencoder.memory + 4 * kl.network.layout.size);
  const small = Autoencoder.plan(device, kl.network, { size: [64, 64], tile: 16 });
  const large = Autoencoder.plan(device, kl.network, { size: [64, 64] });
  assert(small.bytes < large.bytes, `${small.bytes} and ${large.bytes}`);
});

Deno.test("a half takes the weights of that half only, and gives what both together give", async () => {
  for (const weightDType of ["f32", "f16"] as const) {
    const both = await open({ weightDType });
    using _device = both.device, whole = both.autoencoder;
    const pictures = items(1, 16, 24, 3), latents = items(1, 8, 12, 4);
    const { size } = kl.network.layout;
    let own = 0;
    for (const only of ["encode", "decode"] as const) {
      const options = { size: [16, 24], only, weightDType } as const;
      using half = await Autoencoder.create(both.device, kl, options);
      const of = (autoencoder: Autoencoder) =>
        only === "encode"
          ? autoencoder.encode(pictures, { sample: false })
          : autoencoder.decode(latents);
      assertEquals((await of(half)).data, (await of(whole)).data);
      own += Autoencoder.plan(both.device, kl.network, options).bytes - half.memory;
    }
    // Each begins with a whole number of lines.
    assert(own <= 4 * (size + 128), `${own} bytes of ${4 * size}`);
  }
});

Deno.test("what does not fit is refused", async () => {
  const { device, autoencoder } = await open({ only: "decode" });
  using _device = device, _autoencoder = autoencoder;
  const refused = async (run: () => Promise<unknown>, message: string) =>
    void await assertRejects(run, InputError, message);
  const latents = items(1, 8, 12, 4), { data } = latents;
  await refused(() => autoencoder.decode(items(1, 12, 8, 4)), "compiled for [8, 12, 4]");
  await refused(() => autoencoder.decode({ ...latents, count: 2 }), "are 768 numbers, not 384");
  await refused(
    () => autoencoder.decode({ ...latents, data: data.with(3, NaN) }),
    "not all finite",
  );
  await refused(() => autoencoder.encode(items(1, 16, 24, 3)), "compiled without that");
  await refused(() => autoencoder.quantize(latents), "AutoencoderKL has no codebook");
  await refused(() => Autoencoder.create(device, kl, { size: [16, 23] }), "multiples of 2");
  await refused(() => Autoencoder.create(device, kl, { size: [16, 24], tile: 5 }), "tiles of 5");
  await refused(() => Autoencoder.create(device, kl, { size: [16, 24], batchSize: 0 }), "batch");
  assertThrows(() => Autoencoder.plan(device, kl.network, { size: [0, 24] }), InputError);
});
