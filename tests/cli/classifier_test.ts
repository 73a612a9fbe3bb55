import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { initializeModel, parseModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { imagesFile, tinyModelFile, tinyUNet } from "./cli.ts";
import { IMAGES, makeFolder, readLog, readState, train } from "./training.ts";

/** A folder with data and a configuration of the training of a tiny classifier. */
async function makeClassifierFolder() {
  const folder = await makeFolder();
  await folder.write("tiny.json", {
    data: "data",
    network: {
      ...{ _class_name: "UNet2DClassifier", block_out_channels: [8, 16], norm_num_groups: 4 },
      ...{ down_block_types: ["DownBlock2D", "AttnDownBlock2D"], layers_per_block: 1 },
    },
    scheduler: { num_train_timesteps: 10 },
    training: { batch_size: 5, learning_rate: 0.002, warmup_steps: 2, objective: "classifier" },
  });
  return folder;
}

for (const device of ["gpu", "cpu"]) {
  Deno.test(`the training of a classifier that goes on equals one in one go, on the ${device}`, async () => {
    await using folder = await makeClassifierFolder();
    await folder.succeed(...train("a", 8, "--device", device));
    await folder.succeed(...train("b", 4, "--device", device));
    await folder.succeed(...train("b", 8, "--device", device, "--resume"));
    const [a, b] = [await readState(folder, "a"), await readState(folder, "b")];
    assertEquals([a.step, b], [8, a]);
    assertEquals(await readLog(folder, "b"), await readLog(folder, "a"));
  });
}

Deno.test("a classifier is trained, described and logged with how often it is right", async () => {
  await using folder = await makeClassifierFolder();
  const { code, stderr } = await folder.run(...train("a", 4, "--device", "cpu"));
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^step 4 of 4, loss [\d.]+, [\d.]+ % right, /m);
  const lines = await readLog(folder, "a") as unknown as {
    readonly accuracy: number;
    readonly accuracy_quartiles: readonly (number | null)[];
  }[];
  for (const { accuracy, accuracy_quartiles } of lines) {
    assert(accuracy >= 0 && accuracy <= 1);
    assertEquals(accuracy_quartiles.length, 4);
    assert(accuracy_quartiles.every((share) => share === null || (share >= 0 && share <= 1)));
  }
  const report = await Deno.readTextFile(folder.at("a/report.html"));
  assertStringIncludes(report, "Right answers by quarter of the timesteps");
  const model = parseModel(await Deno.readFile(folder.at("a/model.safetensors")));
  assertEquals(model.classes, [..."0123456789"]);
  assertEquals(model.network.itemShape, [8, 8, 1]);
  assertEquals(model.network.config.num_classes, 10);
  const told = JSON.parse(await folder.succeed("info", "a", "--json", "--device", "cpu"));
  assertEquals([told.network, told.num_classes], ["UNet2DClassifier", 10]);
  assertMatch(told["memory to train"], /^[\d.]+ [kM]B in batches of 64$/);

  const is = /^error: The model is a classifier, which makes nothing out of noise$/m;
  await folder.refuse(["sample", "--model", "a", "--device", "cpu"], is);
  await folder.refuse(["interpolate", "--model", "a", "--seeds", "1,2", "--device", "cpu"], is);
});

Deno.test("--objective classifier is enough to train one, and needs classes", async () => {
  await using folder = await makeClassifierFolder();
  const printed = await folder.succeed("train", "--objective", "classifier", "--print-config");
  const config = JSON.parse(printed);
  assertEquals(config.network._class_name, "UNet2DClassifier");
  assertEquals(config.network.num_classes, undefined);
  assertEquals([config.training.objective, config.training.learning_rate], ["classifier", 0.001]);
  assertEquals(
    JSON.parse(await folder.succeed("train", "--config", "classifier", "--print-config")),
    {
      ...config,
      ...{ data: "mnist", steps: 3000 },
    },
  );
  await Deno.mkdir(folder.at("grey"));
  await folder.write(`grey/${IMAGES}`, imagesFile());
  await folder.refuse(
    ["train", "--data", "grey", "--objective", "classifier", "--out", "c"],
    /^error: A classifier needs classes, but grey has no labels$/m,
  );
  await folder.refuse(
    ["train", "--config", "tiny", "--data", "data", "--objective", "classifier", "--out", "c"],
    /^error: Cannot train a UNet2DModel by classifier: it is a denoiser$/m,
  );
  await folder.refuse(
    ["train", "--config", "tiny.json", "--objective", "mse", "--out", "c"],
    /^error: Cannot train a UNet2DClassifier by mse: the objective of classifiers is classifier$/m,
  );
});

Deno.test("sample paints the class that is asked for by a classifier, and refuses what does not go together", async () => {
  await using folder = await makeClassifierFolder();
  await folder.succeed(...train("c", 2, "--device", "cpu"));
  await folder.write("model.safetensors", tinyModelFile());
  const paint = ["sample", "--model", "model.safetensors", "--device", "cpu", "--count", "2"];
  const guide = ["--classifier", "c"], paths: string[] = [];
  for (const [label, scale] of [["7", "3"], ["2", "3"], ["7", "0"]]) {
    const out = `${label}-${scale}.safetensors`;
    const scales = ["--label", label, "--classifier-scale", scale];
    await folder.succeed(...paint, ...guide, ...scales, "--steps", "3", "--out", out);
    paths.push(out);
  }
  await folder.succeed(...paint, "--steps", "3", "--out", "plain.safetensors");
  const files = await Promise.all([...paths, "plain.safetensors"].map(async (path) => {
    const { tensors, metadata } = readSafetensors(await Deno.readFile(folder.at(path)), path);
    return { metadata, images: toFloat32(tensors.get("images")!) };
  }));
  const [seven, two, none, plain] = files.map(({ images }) => images);
  assert(seven.some((x, i) => Math.abs(x - two[i]) > 1e-4));
  assert(seven.some((x, i) => Math.abs(x - plain[i]) > 1e-4));
  assertEquals(none, plain);
  const { classifier, classifier_scale } = files[0].metadata;
  assertEquals([classifier, classifier_scale], ["c", "3"]);

  await folder.write(
    "large.safetensors",
    serializeModel(initializeModel(
      parseNetwork({ ...tinyUNet, sample_size: 16, in_channels: 1, out_channels: 1 }),
      ...[{ num_train_timesteps: 10 }, 0] as const,
    )),
  );
  for (
    const [args, message] of [
      [[...paint, ...guide], /--classifier guides towards a class: give a --class$/],
      [[...paint, ...guide, "--label", "10"], /has no class 10: its classes are 0, 1, .* and 9/],
      [[...paint, "--classifier-scale", "2"], /--classifier-scale is for --classifier MODEL$/],
      [
        [...paint, "--classifier", "model.safetensors", "--class", "1"],
        /a UNet2DModel, which tells no classes/,
      ],
      [
        ["sample", "--model", "large.safetensors", ...guide, "--label", "1"],
        /it is for items of 8x8x1, and the model's are 16x16x1$/,
      ],
    ] as const
  ) await folder.refuse(args, new RegExp(message.source, "m"));
});

Deno.test("a classifier of clean images is trained for features, which eval takes", async () => {
  await using folder = await makeFolder();
  await folder.write("features.json", {
    data: "data",
    network: { _class_name: "FeatureClassifier", block_out_channels: [4, 6], feature_size: 5 },
    training: { batch_size: 5, learning_rate: 0.002, warmup_steps: 2, objective: "classifier" },
  });
  const run = ["train", "--config", "features.json", "--device", "cpu", "--log-every", "2"];
  await folder.succeed(...run, "--steps", "4", "--out", "a");
  await folder.succeed(...run, "--steps", "2", "--out", "b");
  await folder.succeed(...run, "--steps", "4", "--out", "b", "--resume");
  assertEquals(await readState(folder, "b"), await readState(folder, "a"));
  const { network, classes, card } = parseModel(
    await Deno.readFile(folder.at("a/model.safetensors")),
  );
  assertEquals([network.className, network.itemShape], ["FeatureClassifier", [8, 8, 1]]);
  assertEquals([classes, card.steps], [[..."0123456789"], "4"]);
  const told = JSON.parse(await folder.succeed("info", "a", "--json", "--device", "cpu"));
  assertEquals([told.network, told.feature_size], ["FeatureClassifier", 5]);

  const flags = ["--samples", "data", "--features", "a", "--metric", "class", "--device", "cpu"];
  const { class: seen, features } = JSON.parse(await folder.succeed("eval", ...flags, "--json"));
  assertEquals([features, seen.classes.length], ["a", 10]);
  await folder.write("model.safetensors", tinyModelFile());
  await folder.refuse(
    ["sample", "--model", "model.safetensors", "--classifier", "a", "--class", "1"],
    /it has learnt images without noise; train one by --config classifier$/m,
  );
  await Deno.mkdir(folder.at("grey"));
  await folder.write(`grey/${IMAGES}`, imagesFile());
  await folder.refuse(
    ["train", "--config", "features", "--data", "grey", "--out", "c"],
    /^error: A classifier needs classes, but grey has no labels$/m,
  );
});
