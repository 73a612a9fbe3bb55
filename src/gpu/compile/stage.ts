/**
 * Stages: what is executed one after the other. {@linkcode Group} and {@linkcode Single} say which
 * tensors belong to one, {@linkcode StageBuilder} makes the loops and kernels' work of them.
 *
 * @module
 */

import * as e from "../expression.ts";
import type { Expression } from "../expression.ts";
import type { Access, Fused, Loop, Result } from "./loop.ts";
import { type MapAttributes, mapOp } from "../ops/map.ts";
import { sumOp } from "../ops/sum.ts";
import { broadcastStrides, type Shape } from "../../shape.ts";
import { constantData, type Tensor } from "../tensor.ts";
import { resolve } from "../view.ts";

/** A unit of execution: a fused loop nest, or one operation with a kernel of its own. */
export type Stage =
  | { readonly loop: Loop<Tensor> }
  | { readonly node: Tensor; readonly fused: Fused };

/** Tensors that are computed inside another one's memory, and the element they start at. */
export type Placements = ReadonlyMap<Tensor, { readonly within: Tensor; readonly offset: number }>;

/** A value of a loop under construction, and where in which storage it goes. */
export interface Member {
  readonly node: Tensor;
  /** The node itself, or what it is copied into. */
  readonly target: Tensor;
  readonly strides: readonly number[];
  readonly offset: number;
}

/** A loop under construction: values over one domain, some axes of which may be summed. */
export class Group {
  readonly domain: Shape;
  readonly summed: readonly boolean[];
  readonly members: Member[] = [];
  /** What it reads, but for values of its own. */
  readonly reads = new Set<Tensor>();
  /** What it writes, by whatever tells one place from another. */
  readonly places = new Set<unknown>();
  /** Members that are values of its own, and not copies of others. */
  readonly own = new Map<Tensor, Member>();

  constructor(domain: Shape, summed: readonly boolean[]) {
    this.domain = domain;
    this.summed = summed;
  }

  /**
   * Takes a member along.
   *
   * @param reads What has to be in memory to compute it.
   * @param places Where it is written.
   */
  add(member: Member, reads: Iterable<Tensor>, places: Iterable<unknown>): void {
    this.members.push(member);
    if (member.node === member.target) this.own.set(member.node, member);
    for (const x of reads) if (!this.own.has(x)) this.reads.add(x);
    for (const place of places) this.places.add(place);
  }

  /** How many places in memory it would touch with one more member; see {@linkcode add}. */
  sizeWith(reads: Iterable<Tensor>, places: Iterable<unknown>): number {
    let size = this.reads.size + this.places.size;
    for (const x of reads) if (!this.own.has(x) && !this.reads.has(x)) size++;
    for (const place of places) if (!this.places.has(place)) size++;
    return size;
  }
}

/** An operation with a kernel of its own, and the elementwise tensors that it takes along. */
export interface Single {
  readonly node: Tensor;
  /** Its first input, if the kernel computes it. */
  readonly input?: Tensor;
  /** What is made of its result, if the kernel does. */
  output?: Tensor;
}

/** Whether it is a loop. */
export const isGroup = (stage: Group | Single): stage is Group => stage instanceof Group;

/** Expresses stages in terms of the storages that things end up in. */
export class StageBuilder {
  readonly #isInlined: (x: Tensor) => boolean;
  readonly #placements: Placements;

  /** @param isInlined Whether an elementwise tensor is computed wherever it is needed. */
  constructor(isInlined: (x: Tensor) => boolean, placements: Placements) {
    this.#isInlined = isInlined;
    this.#placements = placements;
  }

  build(stage: Group | Single): Stage {
    if (!isGroup(stage)) return { node: stage.node, fused: this.#buildFused(stage) };
    const { domain, summed, members, own } = stage;
    const { operands, values, compute, read } = this.#reader(domain);
    const results = members.map(({ node, target, strides, offset }): Result<Tensor> => {
      const isOwn = own.has(node), expression = isOwn ? compute(node) : read(node);
      if (isOwn && node.op === mapOp && node.dtype === "f32") values.set(node, expression);
      return { ...this.#locate(target, offset), strides, expression };
    });
    const label = summed.some((s) => s) ? "sum" : "map";
    return { loop: { label, domain, summed, operands, results } };
  }

  #buildFused({ node, input, output }: Single): Fused {
    const fused: { -readonly [K in keyof Fused]: Fused[K] } = {};
    if (input) {
      const { operands, compute } = this.#reader(input.shape);
      fused.input = { domain: input.shape, expression: compute(input), operands };
    }
    if (output) {
      const { operands, compute } = this.#reader(output.shape, node);
      const { storage } = this.#locate(output, 0);
      fused.output = { domain: output.shape, expression: compute(output), operands, storage };
    }
    return fused;
  }

  /**
   * Makes expressions over a domain, and collects what they read.
   *
   * @param result What is argument 0, before the operands, if anything is.
   */
  #reader(domain: Shape, result?: Tensor) {
    const first = result ? 1 : 0;
    const operands: Access<Tensor>[] = [], values = new Map<Tensor, Expression>();
    const places = new Map<string, number>();
    const operand = (x: Tensor): Expression => {
      const value = scalarConstant(x);
      if (value !== undefined) return e.constant(value);
      const view = resolve(x), { storage, offset } = this.#locate(view.source, view.offset);
      const strides = broadcastStrides(x.shape, view.strides, domain)
        .map((s, i) => domain[i] === 1 ? 0 : s);
      const place = `${storage.id} ${offset} ${strides}`;
      const index = places.get(place) ?? operands.push({ storage, strides, offset }) - 1;
      places.set(place, index);
      return e.argument(first + index);
    };
    const read = (x: Tensor): Expression => {
      if (result && resolve(x).source === result) return e.argument(0);
      return values.get(x) ?? (this.#isInlined(x) ? compute(x) : operand(x));
    };
    const compute = (node: Tensor): Expression => {
      if (node.op === sumOp) return read(node.inputs[0]);
      const inputs = node.inputs.map(read);
      return e.substitute((node.attributes as MapAttributes).formula.expression, (i) => inputs[i]);
    };
    return { operands, values, compute, read };
  }

  /** The storage that a tensor is a part of, if it is updated in place or packed. */
  #locate(tensor: Tensor, offset: number): { storage: Tensor; offset: number } {
    const place = this.#placements.get(tensor);
    return place ? this.#locate(place.within, offset + place.offset) : { storage: tensor, offset };
  }
}

/** The number that a constant, or a view of one, consists of. */
export function scalarConstant(x: Tensor): number | undefined {
  const data = constantData(resolve(x).source);
  return data?.length === 1 ? data[0] : undefined;
}
