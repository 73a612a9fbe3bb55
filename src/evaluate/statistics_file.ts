/**
 * Statistics of features as .npz files: `mu` and `sigma`, as pytorch-fid and guided-diffusion publish
 * them, and beside them what it takes to put parts together, and to take other measures.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { asBytes, type Bytes } from "../formats/bytes.ts";
import { readNpz, type StoredArray } from "../formats/npy.ts";
import { encodeNpz, type NpyArray } from "../formats/write_npy.ts";
import { type Gaussian, Moments } from "./moments.ts";
import type { Rows } from "./rows.ts";

/** What is known of the features of some images. */
export interface Statistics {
  /** Their mean and covariance. */
  readonly gaussian: Gaussian;
  /** How many images; published files do not tell. */
  readonly count?: number;
  /** The features themselves. */
  readonly features?: Rows;
  /** The logits of the classifier whose features they are. */
  readonly logits?: Rows;
  /** The class that was asked for of each image. */
  readonly labels?: Int32Array<ArrayBuffer>;
  /** Where they come from, as JSON. */
  readonly about?: Readonly<Record<string, unknown>>;
}

/** The arrays of a file. */
const ARRAYS: readonly string[] = [
  ...["mu", "sigma", "count", "features", "logits", "labels", "about"],
];

/**
 * Statistics as the parts of a .npz file, in order: `mu` and `sigma` in double precision, and, where
 * they are known, `count`, `features` and `logits` in single precision, `labels`, and `about`, a text.
 *
 * @throws {RangeError} While its parts are made, if it is more than 4 GiB.
 *
 * @example
 * ```ts
 * import { encodeStatistics } from "@x/ddpm/evaluate";
 *
 * const gaussian = { mean: new Float64Array(2), covariance: new Float64Array([1, 0, 0, 1]) };
 * const parts = [...encodeStatistics({ gaussian, count: 100 })];
 * console.log(parts.reduce((bytes, part) => bytes + part.length, 0));
 * ```
 */
export function encodeStatistics(
  { gaussian: { mean, covariance }, count, features, logits, labels, about }: Statistics,
): Iterable<Uint8Array<ArrayBuffer>> {
  const width = mean.length;
  const table = (name: string, rows: Rows | undefined): NpyArray[] =>
    rows ? [{ name, shape: [rows.count, rows.width], values: Float32Array.from(rows.data) }] : [];
  return encodeNpz([
    { name: "mu", shape: [width], values: mean },
    { name: "sigma", shape: [width, width], values: covariance },
    ...(count === undefined
      ? []
      : [{ name: "count", shape: [], values: Int32Array.of(count) }] satisfies NpyArray[]),
    ...table("features", features),
    ...table("logits", logits),
    ...(labels ? [{ name: "labels", shape: [labels.length], values: labels }] : []),
    ...(about ? [{ name: "about", shape: [], values: JSON.stringify(about) }] : []),
  ]);
}

/**
 * Reads statistics, of whatever origin.
 *
 * @param what What the file is called, for messages.
 * @throws {InputError} If there are no `mu` and `sigma`, or the arrays do not fit each other, or hold
 * numbers that are not finite.
 *
 * @example
 * ```ts
 * import { encodeStatistics, readStatistics } from "@x/ddpm/evaluate";
 *
 * const gaussian = { mean: new Float64Array([3]), covariance: new Float64Array([2]) };
 * const bytes = new Uint8Array(await new Blob([...encodeStatistics({ gaussian })]).arrayBuffer());
 * console.log((await readStatistics(bytes, "x.npz")).gaussian.mean); // 3
 * ```
 */
export async function readStatistics(
  bytes: Uint8Array<ArrayBuffer> | Bytes,
  what: string,
): Promise<Statistics> {
  const bad = (why: string) => new InputError(`Cannot use the statistics in ${what}: ${why}`);
  const source = asBytes(bytes), names: string[] = [];
  const wanted = await readNpz(source, what, (name) => {
    names.push(name);
    // Others, pictures for instance, may be large.
    return ARRAYS.includes(name);
  });
  const arrays = new Map(wanted.map((array) => [array.name, array]));
  const numbers = ({ name, values }: StoredArray) => {
    const all = values(), found = all instanceof Float64Array ? all : Float64Array.from(all);
    const odd = found.find((x) => !Number.isFinite(x));
    if (odd !== undefined) throw bad(`${name} has the number ${odd}`);
    return found as Float64Array<ArrayBuffer>;
  };
  const [mu, sigma] = ["mu", "sigma"].map((name) => {
    const array = arrays.get(name);
    if (array) return array;
    throw bad(`it has no array ${name}; it has ${names.join(", ") || "none at all"}`);
  });
  const [width] = mu.shape;
  if (mu.shape.length !== 1 || sigma.shape.join() !== `${width},${width}`) {
    throw bad(
      `mu is ${mu.shape.join("x")} and sigma ${sigma.shape.join("x")}, not N and NxN of the same N`,
    );
  }
  const covariance = numbers(sigma);
  checkSymmetric(covariance, width, bad);
  const table = (name: string, columns?: number): Rows | undefined => {
    const array = arrays.get(name);
    if (!array) return undefined;
    const [rows, wide] = array.shape;
    if (array.shape.length !== 2 || columns !== undefined && wide !== columns) {
      throw bad(`${name} are ${array.shape.join("x")}, not rows of ${columns ?? "numbers"}`);
    }
    return { count: rows, width: wide, data: Float32Array.from(numbers(array)) };
  };
  const features = table("features", width), logits = table("logits");
  const labels = arrays.get("labels"), size = arrays.get("count"), text = arrays.get("about");
  const count = size ? numbers(size)[0] : features?.count;
  for (const rows of [features?.count, logits?.count, labels?.shape[0]]) {
    if (rows !== undefined && rows !== count) {
      throw bad(`it has rows of ${rows} and ${count} images`);
    }
  }
  return {
    gaussian: { mean: numbers(mu), covariance },
    ...(count === undefined ? {} : { count }),
    ...(features ? { features } : {}),
    ...(logits ? { logits } : {}),
    ...(labels ? { labels: Int32Array.from(numbers(labels)) } : {}),
    ...(text?.texts ? { about: parseAbout(text.texts()[0], bad) } : {}),
  };
}

/** Rounding of 32-bit floats, of the largest variance. */
const ASYMMETRY = 1e-5;

/** @throws {InputError} If it is no covariance, by its looks. */
function checkSymmetric(
  covariance: Float64Array,
  width: number,
  bad: (why: string) => InputError,
): void {
  let largest = 0;
  for (let i = 0; i < width; i++) {
    const variance = covariance[i * width + i];
    if (variance < 0) throw bad(`sigma is no covariance: the variance ${i} is ${variance}`);
    largest = Math.max(largest, variance);
  }
  for (let i = 0; i < width; i++) {
    for (let j = 0; j < i; j++) {
      const [one, other] = [covariance[i * width + j], covariance[j * width + i]];
      if (Math.abs(one - other) <= ASYMMETRY * largest) continue;
      throw bad(`sigma is no covariance: ${one} at ${i}, ${j} is ${other} at ${j}, ${i}`);
    }
  }
}

function parseAbout(text: string, bad: (why: string) => InputError): Record<string, unknown> {
  try {
    return Object(JSON.parse(text));
  } catch {
    throw bad("what it tells of its origin is no JSON");
  }
}

/**
 * Puts the statistics of parts together, in their order: moments up to rounding as of the whole, and
 * features where all parts have them.
 *
 * @throws {InputError} If there are several, of which one does not tell how many images it is of, or is
 * of another width.
 *
 * @example
 * ```ts
 * import { mergeStatistics, Moments } from "@x/ddpm/evaluate";
 *
 * const part = (...data: number[]) => {
 *   const moments = new Moments(1);
 *   moments.add({ count: data.length, width: 1, data: Float32Array.from(data) });
 *   return { gaussian: moments.gaussian(), count: data.length };
 * };
 * console.log(mergeStatistics([part(1, 2), part(3, 4, 5)]).gaussian.mean); // 3
 * ```
 */
export function mergeStatistics(parts: readonly Statistics[]): Statistics {
  if (parts.length === 1) return parts[0];
  const width = parts[0].gaussian.mean.length, moments = new Moments(width);
  for (const { gaussian, count } of parts) {
    if (count === undefined) {
      throw new InputError(
        "Cannot put statistics together: a file does not tell how many images it is of (count)",
      );
    }
    if (gaussian.mean.length !== width) {
      throw new InputError(
        `Cannot put features of width ${width} and of width ${gaussian.mean.length} together`,
      );
    }
    moments.merge(Moments.of(gaussian, count));
  }
  const tables = (get: (part: Statistics) => Rows | undefined) => {
    const found = parts.map(get).filter((rows) => rows !== undefined);
    return found.length === parts.length ? joinRows(found) : undefined;
  };
  const features = tables((part) => part.features), logits = tables((part) => part.logits);
  const labels = parts.map((part) => part.labels).filter((labels) => labels !== undefined);
  const [{ about }] = parts;
  return {
    ...{ gaussian: moments.gaussian(), count: moments.count },
    ...(features ? { features } : {}),
    ...(logits ? { logits } : {}),
    ...(labels.length === parts.length
      ? { labels: Int32Array.from(labels.flatMap((part) => [...part])) }
      : {}),
    ...(about ? { about } : {}),
  };
}

/** Rows of several sets, one set after the other. */
export function joinRows(parts: readonly Rows[]): Rows {
  const [{ width }] = parts, count = parts.reduce((sum, part) => sum + part.count, 0);
  const data = new Float32Array(count * width);
  parts.reduce((at, part) => (data.set(part.data, at), at + part.data.length), 0);
  return { count, width, data };
}
