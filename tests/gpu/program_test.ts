import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type Device, DeviceError } from "../../src/gpu/device.ts";
import * as e from "../../src/gpu/expression.ts";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { pack, viewOf } from "../../src/gpu/ops/concat.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { add, map, mul, square, sub } from "../../src/gpu/ops/map.ts";
import { matmul } from "../../src/gpu/ops/matmul.ts";
import { randomNormal } from "../../src/gpu/ops/random.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { broadcastTo, reshape, slice, transpose } from "../../src/gpu/ops/view.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { initializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { idxDataset } from "../../src/data/datasets/idx.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu, openGpuAs } from "../device.ts";

Deno.test("a program updates inputs in place, reading old values where they are asked for", async () => {
  for (const device of [await openGpu(), await openCpuAs(2, {}), new ReferenceDevice()]) {
    using _ = device;
    const a = input("a", [8]), b = input("b", [8]);
    // b's next value needs the old a, and the output needs both the old and the new a.
    const next = add(mul(a, 2), 1);
    const graph = makeGraph({ both: sub(next, a), copy: next }, [[a, next], [b, add(b, a)]]);
    using program = await device.compile(graph);
    program.buffers.a.write([1, 2, 3, 4, 5, 6, 7, 8]);
    program.run(2);
    assertEquals([...await program.buffers.a.read()], [7, 11, 15, 19, 23, 27, 31, 35]);
    assertEquals([...await program.buffers.b.read()], [4, 7, 10, 13, 16, 19, 22, 25]);
    assertEquals([...await program.buffers.both.read()], [4, 6, 8, 10, 12, 14, 16, 18]);
    assertEquals([...await program.buffers.copy.read()], [7, 11, 15, 19, 23, 27, 31, 35]);
  }
});

Deno.test("two inputs can exchange their values", async () => {
  for (const device of [await openGpu(), await openCpuAs(2, {}), new ReferenceDevice()]) {
    using _ = device;
    const a = input("a", [4]), b = input("b", [4]);
    using program = await device.compile(makeGraph({}, [[a, add(b, 0)], [b, mul(a, 1)]]));
    program.buffers.a.write([1, 2, 3, 4]);
    program.buffers.b.write([5, 6, 7, 8]);
    program.run(3);
    assertEquals([...await program.buffers.a.read()], [5, 6, 7, 8]);
    assertEquals([...await program.buffers.b.read()], [1, 2, 3, 4]);
  }
});

Deno.test("what is read through a view is computed before", async () => {
  for (const device of [await openGpu(), await openCpuAs(2, {}), new ReferenceDevice()]) {
    using _ = device;
    const x = input("x", [64, 64]), y = add(square(x), 1);
    using program = await device.compile(makeGraph({ y, z: sub(y, transpose(y)) }));
    program.buffers.x.write(Float32Array.from({ length: 64 * 64 }, (_, i) => i % 13));
    program.run();
    const z = await program.buffers.z.read();
    const squareAt = (i: number, j: number) => ((64 * i + j) % 13) ** 2;
    assert(z.every((v, at) => v === squareAt(at >> 6, at & 63) - squareAt(at & 63, at >> 6)));
  }
});

Deno.test("an update can come from any operation, a view or another input", async () => {
  for (const device of [await openGpu(), await openCpuAs(2, {}), new ReferenceDevice()]) {
    using _ = device;
    const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => input(name, [2, 2]));
    const flat = input("flat", [8]);
    const updates = [
      [a, matmul(a, b)],
      [b, reshape(slice(flat, 0, 4, 4), [2, 2])],
      [c, a],
      [d, broadcastTo(constant([5]), [2, 2])],
    ] as const;
    using program = await device.compile(makeGraph({ same: a, flat2: flat }, updates));
    program.buffers.a.write([1, 2, 3, 4]);
    program.buffers.b.write([1, 1, 0, 1]);
    program.buffers.flat.write([0, 1, 2, 3, 4, 5, 6, 7]);
    program.run();
    assertEquals([...await program.buffers.a.read()], [1, 3, 3, 7]);
    assertEquals([...await program.buffers.b.read()], [4, 5, 6, 7]);
    assertEquals([...await program.buffers.c.read()], [1, 2, 3, 4]);
    assertEquals([...await program.buffers.d.read()], [5, 5, 5, 5]);
    assertEquals([...await program.buffers.same.read()], [1, 2, 3, 4]);
    assertEquals([...await program.buffers.flat2.read()], [0, 1, 2, 3, 4, 5, 6, 7]);
  }
});

Deno.test("gradients of views of a flat tensor are computed inside a packed one", async () => {
  using device = await openGpu();
  const flat = input("flat", [192]), x = input("x", [3, 4]);
  const w = viewOf(flat, 0, [4, 2]), b = viewOf(flat, 64, [2]), unused = viewOf(flat, 128, [3]);
  const loss = sum(square(add(matmul(x, w), b)));
  const packing = { offsets: [0, 64, 128], size: 192 };
  const graph = makeGraph({ loss, gradient: pack(grad(loss, [w, b, unused]), packing) });
  using program = await device.compile(graph);
  const values = Float32Array.from({ length: 192 }, (_, i) => Math.sin(i));
  const data = Float32Array.from({ length: 12 }, (_, i) => Math.cos(i));
  program.buffers.flat.write(values);
  program.buffers.x.write(data);
  program.run();
  using reference = new ReferenceDevice();
  using oracle = await reference.compile(graph);
  oracle.buffers.flat.write(values);
  oracle.buffers.x.write(data);
  oracle.run();
  for (const name of ["loss", "gradient"]) {
    assertClose(await program.buffers[name].read(), await oracle.buffers[name].read(), 1e-6, name);
  }
  assert((await program.buffers.gradient.read(66, 62)).every((g) => g === 0), "gaps are zero");
});

Deno.test("what is packed can be made of what else is packed", async () => {
  for (const device of [await openGpu(), await openCpuAs(2, {}), new ReferenceDevice()]) {
    using _ = device;
    // A kernel must not read one part of a buffer while it writes another.
    const x = matmul(input("a", [2, 2]), input("b", [2, 2])), square = matmul(x, x);
    const graph = makeGraph({ packed: pack([square, x], { offsets: [0, 64], size: 68 }) });
    using program = await device.compile(graph);
    program.buffers.a.write([1, 2, 3, 4]);
    program.buffers.b.write([1, 0, 0, 2]);
    program.run();
    assertEquals([...await program.buffers.packed.read(0, 4)], [13, 36, 27, 76]);
    assertEquals([...await program.buffers.packed.read(64, 4)], [1, 4, 3, 8]);
  }
});

const preparing: Record<string, () => Promise<Device>> = {
  "the CPU": () => openCpuAs(2, {}),
  "a GPU": () => openGpuAs({ preferred: "winograd, subgroup" }),
};
for (const [name, open] of Object.entries(preparing)) {
  Deno.test(`constants are prepared once, and again when they have changed, on ${name}`, async () => {
    using device = await open();
    const x = input("x", [1, 12, 12, 16]),
      w = input("w", [3, 3, 16, 16]),
      p = input("p", [1, 1, 16, 24]);
    using weights = device.buffer(9 * 16 * 16);
    const buffers = { w: weights }, constant = ["w", "p"];
    const y = conv2d(conv2d(x, w, undefined, same(3)), p, undefined, same(1));
    const graph = makeGraph({ y });
    using program = await device.compile(graph, { buffers, constant });
    using plain = await device.compile(graph, { buffers });
    using doubling = await device.compile(makeGraph({}, [[w, mul(w, 2)]]), { buffers });
    assert(program.dispatches < plain.dispatches);
    const fill = (length: number, k: number) =>
      Float32Array.from({ length }, (_, i) => Math.sin(i * k));
    const check = async () => {
      program.run(2);
      plain.run();
      assertEquals(await program.buffers.y.read(), await plain.buffers.y.read());
      return (await program.buffers.y.read())[5];
    };
    for (const { buffers } of [program, plain]) {
      buffers.x.write(fill(12 * 12 * 16, 1.3));
      buffers.p.write(fill(16 * 24, 0.7));
    }
    weights.write(fill(9 * 16 * 16, 2.1));
    const before = await check();
    doubling.run();
    const doubled = await check();
    assert(before !== 0 && Math.abs(doubled - 2 * before) < 1e-5 * Math.abs(before));
    for (const { buffers } of [program, plain]) buffers.p.write([9, 8, 7], 3);
    assert(await check() !== doubled);
  });
}

/** Counts calls of a device's methods that create something, and of its queue. */
function countCalls(device: GPUDevice) {
  const calls: Record<string, number> = {};
  const wrap = (object: object, names: readonly string[]) => {
    for (const name of names) {
      const original = Reflect.get(object, name).bind(object);
      Object.defineProperty(object, name, {
        value(...args: unknown[]) {
          calls[name] = (calls[name] ?? 0) + 1;
          return original(...args);
        },
      });
    }
  };
  wrap(device, [
    "createBuffer",
    "createBindGroup",
    "createComputePipeline",
    "createShaderModule",
    "createBindGroupLayout",
    "createQuerySet",
  ]);
  wrap(device.queue, ["submit", "onSubmittedWorkDone"]);
  const original = GPUBuffer.prototype.mapAsync;
  GPUBuffer.prototype.mapAsync = function (...args) {
    calls.mapAsync = (calls.mapAsync ?? 0) + 1;
    return original.apply(this, args);
  };
  return { calls, restore: () => void (GPUBuffer.prototype.mapAsync = original) };
}

Deno.test("a training step in the steady state makes one submit and creates nothing", async () => {
  using device = await openGpu();
  const network = parseNetwork({
    ...{ in_channels: 1, out_channels: 1, block_out_channels: [8, 16], norm_num_groups: 4 },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
    dropout: 0.1,
  });
  const pixels = { shape: [10, 8, 8], data: new Uint8Array(640).map((_, i) => i * 7) };
  const data = idxDataset("ramps", pixels), settings = parseTraining({ batch_size: 4 });
  using trainer = await Trainer.create(device, initializeModel(network, {}, 1), data, settings);
  await trainer.run();
  await device.idle();
  const { calls, restore } = countCalls(device.device);
  try {
    for (let i = 0; i < 5; i++) await trainer.run();
    assertEquals(calls, { submit: 5 });
    await trainer.records(5);
    assertEquals(calls.createBuffer, 1, "the counter counts");
  } finally {
    restore();
  }
});

Deno.test("sampling in the steady state creates nothing but what it reads back into, once", async () => {
  using device = await openGpu();
  const network = parseNetwork({
    ...{ in_channels: 1, out_channels: 1, block_out_channels: [8], norm_num_groups: 4 },
    ...{ down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"], sample_size: 8 },
  });
  const model = initializeModel(network, { num_train_timesteps: 10 }, 1);
  using sampler = await Sampler.create(device, model, { steps: 6, batchSize: 2 });
  await sampler.sample({ count: 2 });
  const { calls, restore } = countCalls(device.device);
  try {
    await sampler.sample({ count: 2, seed: 1 });
    const { submit, onSubmittedWorkDone, ...others } = calls;
    assertEquals(others, { createBuffer: 1, mapAsync: 1 });
    // The start, the steps in as many parts as take a while each, the result.
    assert(submit <= 8 && onSubmittedWorkDone <= 6, `${submit} submits`);
  } finally {
    restore();
  }
});

Deno.test("a shader that does not compile is an error that says what was being done", async () => {
  using device = await openGpu();
  const { done } = device.guard(
    "compiling nonsense",
    () => device.pipeline("nonsense", "fn main("),
  );
  await done;
  const error = assertThrows(() => device.check(), DeviceError);
  assert(error.message.includes("compiling nonsense") && error.message.includes(device.name));
});

Deno.test("validation errors during a run reach whoever reads", async () => {
  using device = await openGpu();
  using buffer = device.buffer(4);
  device.guard("doing the impossible", () => {
    device.device.createBuffer({
      size: 16,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE,
    });
  });
  await assertRejects(() => buffer.read(), DeviceError, "doing the impossible");
});

Deno.test("uncaptured errors are not silent", async () => {
  using device = await openGpu();
  using buffer = device.buffer(4);
  const told = new Promise((resolve) => device.device.addEventListener("uncapturederror", resolve));
  device.device.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
  await told;
  await assertRejects(() => buffer.read(), DeviceError, "using the device");
});

Deno.test("a closed device is an error, not a hang", async () => {
  const device = await openGpu();
  const buffer = device.buffer(4);
  device[Symbol.dispose]();
  await assertRejects(() => buffer.read(), DeviceError, "closed");
  assertThrows(() => buffer.write([1]), DeviceError, "closed");
});

Deno.test("a lost device is an error, not a hang, before, while and after it is told", async () => {
  using device = await openGpu();
  const graph = makeGraph({ y: add(input("x", [4]), 1) });
  using program = await device.compile(graph);
  program.buffers.x.write([1, 2, 3, 4]);
  program.run();
  const { y } = program.buffers, under = y.read();
  // As the browser or the driver would take it away: nobody asked this class.
  device.device.destroy();
  const isLost = (error: unknown) =>
    error instanceof DeviceError && /lost|reading/.test(error.message);
  await under.then(
    (values) => assertEquals([...values], [2, 3, 4, 5]),
    (error) => assert(isLost(error), `${error}`),
  );
  await assertRejects(() => y.read(), DeviceError);
  await device.device.lost;
  const error = await assertRejects(() => y.read(), DeviceError);
  assert(isLost(error), error.message);
  assertThrows(() => program.buffers.x.write([1]), DeviceError);
  assertThrows(() => program.run(), DeviceError);
  await assertRejects(() => device.compile(graph), DeviceError);
  await assertRejects(() => device.idle(), DeviceError);
});

Deno.test("what exceeds the device's limits is refused before Deno would fail", async () => {
  using device = await openGpu();
  assertThrows(() => device.buffer(2 ** 40), DeviceError, "allows");
  const limit = device.target.maxBindingElements;
  const size = Math.ceil(limit / 1024) + 1024;
  const big = matmul(input("a", [size, 1024]), input("b", [1024, 1]));
  await assertRejects(
    () => device.compile(makeGraph({ big }), { label: "a huge product" }),
    DeviceError,
    "a huge product",
  );
});

Deno.test("a flat tensor larger than a binding is walked in parts", async () => {
  using device = await openGpu();
  Object.assign(device.target, { maxBindingElements: 1000 });
  const x = input("x", [2500]), graph = makeGraph({}, [[x, map([x], (x) => e.add(x, 1))]]);
  using program = await device.compile(graph);
  program.buffers.x.write(Float32Array.from({ length: 2500 }, (_, i) => i));
  program.run();
  const values = await program.buffers.x.read();
  assertEquals(program.dispatches, 3);
  assert(values.every((v, i) => v === i + 1));
});

Deno.test("reads and writes beyond a buffer's end are refused", async () => {
  using device = await openGpu();
  using buffer = device.buffer(4);
  assertThrows(() => buffer.write([1, 2], 3), RangeError, "3 to 5 of a buffer of 4");
  assertThrows(() => buffer.write([1], -1), RangeError);
  await assertRejects(() => buffer.read(2, 3), RangeError);
  buffer.write([]);
  assertEquals((await buffer.read(4, 0)).length, 0);
});

Deno.test("compile() refuses buffers that do not fit", async () => {
  using device = await openGpu();
  using small = device.buffer(3);
  const graph = makeGraph({ y: mul(input("x", [4]), 2) });
  await assertRejects(
    () => device.compile(graph, { buffers: { x: small }, label: "doubling" }),
    TypeError,
    "doubling: x wants a buffer of 4 f32",
  );
});

Deno.test("makeGraph() refuses two inputs of one name and updates of another shape", () => {
  const a = input("a", [2]), again = input("a", [2]);
  assertThrows(() => makeGraph({ y: add(a, again) }), TypeError, "named a");
  assertThrows(() => makeGraph({}, [[a, input("b", [3])]]), TypeError, "update a");
  assertThrows(() => makeGraph({}, [[add(a, 1), a]]), TypeError, "no input");
});

Deno.test("random numbers are those of the image, not of the batch", async () => {
  using device = await openGpu();
  const state = {
    seed: constant(new Int32Array([5, 0])),
    first: input("first", [1], "i32"),
    step: constant(new Int32Array([2])),
  };
  const draw = async (count: number, first: number) => {
    const graph = makeGraph({ y: randomNormal([count, 3, 3, 3], state, 1) });
    using program = await device.compile(graph);
    program.buffers.first.write([first]);
    program.run();
    return [...await program.buffers.y.read()];
  };
  const all = await draw(5, 0);
  assertEquals(await draw(2, 3), all.slice(3 * 27));
});

Deno.test("equal kernels are compiled once", async () => {
  using device = await openGpu();
  const build = async (size: number) => {
    using _ = await device.compile(
      makeGraph({ y: matmul(input("a", [size, 32]), input("b", [32, 64])) }),
    );
  };
  await build(64);
  const before = device.pipelines;
  await build(96);
  assertEquals(device.pipelines, before);
});

Deno.test("openDevice() takes a WebGPU device that was requested elsewhere", async () => {
  const adapter = await navigator.gpu.requestAdapter();
  using device = await openDevice(await adapter!.requestDevice());
  assertEquals(device.kind, "gpu");
  using program = await device.compile(makeGraph({ y: add(input("x", [5]), 1) }));
  program.buffers.x.write([1, 2, 3, 4, 5]);
  program.run();
  assertEquals([...await program.buffers.y.read()], [2, 3, 4, 5, 6]);
});
