/**
 * Conditions as inputs of programs, and what fills them.
 *
 * @module
 */

import type { Condition, Conditions } from "../diffusion/denoiser.ts";
import { InputError } from "../errors.ts";
import type { TensorBuffer } from "../gpu/device.ts";
import { input, type Tensor } from "../gpu/tensor.ts";
import { formatShape, sizeOf } from "../shape.ts";

/** What is given for conditions: `labels` is short for the condition of that name. */
export interface Given {
  readonly labels?: readonly number[];
  readonly conditions?: Readonly<Record<string, ArrayLike<number>>>;
}

/** The name of a condition's input, which no state of a solver has. */
const inputOf = (name: string) => `condition ${name}`;

/** An input for each condition. */
export const conditionInputs = (
  conditions: Conditions,
  batch: number,
): Readonly<Record<string, Tensor>> =>
  Object.fromEntries(
    Object.entries(conditions).map(([name, { shape, dtype }]) =>
      [name, input(inputOf(name), [batch, ...shape], dtype)] as const
    ),
  );

/** Elements and types of the inputs' buffers, by the names of the inputs. */
export const conditionBuffers = (
  conditions: Conditions,
  batch: number,
): { readonly name: string; readonly length: number; readonly dtype: Condition["dtype"] }[] =>
  Object.entries(conditions).map(([name, { shape, dtype }]) => ({
    ...{ name: inputOf(name), length: batch * sizeOf(shape), dtype },
  }));

const given = ({ labels, conditions }: Given): Readonly<Record<string, ArrayLike<number>>> => ({
  ...(labels ? { labels } : {}),
  ...conditions,
});

/** @throws {InputError} If conditions are missing, superfluous, too few or out of range. */
export function checkConditions(conditions: Conditions, options: Given, count: number): void {
  const values = given(options);
  for (const name of Object.keys(values)) {
    if (conditions[name]) continue;
    if (name === "labels") throw new InputError("The model has no classes: labels make no sense");
    const known = Object.keys(conditions).join(", ") || "none";
    throw new InputError(`There is no condition ${name}: those of the model are: ${known}`);
  }
  for (const [name, condition] of Object.entries(conditions)) {
    checkCondition(name, condition, values[name], count);
  }
}

function checkCondition(
  name: string,
  { shape, none, below, default: usual = none }: Condition,
  values: ArrayLike<number> | undefined,
  count: number,
): void {
  const each = sizeOf(shape), isLabels = name === "labels" && below !== undefined;
  if (!values) {
    if (usual !== undefined) return;
    throw new InputError(
      isLabels
        ? `The model has ${below} classes: give a label for each image`
        : `The model needs the condition ${name}, ${formatShape(shape)} for each item`,
    );
  }
  if (values.length !== count * each && (isLabels || values.length !== each)) {
    throw new InputError(
      isLabels
        ? `The model has ${below} classes: give a label for each image`
        : `The condition ${name} is ${formatShape(shape)} for each of ${count} items: that is ` +
          `${count * each} numbers, not ${values.length}`,
    );
  }
  const bad = Array.prototype.find.call(
    values,
    (v: number) =>
      below === undefined ? !Number.isFinite(v) : !(Number.isInteger(v) && v >= 0 && v < below),
  );
  if (bad === undefined) return;
  throw new InputError(
    below === undefined
      ? `The condition ${name} holds ${bad}, which is no number`
      : `${isLabels ? "Label" : `The condition ${name}:`} ${bad} is not one of 0 to ${below - 1}`,
  );
}

/** Fills the inputs for a batch that starts at item `first` of `count`. */
export function writeConditions(
  buffers: Readonly<Record<string, TensorBuffer>>,
  conditions: Conditions,
  options: Given,
  { count, first, here }: { readonly count: number; readonly first: number; readonly here: number },
): void {
  const values = given(options);
  for (const [name, condition] of Object.entries(conditions)) {
    const { shape } = condition, usual = condition.default ?? condition.none ?? 0;
    const buffer = buffers[inputOf(name)], each = sizeOf(shape), all = values[name];
    if (!buffer) continue;
    const row = new Float64Array(buffer.length).fill(usual);
    for (let i = 0; all && i < here; i++) {
      const from = all.length === count * each ? (first + i) * each : 0;
      for (let k = 0; k < each; k++) row[i * each + k] = all[from + k];
    }
    buffer.write(row);
  }
}
