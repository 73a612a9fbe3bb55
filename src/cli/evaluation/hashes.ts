/**
 * Hashes that tell which model and which files numbers are of.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { formatSchedule } from "../../diffusion/schedule.ts";
import { Scratch } from "../../formats/bytes.ts";
import type { Model } from "../../model/model.ts";
import { formatNetwork } from "../../model/network.ts";
import { readParameter } from "../../model/parameters.ts";

/** SHA-256 of a model: configuration, noise schedule and weights, whatever file they lie in. */
export function hashModel({ network, schedule, parameters }: Model): string {
  const hash = createHash("sha256");
  hash.update(JSON.stringify([formatNetwork(network), formatSchedule(schedule)]));
  const scratch = new Scratch();
  network.layout.specs.forEach(({ name }, i) => {
    const values = readParameter(network.layout, parameters, i, scratch);
    hash.update(`${name}\n`);
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  });
  return hash.digest("hex");
}

/** SHA-256 of a file. */
export const hashBytes = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");
