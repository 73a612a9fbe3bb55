import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.ts";
import { parseLoras, withLoras } from "../../src/cli/run/load_lora.ts";
import { loadTextToImage } from "../../src/cli/run/text_to_image.ts";
import { flatten } from "../../src/model/parameters.ts";
import type { TextToImageModel } from "../../src/model/text_to_image.ts";
import { assertClose } from "../close.ts";
import { makeTorch } from "../torch.ts";
import { tinyModelFile } from "./cli.ts";
import { HubServer } from "./hub_server.ts";
import { pipelineFolder, singleFile } from "./pipelines.ts";

const MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
/** A change by one everywhere in a matrix of 8 × 8. */
const ones = (shape: number[]) => new Float32Array(8).fill(1).subarray(0, shape[0] * shape[1]);
const tensors = (width = 8) => [
  { name: `unet.${MODULE}.lora_A.weight`, shape: [1, width], values: ones([1, width]) },
  { name: `unet.${MODULE}.lora_B.weight`, shape: [8, 1], values: ones([8, 1]) },
];

/** The weight that is changed. */
function weightOf({ denoiser: { network: { layout }, parameters } }: TextToImageModel) {
  const at = layout.specs.findIndex(({ name }) => name === `${MODULE}.weight`);
  return flatten(layout, parameters).subarray(layout.offsets[at], layout.offsets[at] + 64);
}

Deno.test("files and their scales are told apart by commas and colons", () => {
  assertEquals(parseLoras("a.safetensors"), [{ place: "a.safetensors", scale: 1 }]);
  assertEquals(parseLoras("a.b:0.8, hf:owner/name:-1,c:\\x.pt,hf:owner/name/y.bin:.5"), [
    { place: "a.b", scale: 0.8 },
    { place: "hf:owner/name", scale: -1 },
    { place: "c:\\x.pt", scale: 1 },
    { place: "hf:owner/name/y.bin", scale: 0.5 },
  ]);
  for (const text of ["", ",", "a,,b", ":0.5", "a:0.5.5"]) {
    assertThrows(() => parseLoras(text), InputError, "--lora must be files with commas");
  }
});

Deno.test("files, pickles and folders of diffusers are merged, one after the other", async () => {
  await using folder = await pipelineFolder({
    "a.safetensors": writeSafetensors(tensors()),
    "b.pt": makeTorch(tensors()),
    "style/pytorch_lora_weights.safetensors": writeSafetensors(tensors()),
  });
  const model = (await loadTextToImage(folder.at("pipe")))!, before = weightOf(model);
  const loras = [["a.safetensors", 0.5], ["b.pt", 0.25], ["style", 1]] as const;
  const merged = await withLoras(
    model,
    loras.map(([name, scale]) => `${folder.at(`pipe/${name}`)}:${scale}`).join(", "),
  );
  assertClose(weightOf(merged), before.map((x) => x + 1.75), 1e-6, MODULE);
  assertEquals(weightOf(model), before);
});

Deno.test("what is no file, or for another model, is refused by its name", async () => {
  await using folder = await pipelineFolder({
    "wide.safetensors": writeSafetensors(tensors(4)),
    "broken.safetensors": "broken",
    "empty/nothing.txt": "",
  });
  const model = (await loadTextToImage(folder.at("pipe")))!;
  const cases: [string, RegExp][] = [
    ["nothing.safetensors", /Cannot load the LoRA \S+nothing\.safetensors: there is no such file/],
    ["empty", /Cannot load the LoRA \S+empty: it holds no pytorch_lora_weights\.safetensors; name/],
    ["broken.safetensors", /broken\.safetensors as safetensors/],
    [
      "wide.safetensors",
      /Cannot use \S+wide\.safetensors .*to_q\.lora_A\.weight has shape \[1, 4\]/,
    ],
    ["unet/diffusion_pytorch_model.safetensors", /is none of a LoRA that is known/],
  ];
  for (const [name, message] of cases) {
    const run = () => withLoras(model, folder.at(`pipe/${name}`));
    const { message: said } = await assertRejects(run, InputError);
    assertMatch(said, message);
  }
});

Deno.test("alpha is taken from the header where diffusers writes it, and other settings are refused", async () => {
  const file = (settings: object | string) =>
    writeSafetensors(tensors(), {
      lora_adapter_metadata: typeof settings === "string" ? settings : JSON.stringify(settings),
    });
  const plain = { "unet.r": 1, "unet.use_dora": false, "unet.alpha_pattern": {} };
  await using folder = await pipelineFolder({
    "half.safetensors": file({ ...plain, "unet.lora_alpha": 0.5, "text_encoder.lora_alpha": 8 }),
    "dora.safetensors": file({ ...plain, "unet.use_dora": true }),
    "pattern.safetensors": file({ ...plain, "unet.alpha_pattern": { to_q: 4 } }),
    "broken.safetensors": file("{"),
  });
  const model = (await loadTextToImage(folder.at("pipe")))!, before = weightOf(model);
  const merge = (name: string) => withLoras(model, folder.at(`pipe/${name}.safetensors`));
  assertClose(weightOf(await merge("half")), before.map((x) => x + 0.5), 1e-6, MODULE);
  await assertRejects(() => merge("dora"), InputError, "unet.use_dora");
  await assertRejects(() => merge("pattern"), InputError, "unet.alpha_pattern");
  await assertRejects(() => merge("broken"), InputError, "it is no JSON");
});

Deno.test("sample paints otherwise with a LoRA, and as before at a scale of zero", async () => {
  const changed = tensors().map((tensor) => ({ ...tensor, values: tensor.values.map(() => 3) }));
  await using folder = await pipelineFolder({ "x.safetensors": writeSafetensors(changed) });
  await folder.write("m.safetensors", tinyModelFile());
  const args = ["sample", "--device", "cpu", "--steps", "1", "--prompt", "red"];
  const paint = async (...more: string[]) => {
    await folder.succeed(...args, "--model", "pipe", "--out", "x.safetensors", ...more);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return toFloat32([...tensors.values()][0]);
  };
  const plain = await paint(), other = await paint("--lora", "pipe/x.safetensors");
  assertEquals(await paint("--lora", "pipe/x.safetensors:0"), plain);
  await using hub = new HubServer(new Map([["style.safetensors", writeSafetensors(changed)]]));
  const cache = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" };
  Object.assign(folder.env, cache);
  assertEquals(await paint("--lora", "hf:google/tiny/style.safetensors"), other);
  assert(other.some((value, i) => value !== plain[i]));
  await folder.refuse(
    [...args, "--model", "m.safetensors", "--lora", "pipe/x.safetensors"],
    /--lora is for models that paint texts by way of latents/,
  );
  await folder.refuse(
    [...args, "--model", "pipe", "--lora", "nothing"],
    /Cannot load the LoRA nothing: there is no such file/,
  );
});

Deno.test("sample paints the same with a single file as with the folder of it", async () => {
  await using folder = await pipelineFolder();
  await using single = await singleFile();
  const args = [
    "sample",
    "--device",
    "cpu",
    "--steps",
    "2",
    "--prompt",
    "red",
    "--sampler",
    "ddim",
  ];
  const out = ["--out", "x.safetensors", "--model"];
  const [a, b] = [[folder, "pipe"], [single, "one/model.safetensors"]] as const;
  const pictures = await Promise.all([a, b].map(async ([folder, model]) => {
    await folder.succeed(...args, ...out, model);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return toFloat32([...tensors.values()][0]);
  }));
  assertEquals(pictures[0], pictures[1]);
});
