/**
 * What all tokenizers have.
 *
 * @module
 */

/** A text as a text encoder takes it. */
export interface TokenizedText {
  /** As many as the encoder has positions, those of padding included. */
  readonly ids: Int32Array<ArrayBuffer>;
  /**
   * What had no place, from the end of the text; empty where everything had. Of CLIP it is in lower
   * case, with single spaces.
   */
  readonly cut: string;
}

/** A prompt with weights as a text encoder takes it. */
export interface WeightedTokens extends TokenizedText {
  /** One for each token; 1 for those before and after the prompt. */
  readonly weights: Float32Array<ArrayBuffer>;
}

/** The tokens of texts that so many items take in turns, one item after the other. */
export function tokensInTurns(
  tokenize: (text: string) => Int32Array,
  texts: readonly string[],
  count: number,
): Int32Array<ArrayBuffer> {
  const tokens = texts.map(tokenize), [{ length }] = tokens;
  const all = new Int32Array(count * length);
  for (let k = 0; k < count; k++) all.set(tokens[k % tokens.length], k * length);
  return all;
}

/** Turns texts into tokens. */
export interface Tokenizer {
  /** How many tokens it makes of every text. */
  readonly length: number;
  /** Ids are below this. */
  readonly vocabulary: number;
  /** The tokens of a text. */
  encode(text: string): TokenizedText;
  /** The tokens of a prompt with weights, if it takes such: those of `parsePromptWeights()`. */
  encodeWeighted?(prompt: string): WeightedTokens;
}
