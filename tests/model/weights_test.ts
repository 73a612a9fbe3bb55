import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Denoised } from "../../src/diffusion/denoiser.ts";
import { InputError } from "../../src/errors.ts";
import { decodeElements, encodeHalves } from "../../src/formats/elements.ts";
import type { Device } from "../../src/gpu/device.ts";
import { type Graph, makeGraph } from "../../src/gpu/graph.ts";
import { add } from "../../src/gpu/ops/map.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { denoiserOf } from "../../src/model/denoiser.ts";
import { encodeModel, type LoadedModel, readModel, serializeModel } from "../../src/model/model.ts";
import { readParameter, shardsOf } from "../../src/model/parameters.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { type Bytes, Scratch } from "../../src/formats/bytes.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import type { SamplerOptions } from "../../src/sample/options.ts";
import { sizeOf } from "../../src/shape.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, smallNetwork, tinyNetwork } from "../networks.ts";

const halves = ["f16", "bf16"] as const;
const fileTypes = { f16: "F16", bf16: "BF16" } as const;

Deno.test("numbers become the nearest of 16 bits, of two equally near ones the even", () => {
  const roundTo = (type: "F16" | "BF16", ...values: number[]) => {
    const bits = encodeHalves(type, Float32Array.from(values));
    return bits && [...decodeElements(type, new Uint8Array(bits.buffer))];
  };
  // 8 significant bits: 1 + 2^-7 and its neighbours.
  const [one, next, after] = [1, 1 + 2 ** -7, 1 + 2 ** -6];
  assertEquals(roundTo("BF16", one, one + 2 ** -8, one + 2 ** -8 + 2 ** -20), [one, one, next]);
  assertEquals(roundTo("BF16", next + 2 ** -8, -next - 2 ** -8), [after, -after]);
  assertEquals(roundTo("BF16", -0, 2 ** -133, 3 * 2 ** -134), [-0, 2 ** -133, 2 ** -132]);
  assertEquals(roundTo("F16", 1 + 2 ** -11, 65504, 2 ** -24), [1, 65504, 2 ** -24]);
  for (const [type, value] of [["F16", 65520], ["BF16", 3.4e38], ["BF16", NaN]] as const) {
    assertEquals(roundTo(type, 1, value), undefined, `${type} ${value}`);
  }
});

/** The model with its matrices rounded. */
function round(model: LoadedModel, type: "f16" | "bf16"): LoadedModel {
  const { specs, offsets } = model.network.layout, parameters = model.parameters.slice();
  specs.forEach(({ shape }, i) => {
    if (shape.length === 1) return;
    const values = parameters.subarray(offsets[i], offsets[i] + sizeOf(shape));
    const bits = encodeHalves(fileTypes[type], values.slice())!;
    values.set(decodeElements(fileTypes[type], new Uint8Array(bits.buffer)));
  });
  return { ...model, parameters };
}

const devices: Readonly<Record<string, () => Promise<Device>>> = {
  "a GPU": openGpu,
  "a CPU": () => openCpuAs(2, {}),
  "the interpreter": () => Promise.resolve(new ReferenceDevice()),
};

const model = randomModel(smallNetwork({ sample_size: 4 }), { num_train_timesteps: 10 });

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`weights of 16 bits make the images of rounded ones, on ${kind}`, async () => {
    using device = await open();
    const imagesOf = async (model: LoadedModel, options: SamplerOptions = {}) => {
      using sampler = await Sampler.create(device, model, { steps: 2, batchSize: 2, ...options });
      return (await sampler.sample({ count: 2, seed: 4 })).data;
    };
    const exact = await imagesOf(model);
    for (const weightDType of halves) {
      const expected = await imagesOf(round(model, weightDType));
      assert(expected.some((x, i) => Math.abs(x - exact[i]) > 1e-5), "rounding shows");
      const images = await imagesOf(model, { weightDType });
      assertClose(images, expected, 1e-6);
      const { network } = model, layout = { ...network.layout, shardBytes: network.layout.size };
      assert(shardsOf(layout, weightDType).length >= 3);
      const parted = { ...model, network: { ...network, layout } };
      assertEquals(await imagesOf(parted, { weightDType }), images, "in several buffers");
    }
  });
}

/** A file that counts what is read of it. */
class CountedBytes implements Bytes {
  readonly isInMemory = false;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  /** Bytes in all, the most at once, and how often they were put into memory of their own. */
  total = 0;
  most = 0;
  fresh = 0;

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.#bytes = bytes;
  }
  get length() {
    return this.#bytes.length;
  }
  read(from: number, to: number, into?: Uint8Array<ArrayBuffer>) {
    this.total += to - from;
    this.most = Math.max(this.most, to - from);
    if (!into) this.fresh++;
    const bytes = into ?? new Uint8Array(to - from);
    bytes.set(this.#bytes.subarray(from, to));
    return bytes.subarray(0, to - from);
  }
}

Deno.test("a model is read tensor by tensor, when it is used and not before", async () => {
  using device = new ReferenceDevice();
  const { layout } = model.network, data = serializeModel(model);
  const header = 8 + Number(new DataView(data.buffer).getBigUint64(0, true));
  const largest = 4 * Math.max(...layout.specs.map(({ shape }) => sizeOf(shape)));
  const open = () => {
    const file = new CountedBytes(data), lazy = readModel(file);
    assertEquals(file.total, header, "its header");
    file.most = file.total = file.fresh = 0;
    return { file, lazy };
  };
  const checkOnce = ({ total, most, fresh }: CountedBytes) =>
    assertEquals([total, most, fresh], [4 * layout.count, largest, 0]);
  const { lazy: { parameters, ...described } } = open();
  assertEquals({ ...described, network: described.network.config }, {
    ...{ network: model.network.config, schedule: model.schedule, card: model.card },
  });
  assert(!(parameters instanceof Float32Array));
  for (const weightDType of ["f32", ...halves] as const) {
    const { file, lazy } = open();
    const [images, expected] = await Promise.all([lazy, model].map(async (model) => {
      using sampler = await Sampler.create(device, model, { steps: 1, batchSize: 1, weightDType });
      return await sampler.sample({ seed: 4 });
    }));
    assertEquals(images, expected, weightDType);
    checkOnce(file);
  }
  const { file: first, lazy: copied } = open();
  assertEquals(serializeModel(copied), data);
  checkOnce(first);
  const { file: second, lazy: initial } = open(), pixels = new Float32Array(16);
  const dataset = { name: "grey", count: 1, shape: [4, 4, 1], read: () => void pixels };
  using trainer = await Trainer.create(device, initial, dataset, parseTraining({ batch_size: 1 }));
  checkOnce(second);
  const { arrays } = await trainer.state();
  for (const flat of [arrays.parameters, arrays.ema]) {
    layout.specs.forEach(({ shape }, i) => {
      const at = layout.offsets[i], end = at + sizeOf(shape);
      assertEquals(flat.subarray(at, end), model.parameters.subarray(at, end));
    });
  }
});

Deno.test("memory that is used again for one parameter after the other changes none", () => {
  const { layout } = model.network;
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const data = serializeModel(model, dtype), file = new CountedBytes(data);
    const { parameters } = readModel(file), expected = readModel(data).parameters;
    const scratch = new Scratch();
    file.fresh = 0;
    // From large to small and back.
    for (const i of [...layout.specs.keys(), ...[...layout.specs.keys()].reverse()]) {
      const values = readParameter(layout, parameters, i, scratch);
      assertEquals(values, readParameter(layout, expected, i), layout.specs[i].name);
    }
    assertEquals(file.fresh, 0);
    const kept = readParameter(layout, parameters, 0), copy = kept.slice();
    readParameter(layout, parameters, 1);
    assertEquals(kept, copy, "without it, what was read remains");
  }
});

Deno.test("a model is written tensor by tensor", () => {
  const { layout } = model.network, asked: number[] = [];
  const reader = (index: number) => {
    asked.push(index);
    return readParameter(layout, model.parameters, index);
  };
  for (const dtype of ["F32", "F16"] as const) {
    asked.length = 0;
    const { length, parts } = encodeModel({ ...model, parameters: { read: reader } }, dtype);
    const sizes: number[] = [], written = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      // The header, and one of the tensors with each part.
      assertEquals(asked.length, sizes.length);
      sizes.push(part.length);
      written.set(part, at);
      at += part.length;
    }
    assertEquals(sizes.length, 1 + layout.specs.length);
    assertEquals(asked, layout.specs.map((_, i) => i));
    assertEquals(written, serializeModel(model, dtype));
  }
});

/** What a denoiser says of items under two names. */
function graphOf(
  model: LoadedModel,
  weightDType: "f32" | "f16" | "bf16",
  names: readonly string[],
): Graph {
  const { estimate, itemShape } = denoiserOf(model, undefined, undefined, weightDType);
  const level = {
    time: input("time", [1]),
    alpha: input("alpha", [1]),
    sigma: input("sigma", [1]),
  };
  const random = {
    seed: input("seed", [2], "i32"),
    first: input("first", [1], "i32"),
    step: input("step", [1], "i32"),
  };
  const all = names.map((name): Denoised =>
    estimate({ x: input(name, [1, ...itemShape]), level, conditions: {}, random })
  );
  return makeGraph({ y: all.map(({ sample }) => sample).reduce((a, b) => add(a, b)) });
}

for (const [kind, open] of Object.entries(devices).slice(0, 2)) {
  Deno.test(`widened weights are there only while their layer is computed, on ${kind}`, async () => {
    using device = await open();
    const network = smallNetwork({ layers_per_block: 3, block_out_channels: [32, 32] });
    const model = randomModel(network), { layout } = network;
    const families = shardsOf(layout).flatMap(({ families }) => families);
    const sizes = families.map(({ length }) => 4 * length).sort((a, b) => b - a);
    const packed = shardsOf(layout, "f16").reduce((n, { size }) => n + 4 * size, 0);
    assert(packed < 0.52 * 4 * layout.size, "half of the weights, and vectors");
    for (const names of [["x"], ["x", "z"]]) {
      const planOf = (type: "f32" | "f16") => device.plan(graphOf(model, type, names));
      const wide = planOf("f32"), narrow = planOf("f16");
      const more = narrow.temporary - wide.temporary;
      assert(more > 0.9 * sizes[0], "a layer's are");
      assert(
        more < 1.1 * (sizes[0] + sizes[1]),
        `${more} bytes more for layers of ${sizes[0]} and ${sizes[1]}`,
      );
      assert(
        narrow.bytes - narrow.temporary < wide.bytes - wide.temporary - 0.45 * 4 * layout.size,
      );
    }
  });
}

Deno.test("weights beyond the range of f16 are refused, and those of a denoiser", async () => {
  using device = new ReferenceDevice();
  const tiny = randomModel(tinyNetwork()), { specs, offsets } = tiny.network.layout;
  const create = (model: Parameters<typeof Sampler.create>[1], weightDType: "f16" | "bf16") =>
    Sampler.create(device, model, { steps: 1, batchSize: 1, weightDType });
  const at = specs.findIndex(({ name }) => name === "conv_in.weight");
  const parameters = tiny.parameters.with(offsets[at], 7e4);
  await assertRejects(
    () => create({ ...tiny, parameters }, "f16"),
    InputError,
    "Cannot keep weights as f16: conv_in.weight holds numbers beyond its range",
  );
  (await create({ ...tiny, parameters }, "bf16"))[Symbol.dispose]();
  await assertRejects(() => create(denoiserOf(tiny), "bf16"), InputError, "tell denoiserOf()");
});
