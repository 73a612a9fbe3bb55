/**
 * States of trainings in files: what their metadata say, and how they are read.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { decodeElements } from "../formats/elements.ts";
import { type Safetensors, type StoredTensor, toFloat32 } from "../formats/safetensors.ts";
import type { TrainableNetwork } from "../model/network.ts";
import { fromFormerLayout } from "../model/parameters.ts";
import { sizeOf } from "../shape.ts";
import { architectureOf, describeDifference, parseFields } from "./run_config.ts";
import type { RestorableState, StateReader } from "./state.ts";

/** Version of the parameter layout in a state; states without one have the first layout. */
export const LAYOUT = "2";
const FLAT = new Set(["parameters", "moment1", "moment2", "ema"]);

/** The metadata of a state, without its checksum. */
export const stateMetadata = (
  step: number,
  network: TrainableNetwork,
): Record<string, string> => ({
  step: String(step),
  network: JSON.stringify(architectureOf(network)),
  layout: LAYOUT,
});

/** The numbers of an array of 32-bit floats. */
const readerOf = ({ shape, read }: StoredTensor): StateReader => ({
  length: sizeOf(shape),
  read: (offset, length) => decodeElements("F32", read(4 * offset, 4 * (offset + length))),
});

/**
 * The state in a file whose checksum matches.
 *
 * @param path What it is called.
 * @param network What is trained, by the configuration at `configPath`.
 * @throws {InputError} If it is no state, or that of another network.
 */
export function parseState(
  { tensors, metadata }: Safetensors,
  path: string,
  network: TrainableNetwork,
  configPath: string,
): RestorableState {
  const step = Number(metadata.step ?? NaN);
  if (!Number.isSafeInteger(step) || step < 0) {
    throw new InputError(`Cannot resume: ${path} has no valid step`);
  }
  const saved = parseFields(metadata.network ?? metadata.unet);
  const difference = describeDifference(saved, path, architectureOf(network), configPath);
  if (difference) {
    throw new InputError(`Cannot resume: the state is of another network: ${difference}`);
  }
  const odd = [...tensors].find(([, tensor]) => tensor.dtype !== "F32");
  if (odd) {
    throw new InputError(`Cannot resume: ${odd[0]} in ${path} is ${odd[1].dtype}, not F32`);
  }
  if (![undefined, LAYOUT].includes(metadata.layout)) {
    throw new InputError(
      `Cannot resume: ${path} has its parameters in layout ${metadata.layout}, but this version ` +
        `knows ${LAYOUT}; use the version that wrote it, or a later one`,
    );
  }
  const layout = metadata.layout === LAYOUT ? undefined : network.layout;
  const arrays = Object.fromEntries(
    [...tensors].map(([name, tensor]) =>
      layout && FLAT.has(name)
        ? [name, fromFormerLayout(layout, toFloat32(tensor))]
        : [name, readerOf(tensor)]
    ),
  );
  return { step, arrays };
}
