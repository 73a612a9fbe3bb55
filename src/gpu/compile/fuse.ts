/**
 * The second pass of compilation: decides what is computed together and in which order. Elementwise
 * operations move into the loops of their consumers (`inline.ts`), loops over the same domain become one, inputs
 * that are updated are updated in place, and parts of concatenations are computed where they belong.
 *
 * @module
 */

import { absorbedInput, type Absorbing, absorbsOutput } from "./fusion_rules.ts";
import type { Graph } from "../graph.ts";
import { concatOp, type Packing, packOp } from "../ops/concat.ts";
import { mapOp } from "../ops/map.ts";
import { sumOp } from "../ops/sum.ts";
import { denseStrides, sameShape, type Shape, sizeOf } from "../../shape.ts";
import {
  Group,
  isGroup,
  type Member,
  type Placements,
  type Single,
  type Stage,
  StageBuilder,
} from "./stage.ts";
import { push } from "./multimap.ts";
import { findOrder } from "./order.ts";
import { inlineCheap } from "./inline.ts";
import type { Tensor } from "../tensor.ts";
import { Uses } from "./def_use.ts";
import { isDenseView, resolve } from "../view.ts";

/** What there is to execute, in order. */
export interface Schedule {
  readonly stages: readonly Stage[];
  readonly placements: Placements;
}

/** How many stages back a loop is looked for that a value can join. */
const WINDOW = 24;

/**
 * How many inputs are updated in place by executing stages in another order than that of their making;
 * finding one takes as long as there are stages.
 */
const MOST_REORDERINGS = 16;

/** Orders and fuses a simplified graph. */
export function fuse(graph: Graph, target: Absorbing): Schedule {
  return new Fusion(graph, target).schedule();
}

class Fusion {
  readonly #graph: Graph;
  readonly #target: Absorbing;
  readonly #uses: Uses;
  readonly #placements = new Map<Tensor, { within: Tensor; offset: number }>();
  /** Strides of tensors that are computed inside a concatenation. */
  readonly #strides = new Map<Tensor, readonly number[]>();
  readonly #stages: (Group | Single)[] = [];
  /** The last stage that computes a part of a tensor. */
  readonly #stageOf = new Map<Tensor, number>();
  /** The stages in the order of their execution, and the place of each in it. */
  #order: number[] = [];
  readonly #position: number[] = [];

  constructor(graph: Graph, target: Absorbing) {
    this.#graph = graph;
    this.#target = target;
    this.#uses = new Uses(graph);
  }

  schedule(): Schedule {
    const { nodes } = this.#uses;
    inlineCheap(this.#uses, this.#target.maxStorages);
    for (const node of nodes) {
      const absorbed = absorbedInput(node, this.#uses, this.#target);
      if (absorbed) this.#uses.inline(absorbed);
    }
    for (const node of nodes) if (node.op === packOp) this.#placeParts(node);
    for (const node of nodes) if (node.op === concatOp) this.#placeSums(node);
    for (const node of this.#inOrder(nodes)) this.#assign(node);
    this.#updateAll();
    const builder = new StageBuilder((x) => this.#uses.isInlined(x), this.#placements);
    const stages = this.#order.map((i) => builder.build(this.#stages[i]));
    return { stages, placements: this.#placements };
  }

  /**
   * Tensors in an order to give them stages in: small sums that are only packed, such as gradients of
   * biases, come right before the pack, where one loop computes many of them.
   */
  #inOrder(nodes: readonly Tensor[]): readonly Tensor[] {
    const pack = nodes.findIndex((node) => node.op === packOp);
    const late = new Set(nodes.slice(0, Math.max(0, pack)).filter((x) => this.#isLate(x)));
    return [
      ...nodes.slice(0, pack).filter((x) => !late.has(x)),
      ...late,
      ...nodes.slice(pack),
    ];
  }

  #isLate(node: Tensor): boolean {
    return node.op === sumOp && isSmall(node.inputs[0].shape) && !this.#uses.roots.has(node) &&
      this.#uses.readersOf(node).every((reader) => reader.op === packOp);
  }

  /** The stage of an operation whose kernel can make an elementwise tensor of its result. */
  #producerOf(node: Tensor): Single | undefined {
    const leaves = this.#uses.leavesOf(node.inputs);
    for (const source of leaves) {
      const index = this.#stageOf.get(source) ?? -1, stage = this.#stages[index];
      if (index < 0 || isGroup(stage) || stage.node !== source || stage.output) continue;
      const isReady = [...leaves].every((x) =>
        x === source || (this.#stageOf.get(x) ?? -1) < index
      );
      const isPlaced = this.#placements.has(source) || this.#placements.has(node);
      if (isReady && !isPlaced && absorbsOutput(source, node, this.#uses, this.#target)) {
        return stage;
      }
    }
    return undefined;
  }

  /** Lets tensors that are packed be computed inside the pack, where nothing stands against it. */
  #placeParts(node: Tensor): void {
    const { offsets } = node.attributes as Packing;
    const sources = node.inputs.map((x) => resolve(x).source), times = new Map<Tensor, number>();
    for (const source of sources) times.set(source, (times.get(source) ?? 0) + 1);
    node.inputs.forEach((x, i) => {
      const source = sources[i], isOnce = times.get(source) === 1;
      const isFree = source.inputs.length > 0 && source.op !== packOp &&
        !this.#uses.roots.has(source) &&
        !this.#placements.has(source) && (isOnce || isElementwise(source)) &&
        // WebGPU lets no kernel read one part of a buffer and write another.
        this.#uses.readersOf(source).every((reader) => reader === node);
      if (isFree && isDenseView(x) && sizeOf(source.shape) === sizeOf(x.shape)) {
        this.#placements.set(source, { within: node, offset: offsets[i] });
      }
    });
  }

  /** Lets sums that are only concatenated be computed inside the concatenation. */
  #placeSums(node: Tensor): void {
    const { axis } = node.attributes as { axis: number }, strides = denseStrides(node.shape);
    let start = 0;
    for (const x of node.inputs) {
      const isFree = x.op === sumOp && !this.#uses.roots.has(x);
      if (isFree && this.#uses.consumersOf(x).length === 1) {
        this.#placements.set(x, { within: node, offset: start * strides[axis] });
        this.#strides.set(x, strides);
      }
      start += x.shape[axis];
    }
  }

  /** Gives a tensor a stage of its own, or a part in one that is there. */
  #assign(node: Tensor): void {
    if (node.inputs.length === 0 || node.op.view || this.#uses.isInlined(node)) return;
    const strides = this.#strides.get(node) ?? denseStrides(node.shape);
    const producer = node.op === mapOp ? this.#producerOf(node) : undefined;
    if (producer) {
      this.#stageOf.set(node, this.#stageOf.get(producer.node)!);
      producer.output = node;
    } else if (node.op === mapOp) {
      this.#join(
        { node, target: node, strides, offset: 0 },
        node.shape,
        node.shape.map(() => false),
      );
    } else if (node.op === sumOp) {
      const [x] = node.inputs, { axes } = node.attributes as { axes: readonly number[] };
      const summed = x.shape.map((_, i) => axes.includes(i));
      const kept = strides.map((s, i) => summed[i] ? 0 : s);
      this.#join({ node, target: node, strides: kept, offset: 0 }, x.shape, summed);
    } else if (node.op === concatOp) {
      const { axis } = node.attributes as { axis: number }, copies = new Map<string, Group>();
      let start = 0;
      for (const x of node.inputs) {
        const offset = start * strides[axis], stage = this.#stageOf.get(x) ?? 0;
        if (this.#placements.get(x)?.within !== node) {
          this.#copyInto(x, { node: x, target: node, strides, offset }, copies);
        } else this.#stageOf.set(node, Math.max(stage, this.#stageOf.get(node) ?? 0));
        start += x.shape[axis];
      }
    } else if (node.op === packOp) {
      const { offsets } = node.attributes as Packing, copies = new Map<string, Group>();
      node.inputs.forEach((x, i) => {
        const { source } = resolve(x), place = this.#placements.get(source), offset = offsets[i];
        if (place?.within !== node) {
          const member = { node: x, target: node, strides: denseStrides(x.shape), offset };
          this.#copyInto(x, member, copies);
          return;
        }
        const stage = this.#stageOf.get(source)!, group = this.#stages[stage];
        this.#stageOf.set(node, Math.max(stage, this.#stageOf.get(node) ?? 0));
        if (place.offset === offset || !isGroup(group)) return;
        // The same value in a second place: its loop writes both.
        const member = { ...group.own.get(source)!, target: node, offset };
        group.add(member, this.#readsOf(member), this.#placesOf(member));
      });
    } else {
      const input = node.inputs.length ? resolve(node.inputs[0]).source : node;
      const taken = this.#uses.isInlined(input) ? { input } : {};
      const stage = this.#stages.push({ node, ...taken }) - 1;
      for (const x of writtenBy(node)) this.#stageOf.set(x, stage);
    }
  }

  /**
   * A loop that writes a tensor into a part of another one.
   *
   * @param copies Loops by their domain that may take it along.
   */
  #copyInto(x: Tensor, member: Member, copies?: Map<string, Group>): void {
    const shape = String(x.shape), reads = this.#readsOf(member), places = this.#placesOf(member);
    const found = copies?.get(shape);
    if (found && found.sizeWith(reads, places) <= this.#target.maxStorages) {
      found.add(member, reads, places);
      return;
    }
    const group = new Group(x.shape, x.shape.map(() => false));
    group.add(member, reads, places);
    copies?.set(shape, group);
    this.#stageOf.set(member.target, this.#stages.push(group) - 1);
  }

  /** Computes a value in a loop that already walks its domain and some of its operands, or a new one. */
  #join(member: Member, domain: Shape, summed: readonly boolean[]): void {
    const { node } = member, isSum = node.op === sumOp;
    const reads = this.#readsOf(member), places = this.#placesOf(member);
    const isLarge = (x: Tensor) => sizeOf(x.shape) * 4 > sizeOf(domain);
    const last = this.#stages.length - 1;
    for (let i = last; i >= 0 && i > last - WINDOW; i--) {
      const group = this.#stages[i];
      if (!isGroup(group) || group.own.size < group.members.length) continue;
      if (!sameShape(group.domain, domain) || summed.some((s, k) => s !== group.summed[k])) {
        continue;
      }
      // Integers have to be rounded, which their place in memory does: they are read from there.
      const isOwn = (x: Tensor) => !isSum && x.dtype === "f32" && group.own.has(x);
      const shares = isSmall(domain) ||
        [...reads].some((x) => isOwn(x) || (group.reads.has(x) && isLarge(x)));
      const isReady = [...reads].every((x) => isOwn(x) || (this.#stageOf.get(x) ?? -1) < i);
      if (!shares || !isReady || !this.#readsAsComputed(node, isOwn)) continue;
      if (group.sizeWith(reads, places) > this.#target.maxStorages) continue;
      group.add(member, reads, places);
      this.#stageOf.set(node, i);
      return;
    }
    const group = new Group(domain, summed);
    group.add(member, reads, places);
    this.#stageOf.set(node, this.#stages.push(group) - 1);
  }

  /** Whether a value reads a loop's own, if at all, at the element it computes, and not through a view. */
  #readsAsComputed(node: Tensor, isOwn: (x: Tensor) => boolean): boolean {
    return node.inputs.every((x) =>
      this.#uses.isInlined(x)
        ? this.#readsAsComputed(x, isOwn)
        : isOwn(x) || !isOwn(resolve(x).source)
    );
  }

  /** What has to be in memory to compute a member. */
  #readsOf({ node, target }: Member): ReadonlySet<Tensor> {
    return target === node ? this.#uses.leavesOf(node.inputs) : this.#uses.leaves(node);
  }

  /** Places in memory that a member is written to. */
  #placesOf({ node, target, offset }: Member): readonly unknown[] {
    const whole = this.#placements.get(target)?.within ?? target, { maxWhole = 0 } = this.#target;
    if (sizeOf(whole.shape) <= maxWhole) return [whole];
    // What is packed twice will be written twice.
    const copies = this.#uses.readersOf(node).filter((reader) => reader.op === packOp).length;
    return Array.from({ length: Math.max(1, copies) }, (_, i) => `${target.id} ${offset} ${i}`);
  }

  /** What has to be in memory to run a stage. */
  #readsOfStage(stage: Group | Single): ReadonlySet<Tensor> {
    if (isGroup(stage)) return stage.reads;
    const { node, output } = stage;
    const all = this.#uses.leavesOf([...node.inputs, ...(output?.inputs ?? [])]);
    all.delete(node);
    return all;
  }

  /** Computes the next values of inputs in their place where that is possible, else copies them there. */
  #updateAll(): void {
    const readers = new Map<Tensor, number[]>(),
      outputs = new Set(Object.values(this.#graph.outputs));
    this.#stages.forEach((stage, i) => {
      for (const x of this.#readsOfStage(stage)) if (!x.inputs.length) push(readers, x, i);
    });
    this.#reorder(this.#stages.map((_, i) => i));
    let reorderings = 0;
    for (const [state, value] of this.#graph.updates) {
      const stage = this.#stageOf.get(value) ?? -1, group = this.#stages[stage];
      const isFree = value.op === mapOp && !this.#placements.has(value) && !outputs.has(value);
      const isInStep = isFree && group && isGroup(group) &&
        group.members.every(({ node }) => this.#readsInStep(node, state));
      if (isInStep) {
        this.#placements.set(value, { within: state, offset: 0 });
        const at = this.#position[stage];
        const isLast = readers.get(state)?.every((i) => i === stage || this.#position[i] < at) ??
          true;
        if (isLast) continue;
        const order = reorderings++ < MOST_REORDERINGS ? this.#orderOf() : undefined;
        if (order) {
          this.#reorder(order);
          continue;
        }
        this.#placements.delete(value);
      }
      const strides = denseStrides(value.shape);
      this.#copyInto(value, { node: value, target: state, strides, offset: 0 });
      this.#position.push(this.#order.push(this.#stages.length - 1) - 1);
    }
  }

  /** An order of the stages with everything as it is placed now, if there is one. */
  #orderOf(): number[] | undefined {
    return findOrder(
      this.#stages.map((stage) => this.#readsOfStage(stage)),
      this.#stages.map((stage) => {
        const written = isGroup(stage)
          ? stage.members.map((m) => m.target)
          : [...writtenBy(stage.node), ...(stage.output ? [stage.output] : [])];
        const all = new Set(written);
        for (const x of all) {
          const place = this.#placements.get(x);
          if (place) all.add(place.within);
        }
        return all;
      }),
    );
  }

  #reorder(order: number[]): void {
    this.#order = order;
    order.forEach((stage, position) => this.#position[stage] = position);
  }

  /** Whether an elementwise value reads `state`, if at all, only at the element it computes. */
  #readsInStep(node: Tensor, state: Tensor): boolean {
    return node.inputs.every((x) => {
      if (this.#uses.isInlined(x)) {
        return sameShape(x.shape, node.shape)
          ? this.#readsInStep(x, state)
          : !this.#uses.leaves(x).has(state);
      }
      const { source, offset } = resolve(x);
      return source !== state || (offset === 0 && isDenseView(x) && sameShape(x.shape, node.shape));
    });
  }
}

/** Whether starting a loop costs more than what it does. */
const isSmall = (domain: Shape) => sizeOf(domain) <= 1 << 16;

/** What the kernels of an operation write. */
const writtenBy = (node: Tensor): Tensor[] =>
  node.op.fills === undefined ? [node] : [node, node.inputs[node.op.fills]];

const isElementwise = (x: Tensor) => x.op === mapOp || x.op === sumOp;
