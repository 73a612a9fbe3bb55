/**
 * Kernels as WebGPU runs them: pipelines and bind groups, made once and encoded often.
 *
 * @module
 */

import type { GpuDevice } from "./device.ts";
import type { Binding, Kernel } from "./kernel.ts";

/** A prepared kernel. */
export interface Dispatch {
  readonly label: string;
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly workgroups: readonly [number, number, number];
}

/** Bytes between places where the uniforms of a kernel may start. */
const UNIFORM_ALIGNMENT = 256;

/** Bytes that the uniforms of a kernel take; those of few take more than one place. */
export const uniformBytes = ({ uniforms }: Kernel): number =>
  Math.ceil(uniforms.byteLength / UNIFORM_ALIGNMENT) * UNIFORM_ALIGNMENT;

/**
 * Prepares kernels, and makes the buffer with their uniforms, which the caller owns.
 *
 * @param bind Where a binding lies.
 */
export function prepare(
  gpu: GpuDevice,
  label: string,
  kernels: readonly Kernel[],
  bind: (binding: Binding) => GPUBufferBinding,
): { dispatches: Dispatch[]; uniforms: GPUBuffer } {
  const { device } = gpu, offsets = [0];
  for (const [i, kernel] of kernels.entries()) offsets.push(offsets[i] + uniformBytes(kernel));
  const length = offsets[kernels.length], usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const uniforms = gpu.allocate(`uniforms of ${label}`, Math.max(length, UNIFORM_ALIGNMENT), usage);
  const words = new Uint32Array(length / 4);
  kernels.forEach((kernel, i) => words.set(kernel.uniforms, offsets[i] / 4));
  if (words.length) device.queue.writeBuffer(uniforms, 0, words);
  const dispatches = kernels.map((kernel, i): Dispatch => {
    const { label, workgroups } = kernel, pipeline = gpu.pipeline(label, kernel.code);
    const entries = kernel.bindings.map((b, binding) => ({ binding, resource: bind(b) }));
    const size = kernel.uniforms.byteLength;
    if (size) {
      const resource = { buffer: uniforms, offset: offsets[i], size };
      entries.push({ binding: entries.length, resource });
    }
    const layout = pipeline.getBindGroupLayout(0);
    return { label, pipeline, workgroups, group: device.createBindGroup({ layout, entries }) };
  });
  return { dispatches, uniforms };
}

/** Encodes dispatches into a pass, `times` times over. */
export function encode(
  pass: GPUComputePassEncoder,
  dispatches: readonly Dispatch[],
  times = 1,
): void {
  let bound: GPUComputePipeline | undefined;
  for (let i = 0; i < times; i++) {
    for (const { pipeline, group, workgroups } of dispatches) {
      if (pipeline !== bound) pass.setPipeline(bound = pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...workgroups);
    }
  }
}
