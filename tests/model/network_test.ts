import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { conv2d, mul, same } from "../../src/gpu/mod.ts";
import { type Dataset, idxDataset } from "../../src/data/mod.ts";
import { initializeModel, parseModel, serializeModel } from "../../src/model/model.ts";
import {
  defineNetwork,
  formatNetwork,
  parseNetwork,
  registerNetwork,
} from "../../src/model/network.ts";
import { measureBound } from "../../src/sample/likelihood.ts";
import { makeGrid } from "../../src/sample/pixels.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { Folder } from "../cli/cli.ts";

// A network that is added: one convolution.
registerNetwork(defineNetwork({
  className: "OneConvolution",
  parse: ({ channels = 1 }) => ({ channels: Number(channels) }),
  format: (config) => config,
  resize: ([, , channels]) => ({ channels }),
  build: ({ channels }) => ({
    kind: "denoiser",
    itemShape: [null, null, channels],
    outChannels: channels,
    conditions: () => ({}),
    forward: ({ parameter }, { sample }) => {
      const shape = [3, 3, channels, channels], trained = { isTrained: true } as const;
      const weight = parameter({ name: "weight", shape, order: "conv", init: "zeros", ...trained });
      const bias = { name: "bias", shape: [channels], order: "plain", init: "zeros" } as const;
      return conv2d(sample, weight, parameter({ ...bias, ...trained }), same(3));
    },
  }),
}));

Deno.test("a network that is added trains, is saved and loaded, samples and is measured", async () => {
  const data = idxDataset("ramps", {
    shape: [8, 6, 5],
    data: Uint8Array.from({ length: 240 }, (_, i) => i),
  });
  const network = parseNetwork({ _class_name: "OneConvolution" });
  assertEquals(network.layout.count, 10);
  const model = initializeModel(network, { num_train_timesteps: 20 }, 0);
  using device = await openDevice("cpu");
  const settings = parseTraining({ batch_size: 4, learning_rate: 0.05, warmup_steps: 0 });
  using trainer = await Trainer.create(device, model, data, settings);
  for (let i = 0; i < 60; i++) await trainer.run();
  const records = await trainer.records(60);
  assert(records[59].loss < 0.8 * records[0].loss, `${records[0].loss} ${records[59].loss}`);
  const trained = await trainer.model(), read = parseModel(serializeModel(trained));
  assertEquals([read.network.className, read.parameters], ["OneConvolution", trained.parameters]);
  const size = [6, 5], options = { method: "ddim", steps: 4, batchSize: 2, size } as const;
  using sampler = await Sampler.create(device, read, options);
  const images = await sampler.sample({ count: 2 });
  assertEquals(images.shape, [6, 5, 1]);
  assert((await measureBound(device, read, images)).total > 0);
});

Deno.test("a network of a class that is not known is refused, and those that are are named", () => {
  const parse = (fields: unknown) => () => parseNetwork(fields);
  const { message } = assertThrows(parse({ _class_name: "UNet3D" }), InputError);
  assertMatch(message, /class UNet3D: known are UNet2DModel.*OneConvolution/);
  assertThrows(parse([]), InputError, "no object");
  assertThrows(parse(null), InputError, "no object");
});

Deno.test("items may have other ranks than pictures", async () => {
  registerNetwork(defineNetwork({
    className: "Scale",
    parse: () => ({}),
    format: () => ({}),
    resize: () => ({}),
    build: () => ({
      kind: "denoiser",
      itemShape: [16, 2],
      outChannels: 2,
      conditions: () => ({}),
      forward: ({ parameter }, { sample }) => {
        const plain = { order: "plain", isTrained: true } as const;
        return mul(sample, parameter({ name: "scale", shape: [2], init: "ones", ...plain }));
      },
    }),
  }));
  const data: Dataset = {
    ...{ name: "waves", count: 10, shape: [16, 2] },
    read(index, out, offset) {
      for (let i = 0; i < 32; i++) out[offset + i] = Math.sin(i + index);
    },
  };
  const model = initializeModel(parseNetwork({ _class_name: "Scale" }), {}, 0);
  for (const kind of ["cpu", "gpu"] as const) {
    using device = await openDevice(kind);
    using trainer = await Trainer.create(device, model, data, parseTraining({ batch_size: 5 }));
    await trainer.run();
    assert(Number.isFinite((await trainer.records(1))[0].loss));
    const options = { steps: 3, batchSize: 2 };
    using sampler = await Sampler.create(device, await trainer.model(), options);
    const items = await sampler.sample({ count: 3 });
    assertEquals([items.count, ...items.shape, items.data.length], [3, 16, 2, 96]);
    assertThrows(() => makeGrid(items), InputError, "no pictures");
    const waves = { count: 1, shape: [16, 2], data: items.data.slice(0, 32) };
    assert(Number.isFinite((await measureBound(device, await trainer.model(), waves)).total));
  }
});

Deno.test("networks of features are of the registry, but no models, which know of noise", () => {
  const network = parseNetwork({ _class_name: "InceptionV3", _diffusers_version: "0" });
  assertEquals(formatNetwork(network), { _class_name: "InceptionV3" });
  assertEquals([network.kind, ...network.itemShape], ["feature extractor", 299, 299, 3]);
  assertThrows(
    () => parseNetwork({ _class_name: "InceptionV3", channels: 3 }),
    InputError,
    "channels",
  );
  assertThrows(
    () => initializeModel(network, {}, 0),
    InputError,
    "class InceptionV3: it is a feature extractor, which knows nothing of noise",
  );
});

Deno.test("a file of a network that is not known says so", async () => {
  await using folder = await Folder.make();
  const network = parseNetwork({ _class_name: "OneConvolution" });
  await folder.write("one.safetensors", serializeModel(initializeModel(network, {}, 0)));
  const { code, stderr } = await folder.run("info", "one.safetensors");
  assertEquals(code, 2);
  assertMatch(stderr, /class OneConvolution: known are UNet2DModel/);
});
