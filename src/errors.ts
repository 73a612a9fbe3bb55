/**
 * What is wrong with something that a user gave: a flag, a file, a configuration.
 *
 * @module
 */

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

  /** Line breaks and other control characters, which may come from a bad file, become spaces. */
  constructor(message: string, options?: ErrorOptions) {
    super(message.replace(/\p{Cc}+/gu, " "), options);
  }
}
