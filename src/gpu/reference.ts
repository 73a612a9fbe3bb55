/**
 * The reference interpreter: runs a graph node by node in plain TypeScript. It is the oracle of the
 * kernel tests, and what runs where there is no adapter. Slow, and right.
 *
 * @module
 */

import { type Graph, nodesOf } from "./graph.ts";
import type { MemoryPlan } from "./describe.ts";
import {
  type CompileOptions,
  type Device,
  DeviceError,
  noHalves,
  type Program,
  type TensorBuffer,
} from "./device.ts";
import { sizeOf } from "../shape.ts";
import { constantData, type DType, type HostArray, inputName, type Tensor } from "./tensor.ts";

/** Precision in which `f32` tensors are held. */
export type Precision = "single" | "double";

/** A zeroed host array for a tensor. */
export function allocate(dtype: DType, length: number, precision: Precision): HostArray {
  if (dtype === "i32") return new Int32Array(length);
  return precision === "double" ? new Float64Array(length) : new Float32Array(length);
}

/**
 * Computes a graph. Updates are written into the inputs' arrays; outputs are returned.
 *
 * @param inputs Data of every input by name.
 */
export function interpret(
  graph: Graph,
  inputs: Readonly<Record<string, HostArray>>,
  precision: Precision = "double",
): Record<string, HostArray> {
  const nodes = nodesOf(graph), values = new Map<Tensor, HostArray>();
  const lastUse = new Map<Tensor, Tensor>();
  for (const node of nodes) for (const x of node.inputs) lastUse.set(x, node);
  const roots = new Set([...Object.values(graph.outputs), ...graph.updates.map(([, v]) => v)]);
  for (const node of nodes) {
    values.set(node, evaluate(node, values, inputs, precision));
    for (const x of node.inputs) {
      if (lastUse.get(x) === node && !roots.has(x)) values.delete(x);
    }
  }
  const outputs = Object.entries(graph.outputs).map(([name, x]) => [name, values.get(x)!.slice()]);
  const updates = graph.updates.map(([, value]) => values.get(value)!.slice());
  graph.updates.forEach(([state], i) => inputs[inputName(state)!].set(updates[i]));
  return Object.fromEntries(outputs);
}

function evaluate(
  node: Tensor,
  values: ReadonlyMap<Tensor, HostArray>,
  inputs: Readonly<Record<string, HostArray>>,
  precision: Precision,
): HostArray {
  const name = inputName(node);
  if (name !== undefined) {
    if (!inputs[name]) throw new TypeError(`Cannot interpret: input ${name} is missing`);
    return inputs[name];
  }
  const data = constantData(node);
  if (data) return data;
  if (!node.op.reference) throw new TypeError(`Cannot interpret ${node.op.name}`);
  const out = allocate(node.dtype, sizeOf(node.shape), precision);
  node.op.reference(node, node.inputs.map((x) => values.get(x)!), out);
  return out;
}

/** The interpreter as a device. */
export class ReferenceDevice implements Device {
  readonly kind = "cpu";
  readonly name = "interpreter (CPU)";

  buffer(length: number, dtype: DType = "f32"): ReferenceBuffer {
    return new ReferenceBuffer(allocate(dtype, length, "single"), dtype);
  }

  compile(
    graph: Graph,
    { label = "a program", buffers = {}, precision }: CompileOptions = {},
  ): Promise<Program> {
    if (precision === "f16") return Promise.reject(noHalves(this.name));
    const named: Record<string, ReferenceBuffer> = {};
    for (const [name, x] of [...Object.entries(graph.outputs), ...namedInputs(graph)]) {
      const buffer = buffers[name] ?? this.buffer(sizeOf(x.shape), x.dtype);
      if (
        !(buffer instanceof ReferenceBuffer) || buffer.dtype !== x.dtype ||
        buffer.length !== sizeOf(x.shape)
      ) {
        throw new TypeError(`Cannot compile ${label}: the buffer for ${name} does not fit`);
      }
      named[name] = buffer;
    }
    const nodes = nodesOf(graph);
    return Promise.resolve({
      label,
      buffers: named,
      memory: this.plan(graph).bytes,
      dispatches: nodes.length,
      flops: nodes.reduce((n, x) => n + flopsOf(x), 0),
      describe: () => ({
        ...{ label, memory: this.plan(graph) },
        stages: nodes.map((x) => ({
          ...{ op: x.op.name, shape: x.shape, flops: flopsOf(x), fused: {} },
          kernels: [{ label: x.op.name, bytes: 4 * sizeOf(x.shape), groups: 1 }],
        })),
      }),
      profile() {
        throw new DeviceError("The interpreter does not tell how long its steps take");
      },
      run(times = 1) {
        for (let i = 0; i < times; i++) {
          const arrays = Object.entries(named).map(([name, b]) => [name, b.array]);
          const outputs = interpret(graph, Object.fromEntries(arrays), "single");
          for (const [name, values] of Object.entries(outputs)) named[name].array.set(values);
        }
      },
      [Symbol.dispose]() {},
    });
  }

  plan(graph: Graph): MemoryPlan {
    const bytes = nodesOf(graph).reduce((n, x) => n + 4 * sizeOf(x.shape), 0);
    return { bytes, temporary: bytes, unshared: bytes };
  }

  idle(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.dispose](): void {}
}

const flopsOf = (x: Tensor): number => x.op.flops?.(x) ?? 0;

const namedInputs = (graph: Graph): [string, Tensor][] =>
  nodesOf(graph).flatMap((x) => {
    const name = inputName(x);
    return name === undefined ? [] : [[name, x]];
  });

/** A buffer in ordinary memory. */
class ReferenceBuffer implements TensorBuffer {
  constructor(readonly array: HostArray, readonly dtype: DType) {}

  get length(): number {
    return this.array.length;
  }

  write(values: ArrayLike<number>, offset = 0): void {
    this.array.set(values, offset);
  }

  read(
    offset = 0,
    length: number = this.length - offset,
  ): Promise<Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>> {
    const part = this.array.slice(offset, offset + length);
    return Promise.resolve(part as Float32Array<ArrayBuffer> | Int32Array<ArrayBuffer>);
  }

  [Symbol.dispose](): void {}
}
