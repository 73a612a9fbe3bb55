// deno-lint-ignore-file no-console -- What programs take for granted is told there, and counts.
/**
 * Damaged models of every layout, through all that happens before they are used: folders of diffusers
 * with each of their files damaged, files of PyTorch, and those of other projects. More of them than in
 * the suite: `deno test -A tests/cli/damaged_models_test.ts -- 20000`.
 *
 * @module
 */

import { assert } from "@std/assert";
import { dirname, join } from "@std/path";
import { withLoras } from "../../src/cli/run/load_lora.ts";
import { openModel } from "../../src/cli/run/open_model.ts";
import { loadTextToImage } from "../../src/cli/run/text_to_image.ts";
import { InputError } from "../../src/errors.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { nameTensors } from "../../src/model/tensors.ts";
import { formatNetwork } from "../../src/model/network.ts";
import { type ParameterLayout, readParameter } from "../../src/model/parameters.ts";
import type { TextToImageModel } from "../../src/model/text_to_image.ts";
import type { Weighted } from "../../src/model/weights.ts";
import { mutate } from "../mutate.ts";
import { deflateZip } from "../pictures.ts";
import { concat } from "../../src/formats/bytes.ts";
import { Random } from "../random.ts";
import { makeTorch } from "../torch.ts";
import { Folder, tinyModel, tinyModelFile } from "./cli.ts";
import { pipelineFiles, singleFiles } from "./pipelines.ts";

/** How many damaged models in all. */
const COUNT = Number(Deno.args[0] ?? 400);
/** Bytes by which the process may grow, and milliseconds that a model may take. */
const MAX_GROWTH = 5e8, MAX_TIME = 2000;
/** Bytes at the start of a file, or at the end of a zip, that tell of all others. */
const TOLD = 12_000;

type Files = Readonly<Record<string, Uint8Array<ArrayBuffer>>>;

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value, null, 2));
const fixture = (name: string) => Deno.readFile(new URL(`../fixtures/${name}`, import.meta.url));

const { network, parameters } = tinyModel(), named = nameTensors(network.layout, parameters);
const STEM = "diffusion_pytorch_model", INDEX = `unet/${STEM}.safetensors.index.json`;
const config = json({ ...formatNetwork(network), _diffusers_version: "0.35.1" });
const scheduler = json({
  ...{ _class_name: "DPMSolverMultistepScheduler", num_train_timesteps: 1000, beta_start: 1e-4 },
  ...{ beta_end: 0.02, beta_schedule: "linear", trained_betas: null, solver_order: 2 },
  ...{ prediction_type: "epsilon", timestep_spacing: "linspace", steps_offset: 0 },
});
const pipeline: Files = {
  "model_index.json": json({
    ...{ _class_name: "DDPMPipeline", _diffusers_version: "0.35.1" },
    scheduler: ["diffusers", "DPMSolverMultistepScheduler"],
    unet: ["diffusers", "UNet2DModel"],
  }),
  "unet/config.json": config,
  "scheduler/scheduler_config.json": scheduler,
};
const half = named.length >> 1, shards = [named.slice(0, half), named.slice(half)];
const shardName = (k: number) => `${STEM}-0000${k + 1}-of-00002.safetensors`;
const torch = makeTorch(named);

/** A LoRA of a pipeline that paints texts, which is merged into it. */
const LORA = "lora.safetensors", module = "lora_unet_mid_block_attentions_0_proj_in";
const lora = writeSafetensors([
  { name: `${module}.lora_down.weight`, shape: [2, 16, 1, 1], values: new Float32Array(32) },
  { name: `${module}.lora_up.weight`, shape: [16, 2, 1, 1], values: new Float32Array(32) },
  { name: `${module}.alpha`, shape: [], values: new Float32Array([1]) },
]);

/** Folders, and which of their files are opened. */
const models: readonly (readonly [place: string, files: Files])[] = [
  ["", { ...pipeline, [`unet/${STEM}.safetensors`]: writeSafetensors(named, { format: "pt" }) }],
  ["", {
    ...pipeline,
    ...Object.fromEntries(
      shards.map((part, k) => [`unet/${shardName(k)}`, writeSafetensors(part)]),
    ),
    [INDEX]: json({
      metadata: { total_size: 4 * network.layout.count },
      weight_map: Object.fromEntries(
        shards.flatMap((part, k) => part.map(({ name }) => [name, shardName(k)])),
      ),
    }),
  }],
  ["", { "config.json": config, "scheduler_config.json": scheduler, [`${STEM}.bin`]: torch }],
  ["", { "config.json": config, [`${STEM}.bin`]: await deflateZip(torch) }],
  ["", { "model.safetensors": tinyModelFile() }],
  ...await Promise.all(
    ([
      ["ddpm-original", "model.ckpt"],
      ["ddpm-original", "model-legacy.ckpt"],
      ["ddpm-original", "model.safetensors"],
      ["lucidrains/v2", "model-1.pt"],
      ["adm/uncond-updown", "model.pt"],
      ["adm/classifier", "model.pt"],
    ] as const).map(async ([folder, name]) =>
      [name, {
        [name]: await fixture(`${folder}/${name}`),
        "config.json": await fixture(`${folder}/config.json`),
      }] as const
    ),
  ),
  ["", { ...await pipelineFiles(), [LORA]: lora }],
  ["model.safetensors", await singleFiles()],
];

/** What nobody expects in the place of a value. */
const strange: readonly unknown[] = [
  ...[null, true, 0, -1, 0.5, 1, 2, 7, 16, 100, 65536, 1e9, 2 ** 53, 1e308, "", "x", "../x", "/x"],
  ...["\u0000\u001b[2J", "x".repeat(5000), [], {}, [1, 2], [null], [[]], { x: {} }, "NaN", "32"],
];

/** JSON with one to three values replaced, moved, doubled or left out. */
function damageJson(value: unknown, random: Random): unknown {
  const root = { value: structuredClone(value) };
  for (let n = 1 + random.below(3); n > 0; n--) {
    const places: [holder: Record<string, unknown>, key: string][] = [];
    const visit = (holder: Record<string, unknown>, key: string) => {
      places.push([holder, key]);
      const inner = holder[key];
      if (typeof inner !== "object" || inner === null) return;
      for (const key of Object.keys(inner)) visit(inner as Record<string, unknown>, key);
    };
    visit(root, "value");
    const [holder, key] = places[random.below(places.length)];
    const [other, from] = places[random.below(places.length)];
    switch (random.below(4)) {
      case 0:
        holder[key] = other[from] === root.value ? null : structuredClone(other[from]);
        break;
      case 1:
        if (holder !== root && !Array.isArray(holder)) delete holder[key];
        break;
      default:
        holder[key] = structuredClone(strange[random.below(strange.length)]);
    }
  }
  return root.value;
}

/** The file damaged: the values of what is JSON, or the bytes, mostly of what it says of itself. */
function damage(
  path: string,
  bytes: Uint8Array<ArrayBuffer>,
  random: Random,
): Uint8Array<ArrayBuffer> {
  const byValues = random.below(2) === 1;
  if (byValues && path.endsWith(".json")) return json(damageJson(parse(bytes), random));
  if (byValues && path.endsWith(".safetensors")) {
    const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = json(damageJson(parse(bytes.subarray(8, start)), random));
    const length = new Uint8Array(BigUint64Array.of(BigInt(header.length)).buffer);
    return concat([length, header, bytes.subarray(start)]);
  }
  // Numbers that are changed make another model, which nobody can tell.
  if (bytes.length <= TOLD) return mutate(bytes, random);
  const isZip = bytes[0] === 0x50, at = isZip ? bytes.length - TOLD : TOLD;
  const [first, second] = [bytes.slice(0, at), bytes.slice(at)];
  return concat(isZip ? [first, mutate(second, random)] : [mutate(first, random), second]);
}

const parse = (bytes: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(bytes));

type AnyWeighted = Weighted<{ readonly layout: ParameterLayout }>;

/** Reads all weights of a model; fails if they are not those of its network. */
function readAll({ network: { layout }, parameters }: AnyWeighted): void {
  layout.specs.forEach(({ shape, name }, i) => {
    const values = readParameter(layout, parameters, i);
    assert(values.length === shape.reduce((a, b) => a * b, 1), name);
    assert(values.every(Number.isFinite), name);
  });
}

/** Files of models stay open as long as the process. */
const { openSync } = Deno, opened: Deno.FsFile[] = [];

/** Reads all weights of the networks that paint texts. */
async function readPieces(model: TextToImageModel, place: string): Promise<void> {
  const lora = join(place, LORA), hasLora = await Deno.stat(lora).then(() => true, () => false);
  const pieces = await withLoras(model, hasLora ? lora : undefined);
  for (const piece of [pieces.denoiser, pieces.textEncoder, pieces.autoencoder]) readAll(piece);
  pieces.tokenizer.encode("red, and blue");
}

/** Opens a model and reads its weights, as far as that goes. */
async function tryOut(place: string): Promise<"model" | "error"> {
  try {
    const painter = await loadTextToImage(place);
    if (painter) await readPieces(painter, place);
    else readAll(await openModel(place));
    return "model";
  } catch (error) {
    assert(error instanceof InputError, `${place}: ${(error as Error).stack}`);
    assert(/^(Cannot|Bad) /.test(error.message) && error.message.length < 1500, error.message);
    return "error";
  } finally {
    for (const file of opened.splice(0)) file.close();
  }
}

Deno.test(`${COUNT} damaged models open, or end in an error that says what is wrong`, async () => {
  await using folder = await Folder.make();
  const random = new Random("damaged models"), told: Record<string, Record<string, number>> = {};
  const cases: [name: string, place: string, path: string, bytes: Uint8Array<ArrayBuffer>][] = [];
  for (const [i, [place, files]] of models.entries()) {
    for (const [path, bytes] of Object.entries(files)) {
      await Deno.mkdir(dirname(folder.at(`${i}/${path}`)), { recursive: true });
      await folder.write(`${i}/${path}`, bytes);
      cases.push([`${i} ${path}`, folder.at(`${i}/${place}`), folder.at(`${i}/${path}`), bytes]);
    }
  }
  // What is taken for granted is told on standard error.
  const { error } = console;
  console.error = () => {};
  Deno.openSync = (...args) => {
    const file = openSync(...args);
    opened.push(file);
    return file;
  };
  let largest = 0, slowest = 0;
  try {
    for (const [, place] of cases) assert(await tryOut(place) === "model", place);
    const before = Deno.memoryUsage().rss;
    for (let i = 0; i < COUNT; i++) {
      const [name, place, path, bytes] = cases[i % cases.length];
      await Deno.writeFile(path, damage(path, bytes, random));
      const began = performance.now(), outcome = await tryOut(place);
      slowest = Math.max(slowest, performance.now() - began);
      largest = Math.max(largest, Deno.memoryUsage().rss - before);
      told[name] ??= { model: 0, error: 0 };
      told[name][outcome]++;
      await Deno.writeFile(path, bytes);
    }
  } finally {
    console.error = error;
    Deno.openSync = openSync;
  }
  const sum = (key: string) => Object.values(told).reduce((n, counts) => n + counts[key], 0);
  if (Deno.args.length) {
    console.log(told, { models: sum("model"), errors: sum("error"), largest, slowest });
    assert(slowest < MAX_TIME, `one took ${slowest} ms`);
  }
  assert(largest < MAX_GROWTH, `the process grew by ${largest} bytes`);
  assert(sum("model") > 0.05 * COUNT && sum("error") > 0.2 * COUNT);
});
