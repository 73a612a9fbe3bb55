import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { arrayPictures } from "../../src/data/datasets/array.ts";
import { tensorPictures } from "../../src/data/datasets/array_files.ts";
import { pictureDataset } from "../../src/data/pictures.ts";
import { InputError } from "../../src/errors.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { DeviceError, LimitError } from "../../src/gpu/device.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { initializeModel, parseModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { openWorker, type WorkerTrainer } from "../../src/worker/mod.ts";
import { Folder } from "../cli/cli.ts";

const layout = { count: 6, height: 8, width: 8, channels: 1 } as const;
const data = Uint8Array.from({ length: 6 * 64 }, (_, i) => 127 + 120 * Math.sin(i / 9));
const labels = [0, 1, 2, 0, 1, 2], classes = ["cat", "dog", "bird"];
const pictures = { name: "waves", ...layout, data, labels, classes };
const network = {
  ...{ block_out_channels: [8], norm_num_groups: 4, layers_per_block: 1, num_class_embeds: 4 },
  ...{ down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] },
};
const training = {
  ...{ batch_size: 4, learning_rate: 2e-3, warmup_steps: 2, label_dropout: 0.2, seed: 5 },
};
const options = { network, training, images: { flip: true, shift: 1 } };

/** The tensors of a file, as bytes. */
const tensorsOf = (file: Uint8Array<ArrayBuffer>) =>
  Object.fromEntries(
    [...readSafetensors(file).tensors].map(([name, { bytes }]) => [name, bytes.slice()]),
  );

/** Losses of so many steps. */
async function losses(trainer: WorkerTrainer, steps: number): Promise<number[]> {
  const all: number[] = [];
  await trainer.run({ steps, onSteps: (records) => void all.push(...records.map((r) => r.loss)) });
  return all;
}

Deno.test("a training in a Worker is that of the thread itself, and so is what it paints", async () => {
  using here = await openDevice("cpu", { threads: 1 });
  const sizes = { in_channels: 1, out_channels: 1, sample_size: [8, 8] };
  const model = initializeModel(parseNetwork({ ...sizes, ...network }), {}, 5, classes);
  const preparation = { ...layout, background: [255, 255, 255], crop: "center" } as const;
  const set = pictureDataset(arrayPictures("waves", layout, data, { labels, classes }), {
    ...preparation,
    ...{ flip: true, shift: 1 },
  });
  using expected = await Trainer.create(here, model, set, parseTraining(training));
  for (let step = 0; step < 5; step++) await expected.run();

  using device = await openWorker("cpu", { threads: 1 });
  using trainer = await device.trainer(pictures, options);
  assertEquals(trainer.parameters, model.network.layout.count);
  const told = await losses(trainer, 5);
  assertEquals(told, (await expected.records(5)).map(({ loss }) => loss));
  assertEquals([new Set(told).size, trainer.step], [5, 5]);

  const trained = parseModel(await trainer.model());
  assertEquals(trained.parameters, (await expected.model()).parameters);
  assertEquals([trained.classes, trained.card.data, trained.card.steps], [classes, "waves", "5"]);
  using wanted = await Sampler.create(here, model, { steps: 2, parameters: expected.average });
  using sampler = await trainer.sampler({ steps: 2 });
  const run = { count: 2, seed: 3, labels: [0, 1] };
  const painted = await sampler.sample(run);
  assertEquals(painted, await wanted.sample(run));
  // The sampler follows the training.
  await trainer.run({ steps: 1 });
  assertNotEquals(await sampler.sample(run), painted);
});

Deno.test("a training that was saved in a Worker goes on in another one as if it had not stopped", async () => {
  using device = await openWorker("cpu", { threads: 1 });
  using trainer = await device.trainer(pictures, options);
  await trainer.run({ steps: 3 });
  const file = new File([await trainer.save()], "waves.safetensors");
  const before = await losses(trainer, 3), saved = await trainer.save();

  using other = await openWorker("cpu", { threads: 1 });
  using resumed = await other.resume(file);
  const { labels: numbers, ...rest } = resumed.pictures, { labels: known, ...wanted } = pictures;
  assertEquals([resumed.step, Array.from(numbers!), rest], [3, known, wanted]);
  assertEquals(await losses(resumed, 3), before);
  assertEquals(await resumed.save(), saved);
});

Deno.test("a training that was saved in a Worker goes on in the command line, bit by bit", async () => {
  await using folder = await Folder.make();
  using device = await openWorker("cpu");
  using trainer = await device.trainer(pictures, options);
  await trainer.run({ steps: 3 });
  await folder.write("waves.safetensors", await trainer.save());
  await trainer.run({ steps: 4 });
  const { images, labels: _, ...wanted } = tensorsOf(await trainer.save());
  assertEquals(images, data);
  const resume = ["train", "--resume", "--out", "run", "--device", "cpu", "--steps"];
  const told = await folder.run(...resume, "5", "--data", "waves.safetensors");
  assertEquals(told.code, 0, told.stderr);
  assert(/resuming +after step 3/.test(told.stderr), told.stderr);
  // The folder goes on by itself from there on.
  await folder.succeed(...resume, "7");
  assertEquals(tensorsOf(await Deno.readFile(folder.at("run/state.safetensors"))), wanted);
  const model = parseModel(await Deno.readFile(folder.at("run/model.safetensors")));
  assertEquals(model.parameters, parseModel(await trainer.model()).parameters);
  assertEquals(model.classes, classes);

  // There is no training in a file of pictures, and none in half of one.
  const again = ["train", "--resume", "--out", "other", "--data"];
  const file = await Deno.readFile(folder.at("waves.safetensors"));
  await folder.write("half.safetensors", file.map((byte, i) => i === file.length - 9 ? 1 : byte));
  const cases = {
    "half.safetensors": "half.safetensors is damaged, its checksum does not match",
    "run/model.safetensors": "other holds no training",
    "nothing": "other holds no training",
  };
  for (const [name, why] of Object.entries(cases)) {
    const { code, stderr } = await folder.run(...again, name);
    assertEquals(code, 2, stderr);
    assert(stderr.includes(why), stderr);
  }
});

Deno.test("a training in a Worker is stopped by its signal, and takes turns with samplers", async () => {
  using device = await openWorker("cpu", { threads: 1 });
  using trainer = await device.trainer(pictures, options);
  using sampler = await trainer.sampler({ steps: 2 });
  const stop = new AbortController();
  let painted = 0;
  const done = await trainer.run({
    signal: stop.signal,
    async onSteps() {
      // The Worker waits for this, and paints meanwhile.
      painted += (await sampler.sample({ count: 1, labels: [0] })).count;
      if (painted === 2) stop.abort();
    },
  });
  assertEquals([painted, trainer.step], [2, done]);
  const running = trainer.run(), sampling = sampler.sample({ count: 1, labels: [1] });
  assertEquals((await sampling).count, 1);
  device[Symbol.dispose]();
  await assertRejects(() => running, DeviceError, "closed");
});

Deno.test("what cannot be trained in a Worker is told in words", async () => {
  using device = await openWorker("cpu", { threads: 1 });
  const refused = (change: object, settings: object, why: string) =>
    assertRejects(
      () => device.trainer({ ...pictures, ...change }, { ...options, ...settings }),
      InputError,
      why,
    );
  await refused({ count: 0 }, {}, "waves: it has 0 images");
  await refused({ count: 7, labels: [0, 1, 2, 0, 1, 2, 0] }, {}, "waves: 7 images need");
  await refused({}, { training: { batch: 3 } }, "batch");
  await refused({}, { network: { ...network, in_channels: 3 } }, "channels");
  const wide = { ...network, block_out_channels: [256] };
  const huge = { network: wide, training: { batch_size: 60_000 } };
  await assertRejects(() => device.trainer(pictures, { ...options, ...huge }), LimitError);
  using trainer = await device.trainer(pictures, {
    ...options,
    training: { batch_size: 4, learning_rate: 1e9, warmup_steps: 0 },
  });
  const error = await assertRejects(() => trainer.run({ steps: 50 }), InputError);
  assert(
    /^The loss is .* at step \d+.*: try a lower learning_rate$/.test(error.message),
    error.message,
  );
  const model = new File([await trainer.model()], "model.safetensors");
  await assertRejects(() => device.resume(model), InputError, "no training that a page saved");
  await assertRejects(() => device.resume(new Blob(["junk"])), InputError, "safetensors");
  using good = await device.trainer(pictures, options);
  const file = await good.save();
  assertEquals(tensorPictures(file, "waves").classes, classes);
  file[file.length - 1] ^= 1;
  await assertRejects(() => device.resume(new Blob([file])), InputError, "checksum");
});
