import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { parseLoras, withLoras } from "../../src/cli/run/load_lora.ts";
import { loadTextToImage } from "../../src/cli/run/text_to_image.ts";
import { flatten } from "../../src/model/parameters.ts";
import type { TextToImageModel } from "../../src/model/text_to_image.ts";
import { assertClose } from "../close.ts";
import { makeTorch } from "../torch.ts";
import { pipelineFolder } from "./pipelines.ts";

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
    loras.map(([name, scale]) => ({ place: folder.at(`pipe/${name}`), scale })),
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
    const lora = [{ place: folder.at(`pipe/${name}`), scale: 1 }];
    const { message: said } = await assertRejects(() => withLoras(model, lora), InputError);
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
  const merge = (name: string) =>
    withLoras(model, [{ place: folder.at(`pipe/${name}.safetensors`), scale: 1 }]);
  assertClose(weightOf(await merge("half")), before.map((x) => x + 0.5), 1e-6, MODULE);
  await assertRejects(() => merge("dora"), InputError, "unet.use_dora");
  await assertRejects(() => merge("pattern"), InputError, "unet.alpha_pattern");
  await assertRejects(() => merge("broken"), InputError, "it is no JSON");
});
