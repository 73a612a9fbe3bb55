/**
 * What a program does and needs, as plain data: its stages, their kernels, and its memory plan, which
 * is known before anything is allocated.
 *
 * @module
 */

import { type Expression, inOrder } from "./expression.ts";
import type { Stage } from "./compile/stage.ts";
import { Scratch, type Storage } from "./storage.ts";
import { formatShape } from "../shape.ts";
import { formatBytePair } from "../units.ts";

/** A program, stage by stage. */
export interface ProgramDescription {
  /** What it is for. */
  readonly label: string;
  /** What it does, in order. */
  readonly stages: readonly StageDescription[];
  /** What it needs. */
  readonly memory: MemoryPlan;
}

/** What is computed together: an operation, or a fused loop nest. */
export interface StageDescription {
  /** The operation; `map` for a loop nest, or `sum` if it sums. */
  readonly op: string;
  /** Of the operation's result, or the domain of the loops. */
  readonly shape: readonly number[];
  /** Floating point operations, of convolutions and matrix products only. */
  readonly flops: number;
  /** Elementwise primitives that it computes on the way, and how many of each. */
  readonly fused: Readonly<Record<string, number>>;
  /** How it is computed, in order. */
  readonly kernels: readonly KernelDescription[];
}

/** A dispatch on a GPU, or an entry of the tape that the threads of a CPU play. */
export interface KernelDescription {
  /** What it computes. */
  readonly label: string;
  /** Bytes that it can reach, to be read or written. */
  readonly bytes: number;
  /** Workgroups, or tasks of threads. */
  readonly groups: number;
  /** Its WGSL, on a GPU. */
  readonly code?: string;
}

/** Memory of a program, known before anything is allocated. */
export interface MemoryPlan {
  /** Bytes that it takes for itself. */
  readonly bytes: number;
  /** Those of them that tensors take turns in. */
  readonly temporary: number;
  /** What these tensors would take if each had its own. */
  readonly unshared: number;
  /** Why it cannot be had on this device, if it cannot. */
  readonly excess?: Excess;
}

/** A limit of a device that a program exceeds. */
export interface Excess {
  /** What exceeds it: "it" for the whole program, "the result of matmul [2, 3]" for a part. */
  readonly what: string;
  /** How much that takes. */
  readonly wanted: number;
  /** How much the device allows. */
  readonly limit: number;
  /** What is counted. */
  readonly unit: "bytes" | "workgroups";
  /** Where the limit holds, "in a buffer". */
  readonly scope: string;
  /** What takes the most of it, "17.6 TB for the result of matmul [2, 3]". */
  readonly largest?: string;
}

/** "a tensor takes 17.6 TB, but the device allows 4.29 GB in a buffer". */
export function describeExcess(
  { what, wanted, limit, unit, scope, largest }: Excess,
  device: string,
): string {
  const [takes, allows] = unit === "bytes"
    ? formatBytePair(wanted, limit)
    : [wanted, limit].map((n) => `${n.toLocaleString("en")} ${unit}`);
  const mostly = largest === undefined ? "" : `, of which ${largest}`;
  return `${what} takes ${takes}${mostly}, but ${device} allows ${allows} ${scope}`;
}

/**
 * Memory of a program in words: the name of an input or output, or else what computes it, and its
 * shape.
 */
export function describeStorage(storage: Storage, name?: string): string {
  if (storage instanceof Scratch) return "an intermediate result";
  const what = name === undefined ? `the result of ${storage.op.name}` : `the tensor ${name}`;
  return `${what} ${formatShape(storage.shape)}`;
}

/** Describes a stage; its kernels are the target's. */
export function describeStage(
  stage: Stage,
  kernels: readonly KernelDescription[],
): StageDescription {
  if ("loop" in stage) {
    const { label, domain, results } = stage.loop;
    return {
      ...{ op: label, shape: domain, flops: 0, kernels },
      fused: countPrimitives(results.map(({ expression }) => expression)),
    };
  }
  const { node, fused } = stage;
  const expressions = [fused.input, fused.output].flatMap((f) => f ? [f.expression] : []);
  return {
    ...{ op: node.op.name, shape: node.shape, flops: node.op.flops?.(node) ?? 0, kernels },
    fused: countPrimitives(expressions),
  };
}

function countPrimitives(expressions: readonly Expression[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const e of inOrder(expressions)) {
    if (e.kind === "call") counts[e.primitive] = (counts[e.primitive] ?? 0) + 1;
  }
  return counts;
}
