import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Device, LimitError } from "../../src/gpu/device.ts";
import { compileBatch } from "../../src/gpu/compile_batch.ts";
import { type Graph, makeGraph } from "../../src/gpu/graph.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { add, mul, silu } from "../../src/gpu/ops/map.ts";
import { matmul } from "../../src/gpu/ops/matmul.ts";
import { input } from "../../src/gpu/tensor.ts";
import { formatBytePair } from "../../src/units.ts";
import { GpuDevice } from "../../src/gpu/wgsl/device.ts";
import { openCpuAs, openGpu } from "../device.ts";

/** A GPU that cannot tell the time. */
async function openGpuWithoutTimestamps(): Promise<GpuDevice> {
  const adapter = await navigator.gpu.requestAdapter();
  return new GpuDevice(await adapter!.requestDevice());
}

const devices: Record<string, () => Promise<Device>> = {
  "a GPU": openGpu,
  "a GPU without timestamps": openGpuWithoutTimestamps,
  "the CPU": () => openCpuAs(2, {}),
};

/** x becomes x + silu(x * w), and there are two convolutions of different sizes. */
function network(): Graph {
  const x = input("x", [2, 8, 8, 4]), w = input("w", [3, 3, 4, 4]);
  const y = conv2d(silu(conv2d(x, w, undefined, same(3))), w, undefined, same(3));
  return makeGraph({ y: mul(y, 2) }, [[x, add(x, silu(y))]]);
}
const FLOPS = 2 * 2 * 2 * 8 * 8 * 4 * 9 * 4;

for (const [name, open] of Object.entries(devices)) {
  Deno.test(`a program tells what it consists of, on ${name}`, async () => {
    using device = await open();
    const planned = device.plan(network());
    using program = await device.compile(network(), { label: "a network" });
    const { label, stages, memory } = program.describe();
    assertEquals(label, "a network");
    const convolutions = stages.filter((stage) => stage.op === "conv2d");
    assertEquals(convolutions.map(({ shape }) => shape), [[2, 8, 8, 4], [2, 8, 8, 4]]);
    assertEquals(stages.reduce((sum, { flops }) => sum + flops, 0), FLOPS);
    assertEquals(program.flops, FLOPS);
    const kernels = stages.flatMap((stage) => stage.kernels);
    assertEquals(kernels.length, program.dispatches);
    assert(kernels.every(({ bytes, groups }) => bytes > 0 && groups > 0));
    assert(kernels.every(({ code }) => device.kind === "cpu" || code?.includes("@compute")));
    const fused = stages.reduce((sum, stage) => sum + (stage.fused.sigmoid ?? 0), 0);
    assert(fused >= 2, "both activations are computed in some kernel");
    assertEquals(memory, planned);
    assertEquals(memory.bytes, program.memory, "what was planned is what was taken");
    assert(memory.temporary <= memory.unshared + 64 && memory.bytes > memory.temporary);
  });

  Deno.test(`a profile is a run, on ${name}`, async () => {
    using device = await open();
    using profiled = await device.compile(network());
    using other = await device.compile(network());
    for (const { buffers } of [profiled, other]) {
      for (const [i, buffer] of [buffers.x, buffers.w].entries()) {
        buffer.write(Float32Array.from({ length: buffer.length }, (_, k) => Math.sin(i + k)));
      }
    }
    const times = await profiled.profile();
    other.run();
    const count = profiled.describe().stages.flatMap(({ kernels }) => kernels).length;
    assertEquals(times.length, count);
    assert(times.every((ms) => Number.isFinite(ms) && ms >= 0));
    for (const output of ["x", "y"]) {
      assertEquals(await profiled.buffers[output].read(), await other.buffers[output].read());
    }
  });
}

Deno.test("the CPU does not count what it prepares once to a run", async () => {
  using device = await openCpuAs(1, {});
  const graph = makeGraph({ y: matmul(input("a", [64, 64]), input("b", [64, 64])) });
  using program = await device.compile(graph, { constant: ["b"] });
  const kernels = program.describe().stages.flatMap((stage) => stage.kernels);
  const times = await program.profile();
  assert(kernels.length > program.dispatches);
  assert(times.some((ms, i) => ms === 0 && kernels[i].label.includes("pack")));
});

const images = (batch: number) =>
  makeGraph({
    y: conv2d(input("x", [batch, 16, 16, 64]), input("w", [3, 3, 64, 64]), undefined, same(3)),
  });

Deno.test("a GPU refuses what exceeds its limits before it takes anything, and tells what fits", async () => {
  const adapter = await navigator.gpu.requestAdapter();
  const gpu = await adapter!.requestDevice(), created: unknown[] = [];
  using device = new GpuDevice(gpu);
  const createBuffer = gpu.createBuffer.bind(gpu);
  Object.defineProperty(gpu, "createBuffer", {
    value: (descriptor: GPUBufferDescriptor) => {
      created.push(descriptor);
      return createBuffer(descriptor);
    },
  });
  const limit = gpu.limits.maxStorageBufferBindingSize, each = 4 * 16 * 16 * 64;
  const largest = Math.floor(limit / each);
  const error = await assertRejects(
    () => compileBatch(device, largest + 1, [images], { label: "a convolution" }),
    LimitError,
  );
  assertEquals(error.wanted, each * (largest + 1));
  assertEquals(error.limit, limit);
  assertEquals(error.largestBatch, largest);
  const amounts = formatBytePair(error.wanted, limit);
  for (
    const part of [
      ...amounts,
      largest,
      device.name,
      "a convolution",
      `the tensor x [${largest + 1},`,
    ]
  ) {
    assert(error.message.includes(String(part)), `${error.message} has ${part}`);
  }
  assertEquals(created, []);
  assertEquals(device.plan(images(largest)).excess, undefined);
  assert(device.plan(images(largest + 1)).excess);
});

Deno.test("a CPU refuses what it cannot address before it takes anything, and tells what fits", async () => {
  using device = await openCpuAs(1, {});
  const before = device.available, batch = 2 ** 16;
  const error = await assertRejects(
    () => compileBatch(device, batch, [images], { label: "a convolution" }),
    LimitError,
    "the largest batch that fits is",
  );
  assertEquals(error.limit, before);
  assert(error.wanted > before && error.largestBatch! > 0 && error.largestBatch! < batch);
  assertEquals(device.available, before);
  assertEquals(device.plan(images(error.largestBatch!)).excess, undefined);
  assert(device.plan(images(error.largestBatch! + 1)).excess);
  await assertRejects(
    () => compileBatch(device, 2, [() => images(batch)], {}),
    LimitError,
    "not even a single image fits",
  );
});
