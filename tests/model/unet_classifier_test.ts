import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { mul } from "../../src/gpu/ops/map.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { classifierNetwork, logSoftmax, oneHot } from "../../src/model/classifier.ts";
import { initializeModel, parseModel, serializeModel } from "../../src/model/model.ts";
import { formatNetwork, resizeNetwork } from "../../src/model/network.ts";
import { viewParameters } from "../../src/model/parameters.ts";
import { assertClose } from "../close.ts";
import { randomModel, smallClassifier, smallNetwork } from "../networks.ts";

Deno.test("a classifier is saved and loaded as any model", () => {
  const network = smallClassifier({ dropout: 0.1, sample_size: [8, 4] });
  const model = { ...randomModel(network), classes: ["cat", "dog", "fish"] };
  const bytes = serializeModel(model), again = parseModel(bytes);
  assertEquals(serializeModel(again), bytes);
  assertEquals(again.classes, model.classes);
  assertEquals(formatNetwork(again.network), formatNetwork(network));
  assertEquals(again.network.itemShape, [8, 4, 1]);
  assertEquals(classifierNetwork(again).classes, 3);
  assertEquals(resizeNetwork(network, [16, 16, 1]).itemShape, [16, 16, 1]);
});

Deno.test("a classifier has the encoder of a UNet, with the same names", () => {
  const fields = {
    block_out_channels: [8, 16, 16],
    down_block_types: new Array(3).fill("DownBlock2D"),
  };
  const up_block_types = new Array(3).fill("UpBlock2D");
  const whole = smallNetwork({ ...fields, up_block_types }).layout.specs;
  const names = smallClassifier(fields).layout.specs.map(({ name, shape }) => `${name} ${shape}`);
  const own = ["conv_norm_out.weight 16", "conv_norm_out.bias 16"];
  const head = ["classifier.weight 3,16", "classifier.bias 3"];
  const encoder = whole.filter(({ name }) => !/^(up_blocks|conv_norm_out|conv_out)/.test(name))
    .map(({ name, shape }) => `${name} ${shape}`);
  assertEquals(names, [...encoder, ...own, ...head]);
});

Deno.test("a classifier knows the timestep, and takes images of any size that halves", () => {
  const network = smallClassifier(), { parameters } = randomModel(network);
  const of = (time: number, side: number) => {
    const flat = input("parameters", [network.layout.size]);
    const sample = constant(Array.from({ length: side ** 2 }, (_, i) => Math.sin(i)), [
      1,
      side,
      side,
      1,
    ]);
    const logits = network.forward(
      { parameter: viewParameters(network.layout, [flat]) },
      { sample, timestep: constant([time]), conditions: {} },
    );
    assertEquals(logits.shape, [1, 3]);
    return interpret(makeGraph({ logits }), { parameters: Float64Array.from(parameters) }).logits;
  };
  const [early, late] = [of(0, 8), of(900, 8)];
  assert(early.some((x, i) => Math.abs(x - late[i]) > 1e-3));
  assert(of(0, 16).every(Number.isFinite));
  const error = assertThrows(() => of(0, 9), InputError);
  assertEquals(/9x9 do not fit a network of 2/.test(error.message), true, error.message);
});

Deno.test("a classifier's configuration is judged as a UNet's, and it is no denoiser", () => {
  const refuse = (fields: Record<string, unknown>, message: RegExp) => {
    const error = assertThrows(() => smallClassifier(fields), InputError);
    assert(message.test(error.message), error.message);
  };
  refuse({ num_classes: 0 }, /num_classes/);
  refuse({ num_classes: "many" }, /num_classes/);
  refuse({ up_block_types: ["UpBlock2D"] }, /up_block_types/);
  refuse({ norm_num_groups: 3 }, /8 of block_out_channels is no multiple of norm_num_groups, 3/);
  const unet = initializeModel(smallNetwork(), {}, 0);
  const error = assertThrows(() => classifierNetwork(unet), InputError);
  assertEquals(
    error.message,
    "The model is a denoiser, a UNet2DModel, which tells no classes apart; train --objective " +
      "classifier makes one that does",
  );
});

/** log p_k of logits, in double precision. */
function logProbabilities(logits: readonly number[]): number[] {
  const most = Math.max(...logits);
  const log = most + Math.log(logits.reduce((sum, z) => sum + Math.exp(z - most), 0));
  return logits.map((z) => z - log);
}

Deno.test("logSoftmax() has the right values and gradients, of the largest logits too", () => {
  const rows = [[1, 2, 3, -1], [0, 0, 0, 0], [800, -900, 799, 0], [-5000, -5001, -5002, -9000]];
  const logits = constant(rows.flat(), [4, 4]), labels = constant(new Int32Array([0, 1, 1, 9]));
  const logs = logSoftmax(logits), chosen = oneHot(labels, 4);
  const [gradient] = grad(sum(mul(logs, chosen)), [logits]);
  const found = interpret(makeGraph({ logs, chosen, gradient }), {});
  assertClose(found.logs, rows.flatMap(logProbabilities), 1e-12);
  assertEquals([...found.chosen], [1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  // d log p_y / d z_k = [k = y] - p_k; a label that is no class has no gradient.
  const expected = rows.flatMap((row, i) => {
    const label = [0, 1, 1, 9][i];
    return logProbabilities(row).map((log, k) =>
      label < 4 ? Number(k === label) - Math.exp(log) : 0
    );
  });
  assertClose(found.gradient, expected, 1e-12);
});
