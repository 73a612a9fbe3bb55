/**
 * The flags that say in words what to paint, and what that is to models that read.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { DenoisingNetwork } from "../../model/network.ts";
import { tokensInTurns } from "../../text/tokenizer.ts";
import { guided } from "../../sample/guidance/guided.ts";
import { usualGuidance } from "../../sample/guidance/usual.ts";
import type { Flag, Flags } from "../terminal/flags.ts";
import { readFile } from "../terminal/files.ts";
import { type guidanceFlags, type GuidancePlan, readGuidance } from "./guidance_flags.ts";

/** Prompts that get a column each at most. */
const MAX_COLUMNS = 16;

/** What commands that paint texts understand. */
export const promptFlags = {
  prompt: {
    kind: "text",
    mayBeEmpty: true,
    value: "TEXT",
    help: "what to paint, for models that read; nothing in particular if it is empty",
  },
  prompts: {
    kind: "text",
    value: "FILE",
    help: "a text file with a prompt a line, which images take in turns",
  },
  negative: {
    kind: "text",
    mayBeEmpty: true,
    value: "TEXT",
    help: "what not to paint; default nothing in particular",
  },
} as const satisfies Record<string, Flag>;

/** What is to be painted. */
export interface Prompts {
  /** Of which images take one after the other. */
  readonly texts: readonly string[];
  /** What guidance leads away from. */
  readonly negative: string;
}

/**
 * Reads the flags; `undefined` if none is given.
 *
 * @param usual Texts where no flag gives any.
 * @throws {InputError} If they contradict each other, or there is no such file.
 */
export async function readPrompts(
  flags: Flags<typeof promptFlags>,
  usual?: readonly string[],
): Promise<Prompts | undefined> {
  const { prompt, prompts, negative = "" } = flags;
  if (prompt !== undefined && prompts !== undefined) {
    throw new InputError("Give --prompt or --prompts: both say what to paint");
  }
  if (prompts === undefined) {
    if (prompt !== undefined) return { texts: [prompt], negative };
    if (usual) return { texts: usual, negative };
    if (flags.negative === undefined) return undefined;
    throw new InputError("--negative is for a --prompt");
  }
  const lines = new TextDecoder().decode(await readFile(prompts)).split("\n");
  const texts = lines.map((line) => line.trim()).filter(Boolean);
  if (texts.length) return { texts, negative };
  throw new InputError(`Cannot take prompts of ${prompts}: it has no lines`);
}

/** Which image is of which text. */
export interface PromptPlan {
  /** How many images there are. */
  readonly count: number;
  /** The text of each. */
  readonly texts: readonly string[];
  /** The values of conditions, of all images. */
  readonly conditions: Readonly<Record<string, ArrayLike<number>>>;
  /** Columns of a grid that has one for each prompt. */
  readonly columns?: number;
  /** Those that guidance adds. */
  readonly negative: Readonly<Record<string, ArrayLike<number>>>;
  /** What is to be said, in words. */
  readonly notice?: string;
}

/**
 * Plans what images show: prompts in turns; without any, whatever the model likes.
 *
 * @param usual How many images there are if nobody says: more where prompts would be left out.
 * @param place What the model is called.
 * @returns Nothing for models that do not read.
 * @throws {InputError} If there are prompts, but the model does not read; or fewer images than prompts.
 */
export function planPrompts(
  prompts: Prompts | undefined,
  network: DenoisingNetwork,
  place: string,
  { count, usual }: { readonly count: number | undefined; readonly usual: number },
): PromptPlan | undefined {
  const { tokenize } = network;
  if (!tokenize) {
    if (!prompts) return undefined;
    throw new InputError(
      `--prompt is for models that read: ${place} does not; train makes one that does with --captions`,
    );
  }
  const { texts, negative } = prompts ?? { texts: [""], negative: "" }, many = texts.length;
  const total = count ?? many * Math.ceil(usual / many);
  if (total < many) {
    throw new InputError(`There are ${many} prompts: --count ${total} leaves some out`);
  }
  return {
    count: total,
    texts: Array.from({ length: total }, (_, k) => texts[k % many]),
    ...(many > 1 && many <= MAX_COLUMNS ? { columns: many } : {}),
    conditions: { tokens: tokensInTurns(tokenize, texts, total) },
    negative: prompts ? { negative_tokens: tokenize(negative) } : {},
    ...(prompts ? {} : { notice: "prompt: none; --prompt chooses" }),
  };
}

/**
 * Guidance towards texts.
 *
 * @throws {InputError} If flags are for guidance towards something else.
 */
export function planPromptGuidance(
  flags: Flags<typeof guidanceFlags>,
  prompts: Prompts | undefined,
  { negative }: PromptPlan,
): GuidancePlan {
  const other = (["guide", "negative-class"] as const).find((name) => flags[name] !== undefined);
  if (other) throw new InputError(`--${other} is for models that do not read`);
  if (!prompts && flags.guidance !== undefined) {
    throw new InputError("--guidance leads towards a text: give a --prompt");
  }
  const { options, facts } = readGuidance(flags, usualGuidance.texts);
  const wrap = prompts && options.scale !== 1 ? [guided(options)] : [];
  return { wrap, conditions: wrap.length ? negative : {}, facts: prompts ? facts : {} };
}
