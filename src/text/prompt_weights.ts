/**
 * Prompts in which some words weigh more than others, as AUTOMATIC1111's web UI writes them.
 *
 * @module
 */

import { InputError } from "../errors.ts";

/** A piece of a prompt. */
export interface WeightedText {
  /** Without brackets and backslashes. */
  readonly text: string;
  /** 1 where nothing is said. */
  readonly weight: number;
}

/** What brackets without a number multiply by. */
const FACTOR = 1.1;

/** An escaped character, a bracket that opens, one that closes with a number or without, and text. */
const PARTS =
  /\\([\\()[\]])|([([])|:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)|([)\]])|[^\\()[\]:]+|[\\:]/gu;

/** A pair of brackets, of which the second may be missing. */
interface Brackets {
  readonly closing: string;
  factor: number;
}

/**
 * Reads a prompt with weights: `(word)` weighs 1.1 times as much, `[word]` as much less, `(word:1.3)`
 * 1.3 times; brackets in brackets multiply, and those that are not closed reach to the end. Brackets
 * that close nothing, or not the last one that was opened, are text, and so are all after a backslash.
 * There is no `AND`, `BREAK`, or `[from:to:when]`.
 *
 * @returns Pieces that are not empty, neighbours of other weights.
 * @throws {InputError} If a weight is too large for a 32-bit float.
 *
 * @example
 * ```ts
 * import { parsePromptWeights } from "@x/ddpm";
 *
 * console.log(parsePromptWeights("a (red:1.3) horse \\(1952\\)"));
 * // "a " weighs 1, "red" 1.3, " horse (1952)" 1
 * ```
 */
export function parsePromptWeights(prompt: string): WeightedText[] {
  // Texts, brackets that open, and null where one closes: what they multiply by comes last.
  const parts: (string | Brackets | null)[] = [], opened: Brackets[] = [];
  for (const [part, escaped, opening, number, closing] of prompt.matchAll(PARTS)) {
    const isOpen = opened.at(-1)?.closing === (number === undefined ? closing : ")");
    if (escaped) parts.push(escaped);
    else if (opening) {
      const isRound = opening === "(";
      const brackets = { closing: isRound ? ")" : "]", factor: isRound ? FACTOR : 1 / FACTOR };
      opened.push(brackets);
      parts.push(brackets);
    } else if (isOpen && (closing || number)) {
      const brackets = opened.pop()!;
      if (number !== undefined) brackets.factor = Number(number);
      parts.push(null);
    } else parts.push(part);
  }

  const pieces: { text: string; weight: number }[] = [], weights = [1];
  for (const part of parts) {
    const weight = weights.at(-1)!;
    if (part === null) weights.pop();
    else if (typeof part !== "string") weights.push(weight * part.factor);
    else if (pieces.at(-1)?.weight === weight) pieces.at(-1)!.text += part;
    else {
      if (!Number.isFinite(Math.fround(weight))) {
        throw new InputError(
          `Cannot weigh ${
            JSON.stringify(part.slice(0, 40))
          } ${weight} times: the brackets around ` +
            "it are too many, or their numbers too large",
        );
      }
      pieces.push({ text: part, weight });
    }
  }
  return pieces;
}
