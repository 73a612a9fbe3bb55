import { assert, assertEquals } from "@std/assert";
import { grad } from "../../src/gpu/grad.ts";
import { type Graph, makeGraph } from "../../src/gpu/graph.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { groupNorm } from "../../src/gpu/ops/group_norm.ts";
import { add, gelu, map, mul, silu, sub } from "../../src/gpu/ops/map.ts";
import { linear, matmul } from "../../src/gpu/ops/matmul.ts";
import { upsampleNearest } from "../../src/gpu/ops/resample.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { reshape, slice, transpose } from "../../src/gpu/ops/view.ts";
import * as e from "../../src/gpu/expression.ts";
import { interpret } from "../../src/gpu/reference.ts";
import type { Shape } from "../../src/shape.ts";
import { constant, input, type Tensor } from "../../src/gpu/tensor.ts";
import type { WgslTarget } from "../../src/gpu/wgsl/kernel.ts";
import { lowerProgram } from "../../src/gpu/wgsl/lower.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import "../../src/model/unet.ts";
import { parameterInputs, viewParameters } from "../../src/model/parameters.ts";
import { parseSchedule } from "../../src/diffusion/schedule.ts";
import { parseTraining } from "../../src/train/config.ts";
import { makeStepSpec } from "../../src/train/step_inputs.ts";
import { trainingStep } from "../../src/train/step.ts";
import { assertClose } from "../close.ts";
import { openGpuAs } from "../device.ts";
import { paperConfigs } from "../networks.ts";
import { Random } from "../random.ts";

/** Kinds of devices, tiles, and ways to compute convolutions. */
const ways: Record<string, Partial<WgslTarget>> = {};
for (const variant of ["winograd", "implicit product"]) {
  ways[`${variant}, subgroups`] = { preferred: `${variant}, subgroup` };
  for (const tile of ["128x128", "64x64", "32x32"] as const) {
    // Winograd's products have nothing before or after them.
    if (variant === "winograd" && tile !== "64x64") continue;
    const gpu = { subgroup: 0, tile, lanes: 64, steps: 8, workgroups: 64 };
    ways[`${variant}, ${tile}`] = { ...gpu, preferred: `${variant}, ${tile}` };
  }
}

/** A computation, and the operations that it takes if everything that can be is done on the way. */
interface Case {
  readonly name: string;
  readonly build: () => Graph;
  readonly stages: readonly string[];
}

const x = (shape: Shape) => input("x", shape), weights = (shape: Shape) => input("w", shape);
const normed = (x: Tensor) => {
  const channels = x.shape[3];
  return silu(groupNorm(x, input("scale", [channels]), input("shift", [channels]), 4, 1e-5));
};

/** Batch, height, width, channels, results: with vectors and without, tiles that end in an image. */
const sizes = [[3, 8, 8, 16, 16], [2, 7, 9, 16, 24], [1, 13, 6, 12, 5], [2, 6, 6, 5, 8]];

const cases: Case[] = [
  ...sizes.map(([n, h, w, c, k]): Case => ({
    name: `everything that there is, ${n}x${h}x${w}x${c} to ${k}`,
    build: () => {
      const before = c % 4 ? x([n, h, w, c]) : normed(x([n, h, w, c]));
      const y = conv2d(before, weights([3, 3, c, k]), input("b", [k]), same(3));
      const timed = add(y, input("time", [n, 1, 1, k])), r = input("r", [n, h, w, k]);
      return makeGraph({ y: silu(mul(add(r, timed), 0.5)) });
    },
    stages: c % 4 ? ["conv2d"] : ["group_moments", "conv2d"],
  })),
  {
    name: "numbers of an image and of a row",
    build: () => {
      const y = conv2d(x([2, 7, 9, 16]), weights([3, 3, 16, 16]), undefined, same(3));
      const rows = slice(input("rows", [2, 7, 1, 16]), 0, 1, 1);
      return makeGraph({ y: add(mul(y, input("sigma", [2, 1, 1, 1])), rows) });
    },
    stages: ["conv2d"],
  },
  {
    name: "an image made larger",
    build: () => {
      const larger = upsampleNearest(x([2, 5, 6, 16]));
      return makeGraph({ y: conv2d(larger, weights([3, 3, 16, 20]), input("b", [20]), same(3)) });
    },
    stages: ["conv2d"],
  },
  {
    name: "stride 2, uneven padding",
    build: () => {
      const window = { stride: 2, padding: [0, 1, 0, 1] } as const;
      const y = conv2d(silu(x([2, 9, 8, 8])), weights([3, 3, 8, 12]), undefined, window);
      return makeGraph({ y: add(y, input("r", y.shape)) });
    },
    stages: ["conv2d"],
  },
  {
    name: "a dense layer on images, and a residual",
    build: () => {
      const image = input("r", [2, 3, 5, 8]), flat = reshape(x([2, 3, 5, 12]), [2, 15, 12]);
      const out = linear(flat, weights([8, 12]), input("b", [8]));
      return makeGraph({ y: mul(add(image, reshape(out, image.shape)), 0.7) });
    },
    // The bias is added before the change of shape.
    stages: ["matmul", "map"],
  },
  {
    name: "a dense layer of odd sizes",
    build: () => makeGraph({ y: silu(linear(x([7, 9]), weights([5, 9]), input("b", [5]))) }),
    stages: ["matmul"],
  },
  {
    name: "a long sum in parts, with bias and activation",
    build: () => makeGraph({ y: gelu(linear(x([4, 1500]), weights([8, 1500]), input("b", [8]))) }),
    stages: ["matmul"],
  },
  {
    name: "a long sum of odd sizes",
    build: () => makeGraph({ y: gelu(linear(x([3, 1501]), weights([5, 1501]), input("b", [5]))) }),
    stages: ["matmul"],
  },
  {
    name: "one number",
    build: () => makeGraph({ y: mul(matmul(x([1, 900]), weights([900, 1])), input("r", [1, 1])) }),
    stages: ["matmul"],
  },
  {
    name: "a batch of products",
    build: () => {
      const product = matmul(x([3, 20, 8]), transpose(weights([3, 12, 8])));
      return makeGraph({ y: map([product, input("r", [3, 1, 12])], (p, r) => e.exp(e.sub(p, r))) });
    },
    stages: ["matmul"],
  },
  {
    name: "nothing that somebody else needs, too",
    build: () => {
      const y = conv2d(x([1, 6, 6, 8]), weights([3, 3, 8, 8]), undefined, same(3));
      return makeGraph({ y, z: add(y, 1) });
    },
    stages: ["conv2d", "map"],
  },
];

/** Random inputs of a graph. */
function dataOf(graph: Graph, names: Iterable<string>, lengths: (name: string) => number) {
  const random = new Random("fusion");
  return Object.fromEntries(
    [...names].filter((name) => !(name in graph.outputs)).map((name) => [
      name,
      Float64Array.from({ length: lengths(name) }, () => Math.fround(random.between(-1, 1))),
    ]),
  );
}

/** Compiles and runs a graph, compares it with the reference, and names its operations. */
async function check(graph: Graph, changes: Partial<WgslTarget>, name: string): Promise<string[]> {
  using device = await openGpuAs(changes);
  using program = await device.compile(graph, { label: name });
  const { buffers } = program;
  const data = dataOf(graph, Object.keys(buffers), (name) => buffers[name].length);
  for (const [name, values] of Object.entries(data)) buffers[name].write(values);
  program.run();
  const expected = interpret(graph, data);
  for (const output of Object.keys(graph.outputs)) {
    const values = await buffers[output].read(), scale = name.includes("loss") ? 1 : 0.01;
    assertClose([...values, scale], [...expected[output], scale], 3e-5, `${name}: ${output}`);
  }
  return program.describe().stages.map(({ op }) => op);
}

for (const [way, changes] of Object.entries(ways)) {
  Deno.test(`kernels compute what comes before and after on the way: ${way}`, async (t) => {
    for (const { name, build, stages } of cases) {
      await t.step(name, async () => {
        assertEquals(await check(build(), { ...changes, fusesOperations: true }, name), stages);
      });
    }
  });

  Deno.test(`gradients through kernels that compute on the way: ${way}`, async (t) => {
    for (const [n, h, w, c, k] of sizes.slice(1, 3)) {
      await t.step(`${n}x${h}x${w}x${c} to ${k}`, async () => {
        const image = x([n, h, w, c]), w1 = weights([3, 3, c, c]), w2 = input("w2", [3, 3, c, k]);
        const b = input("b", [c]), bigger = input("w3", [3, 3, k, k]);
        const inner = add(conv2d(normed(image), w1, b, same(3)), input("time", [n, 1, 1, c]));
        const y = conv2d(silu(add(inner, image)), w2, undefined, same(3));
        const z = conv2d(upsampleNearest(y), bigger, undefined, same(3));
        const loss = sum(map([z, input("target", z.shape)], (z, t) => e.mul(e.sub(z, t), 0.1)));
        const by = { x: image, w: w1, w2, b, w3: bigger };
        const gradients = grad(loss, Object.values(by));
        const outputs = Object.fromEntries(Object.keys(by).map((n, i) => [`d${n}`, gradients[i]]));
        const stages = await check(
          makeGraph({ ...outputs, loss }),
          { ...changes, fusesOperations: true },
          "a loss",
        );
        assert(stages.includes("conv2d_weight_grad"));
      });
    }
  });
}

Deno.test("what the forward and the backward pass can compute again is not kept between them", async () => {
  const build = (isFused: boolean) =>
    openGpuAs({ fusesOperations: isFused, preferred: "implicit product, subgroup" });
  using fused = await build(true);
  using plain = await build(false);
  const image = x([4, 16, 16, 16]), layers = Array.from({ length: 6 }, (_, i) => `w${i}`);
  const parameters = layers.map((name) => input(name, [3, 3, 16, 16]));
  const y = parameters.reduce((h, w) => conv2d(silu(h), w, undefined, same(3)), image);
  const graph = makeGraph(
    Object.fromEntries(
      grad(sum(mul(y, y)), parameters).map((g, i) => [`g${i}`, g]),
    ),
  );
  const bytes = 4 * 4 * 16 * 16 * 16, [kept, all] = [fused.plan(graph), plain.plan(graph)];
  assert(all.temporary - kept.temporary >= 4 * bytes, `${kept.temporary} of ${all.temporary}`);
  await check(graph, fused.target, "a chain of layers, loss");
});

Deno.test("kernels take along no more than a device lets them read", async () => {
  for (const maxStorageBuffers of [4, 6, 8]) {
    using device = await openGpuAs({ fusesOperations: true, maxStorageBuffers });
    const names = ["p", "q", "r", "s", "t"], image = x([2, 6, 6, 8]);
    const others = names.map((name) => input(name, image.shape));
    const before = others.reduce((sum, x) => silu(add(sum, x)), image);
    const y = conv2d(before, weights([3, 3, 8, 8]), undefined, same(3));
    const graph = makeGraph({ y: others.reduce((sum, x) => sub(mul(sum, x), 0.5), y) });
    using program = await device.compile(graph);
    for (const { code = "" } of program.describe().stages.flatMap(({ kernels }) => kernels)) {
      assert(code.split("var<storage").length - 1 <= maxStorageBuffers, code);
    }
    await check(graph, { fusesOperations: true, maxStorageBuffers }, "many operands");
  }
});

Deno.test("views of what is computed on the way are found", async () => {
  const table = constant(Float32Array.from({ length: 24 }, (_, i) => Math.sin(i)), [3, 8]);
  const y = conv2d(x([2, 6, 6, 8]), weights([3, 3, 8, 8]), undefined, same(3));
  const shift = reshape(slice(table, 0, 1, 2), [2, 1, 1, 8]);
  const odd = slice(slice(input("wide", [2, 6, 6, 11]), 3, 2, 8), 1, 0, 6);
  const graph = makeGraph({ y: add(mul(y, shift), odd) });
  assertEquals(await check(graph, { fusesOperations: true }, "views"), ["conv2d"]);
});

/** The paper's network for CIFAR-10 as a GPU with usual limits computes it, by direct convolutions. */
const paper = denoisingNetwork({ network: parseNetwork(paperConfigs["ddpm-cifar10-32"]) });
function openPaperGpu() {
  const gpu = { subgroup: 0, lanes: 64, steps: 8, workgroups: 1024, maxStorageBuffers: 16 };
  const direct = { preferred: "implicit product, 64x64", tile: "64x64" } as const;
  return openGpuAs({ ...gpu, ...direct, fusesOperations: true, maxBindingElements: 2 ** 29 });
}

Deno.test("the paper's network for CIFAR-10 takes few dispatches on a GPU", async () => {
  const { layout } = paper;
  using device = await openPaperGpu();
  const parameter = viewParameters(layout, parameterInputs(layout));
  const y = paper.forward({ parameter }, {
    sample: x([4, 32, 32, 3]),
    timestep: input("timestep", [4]),
    conditions: {},
  });
  const { stages } = lowerProgram(device, makeGraph({ y }), {});
  const count = stages.reduce((sum, { kernels }) => sum + kernels.length, 0);
  assert(count <= 200, `${count} dispatches`);
});

Deno.test("a training of it takes few dispatches too, and 20 MB an image", async () => {
  using device = await openPaperGpu();
  const settings = parseTraining({}), size = { shape: [32, 32, 3] };
  const model = { network: paper, schedule: parseSchedule({}) };
  const [one, few, many] = [1, 4, 16].map((part) => {
    const spec = makeStepSpec(model, size, settings, { part, images: part });
    return lowerProgram(device, trainingStep(spec, settings), {});
  });
  const count = one.stages.reduce((sum, { kernels }) => sum + kernels.length, 0);
  assert(count <= 530, `${count} dispatches`);
  const each = (many.memory.bytes - few.memory.bytes) / 12 / 1e6;
  assert(each > 5 && each <= 20, `${each.toFixed(1)} MB an image`);
});
