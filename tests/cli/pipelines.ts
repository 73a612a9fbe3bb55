/**
 * A tiny Stable Diffusion as folders and files, of which some are others, or are left out.
 *
 * @module
 */

import { Folder } from "./cli.ts";

const fixtures = new URL("../fixtures/", import.meta.url);

/** A file of the fixtures. */
export const fixture = async (path: string): Promise<Uint8Array<ArrayBuffer>> =>
  await Deno.readFile(new URL(path, fixtures));

/** Tokens for a text encoder that knows 300: letters, and one word. */
export function tinyVocabulary(): Record<string, number> {
  const letters = Array.from("abcdefghijklmnopqrstuvwxyz");
  const tokens = [...letters, ...letters.map((letter) => `${letter}</w>`), "re", "red</w>"];
  return {
    ...Object.fromEntries(tokens.map((token, i) => [token, i])),
    ...{ "<|startoftext|>": 298, "<|endoftext|>": 299 },
  };
}

/** Files by paths; `undefined` leaves one out. */
export type Changes = Record<string, Uint8Array<ArrayBuffer> | string | object | undefined>;

/** Its tokenizer. */
export const tokenizer: Changes = {
  "tokenizer/vocab.json": tinyVocabulary(),
  "tokenizer/merges.txt": "#version: 0.2\nr e\nre d</w>\n",
};

/** The files of the pipeline in folders, with a tokenizer. */
export async function pipelineFiles(changes: Changes = {}): Promise<Changes> {
  const paths = [
    ...["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"],
    ...["vae/config.json", "text_encoder/config.json", "text_encoder/model.safetensors"],
    ...["unet", "vae"].map((name) => `${name}/diffusion_pytorch_model.safetensors`),
  ];
  const files = await Promise.all(
    paths.map(async (path) => [path, await fixture(`pipelines/txt2img/${path}`)]),
  );
  return { ...Object.fromEntries(files), ...tokenizer, ...changes };
}

/** The pipeline in a folder `pipe`. */
export async function pipelineFolder(changes: Changes = {}): Promise<Folder> {
  const folder = await Folder.make();
  await writeAll(folder, "pipe", await pipelineFiles(changes));
  return folder;
}

/** The same in one file in a folder `one`. */
export async function singleFile(changes: Changes = {}): Promise<Folder> {
  const folder = await Folder.make(), files = ["config.json", "model.safetensors"];
  const own = await Promise.all(
    files.map(async (name) => [name, await fixture(`pipelines/single-file/${name}`)]),
  );
  await writeAll(folder, "one", { ...Object.fromEntries(own), ...tokenizer, ...changes });
  return folder;
}

async function writeAll(folder: Folder, top: string, files: Changes): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    if (content === undefined) continue;
    await Deno.mkdir(folder.at(`${top}/${path}`).replace(/[^/]*$/, ""), { recursive: true });
    await folder.write(`${top}/${path}`, content);
  }
}
