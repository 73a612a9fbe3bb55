/**
 * Errors on their way from one thread to another, where they lose their classes.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { DeviceError, LimitError } from "../gpu/device.ts";

/** An error as it is sent. */
export interface SentError {
  readonly name: string;
  readonly message: string;
  /** Of a {@linkcode LimitError}. */
  readonly limit?: { readonly wanted: number; readonly limit: number; readonly largest?: number };
}

/** An error to be sent. */
export function sendError(error: unknown): SentError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message } = error;
  if (!(error instanceof LimitError)) return { name, message };
  const { wanted, limit, largestBatch: largest } = error;
  return { name, message, limit: { wanted, limit, ...(largest === undefined ? {} : { largest }) } };
}

/** The classes of errors that are more than a message. */
const classes: Readonly<Record<string, new (message: string) => Error>> = {
  ...{ InputError, DeviceError, RangeError, TypeError },
};

/** An error that was sent, of the class that it had. */
export function receiveError({ name, message, limit }: SentError): Error {
  if (limit) return new LimitError(message, limit.wanted, limit.limit, limit.largest);
  return new (classes[name] ?? Error)(message);
}
