import { assertEquals } from "@std/assert";
import { roundToHalves, widenHalf, widenHalves } from "../src/halves.ts";

const all = Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits);

/** Does something in an engine without 16-bit arrays, as Node 22. */
function without<T>(act: () => T): T {
  const { Float16Array } = globalThis;
  Reflect.deleteProperty(globalThis, "Float16Array");
  try {
    return act();
  } finally {
    Object.defineProperty(globalThis, "Float16Array", {
      ...{ value: Float16Array, writable: true, configurable: true },
    });
  }
}

Deno.test("all halves are the numbers that the engine takes them for, and come back", () => {
  const values = new Float32Array(all.length),
    own = without(() => widenHalves(all, values.slice()));
  assertEquals(own, widenHalves(all, values));
  assertEquals(Float32Array.from(all, widenHalf), own);
  const isNumber = (_: number, i: number) => !Number.isNaN(own[i]);
  assertEquals(without(() => roundToHalves(own)).filter(isNumber), all.filter(isNumber));
});

Deno.test("numbers are rounded to halves as the engine rounds them, ties to even", () => {
  // Between any two neighbours: the middle, and the nearest numbers below and above it.
  const bits: number[] = [];
  for (let half = 0; half < 0x7c00; half++) {
    const next = half + 1 === 0x7c00 ? 65536 : widenHalf(half + 1);
    const middle = new Uint32Array(Float32Array.of((widenHalf(half) + next) / 2).buffer)[0];
    for (const near of [middle - 1, middle, middle + 1]) bits.push(near, near | 0x80000000);
  }
  // Every exponent there is, also those of infinities and of what is no number.
  for (let exponent = 0; exponent < 512; exponent++) {
    for (const fraction of [0, 1, 0x1000, 0x3fffff, 0x7fffff]) bits.push(exponent << 23 | fraction);
  }
  const values = new Float32Array(Uint32Array.from(bits).buffer);
  const [own, engine] = [without(() => roundToHalves(values)), roundToHalves(values)];
  // There are many ways to be no number.
  const read = (halves: Uint16Array<ArrayBuffer>) => Float32Array.from(halves, widenHalf);
  assertEquals(read(own), read(engine));
  const isNumber = (_: number, i: number) => !Number.isNaN(values[i]);
  assertEquals(own.filter(isNumber), engine.filter(isNumber));
});
