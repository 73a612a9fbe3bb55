import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, type HostArray, input, type Tensor } from "../../src/gpu/tensor.ts";
import type { RandomState } from "../../src/gpu/ops/random.ts";
import { type DenoisingNetwork, parseNetwork } from "../../src/model/network.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import { initializeModel, type LoadedModel } from "../../src/model/model.ts";
import { fileShape, parameterInputs, viewParameters } from "../../src/model/parameters.ts";
import { paperConfigs, randomModel, smallNetwork, tinyNetwork } from "../networks.ts";

/** What the layers of attention were called when these files were written. */
const nameOf2022 = (name: string) =>
  name.replace("to_q", "query").replace("to_k", "key").replace("to_v", "value")
    .replace("to_out.0", "proj_attn");

const counts = { "ddpm-cifar10-32": 35_746_307, "ddpm-256": 113_673_219 };

for (const [name, fields] of Object.entries(paperConfigs)) {
  Deno.test(`the network of ${name} has the parameters of the published files`, () => {
    const keys = new URL(`../fixtures/${name}.keys.json`, import.meta.url);
    const published = JSON.parse(Deno.readTextFileSync(keys)) as Record<string, number[]>;
    const layout = parseNetwork(fields).layout;
    assertEquals(layout.count, counts[name as keyof typeof counts]);
    const shapes = layout.specs.map((spec) => [nameOf2022(spec.name), [...fileShape(spec)]]);
    assertEquals(Object.fromEntries(shapes), published);
    assertEquals(layout.specs.length, Object.keys(published).length);
  });
}

/** What a model predicts on the interpreter. */
function predict(
  model: LoadedModel,
  shape: readonly number[],
  { labels, random }: { labels?: Tensor; random?: RandomState } = {},
): HostArray {
  const network = denoisingNetwork(model), { layout } = network, { parameters } = model;
  const parameter = viewParameters(layout, parameterInputs(layout));
  const prediction = network.forward({ parameter, ...(random ? { random } : {}) }, {
    sample: input("sample", shape),
    timestep: constant(Array(shape[0]).fill(500)),
    conditions: labels ? { labels } : {},
  });
  assertEquals(prediction.shape, shape);
  const size = shape.reduce((a, b) => a * b);
  const sample = Float32Array.from({ length: size }, (_, i) => Math.sin(i));
  return interpret(makeGraph({ prediction }), { parameters, sample }, "single").prediction;
}

Deno.test("a fresh network predicts exactly zero", () => {
  const prediction = predict(initializeModel(smallNetwork(), {}, 1), [2, 8, 8, 1]);
  assert(prediction.every((x) => x === 0));
});

Deno.test("a network takes images of any size that it can halve often enough", () => {
  const model = randomModel(smallNetwork({ in_channels: 3, out_channels: 3 }));
  for (const shape of [[1, 2, 2, 3], [1, 6, 14, 3], [3, 8, 4, 3]]) {
    assert(predict(model, shape).every((x) => Number.isFinite(x) && x !== 0));
  }
});

Deno.test("each image of a batch is predicted by itself", () => {
  const model = randomModel(smallNetwork());
  const [two, one] = [2, 1].map((n) => predict(model, [n, 4, 4, 1]));
  for (let i = 0; i < 16; i++) assert(Math.abs(two[i] - one[i]) < 1e-6);
});

Deno.test("class labels change the prediction, and so does every class", () => {
  const model = randomModel(tinyNetwork({ num_class_embeds: 3 }));
  const of = (label: number) =>
    predict(model, [1, 4, 4, 1], { labels: constant(new Int32Array([label])) });
  const [a, b, c] = [0, 1, 2].map(of);
  assert(a.every((x, i) => x !== b[i] && x !== c[i] && b[i] !== c[i]));
});

Deno.test("dropout acts where there are random numbers, and nowhere else", () => {
  const random = {
    seed: constant(new Int32Array([1, 0])),
    first: constant(new Int32Array([0])),
    step: constant(new Int32Array([0])),
  };
  const [none, half] = [0, 0.5].map((dropout) => randomModel(tinyNetwork({ dropout })));
  assertEquals(predict(half, [1, 4, 4, 1]), predict(none, [1, 4, 4, 1]));
  assertEquals(predict(none, [1, 4, 4, 1], { random }), predict(none, [1, 4, 4, 1]));
  const dropped = predict(half, [1, 4, 4, 1], { random });
  assert(predict(half, [1, 4, 4, 1]).some((x, i) => Math.abs(x - dropped[i]) > 1e-3));
});

const trace = (network: DenoisingNetwork, shape: readonly number[]) => () =>
  network.forward({ parameter: ({ name, shape }) => input(name, shape) }, {
    sample: input("sample", shape),
    timestep: input("timestep", [shape[0]]),
    conditions: {},
  });

Deno.test("unet() refuses images that do not fit, and says what would", () => {
  const config = smallNetwork();
  assertThrows(trace(config, [1, 8, 8, 3]), InputError, "images of 1 channels, not 3");
  assertThrows(trace(config, [1, 7, 9, 1]), InputError, "multiples of 2, 8x10 for instance");
  assertThrows(trace(config, [1, 8, 9, 1]), InputError, "Images of 8x9 do not fit");
});

Deno.test("unet() refuses to predict for a class that is not given", () => {
  assertThrows(trace(smallNetwork({ num_class_embeds: 3 }), [1, 8, 8, 1]), InputError, "labels");
});

Deno.test("a network knows the parameters of every option", () => {
  const names = (fields: Record<string, unknown>) =>
    smallNetwork(fields).layout.specs.map(({ name }) => name);
  const usual = names({});
  const added = (fields: Record<string, unknown>) =>
    names(fields).filter((name) => !usual.includes(name));
  assertEquals(added({ num_class_embeds: 10 }), ["class_embedding.weight"]);
  assertEquals(added({ time_embedding_type: "fourier" }), ["time_proj.weight"]);
  assertEquals(added({ class_embed_type: "identity" }), []);
  assertEquals(added({ class_embed_type: "timestep" }).length, 4);
  assert(added({ layers_per_block: 2 }).length > 0);
  assert(!names({ add_attention: false }).some((name) => name.startsWith("mid_block.att")));
});
