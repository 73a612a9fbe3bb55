import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import {
  assembleModel,
  initializeModel,
  type LoadedModel,
  parseModel,
  serializeModel,
} from "../../src/model/model.ts";
import { nameTensors } from "../../src/model/tensors.ts";
import {
  type FileTensor,
  type NamedTensor,
  readSafetensors,
  writeSafetensors,
} from "../../src/formats/safetensors.ts";
import { flatten } from "../../src/model/parameters.ts";
import { mutate } from "../mutate.ts";
import { randomModel, smallNetwork, tinyNetwork } from "../networks.ts";
import { Random } from "../random.ts";

const model: LoadedModel = {
  ...randomModel(smallNetwork(), { beta_schedule: "squaredcos_cap_v2" }),
  card: { steps: "100", data: "made up" },
};

/** The model's file, after something was done to its tensors or its header. */
function fileOf(
  change: (tensors: NamedTensor[]) => readonly NamedTensor[],
  changeHeader: (metadata: Record<string, string>) => Record<string, string> = (m) => m,
): Uint8Array<ArrayBuffer> {
  const { metadata } = readSafetensors(serializeModel(model));
  const tensors = nameTensors(model.network.layout, model.parameters);
  return writeSafetensors(change(tensors), changeHeader(metadata));
}

const without = (name: string) => (tensors: NamedTensor[]) =>
  tensors.filter((t) => t.name !== name);
const replace = (name: string, change: (tensor: NamedTensor) => NamedTensor) =>
(
  tensors: NamedTensor[],
) => tensors.map((tensor) => tensor.name === name ? change(tensor) : tensor);

Deno.test("a model that was written is read, and writing that again gives the same bytes", () => {
  const bytes = serializeModel(model), read = parseModel(bytes);
  assertEquals(read.network.config, model.network.config);
  assertEquals(read.schedule, model.schedule);
  assertEquals(read.card, model.card);
  assertEquals(read.network.layout, model.network.layout);
  for (const { name, values } of nameTensors(model.network.layout, model.parameters)) {
    const again = nameTensors(read.network.layout, read.parameters).find((t) => t.name === name)!;
    assertEquals(again.values, values, name);
  }
  assertEquals(serializeModel(read), bytes);
});

Deno.test("a model in 16-bit floats takes half the space and has rounded weights", () => {
  const whole = serializeModel(model), bytes = serializeModel(model, "F16");
  assertAlmostEquals(bytes.length / whole.length, 0.5, 0.05);
  const read = parseModel(bytes);
  assertEquals(read.parameters, parseModel(whole).parameters.map(Math.f16round));
  assertEquals(serializeModel(read, "F16"), bytes);
  const large = { ...model, parameters: model.parameters.map((p) => p + 7e4) };
  assertThrows(() => serializeModel(large, "F16"), RangeError, "beyond 65504");
});

Deno.test("a model's header has diffusers' configuration, whatever its card says", () => {
  const card = { network: "mine", scheduler: "mine", note: "x" };
  const { metadata } = readSafetensors(serializeModel({ ...model, card }));
  assertEquals(JSON.parse(metadata.network).block_out_channels, [8, 16]);
  assertEquals(JSON.parse(metadata.scheduler).beta_schedule, "squaredcos_cap_v2");
  assertEquals(metadata.note, "x");
});

Deno.test("the order of tensors in a file does not matter", () => {
  const read = parseModel(fileOf((tensors) => tensors.toReversed()));
  assertEquals(serializeModel(read), serializeModel(model));
});

Deno.test("initializeModel() gives the same model for the same seed", () => {
  const of = (seed: number) => initializeModel(smallNetwork(), {}, seed).parameters;
  assertEquals(of(3), of(3));
  assert(of(3).some((x, i) => x !== of(4)[i]));
  assertThrows(() => initializeModel(smallNetwork(), { beta_end: 5 }, 0), InputError, "beta_end");
});

const NORM = "down_blocks.0.resnets.0.norm1.weight", CONV = "conv_in.weight";

/** What is wrong, a file that is wrong in this way, and what the message has to mention. */
const refusals: readonly [string, Uint8Array<ArrayBuffer>, string][] = [
  ["a file that lacks a tensor", fileOf(without(NORM)), `it lacks ${NORM}`],
  ["a file without tensors", fileOf(() => []), "it lacks time_embedding.linear_1.weight"],
  [
    "a file with a tensor too many",
    fileOf((t) => [...t, { name: "extra.bias", shape: [1], values: new Float32Array(1) }]),
    "no place for extra.bias",
  ],
  [
    "a file with a tensor under its new and its old name",
    fileOf((t) => [
      ...t,
      {
        ...t.find(({ name }) => name.endsWith("1.attentions.0.to_q.bias"))!,
        name: "down_blocks.1.attentions.0.query.bias",
      },
    ]),
    "no place for down_blocks.1.attentions.0.query.bias",
  ],
  [
    "a tensor of another size",
    fileOf(replace(NORM, (t) => ({ ...t, shape: [4], values: new Float32Array(4) }))),
    `${NORM} has shape [4], but the network wants [8]`,
  ],
  [
    "a tensor with its axes exchanged",
    fileOf(replace(CONV, (t) => ({ ...t, shape: [3, 3, 1, 8] }))),
    `${CONV} has shape [3, 3, 1, 8], but the network wants [8, 1, 3, 3]`,
  ],
  [
    "a dense layer as a convolution of more than one pixel",
    fileOf(replace("time_embedding.linear_1.weight", (t) => ({ ...t, shape: [8, 8, 2, 2] }))),
    "time_embedding.linear_1.weight has shape [8, 8, 2, 2]",
  ],
  [
    "integers",
    fileOf(replace(NORM, (t) => ({ ...t, dtype: "I32", values: new Int32Array(8) }))),
    `${NORM} is of type I32, not a float`,
  ],
  [
    "weights that are no numbers",
    fileOf(replace(NORM, (t) => ({ ...t, values: new Float32Array(8).fill(NaN, 7) }))),
    `${NORM} holds numbers that are not finite`,
  ],
  [
    "infinite weights",
    fileOf(replace(NORM, (t) => ({ ...t, values: new Float32Array(8).fill(-Infinity, 2, 3) }))),
    `${NORM} holds numbers that are not finite`,
  ],
  ["a file without a network in its header", fileOf((t) => t, () => ({})), "diffusers"],
  [
    "a network that is no JSON",
    fileOf((t) => t, (m) => ({ ...m, network: "{" })),
    "the network of",
  ],
  [
    "a network with an unknown field",
    fileOf((t) => t, (m) => ({ ...m, network: '{"depth":3}' })),
    "depth",
  ],
  [
    "a schedule that is no JSON",
    fileOf((t) => t, (m) => ({ ...m, scheduler: "linear" })),
    "the schedule of x.safetensors",
  ],
  [
    "the weights of another network",
    fileOf(
      (t) => t,
      (m) => ({ ...m, network: m.network.replace('"in_channels":1', '"in_channels":3') }),
    ),
    "conv_in.weight has shape [8, 1, 3, 3], but the network wants [8, 3, 3, 3]",
  ],
  [
    "a network that no memory holds",
    fileOf((t) => t, (m) => ({ ...m, network: m.network.replace("[8,16]", "[60000,16]") })),
    "the network wants [240000, 60000]",
  ],
  ["a file that ends within its header", serializeModel(model).subarray(0, 5000), "ends after"],
  ["a file that ends within its weights", serializeModel(model).slice(0, -9), "is it truncated?"],
];

for (const [what, bytes, why] of refusals) {
  Deno.test(`parseModel() refuses ${what}`, () => {
    const { message } = assertThrows(() => parseModel(bytes, "x.safetensors"), InputError, why);
    assert(!message.includes("\n"), "the message is one line");
  });
}

Deno.test("parseModel() tells how many tensors are too many", () => {
  const extra = ["a", "b", "c"].map((name) => ({ name, shape: [1], values: new Float32Array(1) }));
  const bytes = fileOf((tensors) => [...extra, ...tensors]);
  assertThrows(() => parseModel(bytes), InputError, "no place for a and 2 more tensors");
});

Deno.test("parseModel() takes a missing schedule for that of the DDPM paper", () => {
  const { schedule } = parseModel(fileOf((t) => t, ({ network }) => ({ network })));
  assertEquals([schedule.betaSchedule, schedule.numTrainTimesteps], ["linear", 1000]);
});

/** The model's tensors as a file has them, each after a change. */
function tensorsOf(change: (tensor: FileTensor, name: string) => [string, FileTensor]) {
  const { tensors } = readSafetensors(serializeModel(model));
  return new Map([...tensors].map(([name, tensor]) => change(tensor, name)));
}

const assemble = (tensors: ReadonlyMap<string, FileTensor>) =>
  flatten(
    model.network.layout,
    assembleModel(model.network, model.schedule, tensors, "x").parameters,
  );

Deno.test("attention loads under its former names, be it dense or a convolution", () => {
  const old = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };
  for (const isConvolution of [false, true]) {
    let renamed = 0;
    const tensors = tensorsOf((tensor, name) => {
      const [, block, layer, rest] =
        /^(.*attentions\.\d\.)(to_[qkv]|to_out\.0)(\..*)$/.exec(name) ??
          [];
      if (!block) return [name, tensor];
      renamed++;
      const isWeight = tensor.shape.length === 2;
      const shape = isConvolution && isWeight ? [...tensor.shape, 1, 1] : tensor.shape;
      return [`${block}${old[layer as keyof typeof old]}${rest}`, { ...tensor, shape }];
    });
    assertEquals(renamed, 4 * 2 * 4);
    assertEquals(assemble(tensors), parseModel(serializeModel(model)).parameters);
  }
});

Deno.test("weights load from half precision, brain floats and double precision", () => {
  const convert = (
    dtype: "F16" | "BF16" | "F64",
    size: number,
    put: (v: DataView, at: number, x: number) => void,
  ) =>
    assemble(tensorsOf((tensor, name) => {
      const values = new Float32Array(tensor.bytes.slice().buffer);
      const bytes = new Uint8Array(values.length * size), view = new DataView(bytes.buffer);
      values.forEach((x, i) => put(view, i * size, x));
      return [name, { dtype, shape: tensor.shape, bytes }];
    }));
  const exact = parseModel(serializeModel(model)).parameters;
  assertEquals(convert("F64", 8, (v, at, x) => v.setFloat64(at, x, true)), exact);
  const half = convert("F16", 2, (v, at, x) => v.setFloat16(at, x, true));
  assert(half.every((x, i) => Math.abs(x - exact[i]) <= 2 ** -11 * Math.abs(exact[i]) + 2 ** -25));
  // The upper half of a 32-bit float, cut off.
  const brain = convert("BF16", 2, (v, at, x) => {
    const bits = new Uint32Array(new Float32Array([x]).buffer)[0];
    v.setUint16(at, bits >>> 16, true);
  });
  assert(brain.every((x, i) => Math.abs(x - exact[i]) <= 2 ** -7 * Math.abs(exact[i])));
  assert(half.some((x, i) => x !== exact[i]) && brain.some((x, i) => x !== exact[i]));
});

Deno.test("the copy of the Fourier frequencies in early files is not in the way", () => {
  const fourier = initializeModel(tinyNetwork({ time_embedding_type: "fourier" }), {}, 0);
  const { tensors } = readSafetensors(serializeModel(fourier));
  const twice = new Map([...tensors, ["time_proj.W", tensors.get("time_proj.weight")!]]);
  const { parameters } = assembleModel(fourier.network, fourier.schedule, twice, "x");
  assertEquals(flatten(fourier.network.layout, parameters), fourier.parameters);
});

Deno.test("parseModel() gives a model or an InputError for 300 damaged files", () => {
  const random = new Random("damaged models");
  const original = serializeModel(initializeModel(tinyNetwork(), {}, 0));
  // Most of a file is weights, which may be anything: damage is done to its first kilobytes.
  const head = original.slice(0, 4000), rest = original.slice(4000);
  for (let i = 0; i < 300; i++) {
    const damaged = mutate(head, random);
    const bytes = new Uint8Array(damaged.length + rest.length);
    bytes.set(damaged);
    bytes.set(rest, damaged.length);
    try {
      parseModel(bytes);
    } catch (error) {
      assert(error instanceof InputError, `damage ${i}: ${error}`);
    }
  }
});
