import { assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant } from "../../src/gpu/tensor.ts";
import { fourierEmbedding, sinusoidalEmbedding } from "../../src/model/time_embedding.ts";
import { assertClose } from "../close.ts";

const embed = (
  times: number[],
  ...rest: [size: number, shift: number, isCosineFirst: boolean]
) => [...interpret(makeGraph({ y: sinusoidalEmbedding(constant(times), ...rest) }), {}).y];

Deno.test("sinusoidalEmbedding() has the values of the DDPM paper's code", () => {
  const y = embed([500], 128, 1, false), at = [0, 1, 63, 64, 127];
  assertClose(at.map((i) => y[i]), [-0.467772, -0.999682, 0.049979, -0.883849, 0.998750], 2e-6);
});

Deno.test("sinusoidalEmbedding() has the values of Stable Diffusion", () => {
  const y = embed([500], 320, 0, true), at = [0, 1, 159, 160, 319];
  assertClose(at.map((i) => y[i]), [-0.883849, 0.702750, 0.998598, -0.467772, 0.052938], 1e-5);
});

Deno.test("sinusoidalEmbedding() takes fractions, and ends with a zero for odd sizes", () => {
  assertEquals(embed([0, 0], 5, 0, true), [1, 1, 0, 0, 0, 1, 1, 0, 0, 0]);
  assertClose(embed([0.5], 2, 0, false), [Math.sin(0.5), Math.cos(0.5)], 1e-12);
});

Deno.test("fourierEmbedding() is sine and cosine of 2 pi ln(t) w", () => {
  const graph = makeGraph({ y: fourierEmbedding(constant([1, Math.E]), constant([0.25, 1 / 3])) });
  const half = Math.sqrt(3) / 2;
  assertClose(interpret(graph, {}).y, [0, 0, 1, 1, 1, half, 0, -0.5], 1e-12);
});
