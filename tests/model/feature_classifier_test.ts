import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { classifierNetwork } from "../../src/model/classifier.ts";
import { denoiserOf } from "../../src/model/denoiser.ts";
import { initializeModel, parseModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork, resizeNetwork } from "../../src/model/network.ts";
import { viewParameters } from "../../src/model/parameters.ts";
import { classifierGuided } from "../../src/sample/guidance/classifier_guided.ts";
import { assertClose } from "../close.ts";
import { randomModel, smallNetwork } from "../networks.ts";

const fields = {
  ...{ _class_name: "FeatureClassifier", sample_size: [5, 7], in_channels: 3, num_classes: 4 },
  ...{ block_out_channels: [4, 6], feature_size: 8 },
};

Deno.test("a classifier of clean images is saved and loaded as any model", () => {
  const network = classifierNetwork({ network: parseNetwork(fields) });
  assertEquals([network.itemShape, network.classes, network.features!.width], [[5, 7, 3], 4, 8]);
  assertEquals(network.layout.specs.map(({ name, shape }) => `${name} ${shape}`), [
    ...["convs.0.weight 3,3,3,4", "convs.0.bias 4", "convs.1.weight 3,3,4,6", "convs.1.bias 6"],
    // 5 x 7 becomes 3 x 4.
    ...["features.weight 8,72", "features.bias 8", "classifier.weight 4,8", "classifier.bias 4"],
  ]);
  const bytes = serializeModel({ ...randomModel(network), classes: [..."abcd"] });
  const again = parseModel(bytes);
  assertEquals([serializeModel(again), again.classes], [bytes, [..."abcd"]]);
  assertEquals(resizeNetwork(network, [9, 9, 3]).itemShape, [9, 9, 3]);
});

Deno.test("logits are made of the features, and of nothing else", () => {
  const network = classifierNetwork({ network: parseNetwork(fields) }), { layout } = network;
  const { parameters } = randomModel(network), flat = input("parameters", [layout.size]);
  const parameter = viewParameters(layout, [flat]);
  const sample = constant(Array.from({ length: 105 }, (_, i) => Math.sin(i)), [1, 5, 7, 3]);
  const seen = network.features!.forward({ parameter }, sample);
  const asked = network.forward({ parameter }, {
    ...{ sample, timestep: constant([900]), conditions: {} },
  });
  const { features, logits, other } = interpret(makeGraph({ ...seen, other: asked }), {
    parameters: Float64Array.from(parameters),
  });
  assertEquals(other, logits);
  assertEquals(features.length, 8);
  assert(Array.from(features).every((x) => x >= 0) && Array.from(features).some((x) => x > 0));
  const of = (name: string) => {
    const i = layout.specs.findIndex((spec) => spec.name === name);
    return (k: number) => parameters[layout.offsets[i] + k];
  };
  const weight = of("classifier.weight"), bias = of("classifier.bias");
  const expected = Array.from(
    { length: 4 },
    (_, c) => Array.from(features).reduce((sum, x, k) => sum + weight(8 * c + k) * x, bias(c)),
  );
  assertClose(logits, expected, 1e-6);
});

Deno.test("bad configurations, other sizes, and guidance by it are refused", () => {
  for (
    const [bad, message] of [
      [{ block_out_channels: [] }, "block_out_channels"],
      [{ feature_size: 0 }, "feature_size"],
      [{ act_fn: "silu" }, "act_fn"],
    ] as const
  ) assertThrows(() => parseNetwork({ ...fields, ...bad }), InputError, message);
  const network = classifierNetwork({ network: parseNetwork(fields) });
  const parameter = viewParameters(network.layout, [input("parameters", [network.layout.size])]);
  assertThrows(
    () => network.features!.forward({ parameter }, input("sample", [1, 7, 5, 3])),
    InputError,
    "for pictures of [5, 7, 3], not of [7, 5, 3]",
  );
  const judge = initializeModel(
    parseNetwork({ ...fields, sample_size: 8, in_channels: 1 }),
    ...[{}, 0] as const,
  );
  const denoiser = denoiserOf(randomModel(smallNetwork()));
  assertThrows(
    () => classifierGuided(judge)(denoiser),
    InputError,
    "it has learnt images without noise",
  );
});
