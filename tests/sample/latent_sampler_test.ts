import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { Autoencoder } from "../../src/sample/autoencoder.ts";
import { inpaint } from "../../src/sample/editing/inpaint.ts";
import { regions } from "../../src/sample/editing/regions.ts";
import { keepKnown, latentMask } from "../../src/sample/latent_pictures.ts";
import { LatentSampler } from "../../src/sample/latent_sampler.ts";
import type { Samples } from "../../src/sample/options.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { openGpu } from "../device.ts";
import { clip, latentAutoencoder, latentModel, picture, pixelMask } from "../latent_model.ts";

const options = { method: "ddim", steps: 4, batchSize: 2 } as const, labels = [0, 1, 0];
const run = { count: 3, seed: 3, labels } as const;
/** Nothing is another class. */
const conditions = { other_labels: [1], region: new Float32Array(64) };
const clipped = ({ data }: Samples) => data.map(clip);

for (const [name, open] of [["cpu", () => WasmDevice.open(1)], ["gpu", openGpu]] as const) {
  Deno.test(`${name}: latents are sampled, edited and decoded as by a sampler and an autoencoder`, async () => {
    using device: Device = await open();
    using coder = await Autoencoder.create(device, latentAutoencoder, { size: [8, 8] });
    const wrap = [regions, inpaint({ noise: "fixed" })];
    using plain = await Sampler.create(device, latentModel, { ...options, wrap });
    using sampler = await LatentSampler.create(device, latentModel, { ...options, wrap });
    assertEquals([sampler.itemShape, sampler.latentShape], [[8, 8, 1], [4, 4, 2]]);
    assertEquals([sampler.steps, sampler.evaluations], [plain.steps, plain.evaluations]);
    assert(sampler.memory > plain.memory);

    const known = await coder.encode(picture, { seed: 3 }), mask = latentMask(pixelMask, [8, 8], 2);
    const several = { count: 3, shape: [8, 8, 1], data: new Float32Array(3 * 64) };
    several.data.set(picture.data, 64);
    const same = { ...conditions, region: new Float32Array(16) };
    const start = {
      count: 3,
      shape: [4, 4, 2],
      data: Float32Array.from({ length: 96 }, (_, i) => Math.sin(i)),
    };
    const cases = [
      ["from noise", {}, {}],
      ["from noise of one's own", { start }, { start }],
      ["from a picture", { init: picture, strength: 0.5 }, { init: known, strength: 0.5 }],
      ["from several", { init: several, strength: 0.5, first: 2 }, {
        ...{ init: await coder.encode(several, { seed: 3, first: 2 }), strength: 0.5, first: 2 },
      }],
      ["a part", {
        init: picture,
        strength: 1,
        conditions: { ...conditions, known: picture.data, mask: pixelMask },
      }, {
        ...{ init: known, strength: 1, conditions: { ...same, known: known.data, mask } },
      }],
      ["another class in a part", { conditions: { ...conditions, region: pixelMask } }, {
        conditions: { ...conditions, region: mask },
      }],
    ] as const;
    for (const [what, given, encoded] of cases) {
      const made = await sampler.sample({ ...run, conditions, ...given });
      const latents = await plain.sample({ ...run, conditions: same, ...encoded });
      const kept = what === "a part" ? keepKnown(latents, known, mask) : latents;
      assertClose(made.data, clipped(await coder.decode(kept)), 1e-5, what);
    }

    const steps: number[] = [], stream = sampler.stream({ ...run, conditions, every: 2 });
    for (let next = await stream.next();; next = await stream.next()) {
      if (next.done) {
        assertEquals(next.value, await sampler.sample({ ...run, conditions }));
        break;
      }
      const { step, noisy, sample, pictures } = next.value, shown = await pictures();
      assertEquals([noisy.shape, sample.shape, shown.shape], [[4, 4, 2], [4, 4, 2], [8, 8, 1]]);
      assertClose(shown.data, clipped(await coder.decode(sample)), 1e-5, `step ${step}`);
      steps.push(step);
    }
    assertEquals(steps, [2, 4, 2, 4]);
    const none = await sampler.sample({ ...run, conditions, signal: AbortSignal.abort() });
    assertEquals([none.count, none.shape], [0, [8, 8, 1]]);
  });
}

Deno.test("what latents cannot do is told", async () => {
  using device = await WasmDevice.open(1);
  const { autoencoder: _, ...pixels } = latentModel;
  const message = "no autoencoder; use a Sampler";
  await assertRejects(() => LatentSampler.create(device, pixels, options), InputError, message);
  using sampler = await LatentSampler.create(device, latentModel, {
    ...options,
    wrap: [inpaint()],
  });
  const mask = Float32Array.from({ length: 64 }, (_, i) => Number(i % 8 === 3));
  const conditions = { known: picture.data, mask };
  await assertRejects(
    () => sampler.sample({ ...run, conditions }),
    InputError,
    "The mask is too fine",
  );
  const init = { ...picture, shape: [4, 4, 1], data: new Float32Array(16) };
  await assertRejects(() => sampler.sample({ ...run, init }), InputError, "compiled for [8, 8, 1]");
});
