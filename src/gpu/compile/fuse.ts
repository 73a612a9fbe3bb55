/**
 * The second pass of compilation: decides what is computed together and in which order. Elementwise
 * operations move into the loops of their consumers, loops over the same domain become one, inputs
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
  type Group,
  isGroup,
  type Member,
  type Placements,
  type Single,
  type Stage,
  StageBuilder,
} from "./stage.ts";
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

  constructor(graph: Graph, target: Absorbing) {
    this.#graph = graph;
    this.#target = target;
    this.#uses = new Uses(graph);
  }

  schedule(): Schedule {
    const { nodes, inlined } = this.#uses;
    for (const node of nodes) if (this.#isCheapAgain(node)) inlined.add(node);
    for (const node of nodes) {
      const absorbed = absorbedInput(node, this.#uses, this.#target);
      if (absorbed) inlined.add(absorbed);
    }
    for (const node of nodes) if (node.op === packOp) this.#placeParts(node);
    for (const node of nodes) if (node.op === concatOp) this.#placeSums(node);
    for (const node of this.#inOrder(nodes)) this.#assign(node);
    for (const [state, value] of this.#graph.updates) this.#update(state, value);
    const builder = new StageBuilder(inlined, this.#placements);
    const stages = this.#order()!.map((i) => builder.build(this.#stages[i]));
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

  /** Whether an elementwise tensor is cheaper to compute again than to keep. */
  #isCheapAgain(node: Tensor): boolean {
    if (node.op !== mapOp || node.dtype !== "f32" || this.#uses.roots.has(node)) return false;
    const consumers = this.#uses.consumersOf(node);
    if (!consumers.every((c) => c.op === mapOp || c.op === sumOp || c.op === concatOp)) {
      return false;
    }
    const own = this.#uses.leavesOf(node.inputs);
    return consumers.every((c) => {
      const others = c.inputs.filter((x) => x !== node).flatMap((x) => [...this.#uses.leaves(x)]);
      const after = new Set([...own, ...others]);
      return after.size <= this.#target.maxStorages - 2 &&
        (consumers.length === 1 || c.op !== concatOp);
    });
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
    const sources = node.inputs.map((x) => resolve(x).source);
    node.inputs.forEach((x, i) => {
      const source = sources[i];
      const isOnce = sources.indexOf(source) === i && sources.lastIndexOf(source) === i;
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
    if (node.inputs.length === 0 || node.op.view || this.#uses.inlined.has(node)) return;
    const strides = this.#strides.get(node) ?? denseStrides(node.shape);
    const producer = node.op === mapOp ? this.#producerOf(node) : undefined;
    if (producer) {
      producer.output = node;
      this.#stageOf.set(node, this.#stages.indexOf(producer));
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
        const member = group.members.find((m) => m.node === source)!;
        group.members.push({ ...member, target: node, offset });
      });
    } else {
      const input = node.inputs.length ? resolve(node.inputs[0]).source : node;
      const taken = this.#uses.inlined.has(input) ? { input } : {};
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
    const shape = String(x.shape), found = copies?.get(shape);
    if (found && this.#placesOf(found, member) <= this.#target.maxStorages) {
      found.members.push(member);
      return;
    }
    const group = { domain: x.shape, summed: x.shape.map(() => false), members: [member] };
    copies?.set(shape, group);
    this.#stageOf.set(member.target, this.#stages.push(group) - 1);
  }

  /** Computes a value in a loop that already walks its domain and some of its operands, or a new one. */
  #join(member: Member, domain: Shape, summed: readonly boolean[]): void {
    const { node } = member, isSum = node.op === sumOp, reads = this.#readsOf(member);
    const last = this.#stages.length - 1;
    for (let i = last; i >= 0 && i > last - WINDOW; i--) {
      const group = this.#stages[i];
      if (!isGroup(group) || group.members.some((m) => m.target !== m.node)) continue;
      if (!sameShape(group.domain, domain) || summed.some((s, k) => s !== group.summed[k])) {
        continue;
      }
      // Integers have to be rounded, which their place in memory does: they are read from there.
      const floats = group.members.map((m) => m.node).filter((x) => x.dtype === "f32");
      const own = new Set(isSum ? [] : floats);
      const present = group.members.map((m) => this.#readsOf(m))
        .reduce((all, reads) => all.union(reads), new Set<Tensor>());
      const isLarge = (x: Tensor) => sizeOf(x.shape) * 4 > sizeOf(domain);
      const shares = isSmall(domain) ||
        [...reads].some((x) => own.has(x) || (present.has(x) && isLarge(x)));
      const isReady = [...reads].every((x) => own.has(x) || (this.#stageOf.get(x) ?? -1) < i);
      if (!shares || !isReady || !this.#readsAsComputed(node, own)) continue;
      if (this.#placesOf(group, member) > this.#target.maxStorages) continue;
      group.members.push(member);
      this.#stageOf.set(node, i);
      return;
    }
    this.#stageOf.set(node, this.#stages.push({ domain, summed, members: [member] }) - 1);
  }

  /** Whether a value reads these, if at all, at the element it computes, and not through a view. */
  #readsAsComputed(node: Tensor, own: ReadonlySet<Tensor>): boolean {
    return node.inputs.every((x) =>
      this.#uses.inlined.has(x)
        ? this.#readsAsComputed(x, own)
        : own.has(x) || !own.has(resolve(x).source)
    );
  }

  /** What has to be in memory to compute a member. */
  #readsOf({ node, target }: Member): Set<Tensor> {
    const read = target === node ? node.inputs : [node];
    return new Set(read.flatMap((x) => [...this.#uses.leaves(x)]));
  }

  /** How many places in memory a loop touches when it computes a value more. */
  #placesOf({ domain, summed, members }: Group, member: Member): number {
    const group = { domain, summed, members: [...members, member] };
    const { maxWhole = 0 } = this.#target;
    const written = group.members.flatMap(({ node, target, offset }): readonly unknown[] => {
      const whole = this.#placements.get(target)?.within ?? target;
      if (sizeOf(whole.shape) <= maxWhole) return [whole];
      // What is packed twice will be written twice.
      const copies = this.#uses.readersOf(node).filter((reader) => reader.op === packOp).length;
      return Array.from({ length: Math.max(1, copies) }, (_, i) => `${target.id} ${offset} ${i}`);
    });
    return this.#readsOfStage(group).size + new Set(written).size;
  }

  /** What has to be in memory to run a stage. */
  #readsOfStage(stage: Group | Single): Set<Tensor> {
    if (!isGroup(stage)) {
      const { node, output } = stage;
      const all = this.#uses.leavesOf([...node.inputs, ...(output?.inputs ?? [])]);
      return all.difference(new Set([node]));
    }
    const own = new Set(stage.members.filter((m) => m.node === m.target).map((m) => m.node));
    return new Set(stage.members.flatMap((m) => [...this.#readsOf(m)]).filter((x) => !own.has(x)));
  }

  /** Lets an input's next value be computed in its place where that is possible, else copies it. */
  #update(state: Tensor, value: Tensor): void {
    const group = this.#stages[this.#stageOf.get(value) ?? -1];
    const isFree = value.op === mapOp && !this.#placements.has(value) &&
      !Object.values(this.#graph.outputs).includes(value);
    const isInStep = isFree && group && isGroup(group) &&
      group.members.every(({ node }) => this.#readsInStep(node, state));
    if (isInStep) {
      this.#placements.set(value, { within: state, offset: 0 });
      if (this.#order()) return;
      this.#placements.delete(value);
    }
    const strides = denseStrides(value.shape);
    this.#copyInto(value, { node: value, target: state, strides, offset: 0 });
  }

  /** Whether an elementwise value reads `state`, if at all, only at the element it computes. */
  #readsInStep(node: Tensor, state: Tensor): boolean {
    return node.inputs.every((x) => {
      if (this.#uses.inlined.has(x)) {
        return sameShape(x.shape, node.shape)
          ? this.#readsInStep(x, state)
          : !this.#uses.leaves(x).has(state);
      }
      const { source, offset } = resolve(x);
      return source !== state || (offset === 0 && isDenseView(x) && sameShape(x.shape, node.shape));
    });
  }

  /**
   * Stages in an order in which values are computed before, and overwritten after, they are read;
   * `undefined` if there is none.
   */
  #order(): number[] | undefined {
    const readers = new Map<Tensor, number[]>(), writers = new Map<Tensor, number[]>();
    const before = this.#stages.map(() => new Set<number>());
    this.#stages.forEach((stage, i) => {
      for (const x of this.#readsOfStage(stage)) push(readers, x, i);
      const targets = isGroup(stage)
        ? stage.members.map((m) => m.target)
        : [...writtenBy(stage.node), ...(stage.output ? [stage.output] : [])];
      for (const x of new Set(targets)) {
        push(writers, x, i);
        const within = (x: Tensor) => this.#placements.get(x)?.within;
        for (let whole = within(x); whole; whole = within(whole)) push(writers, whole, i);
      }
    });
    for (const [x, from] of writers) {
      for (const reader of readers.get(x) ?? []) {
        for (const writer of from) {
          if (reader === writer) continue;
          // An input is read for its old value; everything else for what was computed.
          if (x.inputs.length === 0) before[writer].add(reader);
          else before[reader].add(writer);
        }
      }
    }
    const order = new Set<number>(), open = new Set<number>();
    const visit = (i: number): boolean => {
      if (order.has(i)) return true;
      if (open.has(i)) return false;
      open.add(i);
      const isPossible = [...before[i]].sort((a, b) => a - b).every(visit);
      order.add(i);
      return isPossible;
    };
    return this.#stages.every((_, i) => visit(i)) ? [...order] : undefined;
  }
}

/** Whether starting a loop costs more than what it does. */
const isSmall = (domain: Shape) => sizeOf(domain) <= 1 << 16;

/** What the kernels of an operation write. */
const writtenBy = (node: Tensor): Tensor[] =>
  node.op.fills === undefined ? [node] : [node, node.inputs[node.op.fills]];

const isElementwise = (x: Tensor) => x.op === mapOp || x.op === sumOp;

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
