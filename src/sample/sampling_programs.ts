/**
 * The programs of a sampler: the start of a batch and the sampling step, which is compiled for every
 * set of wrappers that are active together, with the buffers that they share.
 *
 * @module
 */

import { type Denoiser, type DenoiserWrapper, limited, wrapped } from "../diffusion/denoiser.ts";
import { writeWeights } from "../diffusion/weights.ts";
import { InputError } from "../errors.ts";
import type { Excess } from "../gpu/describe.ts";
import { compilePrepared } from "../gpu/compile_prepared.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { add, mul, select } from "../gpu/expression.ts";
import { type Graph, makeGraph, nodesOf } from "../gpu/graph.ts";
import { map } from "../gpu/ops/map.ts";
import { randomNormal, type RandomState } from "../gpu/ops/random.ts";
import { broadcastTo, slice } from "../gpu/ops/view.ts";
import { constant, type DType, input, inputName, type Tensor } from "../gpu/tensor.ts";
import { denoiserOf } from "../model/denoiser.ts";
import type { Model } from "../model/model.ts";
import { type Shape, sizeOf } from "../shape.ts";
import { conditionBuffers, conditionInputs } from "./conditions.ts";
import { START_STREAM } from "./interpolate.ts";
import { checkInteger, type SamplerOptions } from "./options.ts";
import type { Solver, Step, UpdateTable } from "./solver.ts";
import { defaultMethod, type MethodName, methods } from "./solvers/mod.ts";
import { type NoiseName, samplingStep, type TableLayout, tableLayout } from "./step.ts";
import { makeSteps, tableOf } from "./timesteps.ts";

/** The streams of random numbers that steps add. */
const STREAMS: Readonly<Record<NoiseName, number>> = { noise: 2, jump: 3 };

/** What a sampler consists of. */
export interface SamplingPrograms {
  readonly device: Device;
  readonly method: Solver;
  readonly denoiser: Denoiser;
  readonly wrappers: readonly DenoiserWrapper[];
  /** The steps of a whole run, and its settings. */
  readonly walk: readonly Step[];
  readonly options: SamplerOptions;
  readonly table: UpdateTable;
  readonly layout: TableLayout;
  readonly batchSize: number;
  readonly start: Program;
  /** A program for each set of wrappers that are active together. */
  readonly steps: ReadonlyMap<string, Program>;
  readonly buffers: Readonly<Record<string, TensorBuffer>>;
  /** Names of the buffers that evaluations change. */
  readonly states: readonly string[];
  /** What has to be disposed of, in the order in which it was made. */
  readonly owned: readonly Disposable[];
}

/** Which wrappers do anything in an evaluation, as text. */
export const activeOf = (
  wrappers: readonly DenoiserWrapper[],
  { at }: UpdateTable[number],
): string => wrappers.map(({ isActive }) => isActive?.(at) ?? true ? "1" : "0").join("");

/** A buffer that programs share. */
interface Shared {
  readonly length: number;
  readonly dtype: DType;
}

/** What a sampler is to compile. */
interface SamplingGraphs {
  readonly parts: Pick<
    SamplingPrograms,
    | "method"
    | "denoiser"
    | "wrappers"
    | "walk"
    | "options"
    | "table"
    | "layout"
    | "batchSize"
    | "states"
  >;
  readonly start: Graph;
  /** A graph for each set of wrappers that are active together. */
  readonly steps: ReadonlyMap<string, Graph>;
  /** Buffers by name, those of weights first. */
  readonly shared: ReadonlyMap<string, Shared>;
}

/** @throws {InputError} If the settings do not fit the model. */
function samplingGraphs(model: Model | Denoiser, options: SamplerOptions): SamplingGraphs {
  const { batchSize = 16, wrap: wrappers = [], noise: draw = randomNormal } = options;
  const method = methodOf(options.method);
  checkInteger(batchSize, 1, "the batch size");
  const base = baseOf(model, options);
  const denoiser = wrapped(base, wrappers), { schedule, conditions } = denoiser;
  const shape = [batchSize, ...denoiser.itemShape];
  const walk = makeSteps(method, schedule, options.steps, options);
  const table = tableOf(method, schedule, walk, options);
  const layout = tableLayout(table);

  const x = input("x", shape), index = input("index", [1], "i32");
  const rows = input("table", [table.length, layout.columns.length]);
  const random: RandomState = {
    seed: input("seed", [2], "i32"),
    first: input("first", [1], "i32"),
    step: index,
  };
  const values = conditionInputs(conditions, batchSize);
  const stepGraph = (active: string): Graph => {
    const inner = wrapped(base, wrappers.filter((_, i) => active[i] === "1"));
    const outer = limited(inner);
    const updates = samplingStep(
      (query) => outer.estimate({ ...query, conditions: values, random }),
      layout,
      { x, index, table: rows },
      (name) => draw(shape, random, STREAMS[name], values),
    );
    return makeGraph({}, [...updates, [index, map([index], (i) => add(i, 1), "i32")]]);
  };
  const memories = layout.sums.map(({ name }) => name).filter((name) => name !== "x");
  const states: Record<string, Shape> = {
    ...Object.fromEntries(memories.map((name) => [name, shape])),
    ...{ sample: shape, health: [1] },
  };
  const floats = Object.entries({ ...states, x: x.shape, table: rows.shape, startLevel: [2] });
  const shared: [string, Shared][] = [
    ...Object.entries(denoiser.weights).map(([name, values]): [string, Shared] => [
      name,
      { length: values.length, dtype: "dtype" in values ? values.dtype : "f32" },
    ]),
    ...floats.map(([name, shape]): [string, Shared] => [
      name,
      { length: sizeOf(shape), dtype: "f32" },
    ]),
    ...conditionBuffers(conditions, batchSize).map((buffer): [string, Shared] => [
      buffer.name,
      buffer,
    ]),
    ...Object.entries({ seed: 2, index: 1, first: 1 }).map(([name, length]): [string, Shared] => [
      name,
      { length, dtype: "i32" },
    ]),
  ];
  const actives = new Set(table.map((row) => activeOf(wrappers, row)));
  return {
    parts: {
      ...{ method, denoiser, wrappers, walk, options, table, layout, batchSize },
      states: ["x", ...Object.keys(states)],
    },
    start: startGraph(shape, states, draw(shape, random, START_STREAM, values)),
    steps: new Map([...actives].map((active) => [active, stepGraph(active)])),
    shared: new Map(shared),
  };
}

/** The weights that a graph reads, to be kept transformed for convolutions. */
function constantsOf(graph: Graph, weights: Denoiser["weights"]): string[] {
  const names = inputsOf(graph);
  return Object.keys(weights).filter((name) => names.has(name));
}

/** The names of a graph's inputs. */
const inputsOf = (graph: Graph): ReadonlySet<string> =>
  new Set(nodesOf(graph).map(inputName).filter((name) => name !== undefined));

/**
 * Compiles what a sampler consists of, and writes the weights.
 *
 * @throws {InputError} If the settings do not fit the model.
 * @throws {DeviceError} If it does not fit the device.
 */
export async function compileSampling(
  device: Device,
  model: Model | Denoiser,
  options: SamplerOptions,
): Promise<SamplingPrograms> {
  const { parts, shared, ...graphs } = samplingGraphs(model, options);
  const { denoiser: { weights } } = parts, { precision = "f32" } = options;
  const owned: Disposable[] = [], buffers: Record<string, TensorBuffer> = {};
  const own = <T extends Disposable>(resource: T): T => {
    owned.push(resource);
    return resource;
  };
  const compile = async (graph: Graph, label: string): Promise<Program> => {
    const names = inputsOf(graph), constant = constantsOf(graph, weights);
    const used = Object.entries(buffers).filter(([name]) => names.has(name));
    const settings = { label, buffers: Object.fromEntries(used), precision, constant };
    return own(await compilePrepared(device, graph, settings));
  };
  try {
    for (const [name, { length, dtype }] of shared) {
      const given = Object.hasOwn(weights, name) ? options.parameters?.[name] : undefined;
      buffers[name] = given ?? own(device.buffer(length, dtype));
      if (!given && Object.hasOwn(weights, name)) writeWeights(weights[name], buffers[name]);
    }
    const start = await compile(graphs.start, "the start of sampling");
    const steps = new Map<string, Program>();
    for (const [active, graph] of graphs.steps) {
      steps.set(active, await compile(graph, "a sampling step"));
    }
    return { ...parts, device, start, steps, buffers, owned };
  } catch (error) {
    for (const resource of owned.toReversed()) resource[Symbol.dispose]();
    throw error;
  }
}

/** The memory that a sampler would take, weights included. */
export function planSampling(
  device: Device,
  model: Model | Denoiser,
  options: SamplerOptions,
): { readonly bytes: number; readonly excess?: Excess } {
  const { parts: { denoiser }, shared, start, steps } = samplingGraphs(model, options);
  const { precision = "f32" } = options;
  const bytesOf = (names: Iterable<string>) =>
    [...names].reduce((n, name) => n + 4 * (shared.get(name)?.length ?? 0), 0);
  let bytes = bytesOf(shared.keys()), excess: Excess | undefined;
  for (const graph of [start, ...steps.values()]) {
    const constant = constantsOf(graph, denoiser.weights);
    const ample = device.plan(graph, { precision, constant });
    const plan = ample.excess ? device.plan(graph, { precision }) : ample;
    bytes += plan.bytes - bytesOf(inputsOf(graph));
    excess ??= plan.excess;
  }
  return { bytes, ...(excess ? { excess } : {}) };
}

/**
 * The start of a batch: x becomes `startLevel[0]` x + `startLevel[1]` ε, and all else is forgotten.
 * Where nothing is taken of x, it may be what it likes.
 */
function startGraph(
  shape: Shape,
  states: Readonly<Record<string, Shape>>,
  noise: Tensor,
): Graph {
  const x = input("x", shape), level = input("startLevel", [2]);
  const [alpha, sigma] = [0, 1].map((i) => slice(level, 0, i, 1));
  const started = map(
    [x, noise, alpha, sigma],
    (x, z, a, s) => select(a, add(mul(a, x), mul(s, z)), mul(s, z)),
  );
  const zeros = Object.entries(states).map(([name, shape]) =>
    [input(name, shape), broadcastTo(constant([0]), shape)] as const
  );
  return makeGraph({}, [[x, started], ...zeros]);
}

/** @throws {InputError} If the model is no denoiser, or settings are for models alone. */
function baseOf(model: Model | Denoiser, { size, weightDType }: SamplerOptions): Denoiser {
  if ("network" in model) return denoiserOf(model, size, undefined, weightDType);
  if (weightDType === undefined) return model;
  throw new InputError(
    "Cannot sample with a weightDType: a denoiser has its weights already; tell denoiserOf()",
  );
}

/** @throws {InputError} If there is no such method. */
export function methodOf(name: MethodName = defaultMethod): Solver {
  if (Object.hasOwn(methods, name)) return methods[name];
  throw new InputError(
    `Cannot sample by ${name}: the methods are ${Object.keys(methods).join(", ")}`,
  );
}
