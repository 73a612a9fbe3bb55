import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { dualEncoderFeatures } from "../../src/evaluate/dual_encoder_features.ts";
import { fetchDualEncoder } from "../../src/model/pretrained.ts";
import { shippedDualEncoders } from "../../src/model/shipped.ts";
import { initializeNetwork } from "../../src/model/weights.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { tinyDualNetwork } from "../dual_encoders.ts";
import { Random } from "../random.ts";

const random = new Random("pictures");
const images = {
  ...{ count: 5, shape: [5, 6, 2] },
  data: Float32Array.from({ length: 300 }, () => random.between(-1, 1)),
};
const texts = ["red heart", "", "cat", "élan", "dog"];
const model = { ...initializeNetwork(tinyDualNetwork(), 3), card: {} };

Deno.test("embeddings do not depend on the batch or the device, and have the length 1", async () => {
  let expected: readonly Float32Array[] | undefined;
  for (const open of [openGpu, () => openCpuAs(1, {}), () => openCpuAs(2, { pair: 2 })]) {
    using device = await open();
    for (const batchSize of [2, 5]) {
      using extractor = await dualEncoderFeatures(device, model, { batchSize });
      const { features, logits } = await extractor.extract(images);
      const found = [features, await extractor.extractTexts(texts)];
      assertEquals([extractor.width, extractor.shape, logits], [4, [5, 6, 2], undefined]);
      expected ??= found;
      found.forEach((values, i) => assertClose(values, expected![i], 1e-5));
    }
  }
  for (const rows of expected!) {
    assertEquals(rows.length, 20);
    for (let i = 0; i < 5; i++) {
      assertClose([Math.hypot(...rows.subarray(4 * i, 4 * i + 4))], [1], 1e-5);
    }
  }
});

Deno.test("other pictures are refused, calls take turns, and a signal ends one", async () => {
  using device = await openCpuAs(1, {});
  using extractor = await dualEncoderFeatures(device, model, { batchSize: 2, name: "judge" });
  await assertRejects(
    () => extractor.extract({ ...images, shape: [6, 5, 2] }),
    InputError,
    "Cannot take features judge of pictures of [6, 5, 2]",
  );
  const reversed = texts.toReversed();
  const [alone, , again] = await Promise.all(
    [texts, reversed, texts].map((some) => extractor.extractTexts(some)),
  );
  assertEquals(again, alone);
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => extractor.extractTexts(texts, signal), Error, "enough");
});

Deno.test("dual encoders that come with the package are small", async () => {
  for (const name of shippedDualEncoders) {
    const file = new URL(`../../data/${name}-dual-encoder.safetensors`, import.meta.url);
    assert((await Deno.stat(file)).size < 1_000_000);
    const { network, card } = await fetchDualEncoder(name);
    assertEquals([network.itemShape, card.data], [[32, 32, 3], "emoji-all"]);
  }
});
