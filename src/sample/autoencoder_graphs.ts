/**
 * What an autoencoder compiles: the graphs of its halves, and the parameters that they need.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { type Graph, makeGraph, nodesOf } from "../gpu/graph.ts";
import { toFloat } from "../gpu/ops/map.ts";
import { input, inputName, type Tensor } from "../gpu/tensor.ts";
import { type AutoencoderNetwork, type Forward, itemOf } from "../model/network.ts";
import {
  parameterInputs,
  type ParameterLayout,
  usedParameters,
  viewParameters,
} from "../model/parameters.ts";
import type { AutoencoderOptions } from "./autoencoder.ts";
import { checkInteger } from "./options.ts";
import { layBlended } from "./tiles.ts";

/** A half of an autoencoder. */
export type Half = "encode" | "decode" | "quantize";

/** The halves that are compiled. */
const halvesOf = (network: AutoencoderNetwork, { only }: AutoencoderOptions): Half[] =>
  (["encode", "decode", "quantize"] as const).filter((half) =>
    half === "quantize" ? network.quantize : !only || half === only
  );

/** The parameters that are needed; all of them where they are on the device already. */
export function layoutOf(
  network: AutoencoderNetwork,
  options: AutoencoderOptions,
): ParameterLayout {
  const { only, parameters } = options, { layout, factor, latentChannels } = network;
  if (!only || parameters) return layout;
  const item = itemOf(network, [factor, factor]);
  return usedParameters(layout, (parameter) => {
    for (const half of halvesOf(network, options)) {
      const x = input("x", half === "encode" ? [1, ...item] : [1, 1, 1, latentChannels]);
      outputsOf(network, half, { parameter }, x);
    }
  });
}

/** What is compiled, and how tiles lie. */
export function graphsOf(
  network: AutoencoderNetwork,
  layout: ParameterLayout,
  options: AutoencoderOptions,
) {
  const { size, batchSize = 1, tile, weightDType = "f32" } = options;
  checkInteger(batchSize, 1, "the batch size");
  const { factor, latentChannels } = network, [, , channels] = itemOf(network, size);
  const bad = [...size, ...(tile === undefined ? [] : [tile])].find((n) =>
    !Number.isSafeInteger(n) || n < factor || n % factor
  );
  if (bad !== undefined) {
    throw new InputError(
      `Cannot compile an autoencoder for pictures of ${size.join("x")}` +
        `${tile === undefined ? "" : ` in tiles of ${tile}`}: sides must be multiples of ${factor}`,
    );
  }
  return halvesOf(network, options).map((half) => {
    const isEncoder = half === "encode", result = half === "decode" ? factor : 1;
    // Entries are found pixel by pixel, which takes no memory to speak of.
    const longest = half === "quantize" ? Infinity : tile ?? Infinity;
    const cells = size.map((n) => Math.min(n, longest) / factor);
    const shape = isEncoder
      ? [...cells.map((n) => n * factor), channels]
      : [...cells, latentChannels];
    const x = input("x", [batchSize, ...shape]);
    const shards = parameterInputs(layout, "parameters", weightDType);
    const forward = { parameter: viewParameters(layout, shards, { weightDType, event: x }) };
    const graph = makeGraph(outputsOf(network, half, forward, x));
    return {
      ...{ half, graph, batchSize, shape, factor: isEncoder ? factor : 1 },
      uses: usedInputs(graph),
      down: layBlended(size[0] / factor, cells[0], result),
      across: layBlended(size[1] / factor, cells[1], result),
    };
  });
}

/** The results of a half, by name. */
function outputsOf(
  network: AutoencoderNetwork,
  half: Half,
  forward: Forward,
  x: Tensor,
): Record<string, Tensor> {
  if (half === "encode") return { ...network.encode(forward, x) };
  if (half === "decode") return { pictures: network.decode(forward, x) };
  const { quantized, indices } = network.quantize!(forward, x);
  return { quantized, indices: toFloat(indices) };
}

/** The names of what a graph is given. */
const usedInputs = (graph: Graph): ReadonlySet<string> =>
  new Set(nodesOf(graph).map(inputName).filter((name) => name !== undefined));
