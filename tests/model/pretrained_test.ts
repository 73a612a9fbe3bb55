import { assert, assertEquals, assertRejects } from "@std/assert";
import { openDataset } from "../../src/cli/data/data.ts";
import { parseImages } from "../../src/data/image_options.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { InputError } from "../../src/errors.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { flatten } from "../../src/model/parameters.ts";
import { fetchModel } from "../../src/model/pretrained.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { tinyNetwork } from "../networks.ts";

/** An address under which bytes can be fetched without a network. */
const serve = (bytes: Uint8Array<ArrayBuffer>) => new URL(URL.createObjectURL(new Blob([bytes])));

Deno.test("fetchModel() loads a model from any address", async () => {
  const model = initializeModel(tinyNetwork(), {}, 1), url = serve(serializeModel(model));
  const { network, parameters } = await fetchModel(url);
  assertEquals(flatten(network.layout, parameters), model.parameters);
  URL.revokeObjectURL(url.href);
});

Deno.test("fetchModel() refuses what is no model, and says where it came from", async () => {
  const url = serve(new Uint8Array(100));
  await assertRejects(() => fetchModel(url), InputError, url.href);
  URL.revokeObjectURL(url.href);
});

Deno.test("fetchModel() fails where there is nothing", async () => {
  await assertRejects(
    () => fetchModel(new URL("./nothing", import.meta.url)),
    TypeError,
    "nothing",
  );
});

Deno.test("the model that comes along predicts the noise on MNIST's digits", async () => {
  const model = await fetchModel("mnist-unconditional"),
    data = await openDataset("mnist", parseImages({}), new Progress());
  using device = await WasmDevice.open();
  // Too slow to learn: a way to ask for the loss.
  const settings = parseTraining({ batch_size: 64, learning_rate: 1e-12, seed: 5 });
  using trainer = await Trainer.create(device, model, data, settings);
  for (let step = 0; step < 6; step++) await trainer.run();
  const losses = (await trainer.records(6)).map((r) => r.loss);
  const mean = losses.reduce((sum, loss) => sum + loss) / losses.length;
  assert(mean > 0.015 && mean < 0.03, `the loss is ${mean}`);
});
