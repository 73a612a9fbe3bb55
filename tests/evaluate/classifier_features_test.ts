import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Dataset } from "../../src/data/dataset.ts";
import { InputError } from "../../src/errors.ts";
import { classifierFeatures } from "../../src/evaluate/classifier_features.ts";
import { toLevels } from "../../src/evaluate/feature_extractor.ts";
import { initializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { fetchFeatures } from "../../src/model/pretrained.ts";
import { shippedFeatures } from "../../src/model/shipped.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { devices, openCpuAs } from "../device.ts";
import { randomModel, smallClassifier, smallNetwork } from "../networks.ts";
import { Random } from "../random.ts";

const network = parseNetwork({
  ...{ _class_name: "FeatureClassifier", sample_size: 8, num_classes: 3 },
  ...{ block_out_channels: [4, 8], feature_size: 6 },
});

/** Pictures of noise. */
function pictures(count: number) {
  const random = new Random("pictures");
  const data = Float32Array.from({ length: 64 * count }, () => random.between(-1, 1));
  return { count, shape: [8, 8, 1], data };
}

Deno.test("features do not depend on the batch or the device", async () => {
  const model = randomModel(network), images = pictures(7);
  let expected: Float32Array | undefined;
  for (const open of Object.values(devices)) {
    using device = await open();
    for (const batchSize of [3, 7]) {
      using extractor = await classifierFeatures(device, model, { batchSize });
      const { features, logits } = await extractor.extract(images);
      assertEquals([features.length, logits!.length], [7 * extractor.width, 7 * 3]);
      expected ??= features;
      assertClose(features, expected, 1e-5);
    }
  }
  assert(expected!.some((x) => x > 0.1));
});

Deno.test("pictures are seen as files have them, in 256 levels", async () => {
  assertEquals([...toLevels(Float32Array.of(-2, -1, 0.999, 1, 7))], [-1, -1, 1, 1, 1]);
  const images = pictures(2), rounded = { ...images, data: toLevels(images.data) };
  assert(images.data.some((x, i) => x !== rounded.data[i]));
  assertEquals(toLevels(rounded.data), rounded.data);
  using device = await openCpuAs(1, {});
  using extractor = await classifierFeatures(device, randomModel(network));
  assertEquals(await extractor.extract(images), await extractor.extract(rounded));
});

Deno.test("calls at the same time take turns, and a signal ends one", async () => {
  using device = await openCpuAs(2, {});
  using extractor = await classifierFeatures(device, randomModel(network), { batchSize: 2 });
  const images = pictures(5), alone = await extractor.extract(images);
  const other = { ...images, data: images.data.map((x) => -x) };
  const [a, , b] = await Promise.all([images, other, images].map((x) => extractor.extract(x)));
  assertEquals([a, b], [alone, alone]);
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => extractor.extract(images, signal), Error, "enough");
});

Deno.test("a classifier of clean images learns as others do", async () => {
  /** Pictures that are bright above, at the left, or everywhere. */
  const parts: Dataset = {
    ...{ name: "parts", count: 3, shape: [8, 8, 1], labels: [0, 1, 2] },
    read(index, out, offset) {
      for (let i = 0; i < 64; i++) out[offset + i] = [i < 32, i % 8 < 4, true][index] ? 1 : -1;
    },
  };
  const settings = parseTraining({
    ...{ objective: "classifier", batch_size: 6, warmup_steps: 2, learning_rate: 0.01 },
    held_out: 0.34,
  });
  using device = await openCpuAs(2, {});
  const model = initializeModel(network, {}, 0, ["top", "left", "all"]);
  using trainer = await Trainer.create(device, model, { ...parts }, {
    ...{ ...settings, heldOut: 0 },
  });
  for (let i = 0; i < 60; i++) await trainer.run();
  const records = await trainer.records(60);
  assert(records[59].loss < 0.05, `${records[0].loss} became ${records[59].loss}`);
  using extractor = await classifierFeatures(device, await trainer.model({}));
  const images = { count: 3, shape: [8, 8, 1], data: new Float32Array(192) };
  for (let i = 0; i < 3; i++) parts.read(i, images.data, 64 * i);
  const { logits } = await extractor.extract(images);
  for (let i = 0; i < 3; i++) {
    const own = logits!.subarray(3 * i, 3 * i + 3);
    assertEquals(own.indexOf(Math.max(...own)), i);
  }
  using held = await Trainer.create(device, model, parts, settings);
  await held.run();
  assert(await held.evaluate() > 0);
});

Deno.test("models that see no features, and other pictures, are refused", async () => {
  using device = await openCpuAs(1, {});
  await assertRejects(
    () => classifierFeatures(device, randomModel(smallClassifier())),
    InputError,
    "Cannot take features of a UNet2DClassifier: it is for noisy images",
  );
  await assertRejects(
    () => classifierFeatures(device, randomModel(smallNetwork())),
    InputError,
    "tells no classes apart",
  );
  using extractor = await classifierFeatures(device, randomModel(network), { name: "digits" });
  const { data } = pictures(1);
  await assertRejects(
    () => extractor.extract({ count: 1, shape: [4, 16, 1], data }),
    InputError,
    "Cannot take features digits of pictures of [4, 16, 1]: they are for [8, 8, 1]",
  );
  await assertRejects(
    () => extractor.extract({ count: 1, shape: [8, 8, 1], data: data.fill(NaN) }),
    InputError,
    "not finite",
  );
});

Deno.test("classifiers that come with the package are small", async () => {
  for (const name of shippedFeatures) {
    const file = new URL(`../../data/${name}-features.safetensors`, import.meta.url);
    assert((await Deno.stat(file)).size < 200_000);
    const model = await fetchFeatures(name);
    const classes = name === "emoji" ? 9 : 10;
    assertEquals([model.network.kind, model.classes?.length], ["classifier", classes]);
  }
});
