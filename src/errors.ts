/**
 * What is wrong with something that a user gave: a flag, a file, a configuration.
 *
 * @module
 */

/** Longer messages have a value out of a bad file in them. */
const LONGEST = 1400;

/**
 * Bad input: one sentence that says what it is, and where possible what would be right.
 *
 * @example
 * ```ts
 * import { InputError, parseNetwork } from "@x/ddpm";
 *
 * try {
 *   parseNetwork({ block_out_channels: "many" });
 * } catch (error) {
 *   if (error instanceof InputError) console.log(error.message);
 * }
 * ```
 */
export class InputError extends Error {
  /** `InputError`. */
  override readonly name = "InputError";

  /**
   * Line breaks and other control characters, which may come from a bad file, become spaces. Of what is
   * too long the beginning and the end are kept.
   */
  constructor(message: string, options?: ErrorOptions) {
    const line = message.replace(/\p{Cc}+/gu, " "), { length } = line;
    const half = LONGEST / 2;
    super(
      length > LONGEST ? `${line.slice(0, half)} … ${line.slice(length - half)}` : line,
      options,
    );
  }
}
