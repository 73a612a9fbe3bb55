/**
 * The tokenizer of a pipeline: its own vocabulary, or that of CLIP which comes along.
 *
 * @module
 */

import { z } from "zod";
import { InputError } from "../../errors.ts";
import type { TextEncoderNetwork } from "../../model/text_encoder.ts";
import { ClipTokenizer } from "../../text/clip_tokenizer.ts";
import {
  type ClipVocabulary,
  fetchClipVocabulary,
  parseClipVocabulary,
} from "../../text/clip_vocabulary.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { readFile, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import type { ModelFolder } from "./model_folder.ts";
import { inFolder } from "./piece_weights.ts";

/** The files of a vocabulary. */
const VOCABULARY = "vocab.json", MERGES = "merges.txt";
/** Those that name the token which fills texts up; what the first says holds. */
const SETTINGS = ["special_tokens_map.json", "tokenizer_config.json"];

const tokenSchema = z.union([z.string(), z.looseObject({ content: z.string() })]);
const settingsSchema = z.looseObject({ pad_token: tokenSchema.nullish() });

/**
 * Loads the tokenizer of a text encoder.
 *
 * @param name The folder that it is in, if there is one.
 * @returns `undefined` if there is none, and the vocabulary of CLIP is not that of the text encoder.
 * @throws {InputError} If half of it is missing, or it has tokens that the text encoder does not know.
 */
export async function loadTokenizer(
  folder: ModelFolder,
  name: string,
  { tokens: length, vocabulary: known }: TextEncoderNetwork,
): Promise<Tokenizer | undefined> {
  const { place } = folder, bad = (why: string) => new InputError(`Cannot load ${place}: ${why}`);
  const words = await folder.find(inFolder(name, VOCABULARY));
  const merges = await folder.find(inFolder(name, MERGES));
  if (words && merges) {
    const vocabulary = parseClipVocabulary(await readText(words), await readText(merges));
    const tokenizer = await readTokenizer(folder, name, vocabulary, length);
    if (tokenizer.vocabulary <= known) return tokenizer;
    throw bad(
      `its tokenizer has ${tokenizer.vocabulary} tokens, but its text encoder knows ${known}`,
    );
  }
  if (words || merges) {
    throw bad(
      `of the two files of its tokenizer there is no ${name}/${words ? MERGES : VOCABULARY}`,
    );
  }
  const tokenizer = new ClipTokenizer(await fetchClipVocabulary(), { length });
  if (tokenizer.vocabulary > known) return undefined;
  printError(`${place} has no ${name}/${VOCABULARY}: the vocabulary is that of CLIP`);
  return tokenizer;
}

const readText = async (path: string) => new TextDecoder().decode(await readFile(path));

/** A tokenizer that fills texts up as its settings say. */
async function readTokenizer(
  folder: ModelFolder,
  name: string,
  vocabulary: ClipVocabulary,
  length: number,
): Promise<ClipTokenizer> {
  for (const file of SETTINGS) {
    const path = await folder.find(inFolder(name, file));
    const token = path && settingsSchema.safeParse(await readJson(path)).data?.pad_token;
    if (!token) continue;
    const filler = typeof token === "string" ? token : token.content;
    const padding = vocabulary.ids.get(filler);
    if (padding !== undefined) return new ClipTokenizer(vocabulary, { length, padding });
    throw new InputError(
      `Cannot use ${path}: its pad_token ${JSON.stringify(filler)} is none of the vocabulary`,
    );
  }
  return new ClipTokenizer(vocabulary, { length });
}
