/**
 * The vocabulary of CLIP's tokenizer: OpenAI's, which comes with the package, or the files
 * `vocab.json` and `merges.txt` of a pipeline.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { MAX_VOCABULARY } from "./byte_pairs.ts";
import { fetchShippedText } from "./shipped_text.ts";

/** Ends the last token of a word. */
export const WORD_END = "</w>";
/** Stand before and after a text. */
export const START = "<|startoftext|>", END = "<|endoftext|>";
/** Merges that OpenAI uses of those in its file. */
const MERGES = 49152 - 256 - 2;

/** What tokens there are, and how letters become them. */
export interface ClipVocabulary {
  /** Ids by tokens. */
  readonly ids: ReadonlyMap<string, number>;
  /** Tokens that become one, those that do first coming first. */
  readonly merges: readonly (readonly [left: string, right: string])[];
}

/** Bytes that are written as the character of their number. */
const printable = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) =>
  byte > 32 && byte < 127 || byte > 160 && byte !== 173
);

/** All bytes in the order of their ids: those that are printable, then the others. */
const byteOrder = [...printable, ...Array.from({ length: 256 }, (_, byte) => byte)].filter(
  (byte, i, all) => all.indexOf(byte) === i,
);

/** How each byte is written in tokens: as its character, or as one from 256 on. */
export const byteCharacters: readonly string[] = byteOrder.reduce<string[]>((all, byte, i) => {
  all[byte] = String.fromCharCode(i < printable.length ? byte : 256 + i - printable.length);
  return all;
}, []);

/** Lines of two tokens each, below one that says the version. */
function parseMerges(text: string, limit = Infinity): [string, string][] {
  const lines = text.split(/\r?\n/);
  if (/#version/.test(lines[0])) lines.shift();
  return lines.filter((line) => line !== "").slice(0, limit).map((line) => {
    const pair = line.split(" ");
    if (pair.length === 2 && pair[0] && pair[1]) return pair as [string, string];
    throw new InputError(
      `Cannot read the merges of a tokenizer: ${JSON.stringify(line.slice(0, 40))} are not two ` +
        "tokens with a space between them",
    );
  });
}

/**
 * Loads the vocabulary of CLIP that comes with the package: 49,408 tokens, for all Stable Diffusion 1
 * and 2 and most networks made of them.
 *
 * @throws {TypeError} If it cannot be reached.
 *
 * @example
 * ```ts
 * import { fetchClipVocabulary } from "@x/ddpm";
 *
 * console.log((await fetchClipVocabulary()).ids.get("horse</w>")); // 4558
 * ```
 */
export async function fetchClipVocabulary(): Promise<ClipVocabulary> {
  const text = await fetchShippedText("bpe_simple_vocab_16e6");
  const merges = parseMerges(text, MERGES), letters = byteOrder.map((byte) => byteCharacters[byte]);
  const tokens = [
    ...letters,
    ...letters.map((letter) => letter + WORD_END),
    ...merges.map(([left, right]) => left + right),
    ...[START, END],
  ];
  return { ids: new Map(tokens.map((token, id) => [token, id])), merges };
}

/**
 * Reads the vocabulary of a pipeline from the texts of the two files in its folder `tokenizer`.
 *
 * @param vocabulary Of `vocab.json`.
 * @param merges Of `merges.txt`.
 * @throws {InputError} If they are none, or a merge makes something that the vocabulary lacks.
 *
 * @example
 * ```ts
 * import { ClipTokenizer, parseClipVocabulary } from "@x/ddpm";
 *
 * const ids = { a: 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4 };
 * const vocabulary = parseClipVocabulary(JSON.stringify(ids), "#version: 0.2\na b</w>\n");
 * console.log(new ClipTokenizer(vocabulary, { length: 4 }).encode("ab").ids); // [3, 2, 4, 4]
 * ```
 */
export function parseClipVocabulary(vocabulary: string, merges: string): ClipVocabulary {
  const refuse = (why: string): never => {
    throw new InputError(`Cannot read the vocabulary of a tokenizer: ${why}`);
  };
  let json: unknown;
  try {
    json = JSON.parse(vocabulary);
  } catch (error) {
    refuse((error as Error).message);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    refuse("it is no object of ids by tokens");
  }
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(json as Record<string, unknown>)) {
    if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0 || id >= MAX_VOCABULARY) {
      refuse(`the id of ${JSON.stringify(token)} is ${id}, no integer below ${MAX_VOCABULARY}`);
    }
    ids.set(token, id as number);
  }
  for (const token of [START, END]) if (!ids.has(token)) refuse(`it lacks ${token}`);
  const pairs = parseMerges(merges);
  if (pairs.length >= MAX_VOCABULARY) refuse(`it has ${pairs.length} merges`);
  for (const [left, right] of pairs) {
    for (const token of [left, right, left + right]) {
      if (!ids.has(token)) {
        refuse(`it lacks ${JSON.stringify(token)} of the merge ${left} ${right}`);
      }
    }
  }
  return { ids, merges: pairs };
}
