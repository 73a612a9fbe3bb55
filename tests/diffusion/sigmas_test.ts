import { assertAlmostEquals, assertEquals } from "@std/assert";
import {
  exponentialSigmas,
  karrasSigmas,
  polyexponentialSigmas,
  vpSigmas,
} from "../../src/diffusion/sigmas.ts";
import { assertClose } from "../close.ts";

Deno.test("all sequences of noise levels fall from the first to the last", () => {
  for (
    const sigmas of [
      karrasSigmas(9, 0.01, 50),
      exponentialSigmas(9, 0.01, 50),
      polyexponentialSigmas(9, 0.01, 50, 2),
    ]
  ) {
    assertEquals(sigmas.length, 9);
    assertAlmostEquals(sigmas[0], 50, 1e-9);
    assertAlmostEquals(sigmas[8], 0.01, 1e-12);
    assertEquals(sigmas, sigmas.toSorted((a, b) => b - a));
  }
  assertClose([karrasSigmas(1, 0.01, 50)[0], exponentialSigmas(1, 0.01, 50)[0]], [50, 50], 1e-12);
});

Deno.test("karrasSigmas() has the numbers of the paper", () => {
  // (80^(1/7) + i / 17 (0.002^(1/7) - 80^(1/7)))^7, worked out by hand for i = 1 and 17.
  const sigmas = karrasSigmas(18, 0.002, 80);
  assertClose(sigmas.slice(0, 3), [80, 57.58598, 40.78557], 1e-5);
  assertAlmostEquals(sigmas[17], 0.002, 1e-12);
});

Deno.test("exponential levels have one ratio, and higher powers crowd the small ones", () => {
  assertClose(exponentialSigmas(4, 0.001, 1), [1, 0.1, 0.01, 0.001], 1e-9);
  assertClose(polyexponentialSigmas(3, 0.0001, 1, 2), [1, 0.001, 0.0001], 1e-9);
});

Deno.test("vpSigmas() are those of the process in continuous time", () => {
  const sigmas = vpSigmas(3);
  assertAlmostEquals(sigmas[0], Math.sqrt(Math.exp(19.9 / 2 + 0.1) - 1), 1e-9);
  const t = 0.5005;
  assertAlmostEquals(sigmas[1], Math.sqrt(Math.exp(t * t * 19.9 / 2 + 0.1 * t) - 1), 1e-9);
  assertAlmostEquals(sigmas[2], Math.sqrt(Math.exp(1e-6 * 19.9 / 2 + 1e-4) - 1), 1e-9);
});
