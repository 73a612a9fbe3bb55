/**
 * A small transformer that reads a text: pre-norm layers whose tokens all attend to each other, with
 * learned positions. What stands for padding is a token like others, with states of its own, so that
 * attention needs no mask and an empty text is one, too.
 *
 * @module
 */

import { z } from "zod";
import { gather } from "../gpu/ops/gather.ts";
import { add, gelu } from "../gpu/ops/map.ts";
import { mean } from "../gpu/ops/sum.ts";
import { reshape } from "../gpu/ops/view.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerContext, layerNorm, linear } from "./layers.ts";
import type { ParameterSource } from "./parameters.ts";
import { tokenAttention } from "./transformer_layers.ts";

const count = z.int().positive();

/** Of the fields as they are in files. */
export const textTransformerSchema = z.strictObject({
  vocab_size: count.max(65536).default(257),
  max_length: count.max(4096).default(48),
  width: count.max(65536).default(128),
  layers: count.max(100).default(3),
  heads: count.default(4),
}).refine(({ width, heads }) => width % heads === 0, {
  ...{ path: ["heads"], message: "does not divide width" },
});

/** The architecture of a text transformer. */
export type TextTransformerConfig = z.infer<typeof textTransformerSchema>;

/** What a text encoder makes of a text. */
export interface TextStates {
  /** Of each token, `[batch, tokens, width]`. */
  readonly states: Tensor;
  /** Of the whole text, `[batch, width]`. */
  readonly pooled: Tensor;
}

/** The states of tokens `i32` `[batch, max_length]`, and their mean. */
export function textTransformer(
  parameter: ParameterSource,
  { vocab_size, max_length, width, layers, heads }: TextTransformerConfig,
  tokens: Tensor,
): TextStates {
  const config = { actFn: "gelu" as const, normNumGroups: 1, normEps: 1e-5 };
  const net: LayerContext = { parameter, config, nextStream: () => 0, projections: new Map() };
  const table = (name: string, rows: number) =>
    parameter({ name, shape: [rows, width], order: "plain", init: "normal", isTrained: true });
  const positions = reshape(table("position_embedding.weight", max_length), [1, max_length, width]);
  const [batch, length] = tokens.shape, ids = reshape(tokens, [batch * length]);
  const embedded = gather(table("token_embedding.weight", vocab_size), ids);
  let x = add(reshape(embedded, [batch, length, width]), positions);
  for (let i = 0; i < layers; i++) {
    const layer = `layers.${i}`, normed = layerNorm(net, `${layer}.norm1`, x);
    x = add(x, tokenAttention(net, `${layer}.attn`, normed, heads));
    const inner = linear(net, `${layer}.ff.0`, layerNorm(net, `${layer}.norm2`, x), 4 * width);
    x = add(x, linear(net, `${layer}.ff.2`, gelu(inner), width));
  }
  const states = layerNorm(net, "final_norm", x);
  return { states, pooled: reshape(mean(states, [1]), [batch, width]) };
}
