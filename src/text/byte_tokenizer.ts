/**
 * Texts as their bytes: for small text encoders that learn how to spell.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import type { TokenizedText, Tokenizer } from "./tokenizer.ts";

/**
 * Bytes of UTF-8 as tokens, and 256 for padding. An empty text is nothing but padding. Surrogates
 * without their other half count as U+FFFD.
 *
 * @example
 * ```ts
 * import { ByteTokenizer } from "@x/ddpm";
 *
 * const { ids, cut } = new ByteTokenizer({ length: 6 }).encode("a horse");
 * console.log(ids, cut); // [97, 32, 104, 111, 114, 115] and "e"
 * ```
 */
export class ByteTokenizer implements Tokenizer {
  /** What stands after the end of a text, and for no text at all. */
  static readonly none = 256;
  /** How many tokens it makes of every text. */
  readonly length: number;
  /** 256 bytes, and padding. */
  readonly vocabulary = 257;

  /**
   * A tokenizer for texts of one length.
   *
   * @param options As many tokens as the text encoder has positions, by default 48.
   * @throws {InputError} If the length is no positive integer.
   */
  constructor({ length = 48 }: { readonly length?: number } = {}) {
    if (!Number.isSafeInteger(length) || length < 1) {
      throw new InputError(`Cannot make texts ${length} tokens long: give an integer from 1 on`);
    }
    this.length = length;
  }

  /** The bytes of a text, cut between two characters where they are too many. */
  encode(text: string): TokenizedText {
    const ids = new Int32Array(this.length).fill(ByteTokenizer.none), whole = text.toWellFormed();
    const bytes = new Uint8Array(this.length);
    const { read, written } = new TextEncoder().encodeInto(whole, bytes);
    ids.set(bytes.subarray(0, written));
    return { ids, cut: whole.slice(read) };
  }
}
