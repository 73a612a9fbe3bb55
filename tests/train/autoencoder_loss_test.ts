import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { toFloat32 } from "../../src/formats/safetensors.ts";
import { flatten, viewParameters } from "../../src/model/parameters.ts";
import {
  autoencoderLoss,
  type AutoencoderLossConfig,
  divergence,
} from "../../src/train/autoencoder_loss.ts";
import { goldenOf, readAutoencoder } from "../autoencoders.ts";
import { assertClose } from "../close.ts";
import { channelsLast } from "../families.ts";
import { Random } from "../random.ts";

const folder = (name: string) =>
  fromFileUrl(new URL(`../fixtures/autoencoder/${name}`, import.meta.url));

Deno.test("the divergence is that of diffusers", async () => {
  const { io } = await goldenOf(folder("kl"));
  const [mean, logVariance] = ["mean", "logvar"].map((name) => {
    const { shape, values } = channelsLast(io.get(name)!);
    return constant(values, shape);
  });
  const { kl } = interpret(makeGraph({ kl: divergence({ mean, logVariance }) }), {});
  assertClose(kl, toFloat32(io.get("kl")!), 1e-6);
});

/** The loss of an autoencoder for two small pictures, its parts and gradient. */
async function lossOf(name: string, config: AutoencoderLossConfig, isDrawn: boolean) {
  const autoencoder = await readAutoencoder(folder(name)), { network } = autoencoder;
  const parameters = input("parameters", [network.layout.size]);
  const pictures = input("pictures", [2, 4, 6, 3]), random = new Random(name);
  const state = {
    ...{ seed: constant(Int32Array.of(1, 2)), first: constant(Int32Array.of(0)) },
    step: constant(Int32Array.of(0)),
  };
  const parts = autoencoderLoss(
    network,
    { parameter: viewParameters(network.layout, [parameters]) },
    pictures,
    config,
    isDrawn ? state : undefined,
  );
  const data = {
    parameters: Float64Array.from(flatten(network.layout, autoencoder.parameters)),
    pictures: Float64Array.from({ length: 144 }, () => random.between(-1, 1)),
  };
  const [gradient] = grad(parts.loss, [parameters]);
  return { layout: network.layout, parts, data, gradient, random };
}

for (const reconstruction of ["l1", "l2"] as const) {
  for (const name of ["kl", "vq"]) {
    Deno.test(`the ${reconstruction} loss of ${name} is the weighted sum of its parts`, async () => {
      const config = { reconstruction, klWeight: 0.3, codebookWeight: 0.7 };
      const { parts, data } = await lossOf(name, config, false);
      const { loss, decoded, ...rest } = interpret(makeGraph({ ...parts }), data);
      const far = [...decoded].reduce((total, x, i) => {
        const d = Math.abs(x - data.pictures[i]);
        return total + (reconstruction === "l1" ? d : d * d);
      }, 0) / (name === "kl" ? 2 : decoded.length);
      const weight = name === "kl" ? 0.3 : 0.7;
      assertClose(rest.reconstruction, [far], 1e-6);
      assertClose(loss, [far + weight * rest.penalty[0]], 1e-6);
    });
  }

  Deno.test(`gradients of the ${reconstruction} loss are central differences`, async () => {
    const { layout, parts, data, gradient, random } = await lossOf(
      "kl",
      { reconstruction, klWeight: 0.1 },
      true,
    );
    const actual = interpret(makeGraph({ gradient }), data).gradient;
    const graph = makeGraph({ loss: parts.loss }), step = 1e-5;
    const chosen = layout.specs.map((_, i) => i).filter((i) => i % 17 === 3);
    const at = chosen.map((i) => layout.offsets[i] + random.below(layout.specs[i].shape[0]));
    const expected = at.map((i) => {
      const value = data.parameters[i];
      const [up, down] = [value + step, value - step].map((v) => {
        data.parameters[i] = v;
        return interpret(graph, data).loss[0];
      });
      data.parameters[i] = value;
      return (up - down) / (2 * step);
    });
    assertClose(at.map((i) => actual[i]), expected, 1e-5);
  });
}

Deno.test("gradients pass straight through a codebook, which learns from its own loss", async () => {
  const { layout, data, gradient } = await lossOf("vq", { codebookWeight: 0 }, false);
  const { gradient: without } = interpret(makeGraph({ gradient }), data);
  const of = (name: string, values: ArrayLike<number>) => {
    const i = layout.specs.findIndex((spec) => spec.name === name), from = layout.offsets[i];
    return Array.from({ length: layout.specs[i].shape[0] }, (_, k) => values[from + k]);
  };
  // The encoder learns of the pictures; the codebook does not.
  assertEquals(of("quantize.embedding.weight", without).every((g) => g === 0), true);
  assertEquals(of("quant_conv.bias", without).some((g) => g !== 0), true);
  const full = await lossOf("vq", { codebookWeight: 1 }, false);
  const withLoss = interpret(makeGraph({ gradient: full.gradient }), full.data).gradient;
  assertEquals(of("quantize.embedding.weight", withLoss).some((g) => g !== 0), true);
});
