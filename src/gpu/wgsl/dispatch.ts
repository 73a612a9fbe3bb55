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

/** Bytes between the uniforms of kernels: where bindings may start. */
export const UNIFORM_STRIDE = 256;

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
  const { device } = gpu;
  const uniforms = gpu.allocate(
    `uniforms of ${label}`,
    kernels.length * UNIFORM_STRIDE,
    GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  );
  const words = new Uint32Array(kernels.length * UNIFORM_STRIDE / 4);
  kernels.forEach((kernel, i) => words.set(kernel.uniforms, i * UNIFORM_STRIDE / 4));
  if (words.length) device.queue.writeBuffer(uniforms, 0, words);
  const dispatches = kernels.map((kernel, i): Dispatch => {
    const { label, workgroups } = kernel, pipeline = gpu.pipeline(label, kernel.code);
    const entries = kernel.bindings.map((b, binding) => ({ binding, resource: bind(b) }));
    const size = kernel.uniforms.byteLength;
    if (size) {
      const resource = { buffer: uniforms, offset: i * UNIFORM_STRIDE, size };
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
