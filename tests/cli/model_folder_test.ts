import { assert, assertEquals, assertMatch } from "@std/assert";
import { readSafetensors, writeSafetensors } from "../../src/formats/safetensors.ts";
import { nameTensors } from "../../src/model/tensors.ts";
import { formatNetwork } from "../../src/model/network.ts";
import { makeTorch } from "../torch.ts";
import { Folder, tinyModel } from "./cli.ts";
import { checkpoint, HubServer, WEIGHTS } from "./hub_server.ts";

const STEM = "unet/diffusion_pytorch_model";
const sample = ["--count", "1", "--steps", "3", "--device", "cpu", "--out", "x.safetensors"];
const { network, parameters } = tinyModel(), tensors = nameTensors(network.layout, parameters);

/** A folder with a pipeline, of which some files are others, or are left out. */
async function pipeline(
  changes: Record<string, Uint8Array<ArrayBuffer> | string | object | undefined> = {},
): Promise<Folder> {
  const folder = await Folder.make();
  for (
    const [path, content] of Object.entries({ ...Object.fromEntries(checkpoint()), ...changes })
  ) {
    if (content === undefined) continue;
    await Deno.mkdir(folder.at(`pipe/${path}`).replace(/[^/]*$/, ""), { recursive: true });
    await folder.write(`pipe/${path}`, content);
  }
  return folder;
}

/** Samples, and returns the picture and what was said. */
async function paint(folder: Folder, model = "pipe", ...more: string[]) {
  const args = ["sample", "--model", model, ...sample, ...more];
  const { code, stderr } = await folder.run(...args);
  assertEquals(code, 0, stderr);
  const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
  return { bytes: [...tensors.values()][0].bytes, said: stderr };
}

const plain = await (async () => {
  await using folder = await pipeline();
  return (await paint(folder)).bytes;
})();

/** What a file of weights is, with one of them changed, so that pictures tell them apart. */
const other = () => {
  const [first, ...rest] = tensors;
  const values = (first.values as Float32Array<ArrayBuffer>).map((x) => x + 0.5);
  return writeSafetensors([{ ...first, values }, ...rest]);
};

/** The weights in two files, and their index. */
function shards(): Record<string, Uint8Array<ArrayBuffer> | object> {
  const half = tensors.length >> 1,
    names = [1, 2].map((k) => `diffusion_pytorch_model-0000${k}-of-00002`);
  const parts = [tensors.slice(0, half), tensors.slice(half)];
  const map = parts.flatMap((part, k) => part.map(({ name }) => [name, `${names[k]}.safetensors`]));
  return {
    [`unet/${names[0]}.safetensors`]: writeSafetensors(parts[0]),
    [`unet/${names[1]}.safetensors`]: writeSafetensors(parts[1]),
    [`${STEM}.safetensors.index.json`]: {
      ...{ metadata: { total_size: 1 }, weight_map: Object.fromEntries(map) },
    },
  };
}
const without = { [WEIGHTS]: undefined, [`${STEM}.bin`]: undefined };

Deno.test("the class of the scheduler chooses the sampler, which is said, and --sampler another", async () => {
  const cases: [object, RegExp, string][] = [
    [
      { _class_name: "DDIMScheduler" },
      /^sampler: ddim, which is DDIMScheduler of the model; --samp/,
      "ddim",
    ],
    [
      { _class_name: "DPMSolverMultistepScheduler", use_karras_sigmas: true, euler_at_final: true },
      /^sampler: dpmpp_2m with --sigmas karras, which is DPM.* but for its euler_at_final; --sampler/,
      "dpmpp_2m --sigmas karras",
    ],
    [
      { _class_name: "DPMSolverSinglestepScheduler" },
      /^sampler: dpmpp_2m_sde, since none is like DPMSolverSinglestepScheduler of the model; --sampl/,
      "dpmpp_2m_sde",
    ],
  ];
  for (const [fields, message, flags] of cases) {
    const path = "scheduler/scheduler_config.json", index = "model_index.json";
    const scheduler = { ...fields, num_train_timesteps: 10 };
    await using folder = await pipeline({ [path]: scheduler, [index]: undefined });
    const { bytes, said } = await paint(folder);
    assertMatch(said, message);
    const asked = await paint(folder, "pipe", "--sampler", ...flags.split(" "));
    assertEquals(asked.bytes, bytes);
    assert(!asked.said.includes("sampler:"), asked.said);
  }
});

Deno.test("model_index.json decides what the pieces are", async () => {
  const unet = ["diffusers", "UNet2DModel"], scheduler = ["diffusers", "DDIMScheduler"];
  // Its class of the scheduler, not that of the scheduler's own file.
  await using ddim = await pipeline({ "model_index.json": { _class_name: "X", unet, scheduler } });
  assertMatch((await paint(ddim)).said, /^sampler: ddim, which is DDIMScheduler/);
  // Early pipelines have all in one folder.
  const files = [...checkpoint()].map(([path, bytes]) => [path.replace(/.*\//, ""), bytes]);
  const nothing = [...checkpoint().keys()].map((path) => [path, undefined]);
  await using flat = await pipeline(Object.fromEntries([...nothing, ...files]));
  assertEquals((await paint(flat)).bytes, plain);
  // A piece may have any name, and some change nothing.
  await using renamed = await pipeline({
    "model_index.json": {
      ...{ _class_name: "Mine", denoiser: unet, scheduler: ["diffusers", "DDPMScheduler"] },
      ...{
        safety_checker: [null, null],
        feature_extractor: ["x", "Y"],
        requires_aesthetics: false,
      },
    },
  });
  await Deno.rename(renamed.at("pipe/unet"), renamed.at("pipe/denoiser"));
  assertEquals((await paint(renamed)).bytes, plain);
});

Deno.test("a pipeline with pieces that this program has not is refused by their names", async () => {
  const unet = ["diffusers", "UNet2DModel"], scheduler = ["diffusers", "DDIMScheduler"];
  const cases: [object, RegExp][] = [
    [
      { _class_name: "LDMPipeline", unet, scheduler, vqvae: ["diffusers", "VQModel"] },
      /it is a LDMPipeline, and this program does not paint with vqvae \(VQModel\); its networks are UN/,
    ],
    [
      { _class_name: "SomethingPipeline", unet: ["diffusers", "UNet9DModel"], scheduler },
      /SomethingPipeline, and this program does not paint with unet \(UNet9DModel\)/,
    ],
    [{ _class_name: "X", scheduler }, /it is a X, which names no network/],
    [{ _class_name: "X", "../unet": unet }, /"\.\.\/unet" is no name of a folder/],
    [[1], /Bad \S+model_index\.json/],
  ];
  for (const [index, message] of cases) {
    await using folder = await pipeline({ "model_index.json": index });
    await folder.refuse(["sample", "--model", "pipe", ...sample], message);
  }
  // The network alone can be asked for.
  await using folder = await pipeline({ "model_index.json": cases[0][0] });
  assertEquals((await paint(folder, "pipe/unet")).bytes, plain);
});

Deno.test("of variants the nearest to training is taken and named, or the one that is asked for", async () => {
  const weights = checkpoint().get(WEIGHTS)!;
  await using both = await pipeline({ [`${STEM}.fp16.safetensors`]: other() });
  const { bytes, said } = await paint(both);
  assertEquals([bytes, said.includes("variant")], [plain, false]);
  const named = await paint(both, `pipe/${STEM}.fp16.safetensors`);
  assert(named.bytes.some((x, i) => x !== plain[i]));
  await using variants = await pipeline({
    ...without,
    [`${STEM}.fp16.safetensors`]: weights,
    [`${STEM}.non_ema.safetensors`]: other(),
  });
  const taken = await paint(variants);
  assertEquals(taken.bytes, plain);
  assertMatch(taken.said, /^the weights are the variant fp16: unet\/diff\S+\.fp16\.safetensors$/m);
  await using pickle = await pipeline({ ...without, [`${STEM}.bin`]: makeTorch(tensors) });
  assertEquals((await paint(pickle)).bytes, plain);
});

Deno.test("of a checkpoint of a training the moving average is taken, which is said", async () => {
  const config = { ...formatNetwork(network), decay: 0.9999, optimization_step: 5, power: 0.75 };
  await using folder = await pipeline({
    "model_index.json": undefined,
    [WEIGHTS]: other(),
    "unet_ema/config.json": config,
    "unet_ema/diffusion_pytorch_model.safetensors": checkpoint().get(WEIGHTS),
  });
  const { bytes, said } = await paint(folder);
  assertEquals(bytes, plain);
  assertMatch(said, /^the weights are the moving average, in unet_ema$/m);
});

Deno.test("weights in several files are those of one", async () => {
  await using folder = await pipeline({ ...without, ...shards() });
  assertEquals((await paint(folder)).bytes, plain);
  assertEquals((await paint(folder, `pipe/${STEM}.safetensors.index.json`)).bytes, plain);
  await folder.refuse(
    ["sample", "--model", `pipe/${STEM}-00001-of-00002.safetensors`, ...sample],
    /00001-of-00002\.safetensors is one of several files; give their folder/,
  );
  // From the hub, each of them comes.
  await using hub = new HubServer();
  hub.files.delete(WEIGHTS);
  for (const [path, content] of Object.entries(shards())) {
    const json = () => new TextEncoder().encode(JSON.stringify(content));
    hub.files.set(path, content instanceof Uint8Array ? content : json());
  }
  // It is no file of PyTorch, and not asked for.
  hub.files.delete(`${STEM}.bin`);
  const cache = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" };
  Object.assign(folder.env, cache);
  assertEquals((await paint(folder, "hf:google/tiny")).bytes, plain);
  assertEquals(hub.fetched.filter((path) => path.includes("-of-")).length, 2);
});

Deno.test("parts that are missing, double or elsewhere are refused by name", async () => {
  const [first, second] = Object.keys(shards()), indexPath = `${STEM}.safetensors.index.json`;
  const index = shards()[indexPath] as { weight_map: Record<string, string> };
  const elsewhere = { weight_map: { ...index.weight_map, [tensors[0].name]: "../../x" } };
  const cases: [Record<string, undefined | Uint8Array<ArrayBuffer> | string | object>, RegExp][] = [
    [{ [second]: undefined }, /of the 2 files of its weights there is no diff\S+-00002-of-00002/],
    [{ [second]: writeSafetensors(tensors) }, /is both in \S+-00001-of-\S+ and in \S+-00002-of/],
    [
      { [first]: writeSafetensors([]) },
      /is said to be in \S+-00001-of-\S+, which does not hold it/,
    ],
    [
      { [indexPath]: elsewhere },
      /is said to be in "\.\.\/\.\.\/x", but files lie beside their index/,
    ],
    [{ [indexPath]: "{" }, /Cannot read \S+index\.json as JSON/],
    [{ [indexPath]: undefined }, /it holds neither model\.safetensors nor diffusion_pytorch_model/],
  ];
  for (const [changes, message] of cases) {
    await using folder = await pipeline({ ...without, ...shards(), ...changes });
    await folder.refuse(["sample", "--model", "pipe", ...sample], message);
  }
});

Deno.test("a folder without its configuration is refused", async () => {
  await using folder = await pipeline({ "unet/config.json": undefined });
  await folder.refuse(
    ["info", "pipe"],
    /there is no config\.json beside diffusion_pytorch_model\.sa/,
  );
  await using scheduled = await pipeline({ "scheduler/scheduler_config.json": "[]" });
  await scheduled.refuse(["info", "pipe"], /^error: Bad noise schedule \S+scheduler_config\.json/);
});
