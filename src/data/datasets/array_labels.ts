/**
 * Which of the arrays of a file are the classes of its pictures, and what the classes are called.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import type { StoredArray } from "../../formats/npy.ts";
import type { Labels } from "./array.ts";

/** What arrays of labels are called, the usual first. */
const LABELS = ["labels", "y_train", "train_labels", "label", "y", "targets", "target", "arr_1"];
/** What arrays with the names of classes are called; some call them labels, and the labels y. */
const CLASSES = ["class_names", "classes", "label_names", "target_names", "categories", "labels"];

/** The first array that has one of the names, in whatever folder of the file it is. */
export function byName(
  arrays: readonly StoredArray[],
  names: readonly string[],
): StoredArray | undefined {
  const nameOf = ({ name }: StoredArray) => name.replace(/^.*\//, "").toLowerCase();
  return names.flatMap((name) => arrays.filter((array) => nameOf(array) === name))[0];
}

/** Labels that are classes, or why there are none where there seem to be. */
export type FoundLabels = Labels & { readonly labelProblem?: string };

/**
 * The labels of pictures among the arrays beside theirs: the one that is called so, or the only one
 * of numbers that has as many, or else the only one that has as many rows, a 1 among zeros in each.
 */
export function labelsAmong(arrays: readonly StoredArray[], count: number): FoundLabels {
  const found = pickLabels(arrays, count);
  if (found === undefined) return {};
  if (typeof found === "string") return { labelProblem: found };
  try {
    return read(found, classNames(arrays, count));
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { labelProblem: error.message };
  }
}

const isColumn = ({ shape }: StoredArray) => shape.length === 1 || shape[1] === 1;

/** The array, or why it is none. */
function pickLabels(
  arrays: readonly StoredArray[],
  count: number,
): StoredArray | string | undefined {
  const fitting = arrays.filter(({ shape }) => shape[0] === count && shape.length <= 2);
  const named = byName(fitting, LABELS);
  if (named) return named;
  const numbers = fitting.filter(({ texts, problem }) => !texts && !problem);
  const columns = numbers.filter(isColumn);
  if (columns.length > 1) {
    const names = columns.slice(0, 8).map(({ name }) => name).join(", ");
    return `several arrays could be its labels (${names}); call one of them labels`;
  }
  if (columns.length) return columns[0];
  const rows = numbers.filter(({ shape }) => shape.length === 2);
  if (rows.length === 1) return rows[0];
  const other = byName(arrays.filter(({ texts }) => !texts), LABELS);
  return other && (other.problem ?? `its ${other.name} are ${other.shape.join("x")}, not ${count}`);
}

/** What classes are called, by number. */
function classNames(arrays: readonly StoredArray[], count: number): readonly string[] | undefined {
  const isList = ({ texts, shape }: StoredArray) =>
    texts && shape.length === 1 && shape[0] !== count;
  return byName(arrays.filter(isList), CLASSES)?.texts?.();
}

/** @throws {InputError} If they are no classes. */
function read(array: StoredArray, names: readonly string[] | undefined): Labels {
  const { name, shape } = array, what = `its ${name}`;
  if (array.problem) throw new InputError(array.problem);
  if (array.texts) {
    if (!isColumn(array)) throw new InputError(`${what} are ${shape[1]} texts for each image`);
    return byValue(array.texts());
  }
  const values = isColumn(array) ? array.values() : fromOneHot(array.values(), shape[1], what);
  const odd = values.find((v) => !Number.isSafeInteger(v) || Math.abs(v) >= 2 ** 31);
  if (odd !== undefined) throw new InputError(`${what} have the number ${odd}`);
  // Where some are negative, -1 may stand for none or for one of two: it is a class like others.
  if (values.some((v) => v < 0)) {
    const { labels, classes } = byValue(values);
    return { labels, classes: classes.map((value) => names?.[value] ?? String(value)) };
  }
  const labels = Int32Array.from(values), most = labels.reduce((a, b) => Math.max(a, b), 0);
  return { labels, ...(names && most < names.length ? { classes: names } : {}) };
}

/** A class for each different value, in ascending order. */
function byValue<T extends string | number>(values: Iterable<T>) {
  const all = [...values];
  const classes = [...new Set(all)].sort((a, b) => a < b ? -1 : a > b ? 1 : 0);
  const numbers = new Map(classes.map((value, i) => [value, i]));
  return { labels: Int32Array.from(all, (value) => numbers.get(value)!), classes };
}

/** The places of the ones. @throws {InputError} If a row is not one 1 among zeros. */
function fromOneHot(
  values: Float32Array | Float64Array,
  columns: number,
  what: string,
): Float64Array {
  return Float64Array.from({ length: values.length / columns }, (_, i) => {
    const row = values.subarray(i * columns, (i + 1) * columns), place = row.indexOf(1);
    if (place < 0 || row.some((value, k) => value !== (k === place ? 1 : 0))) {
      throw new InputError(
        `${what} have ${columns} numbers for image ${i} that are not one 1 among zeros`,
      );
    }
    return place;
  });
}
