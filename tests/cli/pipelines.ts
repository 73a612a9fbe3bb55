/**
 * A tiny Stable Diffusion as folders and files, of which some are others, or are left out.
 *
 * @module
 */

import { dirname } from "@std/path";
import { Folder } from "./cli.ts";

const fixtures = new URL("../fixtures/", import.meta.url);

/** A file of the fixtures. */
export const fixture = async (path: string): Promise<Uint8Array<ArrayBuffer>> =>
  await Deno.readFile(new URL(path, fixtures));

/** Tokens for a text encoder that knows 300: letters, and one word. */
function tinyVocabulary(): Record<string, number> {
  const letters = Array.from("abcdefghijklmnopqrstuvwxyz");
  const tokens = [...letters, ...letters.map((letter) => `${letter}</w>`), "re", "red</w>"];
  return {
    ...Object.fromEntries(tokens.map((token, i) => [token, i])),
    ...{ "<|startoftext|>": 298, "<|endoftext|>": 299 },
  };
}

/** Files by paths. */
export type Files = Record<string, Uint8Array<ArrayBuffer>>;
/** Other files by paths; `undefined` leaves one out. */
export type Changes = Record<string, Uint8Array<ArrayBuffer> | string | object | undefined>;

const encode = (text: string) => new TextEncoder().encode(text);

/** Its tokenizer. */
const tokenizer: Files = {
  "tokenizer/vocab.json": encode(JSON.stringify(tinyVocabulary())),
  "tokenizer/merges.txt": encode("#version: 0.2\nr e\nre d</w>\n"),
};

/** Files of the fixtures below a folder. */
const read = async (folder: string, paths: readonly string[]): Promise<Files> =>
  Object.fromEntries(
    await Promise.all(paths.map(async (path) => [path, await fixture(`${folder}/${path}`)])),
  );

/** The files of the pipeline in folders, with a tokenizer. */
export const pipelineFiles = async (): Promise<Files> => ({
  ...await read("pipelines/txt2img", [
    ...["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"],
    ...["vae/config.json", "text_encoder/config.json", "text_encoder/model.safetensors"],
    ...["unet", "vae"].map((name) => `${name}/diffusion_pytorch_model.safetensors`),
  ]),
  ...tokenizer,
});

/** The same in one file, with what is beside it. */
export const singleFiles = async (): Promise<Files> => ({
  ...await read("pipelines/single-file", ["config.json", "model.safetensors"]),
  ...tokenizer,
});

/** The pipeline in a folder `pipe`. */
export const pipelineFolder = async (changes: Changes = {}): Promise<Folder> =>
  await folderOf("pipe", { ...await pipelineFiles(), ...changes });

/** The same in one file in a folder `one`. */
export const singleFile = async (changes: Changes = {}): Promise<Folder> =>
  await folderOf("one", { ...await singleFiles(), ...changes });

/** Files in a folder. */
export async function folderOf(top: string, files: Changes): Promise<Folder> {
  const folder = await Folder.make();
  for (const [path, content] of Object.entries(files)) {
    if (content === undefined) continue;
    await Deno.mkdir(dirname(folder.at(`${top}/${path}`)), { recursive: true });
    await folder.write(`${top}/${path}`, content);
  }
  return folder;
}
