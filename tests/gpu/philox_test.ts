import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { philox, toInteger, toNormals, toUniform } from "../../src/gpu/philox.ts";

const draw = (
  counter: [number, number, number, number],
  key: [number, number],
): string[] => {
  const out = new Uint32Array(4);
  philox(counter, key, out);
  return [...out].map((word) => word.toString(16).padStart(8, "0"));
};

Deno.test("philox() gives the known answers of Random123", () => {
  assertEquals(draw([0, 0, 0, 0], [0, 0]), ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]);
  const ones = 0xffffffff;
  assertEquals(draw([ones, ones, ones, ones], [ones, ones]), [
    "408f276d",
    "41c83b0e",
    "a20bc7c6",
    "6d5451fd",
  ]);
  assertEquals(
    draw([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
    ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"],
  );
});

Deno.test("toUniform() and toInteger() stay within their bounds", () => {
  for (const word of [0, 1, 0x7fffffff, 0xffffffff]) {
    assert(toUniform(word) > 0 && toUniform(word) < 1);
    assert(toInteger(word, 10) >= 0 && toInteger(word, 10) <= 9);
  }
  assertEquals(toInteger(0xffffffff, 1000), 999);
});

Deno.test("toNormals() has mean 0, variance 1 and fourth moment 3", () => {
  const out = new Uint32Array(4), moments = [0, 0, 0, 0, 0], n = 20000;
  for (let i = 0; i < n / 4; i++) {
    philox([i, 0, 0, 0], [7, 0], out);
    for (const z of [...toNormals(out[0], out[1]), ...toNormals(out[2], out[3])]) {
      for (let k = 1; k <= 4; k++) moments[k] += z ** k / n;
    }
  }
  assertAlmostEquals(moments[1], 0, 0.03);
  assertAlmostEquals(moments[2], 1, 0.04);
  assertAlmostEquals(moments[3], 0, 0.1);
  assertAlmostEquals(moments[4], 3, 0.25);
});
