import { assert, assertEquals, assertThrows } from "@std/assert";
import { copy, fma } from "../bench/probes.ts";
import { graphOf, suites } from "../bench/workloads.ts";
import { makeGraph, nodesOf } from "../src/gpu/graph.ts";
import { input } from "../src/gpu/tensor.ts";
import { candidatesOf } from "../src/gpu/wgsl/tuner.ts";
import { openCpuAs, openGpu } from "./device.ts";

const flopsOf = (name: string) =>
  nodesOf(graphOf(name).graph).reduce((sum, node) => sum + (node.op.flops?.(node) ?? 0), 0);

Deno.test("all workloads of the benchmark exist, and count their operations", () => {
  for (const { probes, ladder, steps } of Object.values(suites)) {
    for (const name of [...probes, ...ladder, ...steps]) {
      const flops = flopsOf(name);
      assertEquals(flops > 0, !/^(copy|gnsilu|ln|geglu)_/.test(name), `${name} has ${flops} FLOP`);
    }
  }
  assertThrows(() => graphOf("mm"), RangeError, "Unknown workload mm");
  const convolution = 2 * 16 * 32 * 32 * 64 * 64 * 9;
  for (const way of ["conv", "convdx", "convdw"]) {
    assertEquals(flopsOf(`${way}_16_64_32_64`), convolution);
  }
  assertEquals(flopsOf("convfb_16_64_32_64"), 3 * convolution);
  // Those that the peers' scripts count, 0.4974 and 12.44 GFLOP an image.
  assert(Math.abs(flopsOf("sample_small_b32") / 32 / 0.4974e9 - 1) < 0.01);
  assert(Math.abs(flopsOf("sample_cifar_b1") / 12.44e9 - 1) < 0.01);
});

Deno.test("the probes do what they are counted for", async () => {
  using gpu = await openGpu();
  const size = 2 ** 14, node = fma(input("x", [size]), 3), flops = node.op.flops!(node);
  const candidates = candidatesOf(node, gpu.target);
  assert(candidates.length > 1);
  for (const { kernels: [{ code, uniforms, workgroups }] } of candidates) {
    const invocations = workgroups[0] * Number(/workgroup_size\((\d+)\)/.exec(code)![1]);
    const perInvocation = code.split("fma(").length - 1;
    assertEquals(8 * perInvocation * uniforms[0] * invocations, flops);
  }
  for (const device of [gpu, await openCpuAs(2, {})]) {
    using _ = device;
    const x = input("x", [2 ** 16]), values = Float32Array.from({ length: 2 ** 16 }, (_, i) => i);
    using program = await device.compile(makeGraph({ y: copy(x) }));
    program.buffers.x.write(values);
    program.run();
    assertEquals(await program.buffers.y.read(), values);
  }
});
