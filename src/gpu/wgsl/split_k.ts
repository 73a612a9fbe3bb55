/**
 * Sums that several workgroups share: each takes a part of the terms, and a loop adds up the parts.
 *
 * @module
 */

import { argument } from "../expression.ts";
import type { Fused } from "../compile/loop.ts";
import { denseStrides } from "../../shape.ts";
import { Scratch, type Storage, storageSize } from "../storage.ts";
import type { Kernel, WgslTarget } from "./kernel.ts";
import { lowerLoop } from "./loop.ts";

/**
 * The kernels of an operation whose sum over `terms` may be taken in parts by different workgroups:
 * as few parts as occupy the device, then a sum of the parts.
 *
 * @param groups Workgroups that one part takes.
 * @param make Makes the kernel that writes parts of `chunk` terms each, one behind the other; and
 * what becomes of the result, if there is but one part.
 * @param output What becomes of the result.
 */
export function splitSum(
  label: string,
  node: Storage,
  terms: number,
  groups: number,
  target: WgslTarget,
  make: (y: Storage, parts: number, chunk: number) => Kernel,
  output?: Fused["output"],
): Kernel[] {
  const wanted = Math.ceil(target.workgroups / groups);
  const chunk = Math.ceil(terms / Math.max(1, Math.min(wanted, Math.ceil(terms / 256))) / 4) * 4;
  const parts = Math.ceil(terms / chunk);
  if (parts === 1) return [make(node, 1, chunk)];
  const elements = storageSize(node), scratch = new Scratch(parts * elements);
  const domain = output?.domain ?? [elements], strides = denseStrides(domain);
  return [
    make(scratch, parts, chunk),
    ...lowerLoop({
      label: `${label}, parts`,
      domain: [parts, ...domain],
      summed: [true, ...domain.map(() => false)],
      operands: [
        { storage: scratch, strides: [elements, ...strides], offset: 0 },
        ...output?.operands.map((o) => ({ ...o, strides: [0, ...o.strides] })) ?? [],
      ],
      results: [{
        ...{ storage: output?.storage ?? node, strides: [0, ...strides], offset: 0 },
        expression: argument(0),
      }],
      ...(output ? { finish: output.expression } : {}),
    }, target),
  ];
}
