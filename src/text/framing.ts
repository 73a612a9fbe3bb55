/**
 * Texts between the tokens that start and end them, as encoders with so many positions take them.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { WeightedText } from "./prompt_weights.ts";
import type { WeightedTokens } from "./tokenizer.ts";

/** Settings of tokenizers that put texts between two tokens. */
export interface TokenizerOptions {
  /** As many tokens as the text encoder has positions. @default {77} */
  readonly length?: number;
  /**
   * What fills up the rest; by default BERT's `[PAD]`, and of CLIP the token that ends texts. Stable
   * Diffusion 2 has 0.
   */
  readonly padding?: number;
}

/** How texts become words, and words tokens. */
export interface Spelling {
  /** A text as it is cut into words. */
  normalize(text: string): string;
  /** What is a word, wherever it is. */
  readonly words: RegExp;
  /** The tokens of a word. */
  encodeWord(word: string): readonly number[];
  /** The text of tokens. */
  decode(ids: Iterable<number>): string;
}

/** What stands around texts. */
export interface Frame {
  readonly length: number;
  readonly start: number;
  readonly end: number;
  readonly padding: number;
}

/**
 * The settings of a tokenizer.
 *
 * @param vocabulary Ids are below this.
 * @throws {InputError} If the length is no integer from 3 on, or padding no id.
 */
export function makeFrame(
  { length = 77, padding }: TokenizerOptions,
  tokens: Omit<Frame, "length">,
  vocabulary: number,
): Frame {
  if (!Number.isSafeInteger(length) || length < 3) {
    throw new InputError(`Cannot make prompts ${length} tokens long: give an integer from 3 on`);
  }
  const frame = { ...tokens, length, padding: padding ?? tokens.padding };
  if (Number.isSafeInteger(frame.padding) && frame.padding >= 0 && frame.padding < vocabulary) {
    return frame;
  }
  throw new InputError(`Cannot pad with ${padding}: ids are from 0 to ${vocabulary - 1}`);
}

/** The tokens of pieces of a text, one behind the other. What is cut off is not looked at. */
export function frameTokens(
  pieces: readonly WeightedText[],
  spelling: Spelling,
  { length, start, end, padding }: Frame,
): WeightedTokens {
  const ids = new Int32Array(length).fill(padding), weights = new Float32Array(length).fill(1);
  let at = 1, cut = "";
  ids[0] = start;
  for (const { text, weight } of pieces) {
    const plain = spelling.normalize(text);
    if (cut) {
      cut += plain;
      continue;
    }
    for (const { 0: word, index } of plain.matchAll(spelling.words)) {
      const tokens = spelling.encodeWord(word), count = Math.min(tokens.length, length - 1 - at);
      ids.set(tokens.slice(0, count), at);
      weights.fill(weight, at, at + count);
      at += count;
      if (count === tokens.length) continue;
      const rest = count ? spelling.decode(tokens.slice(count)) : word;
      cut = rest + plain.slice(index + word.length);
      break;
    }
  }
  ids[at] = end;
  return { ids, weights, cut: cut.trim() };
}
