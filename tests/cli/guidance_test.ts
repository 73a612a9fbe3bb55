import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { parseModel, serializeModel } from "../../src/model/model.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { denoiserOf } from "../../src/model/denoiser.ts";
import { autoguided } from "../../src/sample/guidance/autoguided.ts";
import { guided } from "../../src/sample/guidance/guided.ts";
import type { SampleOptions, SamplerOptions } from "../../src/sample/options.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { classModel, type Folder, makeClassModels, tinyModel, tinyModelFile } from "./cli.ts";
import { makeFolder, train } from "./training.ts";

const NAMES = ["cat", "dog", "bird"], NONE = 3;
const sample = ["sample", "--model", "m.safetensors", "--device", "cpu", "--steps", "3"];
const two = [...sample, "--class", "cat,dog", "--count", "2", "--seed", "4"];

async function make(folder: Folder, ...args: string[]) {
  await folder.succeed(...args, "--out", "x.safetensors");
  const bytes = await Deno.readFile(folder.at("x.safetensors"));
  const { tensors, metadata: { software: _, ...facts } } = readSafetensors(bytes, "x");
  return { images: toFloat32(tensors.get("images")!), facts };
}

/** What the library makes of the same. */
async function compute(
  model = classModel(NAMES),
  settings: SamplerOptions,
  options: SampleOptions,
) {
  using device = await openDevice("cpu");
  using sampler = await Sampler.create(device, model, { ...settings, steps: 3, batchSize: 2 });
  return (await sampler.sample({ count: 2, seed: 4, ...options })).data;
}

Deno.test("flags of guidance do what the library does, and are told", async () => {
  await using folder = await makeClassModels(NAMES);
  const labels = [0, 1], model = classModel(NAMES);
  const plain = await make(folder, ...two, "--guidance", "1");
  assertClose(plain.images, await compute(model, {}, { labels }), 1e-5);
  const usual = await make(folder, ...two), strong = await make(folder, ...two, "--guidance", "3");
  assertEquals([usual.facts.guidance, usual.facts.guidance_interval], ["1.75", "0.3,1.6"]);
  const same = ["--guidance", "1.75", "--guidance-interval", "0.3,1.6"];
  assertEquals((await make(folder, ...two, ...same)).images, usual.images);
  assertEquals(strong.facts.guidance, "3");
  assertNotEquals(strong.images, plain.images);
  assertClose(
    strong.images,
    await compute(model, { wrap: [guided({ scale: 3 })] }, { labels }),
    1e-5,
  );
  const flags = ["--guidance-interval", "0.1,0.6", "--guidance-rescale", "0.7"];
  const away = ["--negative-class", "bird,none"];
  const all = await make(folder, ...two, "--guidance", "3", ...flags, ...away);
  const options = { scale: 3, interval: [0.1, 0.6], rescale: 0.7 } as const;
  const conditions = { negative_labels: [2, NONE] };
  assertClose(
    all.images,
    await compute(model, { wrap: [guided(options)] }, { labels, conditions }),
    1e-5,
  );
  assertEquals(
    [all.facts.guidance_interval, all.facts.guidance_rescale, all.facts.negative_class],
    ["0.1,0.6", "0.7", "bird,none"],
  );
  // Where there is no "none", another class may stand in for it.
  const other = ["--model", "all.safetensors", "--guidance", "2", "--negative-class", "2"];
  assertNotEquals((await make(folder, ...two, ...other)).images, plain.images);
});

Deno.test("a weaker model guides with and without classes", async () => {
  await using folder = await makeClassModels(NAMES);
  const model = tinyModel(), weak = { ...model, parameters: model.parameters.map((x) => 0.9 * x) };
  await folder.write("weak.safetensors", serializeModel(weak));
  const flags = ["--model", "plain.safetensors", "--count", "2", "--seed", "4"];
  const { images, facts } = await make(folder, ...sample, ...flags, "--guide", "weak.safetensors");
  const wrapper = (scale: number) => autoguided(denoiserOf(weak, [8, 8], "weak"), { scale });
  assertClose(images, await compute(model, { wrap: [wrapper(2)] }, {}), 1e-5);
  assertEquals([facts.guide, facts.guidance], ["weak.safetensors", "2"]);
  const more = ["--guide", "plain.safetensors", "--guidance", "1.5"];
  const classes = classModel(NAMES), guide = denoiserOf(model, [8, 8], "weak");
  assertClose(
    (await make(folder, ...two, ...more)).images,
    await compute(classes, { wrap: [autoguided(guide, { scale: 1.5 })] }, { labels: [0, 1] }),
    1e-5,
  );
});

Deno.test("the average of the weights is taken out of a state of a training", async () => {
  await using folder = await makeFolder();
  const { training, ...config } = JSON.parse(await Deno.readTextFile(folder.at("tiny.json")));
  await folder.write("tiny.json", { ...config, training: { ...training, ema_decay: 0.5 } });
  await folder.succeed(...train("run", 4, "--label-dropout", "0.1"));
  await Deno.copyFile(folder.at("run/model.safetensors"), folder.at("early.safetensors"));
  await folder.succeed(...train("run", 8, "--label-dropout", "0.1", "--resume"));
  const state = "run/state-0000004.safetensors";
  const flags = ["sample", "--device", "cpu", "--steps", "3", "--class", "1,2", "--count", "2"];
  const of = async (model: string, ...more: string[]) =>
    (await make(folder, ...flags, "--model", model, ...more)).images;
  const early = await of("early.safetensors"), late = await of("run");
  assertNotEquals(early, late);
  assertEquals(await of(state), early);
  assertEquals(await of("run/state.safetensors"), late);
  const guided = await of("run", "--guide", state);
  assertEquals(await of("run", "--guide", "early.safetensors"), guided);
  assertNotEquals(guided, late);
  const facts = JSON.parse(await folder.succeed("info", state, "--json"));
  assertEquals([facts.steps, facts.classes.length], ["4", 10]);

  const bytes = await Deno.readFile(folder.at(state));
  const where = folder.at("elsewhere/");
  await Deno.mkdir(where);
  await Deno.writeFile(`${where}state-0000004.safetensors`, bytes);
  const refuse = async (model: string, why: RegExp) =>
    await folder.refuse([...flags, "--model", "run", "--guide", model], why);
  await refuse(
    "elsewhere/state-0000004.safetensors",
    /the model\.safetensors of its training must/,
  );
  const { network, parameters } = tinyModel();
  const other = { ...parseModel(tinyModelFile()), network, parameters };
  await Deno.writeFile(`${where}model.safetensors`, serializeModel(other));
  await refuse("elsewhere/state-0000004.safetensors", /it is of another network: num_class_embeds/);
  bytes[bytes.length - 5] ^= 1;
  await Deno.writeFile(folder.at(state), bytes);
  await refuse(state, /state-0000004\.safetensors: it is damaged, its checksum does not match/);
});

Deno.test("guidance that cannot be is refused, with what would be right", async () => {
  await using folder = await makeClassModels(NAMES);
  await folder.succeed(...sample, "--count", "1", "--out", "a/");
  const plain = ["--model", "plain.safetensors"], all = ["--model", "all.safetensors"];
  const cases: [string[], RegExp][] = [
    [
      ["--guidance", "2", "--init", "a/0000.png"],
      /--guidance leads towards a class: give a --class/,
    ],
    [["--guidance", "2", "--class", "none"], /towards a class: give a --class/],
    [["--guidance", "2", ...plain], /plain\.safetensors has none; --guide MODEL guides it by a/],
    [
      ["--guidance", "2", "--class", "1", ...all],
      /without --label-dropout; give a --negative-class/,
    ],
    [["--guidance", "-1"], /--guidance must be a number from 0 to 1000, not -1/],
    [["--guidance-interval", "1,2", ...plain], /--guidance-interval is for --guidance SCALE/],
    [["--guidance-rescale", "1", ...plain], /--guidance-rescale is for --guidance SCALE/],
    [["--negative-class", "cat", ...all], /--negative-class is for --guidance SCALE/],
    [["--guidance", "2", "--class", "1", "--negative-class", "cow"], /no class cow: .* cat\?/],
    [
      ["--class", "1", "--guidance", "2", "--guidance-interval", "2,1"],
      /two noise levels .* not 2,1/,
    ],
    [["--class", "1", "--guidance", "2", "--guidance-interval", "x"], /two noise levels .* not x/],
    [["--guide", "none.safetensors"], /Cannot load the model none\.safetensors/],
    [["--guide", "mnist"], /Cannot guide by the weaker model: |Images of 8x8 do not fit/],
    [["--guide", "m.safetensors", ...plain], /it is told labels, and the model is not/],
    [["--guide", "m.safetensors", "--negative-class", "cat"], /by classes, and --guide by a model/],
  ];
  for (const [flags, why] of cases) await folder.refuse([...sample, ...flags], why);
  const help = await folder.succeed("sample", "--help");
  for (
    const flag of ["class", "label", "guidance", "guidance-interval", "negative-class", "guide"]
  ) {
    assertMatch(help, new RegExp(`^  --${flag} `, "m"));
  }
  assert(help.includes("the same as --class"));
});
