import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Dataset } from "../../src/data/dataset.ts";
import { InputError } from "../../src/errors.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { initializeModel } from "../../src/model/model.ts";
import type { DenoisingNetwork } from "../../src/model/network.ts";
import { ConditionFeed } from "../../src/train/condition_feed.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { tinyNetwork } from "../networks.ts";

/** A network that is told the first three letters of a caption. */
const network: DenoisingNetwork = {
  ...tinyNetwork({ sample_size: 4 }),
  conditions: () => ({ tokens: { shape: [3], dtype: "i32", below: 27, none: 26 } }),
  tokenize: (caption) => Int32Array.from([..."abc"], (_, i) => caption.charCodeAt(i) - 97),
};

const data: Dataset = {
  ...{ name: "animals", count: 2, shape: [4, 4, 1], captions: [["cat", "kit", "tom"], ["dog"]] },
  read: (_, out, offset) => void out.fill(0, offset, offset + 16),
};

const word = (row: readonly number[]) => String.fromCharCode(...row.map((t) => 97 + t));

/** What a network is told of 64 images at a step, of which every other one is a cat. */
async function told(labelDropout: number, step?: number): Promise<string[]> {
  using device = new ReferenceDevice();
  using tokens = device.buffer(3 * 64, "i32");
  const feed = new ConditionFeed(network, data, parseTraining({ label_dropout: labelDropout }));
  const batch = {
    ...{ images: new Float32Array(64 * 16), labels: new Int32Array(64) },
    indices: Uint32Array.from({ length: 64 }, (_, i) => i % 2),
  };
  feed.write({ tokens }, batch, step === undefined ? undefined : { step, first: 0 });
  const all = Array.from(await tokens.read());
  return Array.from({ length: 64 }, (_, i) => word(all.slice(3 * i, 3 * i + 3)));
}

Deno.test("training says one of an image's captions at a time", async () => {
  const words = await told(0, 5);
  assertEquals([...new Set(words.filter((_, i) => i % 2 === 0))].sort(), ["cat", "kit", "tom"]);
  assertEquals([...new Set(words.filter((_, i) => i % 2 === 1))], ["dog"]);
  assertEquals(await told(0, 5), words);
  assert((await told(0, 6)).join() !== words.join());
});

Deno.test("captions are dropped as often as asked, and never in an evaluation", async () => {
  const dropped = (await told(0.25, 1)).filter((word) => word === "{{{").length;
  assert(dropped > 6 && dropped < 28, String(dropped));
  assertEquals([...new Set(await told(0.25))], ["cat", "dog"]);
});

Deno.test("a network that is told captions is trained on none without", async () => {
  using device = new ReferenceDevice();
  const { captions: _, ...silent } = data, model = { ...initializeModel(network, {}, 0), network };
  const refused = async (data: Dataset, message: string) =>
    await assertRejects(
      () => Trainer.create(device, model, data, parseTraining({ batch_size: 2 })),
      InputError,
      message,
    );
  await refused(silent, "the network is told captions, but animals has none");
  await refused({ ...data, captions: [["cat"], []] }, "image 1 of animals has no caption");
});
