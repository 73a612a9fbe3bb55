/**
 * CLIP's tokenizer (Radford et al. 2021): byte pair encoding of lower-case words.
 *
 * @module
 */

import { BytePairs } from "./byte_pairs.ts";
import { byteCharacters, type ClipVocabulary, END, START, WORD_END } from "./clip_vocabulary.ts";
import {
  type Frame,
  frameTokens,
  makeFrame,
  type Spelling,
  type TokenizerOptions,
} from "./framing.ts";
import { parsePromptWeights } from "./prompt_weights.ts";
import type { TokenizedText, Tokenizer, WeightedTokens } from "./tokenizer.ts";

/** What is a word: tokens that stand for themselves, endings, letters, one digit, and the rest. */
const WORDS =
  /<\|startoftext\|>|<\|endoftext\|>|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;
const SPACES = /\p{White_Space}+/gu;

/** Characters that HTML writes otherwise. */
const ENTITIES = /&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,8})|#[xX]([\da-fA-F]{1,6}));/g;
const named: Readonly<Record<string, string>> = {
  ...{ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\xa0" },
};

const unescapeHtml = (text: string) =>
  text.replace(ENTITIES, (_, name, decimal, hexadecimal) => {
    if (name) return named[name];
    const code = decimal ? Number(decimal) : parseInt(hexadecimal, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code).toWellFormed() : "\ufffd";
  });

/** A text as it is cut into words. */
const normalize = (text: string) =>
  unescapeHtml(unescapeHtml(text.toWellFormed())).replace(SPACES, " ").toLowerCase();

/** Words whose tokens are remembered: how many, and how long they are at the most. */
const REMEMBERED = 1 << 15, LONGEST = 64;

/**
 * CLIP's tokenizer. Ids are those of OpenAI's own, which the text encoders were trained with, but for
 * what it has a further library do to odd characters (ftfy): curly quotes, ligatures, wide letters
 * and decomposed accents remain as they are. References of HTML (`&amp;`, also twice) are resolved
 * if they are numbers or one of amp, lt, gt, quot, apos and nbsp. The fast tokenizer of transformers
 * differs in three things: it resolves none of them, composes accents, and writes a Greek sigma at
 * the end of a word as any other. Surrogates without their other half count as U+FFFD, and
 * `<|startoftext|>` and `<|endoftext|>` in a text are the tokens of that name.
 *
 * @example What a prompt becomes, and what is cut off
 * ```ts
 * import { ClipTokenizer, fetchClipVocabulary } from "@x/ddpm";
 *
 * const tokenizer = new ClipTokenizer(await fetchClipVocabulary());
 * console.log(tokenizer.encode("A photo of a cat").ids.slice(0, 7));
 * // [49406, 320, 1125, 539, 320, 2368, 49407]
 * console.log(tokenizer.encode("very ".repeat(80)).cut); // "very very very very very"
 * ```
 */
export class ClipTokenizer implements Tokenizer {
  /** How many tokens it makes of every text. */
  readonly length: number;
  /** Ids are below this. */
  readonly vocabulary: number;
  readonly #ids: ReadonlyMap<string, number>;
  readonly #tokens: ReadonlyMap<number, string>;
  readonly #pairs: BytePairs;
  readonly #frame: Frame;
  readonly #spelling: Spelling;
  /** Ids of bytes within a word, and of those that end it. */
  readonly #bytes: readonly [number[], number[]];
  readonly #remembered = new Map<string, readonly number[]>();

  /**
   * A tokenizer for texts of one length.
   *
   * @param vocabulary Of `fetchClipVocabulary()` or `parseClipVocabulary()`.
   * @throws {InputError} If the length is no integer from 3 on, or padding no id.
   */
  constructor({ ids, merges }: ClipVocabulary, options: TokenizerOptions = {}) {
    const [start, end] = [START, END].map((token) => ids.get(token)!);
    this.vocabulary = 1 + [...ids.values()].reduce((a, b) => Math.max(a, b), 0);
    this.#frame = makeFrame(options, { start, end, padding: end }, this.vocabulary);
    [this.length, this.#ids] = [this.#frame.length, ids];
    this.#spelling = {
      ...{ normalize, words: WORDS },
      encodeWord: (word) => this.#encodeWord(word),
      decode: (tokens) => this.decode(tokens),
    };
    this.#tokens = new Map([...ids].map(([token, id]) => [id, token]));
    this.#pairs = new BytePairs(
      merges.map(([left, right]) => ({
        ...{ left: ids.get(left)!, right: ids.get(right)! },
        joined: ids.get(left + right)!,
      })),
    );
    const idsOf = (suffix: string) => byteCharacters.map((c) => ids.get(c + suffix) ?? end);
    this.#bytes = [idsOf(""), idsOf(WORD_END)];
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

  /** The text that tokens stand for, with a space after each word. */
  decode(ids: Iterable<number>): string {
    const bytes: number[] = [];
    for (const id of ids) {
      const token = this.#tokens.get(id) ?? "";
      const isEnd = token.endsWith(WORD_END), isSpecial = token === START || token === END;
      const letters = isEnd ? token.slice(0, -WORD_END.length) : token;
      for (const letter of letters) bytes.push(byteOf.get(letter) ?? 0);
      if (isEnd || isSpecial) bytes.push(0x20);
    }
    return new TextDecoder().decode(Uint8Array.from(bytes)).trimEnd();
  }

  #encodeWord(word: string): readonly number[] {
    if (word === START || word === END) return [this.#ids.get(word)!];
    const known = this.#remembered.get(word);
    if (known) return known;
    const bytes = new TextEncoder().encode(word), [inner, last] = this.#bytes;
    const letters = Int32Array.from(
      bytes,
      (byte, i) => (i < bytes.length - 1 ? inner : last)[byte],
    );
    const tokens = this.#pairs.encode(letters);
    if (word.length <= LONGEST) {
      if (this.#remembered.size >= REMEMBERED) this.#remembered.clear();
      this.#remembered.set(word, tokens);
    }
    return tokens;
  }
}

/** The bytes that characters of tokens stand for. */
const byteOf = new Map(byteCharacters.map((letter, byte) => [letter, byte]));
