import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { dualEncoderNetwork } from "../../src/model/dual_encoder.ts";
import { parseModel, readDualEncoder, serializeModel } from "../../src/model/model.ts";
import { parseNetwork, resizeNetwork } from "../../src/model/network.ts";
import { flatten, type ParameterSpec, viewParameters } from "../../src/model/parameters.ts";
import { sizeOf } from "../../src/shape.ts";
import { contrasting } from "../../src/train/contrasting.ts";
import { assertClose } from "../close.ts";
import { tinyDualEncoder, tinyDualNetwork } from "../dual_encoders.ts";
import { smallClassifier } from "../networks.ts";

/** As its axes lie in files. */
const shapeInFile = ({ shape, order }: ParameterSpec) =>
  order === "conv" ? [shape[3], shape[2], shape[0], shape[1]] : shape;

/** A file whose parameter i has the number 0.5 sin(1 + 1.3 i + 0.9 k) at place k. */
function formulaFile(): Uint8Array<ArrayBuffer> {
  const tensors = tinyDualNetwork().layout.specs.map((spec, i) => ({
    ...{ name: spec.name, shape: shapeInFile(spec) },
    values: Float32Array.from(
      { length: sizeOf(spec.shape) },
      (_, k) => 0.5 * Math.sin(1 + 1.3 * i + 0.9 * k),
    ),
  }));
  return writeSafetensors(tensors, { network: JSON.stringify(tinyDualEncoder) });
}

// By PyTorch in double precision, with conv2d, layer_norm, gelu, softmax, normalize and cross_entropy.
const expected = {
  images: [
    ...[-0.5863238, -0.0769658, 0.5011019, 0.6318208],
    ...[0.4735853, 0.7307986, 0.335606, -0.3591922],
    ...[0.4076392, -0.2696107, -0.706171, -0.5123112],
  ],
  texts: [
    ...[0.2353061, -0.4113078, -0.7357454, -0.4838756],
    ...[0.2318242, -0.4148267, -0.7365449, -0.4813294],
    ...[0.2367682, -0.4098241, -0.7354023, -0.4849418],
  ],
  scale: [11.1628303],
  losses: [10.3485524, 7.498966, 0.5452105],
};

Deno.test("embeddings, temperature and loss are those of PyTorch", () => {
  const { network, parameters } = readDualEncoder(formulaFile());
  const { layout, tokenize } = network, flat = input("parameters", [layout.size]);
  const parameter = viewParameters(layout, [flat]), forward = { parameter };
  const images = constant(Array.from({ length: 180 }, (_, i) => Math.sin(0.7 * i)), [3, 5, 6, 2]);
  const ids = ["hi", "cat", ""].flatMap((text) => [...tokenize(text)]);
  const tokens = constant(Int32Array.from(ids), [3, 6]);
  const said = constant([1, 0, 0, 0, 1, 0, 0, 0, 1], [3, 3]);
  const { correct: _, losses } = contrasting(network, parameter, { images }, { tokens, said });
  const found = interpret(
    makeGraph({
      ...{
        images: network.encodeItems(forward, images),
        texts: network.encodeTexts(forward, tokens),
      },
      ...{ scale: network.scale(forward), losses },
    }),
    { parameters: Float64Array.from(flatten(layout, parameters)) },
  );
  for (const [name, values] of Object.entries(expected)) {
    assertClose(found[name], values, 2e-6, name);
  }
});

Deno.test("the temperature is that of CLIP at first, and has its bound", () => {
  const { scale } = tinyDualNetwork(), growth = input("growth", [1]);
  const graph = makeGraph({ scale: scale({ parameter: () => growth }) });
  for (const [x, expected] of [[0, 1 / 0.07], [-1, 1 / 0.07 / Math.E], [3, 100]]) {
    assertAlmostEquals(interpret(graph, { growth: Float64Array.of(x) }).scale[0], expected, 1e-9);
  }
});

Deno.test("a dual encoder is saved and loaded, and is no model of noise", () => {
  const bytes = formulaFile(), model = readDualEncoder(bytes, "x");
  const saved = serializeModel({ ...model, card: { data: "emoji" } }),
    again = readDualEncoder(saved);
  assertEquals([serializeModel(again), again.card], [saved, { data: "emoji" }]);
  const flat = flatten(model.network.layout, model.parameters);
  assertEquals(flatten(again.network.layout, again.parameters), flat);
  assertEquals([again.network.width, again.network.tokens.shape], [4, [6]]);
  assertEquals(resizeNetwork(again.network, [9, 8, 2]).itemShape, [9, 8, 2]);
  assertThrows(
    () => parseModel(bytes),
    InputError,
    "it is a dual encoder, which knows nothing of noise",
  );
});

Deno.test("bad configurations, other pictures and other networks are refused", () => {
  for (
    const [bad, message] of [
      [{ projection_dim: 0 }, "projection_dim"],
      [{ block_out_channels: [] }, "block_out_channels"],
      [{ text_encoder: { width: 6, heads: 4 } }, "does not divide width"],
      [{ num_classes: 3 }, "num_classes"],
    ] as const
  ) assertThrows(() => parseNetwork({ ...tinyDualEncoder, ...bad }), InputError, message);
  const { encodeItems, encodeTexts, layout } = tinyDualNetwork();
  const forward = { parameter: viewParameters(layout, [input("parameters", [layout.size])]) };
  assertThrows(
    () => encodeItems(forward, input("items", [1, 6, 5, 2])),
    InputError,
    "for pictures of [5, 6, 2], not of [6, 5, 2]",
  );
  assertThrows(() => encodeTexts(forward, input("tokens", [1, 7], "i32")), RangeError, "[1, 7]");
  assertThrows(
    () => dualEncoderNetwork(smallClassifier()),
    InputError,
    "it is a classifier; train --objective contrastive makes a DualEncoder",
  );
});
