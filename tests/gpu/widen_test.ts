import { assertEquals } from "@std/assert";
import type { Device } from "../../src/gpu/device.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { add, mul } from "../../src/gpu/ops/map.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { slice } from "../../src/gpu/ops/view.ts";
import { type HalfType, packHalves, widen, wordsOf } from "../../src/gpu/ops/widen.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { devices } from "../device.ts";

/** What bits stand for. */
function valuesOf(bits: Uint16Array<ArrayBuffer>, type: HalfType): Float32Array<ArrayBuffer> {
  if (type === "f16") return new Float32Array(new Float16Array(bits.buffer));
  return new Float32Array(Uint32Array.from(bits, (b) => b << 16).buffer);
}

/** Floats as bits, so that zeros have signs; all NaN are alike. */
const bitsOf = (values: Float32Array<ArrayBuffer>) =>
  new Uint32Array(values.buffer).map((bits, i) => Number.isNaN(values[i]) ? 0x7fc00000 : bits);

const all: Readonly<Record<string, () => Promise<Device>>> = {
  ...devices,
  "the interpreter": () => Promise.resolve(new ReferenceDevice()),
};

for (const [kind, open] of Object.entries(all)) {
  Deno.test(`all 65,536 floats of 16 bits become exactly what they are, on ${kind}`, async () => {
    using device = await open();
    for (const type of ["f16", "bf16"] as const) {
      // Each is once in the low and once in the high bits of a word; one more is odd.
      for (const turn of [0, 0x8000]) {
        for (const length of [65536, 65537]) {
          const bits = Uint16Array.from({ length }, (_, i) => i ^ turn);
          const words = input("words", [wordsOf(length)], "i32");
          using program = await device.compile(makeGraph({ y: widen(words, length, type) }));
          program.buffers.words.write(packHalves(bits));
          program.run();
          const actual = await program.buffers.y.read() as Float32Array<ArrayBuffer>;
          const [a, b] = [actual, valuesOf(bits, type)].map(bitsOf);
          const wrong = a.findIndex((x, i) => x !== b[i]);
          assertEquals(wrong, -1, `${type} ${bits[wrong]?.toString(16)}: ${actual[wrong]}`);
        }
      }
    }
  });

  Deno.test(`what is widened is computed with where words start anywhere, on ${kind}`, async () => {
    using device = await open();
    for (const type of ["f16", "bf16"] as const) {
      for (const length of [1, 2, 7, 64, 129]) {
        const bits = Uint16Array.from({ length }, (_, i) => 0x3f00 + 13 * i);
        const words = input("words", [5 + wordsOf(length) + 3], "i32");
        const x = widen(slice(words, 0, 5, wordsOf(length)), length, type);
        using program = await device.compile(
          makeGraph({ y: add(mul(x, x), 1), total: sum(x), numbers: add(words, 0) }),
        );
        program.buffers.words.write(packHalves(bits), 5);
        program.run();
        const values = valuesOf(bits, type);
        assertEquals(await program.buffers.y.read(), values.map((v) => Math.fround(v * v) + 1));
        const [total] = await program.buffers.total.read();
        const expected = values.reduce((a, b) => a + b);
        assertEquals(Math.abs(total / expected - 1) < 1e-6, true, `${total}, not ${expected}`);
        // The same words, as the integers that they are.
        const integers = Float32Array.from(packHalves(bits));
        assertEquals((await program.buffers.numbers.read()).subarray(5, -3), integers);
      }
    }
  });
}
