/**
 * What models that read are asked for: the texts of flags, or the captions of real images.
 *
 * @module
 */

import type { Dataset } from "../../data/dataset.ts";
import { type promptFlags, type Prompts, readPrompts } from "../commands/prompt_flags.ts";
import type { Flags } from "../terminal/flags.ts";
import { hashBytes } from "./hashes.ts";

/** Texts that images take in turns. */
export interface AskedTexts extends Prompts {
  /** Where they are from, and what they are. */
  readonly facts: Readonly<Record<string, string>>;
  /** Of captions: the class of the image of each, and what classes are called. */
  readonly labels?: ArrayLike<number>;
  readonly classes?: readonly string[];
}

/**
 * Reads the texts; `undefined` if there are none.
 *
 * @param data Whose captions are taken where flags give no texts, the first of each image.
 * @throws {InputError} If flags contradict each other, or there is no such file.
 */
export async function readTexts(
  flags: Flags<typeof promptFlags>,
  data: Dataset | undefined,
): Promise<AskedTexts | undefined> {
  const captions = data?.captions?.map(([first]) => first);
  const prompts = await readPrompts(flags, captions);
  if (!prompts) return undefined;
  const { texts, negative } = prompts, { labels, classes } = data ?? {};
  const from = flags.prompt ?? flags.prompts ?? `captions of ${data!.name}`;
  return {
    ...prompts,
    facts: {
      [flags.prompt === undefined ? "prompts" : "prompt"]: from,
      prompts_hash: hashBytes(new TextEncoder().encode(texts.join("\n"))),
      ...(negative ? { negative } : {}),
    },
    ...(texts === captions && labels ? { labels } : {}),
    ...(texts === captions && classes ? { classes } : {}),
  };
}
