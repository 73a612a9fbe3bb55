/**
 * Hashes that tell which model and which files numbers are of.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { formatSchedule } from "../../diffusion/schedule.ts";
import { Scratch } from "../../formats/bytes.ts";
import type { Model, Trainable } from "../../model/model.ts";
import { formatNetwork } from "../../model/network.ts";
import { readParameter } from "../../model/parameters.ts";

/** SHA-256 of a model: configuration, noise schedule, if it has one, and weights, those of its
 * autoencoder too, whatever file they lie in. */
export function hashModel(model: Trainable): string {
  const hash = createHash("sha256"), scratch = new Scratch();
  const { schedule, autoencoder }: Partial<Model> = "schedule" in model ? model : {};
  const network = formatNetwork(model.network);
  hash.update(JSON.stringify([network, ...(schedule ? [formatSchedule(schedule)] : [])]));
  if (autoencoder) hash.update(JSON.stringify(formatNetwork(autoencoder.network)));
  for (const { network: { layout }, parameters } of autoencoder ? [model, autoencoder] : [model]) {
    layout.specs.forEach(({ name }, i) => {
      const values = readParameter(layout, parameters, i, scratch);
      hash.update(`${name}\n`);
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    });
  }
  return hash.digest("hex");
}

/** SHA-256 of a file. */
export const hashBytes = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");
