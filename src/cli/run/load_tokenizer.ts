/**
 * The tokenizer of a pipeline: its own vocabulary, or that of CLIP or BERT which comes along.
 *
 * @module
 */

import { z } from "zod";
import { InputError } from "../../errors.ts";
import type { TextEncoderNetwork } from "../../model/text_encoder.ts";
import {
  BertTokenizer,
  fetchBertVocabulary,
  parseBertVocabulary,
} from "../../text/bert_tokenizer.ts";
import { ClipTokenizer } from "../../text/clip_tokenizer.ts";
import {
  type ClipVocabulary,
  fetchClipVocabulary,
  parseClipVocabulary,
} from "../../text/clip_vocabulary.ts";
import type { TokenizerOptions } from "../../text/framing.ts";
import type { Tokenizer } from "../../text/tokenizer.ts";
import { readFile, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import type { ModelFolder } from "./model_folder.ts";
import { inFolder } from "./piece_weights.ts";

/** What a tokenizer is made of. */
interface Vocabulary {
  readonly ids: ReadonlyMap<string, number>;
  readonly make: (options: TokenizerOptions) => Tokenizer;
}

/** A kind of tokenizers. */
interface Kind {
  readonly name: string;
  /** The files of a vocabulary. */
  readonly files: readonly string[];
  /** A vocabulary of the texts of these. */
  readonly parse: (...texts: string[]) => Vocabulary;
  /** The one that comes along. */
  readonly fetch: () => Promise<Vocabulary>;
}

const ofClip = (vocabulary: ClipVocabulary): Vocabulary => ({
  ids: vocabulary.ids,
  make: (options) => new ClipTokenizer(vocabulary, options),
});
const ofBert = (ids: ReadonlyMap<string, number>): Vocabulary => ({
  ids,
  make: (options) => new BertTokenizer(ids, options),
});

const clip: Kind = {
  ...{ name: "CLIP", files: ["vocab.json", "merges.txt"] },
  parse: (words, merges) => ofClip(parseClipVocabulary(words, merges)),
  fetch: async () => ofClip(await fetchClipVocabulary()),
};
const bert: Kind = {
  ...{ name: "BERT", files: ["vocab.txt"] },
  parse: (pieces) => ofBert(parseBertVocabulary(pieces)),
  fetch: async () => ofBert(await fetchBertVocabulary()),
};

/** The kind of tokenizers that a text encoder was trained with. */
export const tokenizerKindOf = ({ className }: TextEncoderNetwork): Kind =>
  className === "BERTEmbedder" || className === "LDMBertModel" ? bert : clip;

/** Files that name the token which fills texts up; what the first says holds. */
const SETTINGS = ["special_tokens_map.json", "tokenizer_config.json"];

const tokenSchema = z.union([z.string(), z.looseObject({ content: z.string() })]);
const settingsSchema = z.looseObject({
  ...{ pad_token: tokenSchema.nullish(), do_lower_case: z.boolean().nullish() },
});

/**
 * Loads the tokenizer of a text encoder.
 *
 * @param name The folder that it is in, if there is one.
 * @returns `undefined` if there is none, and the vocabulary that comes along is not that of the text
 * encoder.
 * @throws {InputError} If half of it is missing, or it has tokens that the text encoder does not know.
 */
export async function loadTokenizer(
  folder: ModelFolder,
  name: string,
  network: TextEncoderNetwork,
): Promise<Tokenizer | undefined> {
  const { place } = folder, { tokens: length, vocabulary: known } = network;
  const bad = (why: string) => new InputError(`Cannot load ${place}: ${why}`);
  const kind = tokenizerKindOf(network), texts: string[] = [], missing: string[] = [];
  for (const file of kind.files) {
    const path = await folder.find(inFolder(name, file));
    if (path) texts.push(new TextDecoder().decode(await readFile(path)));
    else missing.push(file);
  }
  if (!missing.length) {
    const tokenizer = await readTokenizer(folder, name, kind.parse(...texts), length);
    if (tokenizer.vocabulary <= known) return tokenizer;
    throw bad(
      `its tokenizer has ${tokenizer.vocabulary} tokens, but its text encoder knows ${known}`,
    );
  }
  if (texts.length) {
    throw bad(`of the two files of its tokenizer there is no ${name}/${missing[0]}`);
  }
  const tokenizer = (await kind.fetch()).make({ length });
  if (tokenizer.vocabulary > known) return undefined;
  printError(`${place} has no ${name}/${kind.files[0]}: the vocabulary is that of ${kind.name}`);
  return tokenizer;
}

/** A tokenizer that fills texts up as its settings say. */
async function readTokenizer(
  folder: ModelFolder,
  name: string,
  { ids, make }: Vocabulary,
  length: number,
): Promise<Tokenizer> {
  let padding: number | undefined;
  for (const file of SETTINGS) {
    const path = await folder.find(inFolder(name, file));
    if (!path) continue;
    const bad = (why: string) => new InputError(`Cannot use ${path}: ${why}`);
    const settings = settingsSchema.safeParse(await readJson(path)).data;
    const { pad_token: token, do_lower_case: isLower } = settings ?? {};
    if (isLower === false) {
      throw bad("do_lower_case is false, but this program reads texts in lower case only");
    }
    if (!token || padding !== undefined) continue;
    const filler = typeof token === "string" ? token : token.content;
    padding = ids.get(filler);
    if (padding === undefined) {
      throw bad(`its pad_token ${JSON.stringify(filler)} is none of the vocabulary`);
    }
  }
  return make({ length, ...(padding === undefined ? {} : { padding }) });
}
