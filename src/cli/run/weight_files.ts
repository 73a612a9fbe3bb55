/**
 * Which files hold the weights in a folder of diffusers: one of several formats and variants, whole or
 * in parts.
 *
 * @module
 */

/** A file of weights, by its name. */
export interface WeightFile {
  readonly name: string;
  /** Whether it is a file of weights, one of several, or the index of these. */
  readonly kind: "whole" | "shard" | "index";
  readonly format: "safetensors" | "bin";
  /** `fp16`, `non_ema` and so on; "" for what diffusers loads if it is not told. */
  readonly variant: string;
}

/** What files of weights are called by diffusers, and, a pattern, by transformers. */
export const STEM = "diffusion_pytorch_model", TEXT_STEM = "(?:pytorch_)?model";

const VARIANT = "(?:\\.([\\w-]+?))?", PART = "-\\d+-of-\\d+", FORMAT = "\\.(safetensors|bin)";

/** What a name says; `undefined` if it is of something else. */
export function parseWeightFile(name: string, stem = STEM): WeightFile | undefined {
  // Diffusers has put the variant in both places.
  const parts = `(?:${VARIANT}${PART}|${PART}${VARIANT})`;
  const match = (rest: string) => new RegExp(`^${stem}${rest}$`).exec(name);
  const part = match(`${parts}${FORMAT}`);
  if (part) {
    const format = part[3] as WeightFile["format"];
    return { name, kind: "shard", format, variant: part[1] ?? part[2] ?? "" };
  }
  const list = match(`${FORMAT}\\.index${VARIANT}\\.json`);
  if (list) {
    return { name, kind: "index", format: list[1] as WeightFile["format"], variant: list[2] ?? "" };
  }
  const one = match(`${VARIANT}${FORMAT}`);
  if (!one) return undefined;
  return { name, kind: "whole", format: one[2] as WeightFile["format"], variant: one[1] ?? "" };
}

/** Variants from the one that is nearest to what training gave. */
const RANKS = ["", "ema", "fp32", "bf16", "fp16"];
const rankOf = ({ variant }: WeightFile) => {
  const rank = RANKS.indexOf(variant);
  // Last of all the weights without their moving average.
  return rank >= 0 ? rank : variant === "non_ema" ? RANKS.length + 1 : RANKS.length;
};

/**
 * The file to take of those in a folder: no variant rather than one, safetensors rather than pickles,
 * and one file rather than parts.
 */
export function chooseWeights(names: readonly string[], stem?: string): WeightFile | undefined {
  const found = names.map((name) => parseWeightFile(name, stem)).filter((file) =>
    file !== undefined
  );
  return found.filter(({ kind }) => kind !== "shard").sort((a, b) =>
    rankOf(a) - rankOf(b) || Number(a.format === "bin") - Number(b.format === "bin") ||
    Number(a.kind === "index") - Number(b.kind === "index") || (a.name < b.name ? -1 : 1)
  )[0];
}
