/**
 * What the page says.
 *
 * @module
 */

import { DeviceError, LimitError } from "../gpu/device.ts";
import { InputError } from "../errors.ts";
import { EngineError, type Made } from "./engine.ts";
import { element } from "./settings.ts";

/** Says how things are. */
export function say(text: string): void {
  const status = element("status");
  status.classList.remove("error");
  status.textContent = text;
}

/** So many pictures, in words. */
export const tellPictures = (count: number): string =>
  `${count} ${count === 1 ? "picture" : "pictures"}`;

/** Which pictures were withheld, and why, a sentence each reason. */
export function tellWithheld({ withheld = new Map() }: Made): string[] {
  const numbers = new Map<string, number[]>();
  for (const [k, why] of withheld) numbers.set(why, [...numbers.get(why) ?? [], k + 1]);
  return [...numbers].map(([why, all]) =>
    all.length === 1 ? `Picture ${all} is ${why}.` : `Pictures ${all.join(", ")} are ${why}.`
  );
}

/** What went wrong, and what to do about it. */
export interface Failure {
  readonly text: string;
  /** Whether the device can be used on. */
  readonly outcome: "go on" | "reset";
}

/** An error in words, and what to do where it is too much memory. */
export function explain(
  error: unknown,
  advice = "ask for fewer pictures, or take a smaller model",
): Failure {
  // Some browsers end theirs with a stop.
  const message = (error instanceof Error ? error.message : String(error)).replace(/\.$/, "");
  if (error instanceof InputError) return { text: `${message}.`, outcome: "go on" };
  if (error instanceof LimitError || isOutOfMemory(message)) {
    const text = `${message}. That is too much memory: ${advice}.`;
    return { text, outcome: error instanceof LimitError ? "go on" : "reset" };
  }
  if (error instanceof EngineError) return { text: `${message}.`, outcome: "go on" };
  if (error instanceof DeviceError) {
    return { text: `${message}. The next try opens a new device.`, outcome: "reset" };
  }
  if (location.protocol === "file:") {
    const text =
      "A page that is opened as a file may load no models: drop one here, or serve the folder.";
    return { text, outcome: "go on" };
  }
  return { text: `${message}.`, outcome: "go on" };
}

const isOutOfMemory = (message: string) =>
  /out of memory|allocation failed|could not allocate/i.test(message);

/** Says what went wrong. */
export function warn({ text, outcome }: Failure): Failure["outcome"] {
  say(text);
  element("status").classList.add("error");
  return outcome;
}
