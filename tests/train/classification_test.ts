import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { initializeModel } from "../../src/model/model.ts";
import type { Dataset } from "../../src/data/dataset.ts";
import { parseTraining } from "../../src/train/config.ts";
import type { TrainableNetwork } from "../../src/model/network.ts";
import { readRecords } from "../../src/train/records.ts";
import { HISTORY, RANGES, ROW } from "../../src/train/step.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { devices, openCpuAs, openGpu } from "../device.ts";
import { smallClassifier, smallNetwork } from "../networks.ts";

/** Pictures that are bright above, at the left, or everywhere. */
const parts: Dataset = {
  ...{ name: "parts", count: 3, shape: [8, 8, 1], labels: [0, 1, 2] },
  read(index, out, offset) {
    for (let i = 0; i < 64; i++) {
      out[offset + i] = [i < 32, i % 8 < 4, true][index] ? 1 : -1;
    }
  },
};

const create = (device: Device, data: Dataset, fields: Record<string, unknown> = {}) =>
  Trainer.create(
    device,
    initializeModel(smallClassifier(), {}, 0, ["top", "left", "all"]),
    data,
    parseTraining({ objective: "classifier", batch_size: 12, warmup_steps: 5, ...fields }),
  );

async function run(trainer: Trainer, steps: number) {
  for (let i = 0; i < steps; i++) await trainer.run();
  return await trainer.records(steps);
}

Deno.test("a classifier learns the classes of noised images, the less noise the better", async () => {
  using device = await openCpuAs(2, {});
  using trainer = await create(device, parts, { learning_rate: 0.01, held_out: 0.34 });
  const records = await run(trainer, 150);
  const rightOf = (steps: typeof records, q: number) => {
    const all = steps.map(({ quartiles }) => quartiles[q]);
    const total = (field: "count" | "correct") => all.reduce((sum, x) => sum + x[field]!, 0);
    return total("correct") / total("count");
  };
  for (const { loss, quartiles } of records) {
    assertEquals(quartiles.reduce((sum, { count }) => sum + count, 0), 12);
    const sum = quartiles.reduce((sum, q) => sum + q.sum, 0);
    assertAlmostEquals(sum / 12, loss, 1e-4 * Math.max(1, loss));
    for (const { count, correct } of quartiles) assert(correct! >= 0 && correct! <= count);
  }
  assertAlmostEquals(records[0].loss, Math.log(3), 0.5);
  const last = records.slice(-50);
  assert(rightOf(last, 0) > 0.95, `${rightOf(last, 0)} of the least noise`);
  const noisiest = rightOf(last, 3);
  assert(noisiest < 0.9, `${noisiest} of nothing but noise`);
  // Two of the pictures are learnt from, of which the held out one is neither.
  assert(await trainer.evaluate() > records[149].loss);
  const model = await trainer.model({ data: "parts" });
  assertEquals([model.network.kind, model.classes], ["classifier", ["top", "left", "all"]]);
});

Deno.test("all devices train a classifier alike", async () => {
  const losses: number[][] = [];
  for (const open of Object.values(devices)) {
    using device = await open();
    using trainer = await create(device, parts, { learning_rate: 0.001 });
    const records = await run(trainer, 4);
    losses.push(records.flatMap(({ loss, gradientNorm }) => [loss, gradientNorm]));
  }
  for (const other of losses) assertClose(other, losses[0], 1e-3);
});

for (const [kind, open] of [["GPU", openGpu], ["CPU", () => openCpuAs(2, {})]] as const) {
  Deno.test(`parts of a batch teach a classifier what the whole does, on the ${kind}`, async () => {
    using device = await open();
    const of = async (fields: Record<string, unknown>) => {
      using trainer = await create(device, parts, fields);
      return (await run(trainer, 3)).map((
        { loss, gradientNorm, quartiles },
      ) => [loss, gradientNorm, ...quartiles.flatMap((q) => [q.sum, q.count, q.correct!])]);
    };
    const whole = await of({}), inParts = await of({ micro_batch: 4 });
    whole.forEach((row, i) => assertClose(inParts[i], row, 1e-4, `step ${i}`));
    using trainer = await create(device, parts, { micro_batch: 4 });
    const model = initializeModel(smallClassifier(), {}, 0);
    const plan = Trainer.plan(device, model, parts, trainer.config);
    assert(Math.abs(plan.bytes - trainer.memory) < 64, `${plan.bytes} of ${trainer.memory}`);
  });
}

Deno.test("rows of the history are read as those of the network that is trained", () => {
  const read = (width: number, kind: TrainableNetwork["kind"] = "denoiser") => {
    const history = new Float32Array(width * HISTORY).map((_, i) => i % width + 1);
    return readRecords(history, { kind }, 2, 1)[0];
  };
  const ofClassifier = (width: number) => read(width, "classifier");
  const plain = [3, 4, 5, 6].map((sum, q) => ({ sum, count: 7 + q }));
  const withRight = plain.map((quartile, q) => ({ ...quartile, correct: 11 + q }));
  assertEquals(read(ROW).quartiles, plain);
  assertEquals(read(ROW).lossScale, 1);
  assertEquals([read(ROW + 1).quartiles, read(ROW + 1).lossScale], [plain, 11]);
  const right = ofClassifier(ROW + RANGES), both = ofClassifier(ROW + RANGES + 1);
  assertEquals([right.quartiles, right.lossScale], [withRight, 1]);
  assertEquals([both.quartiles, both.lossScale], [withRight, 15]);
  const { quartiles, accuracy, lossScale } = read(4, "dual encoder");
  assertEquals([quartiles, accuracy, lossScale], [[], 3, 4]);
});

Deno.test("a classifier is not trained without classes, nor by what is for denoisers", async () => {
  using device = await openCpuAs(1, {});
  const refuse = async (promise: Promise<unknown>, message: string) => {
    assertEquals((await assertRejects(() => promise, InputError)).message, message);
  };
  const { labels: _, ...unlabeled } = parts;
  await refuse(create(device, unlabeled), "Cannot train a classifier: parts has no labels");
  await refuse(
    create(device, { ...parts, labels: [0, 1, 3] }),
    "Cannot train: parts has the label 3, but the network has classes 0 to 2",
  );
  await refuse(
    create(device, parts, { objective: "mse" }),
    "Cannot train a UNet2DClassifier by mse: the objective of classifiers is classifier",
  );
  const settings = parseTraining({ objective: "classifier" });
  await refuse(
    Trainer.create(device, initializeModel(smallNetwork(), {}, 0), parts, settings),
    "Cannot train a UNet2DModel by classifier: it is a denoiser",
  );
  for (const fields of [{ loss_weighting: "min_snr" }, { label_dropout: 0.1 }]) {
    await assertRejects(async () => await create(device, parts, fields), InputError);
  }
});
