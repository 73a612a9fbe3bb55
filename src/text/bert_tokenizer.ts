/**
 * BERT's tokenizer (Devlin et al. 2018): pieces of lower-case words without accents. Latent diffusion
 * read texts with it before Stable Diffusion.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { MAX_VOCABULARY } from "./byte_pairs.ts";
import {
  type Frame,
  frameTokens,
  makeFrame,
  type Spelling,
  type TokenizerOptions,
} from "./framing.ts";
import { parsePromptWeights } from "./prompt_weights.ts";
import { fetchShippedText } from "./shipped_text.ts";
import type { TokenizedText, Tokenizer, WeightedTokens } from "./tokenizer.ts";
import { joinPieces, WordPieces } from "./word_pieces.ts";

/** Stand before and after a text, behind it, and for what is not known. */
const START = "[CLS]", END = "[SEP]", PADDING = "[PAD]", UNKNOWN = "[UNK]";

/** Tokens of vocabularies that stand for themselves in texts. */
const SPECIAL = /\[(?:CLS|SEP|PAD|UNK|MASK)\]/g;
/** What is a word: those, a mark of punctuation, or whatever else has no space in it. */
const WORDS =
  /\[(?:CLS|SEP|PAD|UNK|MASK)\]|[!-/:-@[-`{-~\p{P}]|[^\p{White_Space}!-/:-@[-`{-~\p{P}]+/gu;

/** What is dropped, but for tabs and ends of lines, which are spaces. */
const CONTROLS = /(?![\t\n\r])[\p{C}\ufffd]/gu;
const SPACES = /\p{White_Space}+/gu;
/** Ideographs, of Japanese and Vietnamese too, are words of their own. */
const IDEOGRAPHS =
  /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
const ACCENTS = /\p{Mn}/gu;

/** A text without special tokens as it is cut into words. */
const simplify = (text: string) =>
  text.replace(CONTROLS, "").replace(IDEOGRAPHS, " $& ").replace(SPACES, " ")
    .normalize("NFD").replace(ACCENTS, "")
    // One by one, so that a sigma that ends a word is written as any other.
    .replace(/\p{Changes_When_Lowercased}/gu, (letter) => letter.toLowerCase());

/** A text as it is cut into words. */
function normalize(text: string): string {
  const special = text.match(SPECIAL) ?? [];
  return text.split(SPECIAL).map((part, i) => simplify(part) + (special[i] ?? "")).join("");
}

/**
 * Loads the vocabulary of BERT that comes with the package: the 30,522 pieces of "BERT-Base, Uncased",
 * which latent diffusion reads texts with.
 *
 * @returns Ids by pieces.
 * @throws {TypeError} If it cannot be reached.
 *
 * @example
 * ```ts
 * import { fetchBertVocabulary } from "@x/ddpm";
 *
 * console.log((await fetchBertVocabulary()).get("horse")); // 3586
 * ```
 */
export const fetchBertVocabulary = async (): Promise<ReadonlyMap<string, number>> =>
  parseBertVocabulary(await fetchShippedText("bert_base_uncased_vocab"));

/**
 * Reads the vocabulary of a pipeline from the text of `vocab.txt` in its folder `tokenizer`: a piece a
 * line, whose number is its id.
 *
 * @returns Ids by pieces.
 * @throws {InputError} If it is none: it lacks a token that no text does without, or is too large.
 *
 * @example
 * ```ts
 * import { BertTokenizer, parseBertVocabulary } from "@x/ddpm";
 *
 * const vocabulary = parseBertVocabulary("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhorse\n##s\n");
 * console.log(new BertTokenizer(vocabulary, { length: 6 }).encode("Horses!").ids);
 * // [2, 4, 5, 1, 3, 0]
 * ```
 */
export function parseBertVocabulary(text: string): ReadonlyMap<string, number> {
  const refuse = (why: string) =>
    new InputError(`Cannot read the vocabulary of a tokenizer: ${why}`);
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  if (lines.length > MAX_VOCABULARY) {
    throw refuse(`it has ${lines.length} pieces, more than ${MAX_VOCABULARY}`);
  }
  const ids = new Map(lines.map((piece, id) => [piece, id]));
  for (const token of [PADDING, UNKNOWN, START, END]) {
    if (!ids.has(token)) throw refuse(`it lacks ${token}`);
  }
  return ids;
}

/**
 * BERT's tokenizer. Ids are those of transformers' `BertTokenizerFast` for `bert-base-uncased`, which
 * latent diffusion was trained with: control characters are dropped, ideographs and marks of
 * punctuation (all symbols of ASCII among them) are words, accents are dropped after canonical
 * decomposition, and what is left is in lower case. Words of more than 100 characters, and those that
 * no pieces make up, are `[UNK]`. `[CLS]`, `[SEP]`, `[PAD]`, `[UNK]` and `[MASK]` in a text are the
 * tokens of that name. Its slow tokenizer differs in one thing: a Greek sigma that ends a word.
 *
 * @example What a prompt becomes, and what is cut off
 * ```ts
 * import { BertTokenizer, fetchBertVocabulary } from "@x/ddpm";
 *
 * const tokenizer = new BertTokenizer(await fetchBertVocabulary());
 * console.log(tokenizer.encode("A photo of a cat").ids.slice(0, 8));
 * // [101, 1037, 6302, 1997, 1037, 4937, 102, 0]
 * console.log(tokenizer.encode("very ".repeat(80)).cut); // "very very very very very"
 * ```
 */
export class BertTokenizer implements Tokenizer {
  /** How many tokens it makes of every text. */
  readonly length: number;
  /** Ids are below this. */
  readonly vocabulary: number;
  readonly #pieces: ReadonlyMap<number, string>;
  readonly #frame: Frame;
  readonly #spelling: Spelling;

  /**
   * A tokenizer for texts of one length.
   *
   * @param ids Of `fetchBertVocabulary()` or `parseBertVocabulary()`.
   * @throws {InputError} If the length is no integer from 3 on, or padding no id.
   */
  constructor(ids: ReadonlyMap<string, number>, options: TokenizerOptions = {}) {
    const [start, end, padding] = [START, END, PADDING].map((token) => ids.get(token)!);
    this.vocabulary = 1 + [...ids.values()].reduce((a, b) => Math.max(a, b), 0);
    this.#frame = makeFrame(options, { start, end, padding }, this.vocabulary);
    this.length = this.#frame.length;
    this.#pieces = new Map([...ids].map(([piece, id]) => [id, piece]));
    const words = new WordPieces(ids, ids.get(UNKNOWN)!);
    // Only special tokens have capital letters by now.
    const encodeWord = (word: string) =>
      word.length > 1 && word.startsWith("[")
        ? [ids.get(word) ?? ids.get(UNKNOWN)!]
        : words.encode(word);
    const decode = (tokens: Iterable<number>) => this.decode(tokens);
    this.#spelling = { normalize, words: WORDS, encodeWord, decode };
  }

  /** The tokens of a text between those that start and end it, padded, or cut at the end. */
  encode(text: string): TokenizedText {
    const { ids, cut } = frameTokens([{ text, weight: 1 }], this.#spelling, this.#frame);
    return { ids, cut };
  }

  /**
   * The tokens of a prompt in which some parts weigh more than others, as `parsePromptWeights()`
   * reads it.
   *
   * @throws {InputError} If a weight is too large for a number.
   */
  encodeWeighted(prompt: string): WeightedTokens {
    return frameTokens(parsePromptWeights(prompt), this.#spelling, this.#frame);
  }

  /** The text that tokens stand for, with a space between words and marks of punctuation. */
  decode(ids: Iterable<number>): string {
    return joinPieces(Array.from(ids, (id) => this.#pieces.get(id) ?? ""));
  }
}
