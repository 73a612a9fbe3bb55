import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { decode, type Image } from "imagescript";
import { InputError } from "../../src/errors.ts";
import { loadTextToImage } from "../../src/cli/run/text_to_image.ts";
import { TextToImage } from "../../src/sample/text_to_image.ts";
import { flatten } from "../../src/model/parameters.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { makeTables } from "../../src/diffusion/betas.ts";
import { assertClose } from "../close.ts";
import { ldmNoise, ldmTextFile, ldmTextFolder } from "../ldm_texts.ts";
import type { Folder } from "./cli.ts";
import { folderOf } from "./pipelines.ts";

/** A prompt, and what transformers makes of it. */
const PROMPT = "A naïve red horse!", TOKENS = [101, 1037, 15743, 2417, 3586, 999, 102];

const load = async (folder: Folder, place: string) => (await loadTextToImage(folder.at(place)))!;
const pixels = async (folder: Folder, name: string) =>
  (await decode(await Deno.readFile(folder.at(name))) as Image).bitmap;

Deno.test("texts are read with BERT, in folders of diffusers and in one file alike", async () => {
  await using folder = await folderOf("pipe", await ldmTextFolder());
  await using single = await folderOf("one", await ldmTextFile());
  const [a, b] = [await load(folder, "pipe"), await load(single, "one/model.safetensors")];
  for (const name of ["denoiser", "autoencoder", "textEncoder"] as const) {
    const [one, other] = [a, b].map((model) => model[name]);
    assertEquals(
      flatten(one.network.layout, one.parameters),
      flatten(other.network.layout, other.parameters),
      name,
    );
  }
  assertEquals(a.textEncoder.network.className, "LDMBertModel");
  assertEquals(b.textEncoder.network.className, "BERTEmbedder");
  assertEquals(a.denoiser.scheduler, ldmNoise);
  const [betas, table] = [a, b].map(({ denoiser }) => makeTables(denoiser.schedule).betas);
  assertClose(betas, table, 1e-6, "betas");
  for (const { tokenizer } of [a, b]) {
    const { ids } = tokenizer.encode(PROMPT);
    assertEquals([...ids], [...TOKENS, ...Array<number>(70).fill(0)]);
  }

  // What is painted is that of these tokens, guided away from those of no text.
  using device = await WasmDevice.open();
  const known: Record<string, number[]> = { [PROMPT]: TOKENS, "": [101, 102] };
  const golden = {
    ...{ length: 77, vocabulary: 30522 },
    encode: (text: string) => ({
      ids: Int32Array.from({ length: 77 }, (_, i) => known[text][i] ?? 0),
      cut: "",
    }),
  };
  const paint = async (model: typeof a, guidance: number) => {
    const painter = await TextToImage.create(device, model, { steps: 3, guidance });
    assertEquals(painter.method, "ddim");
    return (await painter.generate({ prompts: [PROMPT], seed: 5 })).images.data;
  };
  const guided = await paint(a, 5), alone = await paint(a, 1);
  assertEquals(guided, await paint({ ...a, tokenizer: golden }, 5));
  assert(guided.some((x, i) => Math.abs(x - alone[i]) > 1e-3));
});

Deno.test("sample paints texts with latent diffusion, and says whose vocabulary it takes", async () => {
  await using folder = await folderOf("pipe", await ldmTextFolder());
  await using single = await folderOf("pipe", await ldmTextFile());
  await using vq = await folderOf("pipe", await ldmTextFolder({ isVq: true }));
  const args = ["sample", "--device", "cpu", "--steps", "3", "--sampler", "ddim", "--seed", "2"];
  const rest = ["--prompt", PROMPT, "--guidance", "5", "--model"];
  for (const [place, at] of [["pipe", folder], ["pipe/model.safetensors", single]] as const) {
    const { code, stderr } = await at.run(...args, ...rest, place);
    assertEquals(code, 0, stderr);
    assertMatch(stderr, /has no tokenizer\/vocab.txt: the vocabulary is that of BERT/);
  }
  const [a, b] = [await pixels(folder, "samples.png"), await pixels(single, "samples.png")];
  assert(a.every((x, i) => Math.abs(x - b[i]) <= 1));
  const init = ["--init", folder.at("samples.png"), "--strength", "0.7"];
  await vq.succeed(...args, ...rest, "pipe", ...init, "--out", "vq/");
  assertEquals((await pixels(vq, "vq/0000.png")).length, 16 * 16 * 4);
});

Deno.test("a pipeline of latent diffusion may have a vocabulary of its own, if it fits", async () => {
  const files = await ldmTextFolder(), words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\n##s\n";
  const vocabulary = "tokenizer/vocab.txt", settings = "tokenizer/tokenizer_config.json";
  await using folder = await folderOf("pipe", {
    ...{ ...files, [vocabulary]: words, [settings]: { do_lower_case: true, pad_token: "[PAD]" } },
  });
  const { tokenizer } = await load(folder, "pipe");
  assertEquals([...tokenizer.encode("REDS x").ids.slice(0, 6)], [2, 4, 5, 1, 3, 0]);
  const small = { vocab_size: 5, d_model: 24, encoder_layers: 1, architectures: ["LDMBertModel"] };
  const cases: [Record<string, string | object>, RegExp][] = [
    [{ [settings]: { do_lower_case: false } }, /do_lower_case is false.* in lower case only/],
    [{ [settings]: { pad_token: "<pad>" } }, /pad_token "<pad>" is none of the vocabulary/],
    [{ [vocabulary]: "red\n" }, /Cannot read the vocabulary of a tokenizer: it lacks \[PAD\]/],
    [{ "bert/config.json": small }, /has no place|has shape/],
  ];
  for (const [changes, message] of cases) {
    await using bad = await folderOf("pipe", { ...files, [vocabulary]: words, ...changes });
    const { message: said } = await assertRejects(() => load(bad, "pipe"), InputError);
    assertMatch(said, message);
  }
});
