import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { DeviceError } from "../../src/gpu/device.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { groupNorm } from "../../src/gpu/ops/group_norm.ts";
import { add, gelu, mul, silu } from "../../src/gpu/ops/map.ts";
import { viewOf } from "../../src/gpu/ops/concat.ts";
import { gather } from "../../src/gpu/ops/gather.ts";
import { linear, matmul } from "../../src/gpu/ops/matmul.ts";
import { quantile } from "../../src/gpu/ops/quantile.ts";
import { softmax } from "../../src/gpu/ops/softmax.ts";
import { broadcastTo } from "../../src/gpu/ops/view.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, type HostArray, input, type Tensor } from "../../src/gpu/tensor.ts";
import { Module } from "../../src/gpu/wasm/assembler.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { initializeModel } from "../../src/model/model.ts";
import { idxDataset } from "../../src/data/datasets/idx.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { type Shape, sizeOf } from "../../src/shape.ts";
import { assertClose } from "../close.ts";
import { openCpuAs } from "../device.ts";
import { Random } from "../random.ts";

/** Weights after some steps of a small training. */
async function train(threads: number): Promise<Uint8Array> {
  using device = await WasmDevice.open(threads);
  const network = parseNetwork({
    ...{ in_channels: 1, out_channels: 1, block_out_channels: [16, 24], norm_num_groups: 4 },
    down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
    up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
    dropout: 0.1,
  });
  const random = new Random("pixels");
  const pixels = Uint8Array.from({ length: 40 * 14 * 14 }, () => random.below(256));
  const data = idxDataset("noise", { shape: [40, 14, 14], data: pixels });
  const model = initializeModel(network, {}, 1), settings = parseTraining({ batch_size: 5 });
  using trainer = await Trainer.create(device, model, data, settings);
  for (let i = 0; i < 4; i++) await trainer.run();
  const { arrays } = await trainer.state();
  return new Uint8Array(arrays.parameters.buffer);
}

Deno.test("the CPU device gives the same weights, bit for bit, whatever the number of threads", async () => {
  const [one, two, five] = [await train(1), await train(2), await train(5)];
  assertEquals(one.length, two.length);
  assert(one.every((byte, i) => byte === two[i] && byte === five[i]));
});

/** Opens a device while something of the platform is another; returns its threads, and what is told. */
async function openWithout(name: "Worker" | "SharedArrayBuffer" | "WebAssembly", value: unknown) {
  const own = Object.getOwnPropertyDescriptor(globalThis, name)!, notices: string[] = [];
  Object.defineProperty(globalThis, name, { ...own, value });
  try {
    using device = await WasmDevice.open(3, (notice) => notices.push(notice));
    return { threads: device.threads, notices };
  } finally {
    Object.defineProperty(globalThis, name, own);
  }
}

Deno.test("the CPU device says why it has fewer threads than were wanted", async () => {
  const alone = await openWithout("SharedArrayBuffer", undefined);
  assertEquals(alone.notices, ["one thread instead of 3: there is no SharedArrayBuffer"]);
  const without = await openWithout("Worker", undefined);
  assertEquals(without.notices, ["one thread instead of 3: there are no Workers here"]);
  const forbidden = await openWithout(
    "Worker",
    class {
      constructor() {
        throw new Error("no");
      }
    },
  );
  assertEquals(forbidden.notices, [
    "one thread instead of 3: threads cannot be started (no); a content security policy must allow " +
    "worker-src blob:",
  ]);
  assertEquals([alone.threads, without.threads, forbidden.threads], [1, 1, 1]);
  const quiet: string[] = [];
  using device = await WasmDevice.open(2, (notice) => quiet.push(notice));
  assertEquals([device.threads, quiet], [2, []]);
});

Deno.test("the CPU device says what a policy must allow that forbids WebAssembly", async () => {
  const refuses = {
    Module: class {
      constructor() {
        throw new Error("unsafe");
      }
    },
  };
  await assertRejects(
    () => openWithout("WebAssembly", refuses),
    DeviceError,
    "must allow script-src 'wasm-unsafe-eval'",
  );
  await assertRejects(() => openWithout("WebAssembly", undefined), DeviceError, "no WebAssembly");
});

Deno.test("the CPU reads parts of tensors where they lie", async () => {
  using device = await WasmDevice.open(2);
  const random = new Random("parts"), flat = input("flat", [5000]);
  const odd = (start: number, shape: Shape) => viewOf(flat, start, shape);
  const cases: Record<string, Tensor> = {
    convolution: conv2d(odd(1, [2, 6, 6, 8]), odd(13, [3, 3, 8, 5]), odd(3, [5]), same(3)),
    winograd: conv2d(odd(5, [2, 8, 8, 16]), odd(7, [3, 3, 16, 16]), odd(9, [16]), same(3)),
    product: matmul(odd(3, [7, 13]), odd(101, [13, 9])),
    softmax: softmax(odd(9, [6, 11])),
    moments: groupNorm(odd(11, [2, 5, 5, 8]), odd(1, [8]), odd(2, [8]), 4, 1e-5),
    quantile: quantile(odd(1, [3, 29]), 0.3),
    rows: gather(odd(3, [7, 5]), input("index", [4], "i32")),
  };
  for (const [name, y] of Object.entries(cases)) {
    const graph = makeGraph({ y });
    using program = await device.compile(graph);
    const copies = program.describe().stages.filter(({ op, fused }) =>
      op === "map" && !Object.keys(fused).length
    );
    assertEquals(copies, [], name);
    const data = Object.fromEntries(
      Object.entries(program.buffers).filter(([name]) => name !== "y").map(([name, buffer]) => [
        name,
        buffer.dtype === "i32"
          ? Int32Array.of(6, 0, 3, 3)
          : Float64Array.from({ length: buffer.length }, () => Math.fround(random.between(-1, 1))),
      ]),
    );
    for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
    program.run();
    assertClose(await program.buffers.y.read(), interpret(graph, data).y, 2e-5, name);
  }
});

Deno.test("convolutions on the CPU read pixels that are repeated", async () => {
  using device = await WasmDevice.open(2);
  const random = new Random("repeated");
  for (const size of [1, 3] as const) {
    for (const shape of [[1, 1, 1, 16], [2, 9, 1, 16], [1, 1, 8, 16], [1, 9, 8, 16]]) {
      const x = input("x", shape), w = input("w", [size, size, 16, 16]);
      const y = conv2d(broadcastTo(x, [2, 9, 8, 16]), w, undefined, same(size));
      using program = await device.compile(makeGraph({ y }));
      const data = Object.fromEntries([x, w].map(({ shape }, i) => [
        ["x", "w"][i],
        Float64Array.from(
          { length: sizeOf(shape) },
          () => Math.fround(random.between(-1, 1)),
        ),
      ]));
      for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
      program.run();
      const expected = interpret(makeGraph({ y }), data).y;
      assertClose(await program.buffers.y.read(), expected, 2e-5, `${size}x${size} of ${shape}`);
    }
  }
});

Deno.test("convolutions on the CPU compute their input, and what is made of their result, on the way", async () => {
  using device = await WasmDevice.open(2);
  const random = new Random("fusion");
  // With Winograd's algorithm and without; sizes that tiles and vectors do not divide.
  for (const [channels, filters, size] of [[8, 8, 6], [16, 16, 8], [16, 24, 7], [12, 5, 6]]) {
    const x = input("x", [3, size, size, channels]), r = input("r", [3, size, size, filters]);
    const w = input("w", [3, 3, channels, filters]), b = input("b", [filters]);
    const w2 = input("w2", [3, 3, filters, filters]), t = input("t", [3, 1, 1, filters]);
    const g = input("g", [channels]), h = input("h", [channels]);
    const normed = silu(groupNorm(x, g, h, 4, 1e-5));
    const first = add(conv2d(normed, w, b, same(3)), t);
    const cases: Record<string, [Tensor, dispatches: number]> = {
      input: [conv2d(gelu(x), w, b, same(3)), 2],
      result: [add(conv2d(x, w, b, same(3)), t), 2],
      residual: [mul(add(r, conv2d(x, w, b, same(3))), 0.5), 2],
      both: [mul(add(r, first), 0.5), 8],
      chain: [add(conv2d(first, w2, undefined, same(3)), r), 10],
    };
    for (const [name, [y, dispatches]] of Object.entries(cases)) {
      const graph = makeGraph({ y });
      using program = await device.compile(graph);
      const data: Record<string, Float64Array<ArrayBuffer>> = {};
      for (const [input, buffer] of Object.entries(program.buffers)) {
        if (input === "y") continue;
        data[input] = Float64Array.from(
          { length: buffer.length },
          () => Math.fround(random.between(-1, 1)),
        );
        buffer.write(data[input]);
      }
      program.run();
      assertEquals(program.dispatches, dispatches, name);
      assertClose(await program.buffers.y.read(), interpret(graph, data).y, 1e-5, name);
    }
  }
});

Deno.test("where memory cannot be shared, as in most web pages, the CPU device has one thread", async () => {
  const x = input("x", [2, 12, 12, 16]), w = input("w", [3, 3, 16, 16]);
  const graph = makeGraph({ y: silu(conv2d(x, w, undefined, same(3))) });
  const compute = async (device: WasmDevice) => {
    using program = await device.compile(graph);
    for (const { buffer, k } of [{ buffer: "x", k: 1.3 }, { buffer: "w", k: 0.7 }]) {
      const { length } = program.buffers[buffer];
      program.buffers[buffer].write(Float32Array.from({ length }, (_, i) => Math.sin(i * k)));
    }
    program.run();
    return await program.buffers.y.read();
  };
  using shared = await WasmDevice.open(2);
  const property = Object.getOwnPropertyDescriptor(globalThis, "SharedArrayBuffer")!;
  Object.defineProperty(globalThis, "SharedArrayBuffer", { ...property, value: undefined });
  try {
    using alone = await WasmDevice.open(2);
    assertEquals([alone.threads, alone.isShared], [1, false]);
    assertEquals(await compute(alone), await compute(shared));
  } finally {
    Object.defineProperty(globalThis, "SharedArrayBuffer", property);
  }
});

Deno.test("the CPU device gives memory back", async () => {
  using device = await WasmDevice.open(2);
  const x = input("x", [4, 8, 8, 16]), w = input("w", [3, 3, 16, 16]);
  const graph = makeGraph({ y: sum(silu(conv2d(x, w, undefined, same(3)))) });
  let bytes = 0;
  for (let i = 0; i < 20; i++) {
    using _program = await device.compile(graph);
    using _buffer = device.buffer(1000 + i);
    if (i === 2) bytes = device.memory.buffer.byteLength;
  }
  assertEquals(device.memory.buffer.byteLength, bytes);
});

Deno.test("memory that was given back comes as zeros", async () => {
  using device = await WasmDevice.open(1);
  {
    using buffer = device.buffer(64);
    buffer.write(new Float32Array(64).fill(7));
  }
  using again = device.buffer(64);
  assert((await again.read()).every((v) => v === 0));
});

Deno.test("a buffer that was disposed of is an error, and disposing of it twice harms no other", async () => {
  using device = await WasmDevice.open(1);
  const buffer = device.buffer(64);
  buffer[Symbol.dispose]();
  using other = device.buffer(64);
  buffer[Symbol.dispose]();
  using third = device.buffer(64);
  assert(other.address !== third.address);
  assertThrows(() => buffer.write([1]), DeviceError, "disposed");
});

Deno.test("buffers of a CPU program end with it", async () => {
  using device = await WasmDevice.open(1);
  const program = await device.compile(makeGraph({ y: add(input("x", [64]), 1) }));
  program[Symbol.dispose]();
  using other = device.buffer(64);
  assertThrows(() => program.buffers.x.write([1]), DeviceError, "disposed");
  program.buffers.x[Symbol.dispose]();
  using third = device.buffer(64);
  assert(other.address !== third.address);
});

Deno.test("the CPU device refuses more than WebAssembly can address, and says how much that is", async () => {
  using device = await WasmDevice.open(1);
  assertThrows(() => device.buffer(2 ** 31), DeviceError, "WebAssembly gives 4.29 GB at most");
  const x = input("x", [20000, 20000]);
  await assertRejects(
    () => device.compile(makeGraph({ y: matmul(x, add(x, 1)) }), { label: "a huge product" }),
    DeviceError,
    "a huge product: it takes 6.40 GB",
  );
  using small = device.buffer(4);
  small.write([1, 2, 3, 4]);
  assertEquals([...await small.read()], [1, 2, 3, 4]);
});

Deno.test("a closed CPU device is an error, and closing it twice is none", async () => {
  const device = await WasmDevice.open(2);
  const buffer = device.buffer(4);
  device[Symbol.dispose]();
  device[Symbol.dispose]();
  assertThrows(() => buffer.write([1]), DeviceError, "closed");
  assertThrows(() => device.buffer(1), DeviceError, "closed");
  await assertRejects(() => device.compile(makeGraph({ y: add(input("x", [1]), 1) })), DeviceError);
});

Deno.test("two programs on one CPU device do not disturb each other", async () => {
  using device = await WasmDevice.open(3);
  const build = (factor: number) =>
    device.compile(makeGraph({ y: mul(input("x", [9000]), factor) }));
  using two = await build(2);
  {
    using three = await build(3);
    three.buffers.x.write(new Float32Array(9000).fill(1));
    three.run();
    assertEquals((await three.buffers.y.read())[8999], 3);
  }
  two.buffers.x.write(new Float32Array(9000).fill(1));
  two.run(5);
  assertEquals((await two.buffers.y.read())[8999], 2);
});

Deno.test("wide channels, large images and long sums agree with exact arithmetic on ones", async () => {
  using device = await WasmDevice.open(2);
  const x = constant(new Float32Array(40 * 40 * 96).fill(1), [1, 40, 40, 96]);
  const w = constant(new Float32Array(9 * 96 * 32).fill(1), [3, 3, 96, 32]);
  const y = conv2d(x, w, undefined, same(3));
  const one = constant(new Float32Array(32).fill(1), [32]);
  using program = await device.compile(makeGraph({ y, norm: groupNorm(y, one, one, 4, 1e-5) }));
  program.run();
  const values = await program.buffers.y.read();
  // Inside, 9 taps of 96 channels; at an edge 6, in a corner 4.
  const at = (row: number, column: number) => values[(row * 40 + column) * 32];
  for (
    const [row, column, taps] of [[0, 0, 4], [0, 20, 6], [20, 39, 6], [20, 20, 9], [39, 39, 4]]
  ) {
    assert(Math.abs(at(row, column) - 96 * taps) < 0.01, `${row}, ${column}: ${at(row, column)}`);
  }
});

Deno.test("Module.encode() makes valid modules of any size of integers", () => {
  const module = new Module();
  module.define("constants", ["i32"], (f, [to]) => {
    [0, 63, 64, -64, -65, 8191, 8192, 2 ** 31 - 1, -(2 ** 31)].forEach((n, i) =>
      f.storeInteger(to, 4 * i, n)
    );
  });
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const bytes = module.encode({ maxPages: 1, isShared: false });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } });
  (instance.exports.constants as (to: number) => void)(128);
  assertEquals([...new Int32Array(memory.buffer, 128, 9)], [
    ...[0, 63, 64, -64, -65, 8191, 8192, 2 ** 31 - 1, -(2 ** 31)],
  ]);
});

Deno.test("threads work beyond the first two gibibytes", async () => {
  using device = await WasmDevice.open(2);
  using _below = device.buffer(2 ** 29);
  const x = input("x", [3000]), y = mul(x, x);
  using program = await device.compile(makeGraph({ y }));
  program.buffers.x.write(Float32Array.from({ length: 3000 }, (_, i) => i % 5));
  program.run();
  assertEquals(
    [...await program.buffers.y.read()],
    Array.from({ length: 3000 }, (_, i) => (i % 5) ** 2),
  );
});

Deno.test("constants are prepared where there is room for it, and else when they are needed", async () => {
  // With fewer rows, weights are packed where they are needed in any case.
  const side = 1024, rows = 100, bytes = 4 * side ** 2;
  const [x, ...weights] = ["x", "w0", "w1", "w2"].map((name, i) =>
    input(name, [i ? side : rows, side])
  );
  const graph = makeGraph({ y: weights.reduce((y, w) => matmul(y, w), x) });
  const options = { constant: ["w0", "w1", "w2"] };
  using device = await WasmDevice.open(2);
  const whole = device.plan(graph, options);
  assert(whole.temporary >= 3 * bytes, `${whole.temporary} bytes`);
  // Leaves room for the weights and what is made of one of them at a time.
  using _others = device.buffer((device.available - whole.bytes + bytes) / 4);
  const { temporary, excess } = device.plan(graph, options);
  assertEquals([excess, temporary < 2 * bytes], [undefined, true]);
  using program = await device.compile(graph, options);
  program.buffers.x.write(Float32Array.from({ length: rows * side }, (_, i) => i % side));
  for (const { name } of weights.map((w) => w.attributes as { name: string })) {
    // Moves all numbers by one place.
    const next = Float32Array.from({ length: side ** 2 }, (_, i) => i % (side + 1) === 1 ? 1 : 0);
    program.buffers[name].write(next);
  }
  program.run();
  const expected = Float32Array.from(
    { length: rows * side },
    (_, i) => Math.max(0, i % side - 3),
  );
  assertEquals(await program.buffers.y.read(), expected);
});

Deno.test("products on the CPU make of their results what follows, on the way", async () => {
  const random = new Random("dense layers");
  for (const pair of [1, 2] as const) {
    for (const [batch, rows, size, out] of [[2, 7, 12, 9], [1, 100, 8, 32], [3, 5, 16, 1]]) {
      using device = await openCpuAs(2, { pair });
      const x = input("x", [batch, rows, size]), residual = input("residual", [batch, rows, out]);
      const y = linear(x, input("w", [out, size]), input("bias", [out]));
      const graph = makeGraph({ y: add(residual, gelu(y)) });
      using program = await device.compile(graph);
      const data = Object.fromEntries(
        Object.entries(program.buffers).filter(([name]) => name !== "y").map(([name, buffer]) => {
          const values = Float32Array.from({ length: buffer.length }, () => random.between(-1, 1));
          buffer.write(values);
          return [name, values];
        }),
      );
      program.run();
      assertClose(await program.buffers.y.read(), interpret(graph, data).y, 1e-5);
      assertEquals(program.describe().stages.length, 1);
    }
  }
});

Deno.test("products of few rows and large matrices pack these where they need them", async () => {
  using device = await WasmDevice.open(2);
  const random = new Random("few rows");
  const numbers = (n: number) =>
    Float64Array.from({ length: n }, () => Math.fround(random.between(-1, 1)));
  const x = input("x", [3, 5, 403]), rows = input("x", [2, 1024]);
  const cases: Record<string, [Tensor, kernels: number]> = {
    batches: [matmul(x, input("w", [3, 403, 300])), 1],
    transposed: [linear(rows, input("w", [301, 1024]), input("b", [301])), 1],
    "many rows": [linear(input("x", [97, 1024]), input("w", [301, 1024])), 2],
  };
  for (const [name, [y, kernels]] of Object.entries(cases)) {
    const graph = makeGraph({ y });
    using program = await device.compile(graph);
    assertEquals(program.dispatches, kernels, name);
    const data: Record<string, HostArray> = {};
    for (const [input, buffer] of Object.entries(program.buffers)) {
      if (input !== "y") buffer.write(data[input] = numbers(buffer.length));
    }
    program.run();
    assertClose(await program.buffers.y.read(), interpret(graph, data).y, 2e-5, name);
    const { temporary } = device.plan(graph);
    assertEquals(temporary > 1e6, kernels > 1, `${name}: ${temporary} bytes`);
  }
});

Deno.test("convolutions with more weights than pixels transform them where they need them", async () => {
  const random = new Random("weights"), [channels, out] = [208, 224];
  const image = input("x", [2, 7, 8, channels]), time = input("time", [2, 1, 1, out]);
  const y = conv2d(silu(image), input("w", [3, 3, channels, out]), input("bias", [out]), same(3));
  const graph = makeGraph({ y: add(add(y, time), input("residual", [2, 7, 8, out])) });
  const data: Record<string, Float32Array<ArrayBuffer>> = {};
  let expected: HostArray | undefined;
  for (const pair of [1, 2] as const) {
    using device = await openCpuAs(2, { pair });
    using program = await device.compile(graph);
    for (const [name, buffer] of Object.entries(program.buffers)) {
      if (name === "y") continue;
      buffer.write(
        data[name] ??= Float32Array.from({ length: buffer.length }, () => random.between(-1, 1)),
      );
    }
    program.run();
    assertClose(await program.buffers.y.read(), expected ??= interpret(graph, data).y, 2e-5);
    // The weights of the 36 frequencies would be four times the kernel.
    const { memory, stages } = program.describe();
    assert(memory.temporary < 4 * 9 * channels * out, `${memory.temporary} bytes`);
    assertEquals(stages.length, 1);
  }
});

Deno.test("an engine without relaxed SIMD is told of, and how to have it", async () => {
  const { validate } = WebAssembly;
  try {
    WebAssembly.validate = () => false;
    await assertRejects(() => WasmDevice.open(1), DeviceError, "--experimental-wasm-relaxed-simd");
  } finally {
    WebAssembly.validate = validate;
  }
});
