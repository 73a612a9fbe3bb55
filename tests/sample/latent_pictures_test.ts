import { assertEquals } from "@std/assert";
import {
  hideMasked,
  keepKnown,
  latentColors,
  latentMask,
} from "../../src/sample/latent_pictures.ts";
import { assertClose } from "../close.ts";

Deno.test("masks come to the size of latents by their upper left pixels, from one half on", () => {
  const mask = new Float32Array(4 * 6);
  [mask[0], mask[4], mask[2 * 6 + 1], mask[2 * 6 + 2]] = [0.5, 0.49, 1, 0.9];
  assertEquals([...latentMask(mask, [4, 6], 2)], [1, 0, 0, 0, 1, 0]);
  const pictures = { count: 2, shape: [1, 2, 1], data: new Float32Array([1, 2, 3, 4]) };
  assertEquals([...hideMasked(pictures, [0.5, 0.4]).data], [0, 2, 0, 4]);
});

Deno.test("what is known of one item is kept in all", () => {
  const latents = {
    count: 2,
    shape: [1, 2, 2],
    data: Float32Array.from({ length: 8 }, (_, i) => i),
  };
  const known = { count: 1, shape: [1, 2, 2], data: new Float32Array([-1, -2, -3, -4]) };
  const kept = keepKnown(latents, known, new Float32Array([0, 1]));
  assertEquals([...kept.data], [-1, -2, 2, 3, -1, -2, 6, 7]);
});

Deno.test("latents have a color for each pixel, item by item", () => {
  const data = new Float32Array([1, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
  const { shape, count, data: colors } = latentColors({ count: 3, shape: [1, 1, 4], data });
  assertEquals([count, shape], [3, [1, 1, 3]]);
  const expected = [0.3512, 0.2297, 0.3227, -0.212, -0.2616, -0.7177, 0.65, 0.9948, 0.47];
  assertClose(colors, expected, 1e-6);
});
