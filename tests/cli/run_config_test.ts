import { assert, assertEquals, assertMatch } from "@std/assert";
import { z } from "zod";
import { configSchema, presets, readRunFields } from "../../src/cli/run/run_config.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { parseSchedule } from "../../src/diffusion/schedule.ts";
import { parseTraining } from "../../src/train/config.ts";
import { paperConfigs } from "../networks.ts";
import { Folder } from "./cli.ts";
import { makeFolder, train } from "./training.ts";

Deno.test("presets are whole, and their networks are of the size they should be", async () => {
  const counts: Record<string, number> = {};
  for (const name of Object.keys(presets)) {
    const { data, steps, network, scheduler, training } = await readRunFields(name);
    assert(data && steps && network && training, name);
    parseSchedule(scheduler ?? {});
    parseTraining(training);
    const isJudge = ["classifier", "contrastive"].includes(String(training.objective));
    const out = isJudge ? {} : { out_channels: 1 };
    counts[name] = parseNetwork({ in_channels: 1, ...out, ...network }).layout.count;
  }
  const denoisers = ["mnist", "fashion-mnist", "cifar10", "emoji"];
  assertEquals(Object.keys(counts), [
    ...denoisers,
    "autoencoder",
    "classifier",
    "features",
    "dual-encoder",
    "tiny",
  ]);
  assert(counts.classifier < counts.mnist);
  assertEquals(counts.cifar10, 35_746_307);
  assert(counts.tiny < counts.mnist && counts.mnist === counts["fashion-mnist"]);
  assert(counts["fashion-mnist"] < counts.emoji && counts.emoji < counts.cifar10);
});

Deno.test("the preset cifar10 is that of the DDPM paper", async () => {
  const { network, scheduler, training, steps, images } = await readRunFields("cifar10");
  const paper = { ...paperConfigs["ddpm-cifar10-32"], dropout: 0.1 };
  assertEquals(parseNetwork(network).config, parseNetwork(paper).config);
  const { numTrainTimesteps, betaStart, betaEnd, betaSchedule, varianceType } = parseSchedule(
    scheduler,
  );
  assertEquals([numTrainTimesteps, betaStart, betaEnd, betaSchedule], [1000, 1e-4, 0.02, "linear"]);
  assertEquals([steps, varianceType, images?.flip], [800_000, "fixed_large", true]);
  const config = parseTraining(training);
  assertEquals([config.batchSize, config.learningRate, config.warmupSteps], [128, 2e-4, 5000]);
  assertEquals([config.optimizer, config.weightDecay, config.maxGradNorm], ["adam", 0, 1]);
  assertEquals([config.betas, config.eps], [[0.9, 0.999], 1e-8]);
  assertEquals([config.emaDecay, config.emaSchedule], [0.9999, "constant"]);
});

Deno.test("what --print-config prints is what a training is started with", async () => {
  await using folder = await makeFolder();
  const flags = ["--batch-size", "6", "--micro-batch", "3", "--held-out", "0.2", "--seed", "4"];
  const printed = await folder.succeed(
    "train",
    "--config",
    "tiny.json",
    ...flags,
    "--print-config",
  );
  await folder.write("printed.json", printed);
  await folder.succeed(...train("a", 2, ...flags, "--device", "cpu"));
  await folder.succeed(
    ...["train", "--config", "printed.json", "--steps", "2", "--out", "b", "--device", "cpu"],
  );
  const [a, b] = await Promise.all(
    ["a", "b"].map(async (run) =>
      JSON.parse(await Deno.readTextFile(folder.at(`${run}/config.json`)))
    ),
  );
  assertEquals(a, b);
  const config = JSON.parse(printed);
  assertEquals({ ...config, steps: 2, network: { ...a.network, ...config.network } }, a);
  // Of a training that there is, without touching it.
  const there = await folder.succeed("train", "--resume", "--out", "a", "--print-config");
  assertEquals(JSON.parse(there), a);
});

Deno.test("a name that is neither a preset nor a file is refused", async () => {
  await using folder = await Folder.make();
  await folder.refuse(
    ["train", "--config", "cifer10", "--out", "a"],
    /There is no configuration cifer10: give a file, or one of mnist, .*; did you mean cifar10\?/,
  );
});

/** Whether the parser takes a configuration. */
async function isParsed(folder: Folder, json: unknown): Promise<boolean> {
  await folder.write("config.json", Object(json));
  const { code, stderr } = await folder.run("train", "--config", "./config.json", "--print-config");
  if (code) assertMatch(stderr, /^error: (Bad|Cannot use) [^\n]*\n$/);
  return code === 0;
}

Deno.test("the schema for editors accepts what the parser accepts, and nothing else", async () => {
  await using folder = await Folder.make();
  const text = await folder.succeed("train", "--print-schema");
  const schema = JSON.parse(text);
  assertEquals(schema, JSON.parse(JSON.stringify(configSchema())));
  const validator = z.fromJSONSchema(schema);
  for (const [name, preset] of Object.entries(presets)) {
    assert(validator.safeParse(preset).success, name);
    const printed = await folder.succeed("train", "--config", name, "--print-config");
    assert(validator.safeParse(JSON.parse(printed)).success, `${name}, printed`);
  }
  const cases: [unknown, boolean][] = [
    [{}, true],
    [{ $schema: "schema.json", data: "x", steps: 3 }, true],
    [{ unet: { _class_name: "UNet2DModel", sample_size: [28, 32], dropout: 0.5 } }, true],
    [{ network: { _class_name: "SuperResolutionUNet2DModel", factor: 4, dropout: 0.5 } }, true],
    [{ network: { _class_name: "SuperResolutionUNet2DModel", factor: 1 } }, false],
    [{ network: { _class_name: "SuperResolutionUNet2DModel" } }, false],
    [{ network: { _class_name: "FeatureClassifier", feature_size: 8 } }, true],
    [{ network: { _class_name: "FeatureClassifier", dropout: 0.1 } }, false],
    [{ network: { _class_name: "DualEncoder", text_encoder: { layers: 1 } } }, true],
    [{ network: { _class_name: "AutoencoderKL", shift_factor: 0.1 } }, true],
    [{ network: { _class_name: "VQModel", num_vq_embeddings: 0 } }, false],
    [{ network: { _class_name: "CLIPTextModel" } }, false],
    [{ network: { factor: 2 } }, false],
    [{ scheduler: { solver_order: 2, beta_schedule: "linear" } }, true],
    [{ scheduler: { clip_sample: null, lambda_min_clipped: -1 } }, true],
    [{ scheduler: { prediction_type: "flow_prediction", shift: 3 } }, true],
    [{ scheduler: { beta_strat: 0.1 } }, false],
    [{ unet: { mid_block_type: "UNetMidBlock2D", time_embedding_dim: null, dropout: null } }, true],
    [{ training: { betas: [0.5, 0.9], micro_batch: null, decay_steps: null } }, true],
    [{ steps: 0 }, false],
    [{ data: 3 }, false],
    [{ trainig: {} }, false],
    [{ unet: { block_out_channels: [] } }, false],
    [{ unet: { blocks: 3 } }, false],
    [{ unet: { sample_size: [28] } }, false],
    [{ scheduler: { beta_schedule: "line" } }, false],
    [{ training: { learning_rate: -1 } }, false],
    [{ training: { optimizer: "sgd" } }, false],
    [{ training: { betas: [0.5, 1] } }, false],
    [{ training: { batch: 3 } }, false],
  ];
  for (const [json, isGood] of cases) {
    assertEquals(validator.safeParse(json).success, isGood, `schema: ${JSON.stringify(json)}`);
    assertEquals(await isParsed(folder, json), isGood, `parser: ${JSON.stringify(json)}`);
  }
});
