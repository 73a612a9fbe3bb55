/**
 * What made an image, as AUTOMATIC1111's web UI writes it into PNG files, and other tools read it.
 *
 * @module
 */

import type { MethodName } from "../../sample/solvers/mod.ts";
import { software } from "../terminal/version.ts";

/** What made an image. */
export interface Parameters {
  readonly prompt: string;
  readonly negative: string;
  readonly steps: number;
  /** The name of the method here. */
  readonly method: string;
  readonly sigmas?: string | undefined;
  readonly guidance: number;
  readonly seed: number;
  /** Which image of the seed it is. */
  readonly image: number;
  readonly size: readonly [height: number, width: number];
  readonly model: string;
  readonly strength?: number | undefined;
}

/** What methods are called there. */
export const methodNames: Readonly<Partial<Record<MethodName, string>>> = {
  ...{ euler: "Euler", euler_ancestral: "Euler a", heun: "Heun", lms: "LMS", ddim: "DDIM" },
  ...{ dpm_2: "DPM2", dpm_2_ancestral: "DPM2 a", dpmpp_2m: "DPM++ 2M", plms: "PLMS" },
  ...{ dpmpp_2m_sde: "DPM++ 2M SDE", dpmpp_3m_sde: "DPM++ 3M SDE" },
  ...{ unipc: "UniPC", lcm: "LCM" },
};

/** The text of the chunk `parameters`. */
export function formatParameters(about: Parameters): string {
  const { prompt, negative, size: [height, width], strength, sigmas } = about;
  const spacing = sigmas ? ` ${sigmas[0].toUpperCase()}${sigmas.slice(1)}` : "";
  const facts = {
    Steps: about.steps,
    Sampler: `${methodNames[about.method as MethodName] ?? about.method}${spacing}`,
    "CFG scale": about.guidance,
    Seed: about.seed,
    Size: `${width}x${height}`,
    Model: quote(about.model),
    ...(strength === undefined ? {} : { "Denoising strength": strength }),
    ...(about.image ? { "Image of the seed": about.image } : {}),
    Version: software,
  };
  const lines = Object.entries(facts).map(([name, value]) => `${name}: ${value}`).join(", ");
  return [prompt, ...(negative ? [`Negative prompt: ${negative}`] : []), lines].join("\n");
}

/** A value with a comma or a colon in quotes. */
const quote = (text: string) => /[,:\n"]/.test(text) ? JSON.stringify(text) : text;

/** A name and a value of the last line, in quotes if it has commas. */
const FACT = /\s*([\w ./-]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)/g;

/** What the text of such a chunk says, whichever program wrote it: prompts, and facts by their names. */
export function parseParameters(text: string): Record<string, string> {
  const lines = text.trim().split("\n"), last = lines.at(-1)!;
  const hasFacts = /(^|, )Steps: \d+/.test(last), words = hasFacts ? lines.slice(0, -1) : lines;
  const at = words.findIndex((line) => line.startsWith("Negative prompt:"));
  const negative = at < 0 ? "" : words.slice(at).join("\n").slice("Negative prompt:".length).trim();
  const facts = hasFacts ? [...last.matchAll(FACT)] : [];
  return {
    prompt: (at < 0 ? words : words.slice(0, at)).join("\n").trim(),
    ...(negative ? { negative } : {}),
    ...Object.fromEntries(facts.map(([, name, value]) => [name, unquote(value)])),
  };
}

function unquote(text: string): string {
  try {
    return text.startsWith('"') ? String(JSON.parse(text)) : text.trim();
  } catch {
    return text;
  }
}
