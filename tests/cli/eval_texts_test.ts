import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { tell } from "../../src/cli/evaluation/describe.ts";
import { heldBack } from "../../src/cli/data/data.ts";
import { encodePng } from "../../src/cli/media/picture_files.ts";
import { readStatistics } from "../../src/evaluate/statistics_file.ts";
import { serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { randomModel } from "../networks.ts";
import { Folder, tinyModelFile } from "./cli.ts";
import { readingModelFile } from "./served.ts";

/** A sheet of so many emoji, in categories by turns, and a model and features of such. */
async function makeFolder(count = 14): Promise<Folder> {
  const folder = await Folder.make(), width = 34 * count;
  await folder.write("m.safetensors", readingModelFile(32));
  const network = parseNetwork({
    ...{ _class_name: "FeatureClassifier", sample_size: 32, in_channels: 3, num_classes: 2 },
    ...{ block_out_channels: [4, 4, 4, 4], feature_size: 5 },
  });
  const file = serializeModel({ ...randomModel(network), classes: ["Flags", "Objects"] });
  await folder.write("f.safetensors", file);
  await Deno.mkdir(folder.at("pictures/img/google/sheets"), { recursive: true });
  const table = Array.from({ length: count }, (_, i) => ({
    ...{ short_name: `name_${i}`, category: i % 2 ? "Flags" : "Objects", sheet_x: i, sheet_y: 0 },
  }));
  await folder.write("pictures/emoji.json", table);
  const rgba = Uint8ClampedArray.from(
    { length: 4 * 34 * width },
    (_, i) => i % 4 < 3 ? i * i % 251 : 255,
  );
  const sheet = await encodePng({ width, height: 34, rgba }, {});
  await folder.write("pictures/img/google/sheets/32.png", sheet);
  return folder;
}

const device = ["--device", "cpu", "--threads", "1"], features = ["--features", "f.safetensors"];
const model = ["--model", "m.safetensors", "--steps", "2", "--seed", "3"];
const data = ["--data", "pictures"];

const evaluate = async (folder: Folder, ...args: string[]) =>
  JSON.parse(await folder.succeed("eval", ...device, ...features, "--json", ...args));

Deno.test("models that read are asked for the captions of the data, in turns", async () => {
  await using folder = await makeFolder();
  const all = ["--metric", "fd,kid,prdc,class,nn,retrieval"], count = ["--count", "16"];
  const found = await evaluate(folder, ...model, ...data, ...all, ...count, "--report", "r.html");
  assertEquals([found.prompts, found.guidance], ["captions of pictures", 4]);
  assertMatch(found.prompts_hash, /^[0-9a-f]{64}$/);
  assertEquals([found.data, found.count, found.data_count], ["pictures", 16, 14]);
  assertStringIncludes(await Deno.readTextFile(folder.at("r.html")), "captions of pictures");

  const names = Array.from({ length: 14 }, (_, i) => `name ${i}`);
  await folder.write("names.txt", names.join("\n"));
  const sampled = ["--prompts", "names.txt", "--guidance", "4", ...count];
  await folder.succeed("sample", ...device, ...model, ...sampled, "--out", "x.safetensors");
  const again = await evaluate(
    folder,
    "--samples",
    "x.safetensors",
    ...data,
    ...all.map((x) => x.replace(",retrieval", "")),
  );
  for (const name of ["fd", "kid", "prdc", "nn"]) assertEquals(again[name], found[name], name);
  assertEquals(again.class.classes, found.class.classes);
  // What is asked for is the category of the picture whose caption it is.
  const kinds = Array.from({ length: 16 }, (_, i) => (i % 14) % 2 ? 0 : 1);
  await evaluate(folder, ...model, ...data, "--metric", "class", ...count, "--out", "c.npz");
  const { labels } = await readStatistics(await Deno.readFile(folder.at("c.npz")), "c.npz");
  assertEquals([...labels!], kinds);

  const of = await evaluate(folder, ...model, ...data, ...all, ...sampled);
  assertEquals([of.prompts, of.prompts_hash], ["names.txt", found.prompts_hash]);
  assertEquals([of.fd, of.class.asked], [found.fd, undefined]);
  assertEquals([of.retrieval, of.retrieval.captions], [found.retrieval, 14]);
  assert(found.retrieval.recall_at10 >= found.retrieval.recall_at1);
  const line = await folder.succeed(
    ...["eval", ...device, ...features, ...model, "--metric", "class", "--prompt", "a flag"],
    ...["--negative", "blurry", "--count", "3"],
  );
  assertMatch(
    line,
    /^m\.safetensors, 3 images of a flag, features f\.safetensors: recognised [\d.]+ %\n$/,
  );
});

Deno.test("parts of pictures with captions are put together as the whole", async () => {
  await using folder = await makeFolder();
  const metric = ["--metric", "fd,class"], batch = ["--batch", "4"];
  const whole = await evaluate(folder, ...model, ...data, ...metric, "--count", "18");
  for (const [first, count] of [[0, 7], [7, 11]]) {
    const part = ["--first", `${first}`, "--count", `${count}`, "--out", `${first}.npz`];
    await evaluate(folder, ...model, ...data, ...metric, ...part, ...batch);
  }
  const other = [...model, ...metric, "--prompt", "a flag", "--first", "18", "--count", "2"];
  await evaluate(folder, ...other, "--out", "other.npz");
  const found = await evaluate(folder, "--samples", "7.npz,0.npz", ...data, ...metric);
  assertEquals([found.prompts, found.class], ["captions of pictures", whole.class]);
  assert(Math.abs(found.fd - whole.fd) < 1e-4 * whole.fd, `${found.fd} ${whole.fd}`);
  await folder.refuse(
    ["eval", ...device, ...features, "--samples", "7.npz,other.npz", ...data],
    /Cannot put 7\.npz and other\.npz together: /,
  );
});

Deno.test("eval refuses texts that it cannot ask for", async () => {
  await using folder = await makeFolder(6);
  await folder.write("t.safetensors", tinyModelFile());
  await folder.write("empty.txt", "\n");
  await Deno.mkdir(folder.at("silent"));
  const rgba = new Uint8ClampedArray(4 * 32 * 32).fill(200);
  await folder.write("silent/a.png", await encodePng({ width: 32, height: 32, rgba }, {}));
  const cases: readonly [string[], RegExp][] = [
    [
      ["--metric", "class"],
      /m\.safetensors paints what a text says: give --data with captions, --pr/,
    ],
    [["--metric", "fd", "--data", "silent"], /Cannot take captions of silent: a\.png has none/],
    [["--metric", "fd", ...data, "--prompts", "empty.txt"], /empty\.txt: it has no lines/],
    [["--metric", "fd", ...data, "--prompts", "none.txt"], /none\.txt/],
    [["--metric", "fd", ...data, "--prompts", "a", "--prompt", "b"], /Give --prompt or --prompts/],
    [["--metric", "fd", ...data, "--class", "1"], /--class is for models with classes/],
    [
      ["--metric", "fd", ...data, "--guide", "m.safetensors"],
      /--guide is for models that do not r/,
    ],
    [["--metric", "retrieval", ...data, "--prompt", "x"], /"x" is none of those of pictures/],
    [["--metric", "bpd", ...data, "--prompt", "x"], /--prompt is not for bpd/],
  ];
  for (const [args, message] of cases) {
    const own = args[1] === "bpd" ? [] : features;
    await folder.refuse(["eval", ...device, ...model.slice(0, 2), ...own, ...args], message);
  }
  await folder.refuse(
    ["eval", ...device, "--model", "t.safetensors", ...data, "--metric", "fd", "--prompt", "x"],
    /--prompt is for models that read: t\.safetensors does not|are for pictures of/,
  );
  await folder.refuse(
    ["eval", ...device, ...features, "--samples", "pictures", ...data, "--metric", "retrieval"],
    /retrieval looks for the captions of pictures, and those of pictures are not known/,
  );
  await folder.refuse(
    [
      "eval",
      ...device,
      ...features,
      "--samples",
      "pictures",
      "--metric",
      "class",
      "--negative",
      "x",
    ],
    /--negative is for pictures of a model/,
  );
});

Deno.test("a dual encoder is trained on pictures and captions, and looks for the texts of pictures", async () => {
  await using folder = await makeFolder();
  await folder.write("dual.json", {
    ...{ data: "pictures", images: { captions: true } },
    network: {
      ...{ _class_name: "DualEncoder", block_out_channels: [4, 4], projection_dim: 5 },
      text_encoder: { max_length: 8, width: 8, layers: 1, heads: 2 },
    },
    training: { objective: "contrastive", batch_size: 7, warmup_steps: 2 },
  });
  const cpu = ["--device", "cpu"], config = ["--config", "dual.json", "--half", ...cpu];
  await folder.succeed("train", ...config, "--steps", "2", "--log-every", "1", "--out", "d");
  await folder.succeed("train", "--resume", "--half", "--steps", "3", "--out", "d", ...cpu);
  const log = (await Deno.readTextFile(folder.at("d/log.jsonl"))).trimEnd().split("\n");
  const lines = log.map((line) => JSON.parse(line));
  assertEquals(Object.keys(lines[0]).slice(0, 4), ["step", "loss", "accuracy", "grad_norm"]);
  assertEquals(lines.map(({ step }) => step), [1, 2, 3]);
  assertMatch(await Deno.readTextFile(folder.at("d/report.html")), /own text is the nearest/);
  const told = JSON.parse(await folder.succeed("info", "d", "--json", ...cpu));
  assertEquals([told.network, told.kind, told.image, told.embedding, told.dtype, told.steps], [
    ...["DualEncoder", "dual encoder", "32x32, 3 channels", "5 numbers", "F16", "3"],
  ]);

  const judged = ["--features", "d", ...model, ...data, "--count", "14", ...device];
  const found = JSON.parse(
    await folder.succeed("eval", ...judged, "--metric", "retrieval,nn", "--json"),
  );
  for (const one of [found.retrieval.samples, found.retrieval.real]) {
    for (
      const { recall_at1: first, recall_at10: ten, captions } of [
        one.image_to_text,
        one.text_to_image,
      ]
    ) {
      assert(0 <= first && first <= ten && ten <= 1 && captions === 14);
    }
  }
  await folder.refuse(
    ["eval", ...judged, "--metric", "class"],
    /class looks at classes, which the dual encoder d does not tell apart/,
  );
  await folder.refuse(
    ["sample", "--model", "d"],
    /it is a dual encoder \(DualEncoder\), which tells/,
  );
});

Deno.test("what texts and pictures find is told beside chance and real pictures", () => {
  const of = (recallAt1: number) => ({ recallAt1, recallAt10: 1, captions: 20 });
  const measures = {
    retrieval: {
      samples: { imageToText: of(0.25), textToImage: of(0.5) },
      real: { imageToText: of(0.75), textToImage: of(1) },
    },
  };
  assertEquals(tell({ measures }, false), [
    ["image to text R@1", "25.0 % (5.0 % by chance, 75.0 % of real images)"],
    ["image to text R@10", "100.0 % (50.0 % by chance, 100.0 % of real images)"],
    ["text to image R@1", "50.0 % (5.0 % by chance, 100.0 % of real images)"],
    ["text to image R@10", "100.0 % (50.0 % by chance, 100.0 % of real images)"],
  ]);
});

Deno.test("built-in data sets have the test splits that are built in", async () => {
  assertEquals(
    await Promise.all(
      ["mnist", "emoji", "emoji-64", "cifar10", "emoji-test", "emoji-all"].map(heldBack),
    ),
    ["mnist-test", "emoji-test", "emoji-64-test", undefined, undefined, undefined],
  );
});
