/**
 * Programs of a network that looks at one thing at a time, with its weights in buffers of their own.
 *
 * @module
 */

import { weightBuffer, writeWeights } from "../diffusion/weights.ts";
import type { MemoryPlan } from "../gpu/describe.ts";
import type { Device, Program, TensorBuffer } from "../gpu/device.ts";
import { makeGraph } from "../gpu/graph.ts";
import { inputName, type Tensor } from "../gpu/tensor.ts";
import {
  parameterInputs,
  type ParameterLayout,
  type ParameterSource,
  viewParameters,
  type WeightDType,
} from "../model/parameters.ts";
import { type Weighted, weightsOf } from "../model/weights.ts";

/** What is computed by a network with these parameters. */
export interface NetworkTask {
  /** What it is shown. */
  readonly input: Tensor;
  /** What comes of it. */
  readonly compute: (parameter: ParameterSource) => Record<string, Tensor>;
}

function graphOf(layout: ParameterLayout, task: NetworkTask, weightDType: WeightDType) {
  const shards = parameterInputs(layout, "parameters", weightDType);
  const parameter = viewParameters(layout, shards, { weightDType, event: task.input });
  return { graph: makeGraph(task.compute(parameter)), names: shards.map((x) => inputName(x)!) };
}

/** The memory that it takes, weights included. */
export function planNetwork(
  device: Device,
  layout: ParameterLayout,
  task: NetworkTask,
  weightDType: WeightDType = "f32",
): MemoryPlan {
  const { graph, names } = graphOf(layout, task, weightDType);
  return device.plan(graph, { constant: names });
}

/**
 * Compiles it for one use, and gives its memory back.
 *
 * @param label What it is compiled for, in messages.
 * @throws {LimitError} If it does not fit the device.
 * @throws {DeviceError} If the device fails.
 */
export async function withNetwork<T>(
  device: Device,
  weighted: Weighted<{ readonly layout: ParameterLayout }>,
  task: NetworkTask,
  { label, weightDType = "f32" }: {
    readonly label: string;
    readonly weightDType?: WeightDType | undefined;
  },
  use: (program: Program) => Promise<T>,
): Promise<T> {
  using owned = new DisposableStack();
  const buffers: Record<string, TensorBuffer> = {};
  for (const [name, values] of Object.entries(weightsOf(weighted, "parameters", weightDType))) {
    writeWeights(values, buffers[name] = owned.use(weightBuffer(device, values)));
  }
  const { graph, names } = graphOf(weighted.network.layout, task, weightDType);
  const program = owned.use(await device.compile(graph, { label, buffers, constant: names }));
  return await use(program);
}
