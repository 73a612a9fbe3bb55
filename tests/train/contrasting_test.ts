import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Dataset } from "../../src/data/dataset.ts";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { mul } from "../../src/gpu/ops/map.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { dualEncoderFeatures } from "../../src/evaluate/dual_encoder_features.ts";
import { retrieveTexts } from "../../src/evaluate/retrieval.ts";
import { initializeModel } from "../../src/model/model.ts";
import { viewParameters } from "../../src/model/parameters.ts";
import { initializeNetwork } from "../../src/model/weights.ts";
import { parseTraining } from "../../src/train/config.ts";
import { contrasting, contrastiveLoss } from "../../src/train/contrasting.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { tinyDualNetwork } from "../dual_encoders.ts";
import { tinyNetwork } from "../networks.ts";
import { Random } from "../random.ts";

Deno.test("loss, right answers and gradient are those of PyTorch, whatever is said twice", () => {
  const n = 5, logits = input("logits", [n, n]);
  const values = Float64Array.from({ length: n * n }, (_, k) => {
    const i = Math.floor(k / n), j = k % n;
    return 3 * Math.sin(5 * i + 7 * j) + (i === j && i % 2 === 0 ? 4 : 0);
  });
  const said = Array.from({ length: n * n }, (_, k) => Number(k % (n + 1) === 0));
  for (const [i, j] of [[0, 3], [3, 0], [2, 1]]) said[n * i + j] = 1;
  const { losses, correct } = contrastiveLoss(logits, constant(said, [n, n]));
  const [gradient] = grad(sum(mul(losses, constant([1, 2, 3, 4, 5]))), [logits]);
  const found = interpret(makeGraph({ losses, correct, gradient }), { logits: values });
  // By cross_entropy, rows and columns, of logits with -inf where something else is said as well.
  assertClose(found.losses, [0.33928645, 4.96729089, 1.3513649, 4.27523773, 1.90296278], 1e-8);
  assertEquals([...found.correct], [1, 0, 1, 0, 0]);
  assertClose(found.gradient, [
    ...[-0.28507093, 0.31929765, 1.10207657, 0, 0.19947824],
    ...[0.00217383, -1.98600563, 0.1284652, 2.13098378, 2.28923932],
    ...[0.04627373, 0, -1.98962593, 0.12330088, 0.7592454],
    ...[0, 1.60324685, 0.22648337, -3.90851818, 0.13940702],
    ...[0.98790914, 1.67855111, 0.52427055, 0.1500941, -4.24127605],
  ], 1e-8);
});

Deno.test("gradients of all parameters are central differences", () => {
  const network = tinyDualNetwork(), { layout } = network, random = new Random("contrast");
  const parameters = input("parameters", [layout.size]);
  const texts = {
    tokens: constant(
      Int32Array.from([..."abc", ..."de"].flatMap((c) => [...network.tokenize(c)])),
      [
        ...[5, 6],
      ],
    ),
    said: constant(Array.from({ length: 25 }, (_, k) => Number(k % 6 === 0 || k === 7)), [5, 5]),
  };
  const images = constant(Array.from({ length: 300 }, () => random.between(-1, 1)), [5, 5, 6, 2]);
  const parameter = viewParameters(layout, [parameters]);
  const loss = sum(contrasting(network, parameter, { images }, texts).losses);
  const start = initializeNetwork(network, 0).parameters as Float32Array;
  const data = { parameters: Float64Array.from(start, (x) => x + random.between(-0.3, 0.3)) };
  const [gradient] = grad(loss, [parameters]);
  const actual = interpret(makeGraph({ gradient }), data).gradient;
  const graph = makeGraph({ loss }), step = 1e-5;
  layout.specs.forEach(({ name }, i) => {
    const at = layout.offsets[i] + (name.endsWith("token_embedding.weight") ? 8 * 97 : 0);
    const [above, below] = [step, -step].map((d) => {
      const moved = data.parameters.slice();
      moved[at] += d;
      return interpret(graph, { parameters: moved }).loss[0];
    });
    assertClose([actual[at], 1], [(above - below) / (2 * step), 1], 1e-6, name);
  });
});

/** Four pictures, of two kinds, each with a name. */
const quarters: Dataset = {
  ...{ name: "quarters", count: 4, shape: [5, 6, 2] },
  captions: ["a", "b", "c", "d"].map((name, i) => [name, i < 2 ? "up" : "down"]),
  read(index, out, offset) {
    for (let i = 0; i < 30; i++) {
      const isThere = (i < 15) === index < 2 && (i % 6 < 3) === (index % 2 === 0);
      for (let c = 0; c < 2; c++) out[offset + 2 * i + c] = isThere ? 1 - c : -1;
    }
  },
};

const create = (device: Device, data: Dataset = quarters, fields: object = {}) =>
  Trainer.create(
    device,
    { ...initializeNetwork(tinyDualNetwork(), 0), card: {} },
    data,
    parseTraining({
      ...{ objective: "contrastive", batch_size: 8, learning_rate: 0.02, warmup_steps: 5 },
      ...{ ema_decay: 0.9, ...fields },
    }),
  );

Deno.test("pictures and their texts find each other, though names and kinds are said by turns", async () => {
  using device = await openCpuAs(1, {});
  using trainer = await create(device, quarters, { held_out: 0.5 });
  // The same pictures, all of which are learnt.
  using whole = await create(device);
  for (let i = 0; i < 150; i++) await whole.run();
  const records = await whole.records(150), [first, last] = [records[0], records.at(-1)!];
  assertEquals(first.quartiles, []);
  assert(first.accuracy! < 1 && last.accuracy === 1, `${first.accuracy} became ${last.accuracy}`);
  assert(last.loss < 0.1, `${first.loss} became ${last.loss}`);
  await trainer.run();
  assert(await trainer.evaluate() > 0);

  using extractor = await dualEncoderFeatures(device, await whole.model());
  const captions = ["a", "b", "c", "d"], pictures = new Float32Array(4 * 60);
  for (let i = 0; i < 4; i++) quarters.read(i, pictures, 60 * i);
  const { features } = await extractor.extract({ count: 4, shape: quarters.shape, data: pictures });
  const rows = (data: Float32Array<ArrayBuffer>) => ({
    rows: { count: 4, width: 4, data },
    captions,
  });
  const found = await retrieveTexts(rows(features), rows(await extractor.extractTexts(captions)));
  assertEquals([found.imageToText.recallAt1, found.textToImage.recallAt1], [1, 1]);
});

Deno.test("all devices train a dual encoder alike", async () => {
  const found: number[][] = [];
  for (const open of [openGpu, () => openCpuAs(1, {}), () => openCpuAs(2, { pair: 2 })]) {
    using device = await open();
    using trainer = await create(device, quarters, { learning_rate: 0.001 });
    for (let i = 0; i < 3; i++) await trainer.run();
    const records = await trainer.records(3);
    found.push(records.flatMap(({ loss, gradientNorm }) => [loss, gradientNorm]));
  }
  for (const other of found) assertClose(other, found[0], 1e-3);
});

Deno.test("a dual encoder is not trained without captions, nor by what is for others", async () => {
  using device = await openCpuAs(1, {});
  const refuse = async (promise: Promise<unknown>, message: string) => {
    assertEquals((await assertRejects(() => promise, InputError)).message, message);
  };
  const { captions: _, ...silent } = quarters;
  await refuse(
    create(device, silent),
    "Cannot train: the network is told captions, but quarters has none",
  );
  await refuse(
    create(device, { ...quarters, captions: [["a"], [], ["c"], ["d"]] }),
    "Cannot train: image 1 of quarters has no caption",
  );
  await refuse(
    create(device, quarters, { objective: "mse" }),
    "Cannot train a DualEncoder by mse: the objective of dual encoders is contrastive",
  );
  const settings = parseTraining({ objective: "contrastive" });
  await refuse(
    Trainer.create(device, initializeModel(tinyNetwork(), {}, 0), quarters, settings),
    "Cannot train a UNet2DModel by contrastive: it is a denoiser",
  );
  await assertRejects(
    () => create(device, { ...quarters, shape: [6, 5, 2] }),
    InputError,
    "not of",
  );
  for (
    const [fields, message] of [
      [{ micro_batch: 4 }, "compares the images of a batch"],
      [{ batch_size: 1 }, "compares the images of a batch"],
      [{ label_dropout: 0.1 }, "objectives classifier, autoencoder and contrastive"],
      [{ loss_weighting: "min_snr" }, "dual encoders see none"],
      [{ timestep_sampling: "log_normal" }, "which know no timesteps"],
    ] as const
  ) {
    assertThrows(
      () => parseTraining({ objective: "contrastive", batch_size: 8, ...fields }),
      InputError,
      message,
    );
  }
});
