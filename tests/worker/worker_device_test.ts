import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { DeviceError, LimitError } from "../../src/gpu/device.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { startNoise, vary, walkNoise } from "../../src/sample/interpolate.ts";
import { guided } from "../../src/sample/guidance/guided.ts";
import { inpaint } from "../../src/sample/editing/inpaint.ts";
import { LatentSampler } from "../../src/sample/latent_sampler.ts";
import type { Samples } from "../../src/sample/options.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { openWorker, type WorkerSamplerOptions } from "../../src/worker/mod.ts";
import { latentModel, picture, pixelMask } from "../latent_model.ts";

const network = parseNetwork({
  ...{ sample_size: 8, in_channels: 1, out_channels: 1, num_class_embeds: 4 },
  ...{ block_out_channels: [8], norm_num_groups: 4 },
  ...{ down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] },
});
const model = initializeModel(network, {}, 3, ["cat", "dog", "bird"]);
/** The first output layer is zeros at first, which makes every step alike. */
model.parameters.forEach((_, i) => model.parameters[i] += 0.05 * Math.sin(i));
const file = new File([serializeModel(model)], "m.safetensors");

const open = () => openWorker("cpu", { threads: 1 });

/** What the library makes in this thread. */
async function here(
  { guidance, inpaint: painting, ...options }: WorkerSamplerOptions,
  run: Parameters<Sampler["sample"]>[0],
): Promise<Samples> {
  using device = await openDevice("cpu", { threads: 1 });
  using sampler = await Sampler.create(device, model, {
    ...options,
    wrap: [...(guidance ? [guided(guidance)] : []), ...(painting ? [inpaint(painting)] : [])],
  });
  return await sampler.sample(run);
}

Deno.test("a Worker makes the same pictures as the thread itself, step by step and at once", async () => {
  using device = await open();
  using loaded = await device.load(file);
  assertEquals(device.name, "CPU, 1 thread (WebAssembly)");
  assertEquals([loaded.facts.classes, loaded.facts.none], [["cat", "dog", "bird"], 3]);
  assertEquals(loaded.facts.guidance, { scale: 1.75, interval: [0.3, 1.6] });
  const options = { steps: 3, batchSize: 2, guidance: { scale: 2 }, inpaint: {} };
  const known = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
  const mask = Float32Array.from({ length: 64 }, (_, i) => i % 2);
  const run = { count: 3, seed: 7, labels: [0, 1, 2], conditions: { known, mask } };
  using sampler = await loaded.sampler(options);
  assertEquals([sampler.itemShape, sampler.steps, sampler.evaluations], [[8, 8, 1], 3, 3]);
  const expected = await here(options, run), progress: number[][] = [];
  const told = await sampler.sample(run, { onProgress: (...p) => progress.push(p) });
  assertEquals(told, expected);
  assertEquals(progress.at(-1), [6, 6]);
  const steps: number[] = [], stream = sampler.stream(run);
  for (;;) {
    const { done, value } = await stream.next();
    if (done) {
      assertEquals(value, expected);
      break;
    }
    steps.push(value.step);
    assertEquals([value.sample.shape, value.noisy.data.length], [
      [8, 8, 1],
      64 * value.sample.count,
    ]);
  }
  assertEquals(steps, [1, 2, 3, 1, 2, 3]);
});

Deno.test("a Worker paints what prompts say, in turns, for models that read", async () => {
  const reader = denoisingNetwork({
    network: parseNetwork({
      ...{ _class_name: "TextUNet2DModel", sample_size: 4, in_channels: 1, out_channels: 1 },
      ...{ block_out_channels: [8], layers_per_block: 1, norm_num_groups: 4 },
      ...{ down_block_types: ["CrossAttnDownBlock2D"], up_block_types: ["CrossAttnUpBlock2D"] },
      ...{ attention_head_dim: 2, mid_block_type: null },
      text_encoder: { max_length: 8, width: 8, layers: 1, heads: 2 },
    }),
  });
  const own = initializeModel(reader, {}, 3);
  own.parameters.forEach((_, i) => own.parameters[i] += 0.05 * Math.sin(i));
  using local = await openDevice("cpu", { threads: 1 });
  const wrap = [guided({ scale: 3 })];
  using expected = await Sampler.create(local, own, { steps: 2, batchSize: 3, wrap });
  const tokens = ["cat", "dog", "cat"].flatMap((word) => [...reader.tokenize!(word)]);
  using device = await open();
  using loaded = await device.load(new File([serializeModel(own)], "own.safetensors"));
  assertEquals([loaded.facts.reads, loaded.facts.classes], [true, undefined]);
  assertEquals(loaded.facts.guidance, { scale: 4 });
  using sampler = await loaded.sampler({ steps: 2, batchSize: 3, guidance: { scale: 3 } });
  const told = await sampler.sample({ count: 3, seed: 7, prompts: ["cat", "dog"] });
  const wanted = await expected.sample({ count: 3, seed: 7, conditions: { tokens } });
  assertEquals(told, wanted);
  using other = await device.load(file), mute = await other.sampler({ steps: 2 });
  assertEquals(other.facts.reads, false);
  await assertRejects(
    () => mute.sample({ labels: [0], prompts: ["cat"] }),
    InputError,
    "The model does not read",
  );
});

Deno.test("a Worker makes pictures by models of latents, and shows these as pictures", async () => {
  using local = await openDevice("cpu", { threads: 1 });
  const options = { method: "ddim", steps: 2, batchSize: 2 } as const, labels = [0, 2];
  using expected = await LatentSampler.create(local, latentModel, {
    ...{ ...options, wrap: [inpaint({ noise: "fixed" })] },
  });
  using device = await open();
  using loaded = await device.load(new File([serializeModel(latentModel)], "latents.safetensors"));
  assertEquals([loaded.facts.shape, loaded.facts.classes], [[8, 8, 1], ["0", "1", "2"]]);
  using sampler = await loaded.sampler({ ...options, inpaint: { noise: "fixed" } });
  assertEquals(sampler.itemShape, [8, 8, 1]);
  const conditions = { known: picture.data, mask: pixelMask };
  const run = { count: 2, seed: 7, labels, init: picture, strength: 1, conditions };
  assertEquals(await sampler.sample(run), await expected.sample(run));
  const own = expected.stream({ count: 2, seed: 7, labels });
  for await (const { noisy, sample } of sampler.stream({ count: 2, seed: 7, labels })) {
    const { value } = await own.next();
    assert(value && "pictures" in value);
    assertEquals([noisy, sample], [value.noisy, await value.pictures()]);
  }
  const walk = { seed: 9, share: 0.4 }, start = walkNoise([4, 4, 2], { seed: 7, count: 2 }, walk);
  assertEquals(
    await sampler.sample({ count: 2, seed: 7, labels, walk }),
    await expected.sample({ count: 2, labels, start }),
  );
});

Deno.test("a walk starts on the way from one seed's noise to another's", async () => {
  using device = await open();
  using loaded = await device.load(file);
  const options = { method: "ddim", steps: 2 } as const, labels = [0, 0];
  using sampler = await loaded.sampler(options);
  const walk = { seed: 9, share: 0.4 };
  const made = await sampler.sample({ count: 2, seed: 7, labels, walk });
  const parts = [0, 1].map((first) =>
    vary(startNoise([8, 8, 1], { seed: 7, first }), 0.4, { seed: 9, first })
  );
  const data = new Float32Array(parts.flatMap((part) => [...part.data]));
  const start = { count: 2, shape: [8, 8, 1], data };
  assertEquals(made, await here(options, { count: 2, seed: 7, labels, start }));
});

Deno.test("a run in a Worker is aborted by its signal, and by whoever stops listening", async () => {
  using device = await open();
  using loaded = await device.load(file);
  using sampler = await loaded.sampler({ method: "ddpm" });
  const stop = new AbortController();
  const partial = await sampler.sample({ labels: [0], count: 1 }, {
    signal: stop.signal,
    onProgress: () => stop.abort(),
  });
  assertEquals(partial.count, 1);
  for await (const { step } of sampler.stream({ labels: [0] })) if (step === 2) break;
  // The place is free again.
  const { value } = await sampler.stream({ labels: [1] }).next();
  assert(value && "step" in value && value.step === 1);
  const early = await sampler.sample({ labels: [0] }, { signal: AbortSignal.abort() });
  assertEquals(early.count, 0);
});

Deno.test("errors come out of a Worker as what they are", async () => {
  using device = await open();
  const junk = new File(["junk"], "junk.safetensors");
  await assertRejects(() => device.load(junk), InputError, "junk.safetensors");
  await assertRejects(() => device.load([]), InputError, "one file of weights, not none");
  await assertRejects(() => device.load(new URL("data:,x")), InputError);
  using loaded = await device.load(file);
  await assertRejects(() => loaded.sampler({ steps: -1 }), InputError);
  const error = await assertRejects(() => loaded.sampler({ size: [40000, 40000] }), LimitError);
  assertInstanceOf(error, DeviceError);
  assert(error.wanted > error.limit);
  using sampler = await loaded.sampler({ steps: 1 });
  await assertRejects(() => sampler.sample({ labels: [17] }), InputError);
  await assertRejects(async () => {
    for await (const _ of sampler.stream({ seed: -1 }));
  }, InputError);
});

Deno.test("what is under way when a Worker ends fails", async () => {
  const device = await open(), loaded = await device.load(file);
  const sampler = await loaded.sampler({ method: "ddpm", steps: 1000 });
  const run = sampler.sample({ labels: [0], count: 64 });
  device[Symbol.dispose]();
  await assertRejects(() => run, DeviceError, "closed");
  await assertRejects(() => sampler.sample({ labels: [0] }), DeviceError, "closed");
});

Deno.test("a Worker that cannot be started is an error", async () => {
  const worker = new Worker("data:text/javascript,throw new Error('broken')", { type: "module" });
  await assertRejects(() => openWorker("cpu", { worker }), DeviceError, "broken");
});
