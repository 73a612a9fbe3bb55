import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { sizeOf } from "../../src/shape.ts";
import { input } from "../../src/gpu/tensor.ts";
import {
  collectParameters,
  fileShape,
  fromFileOrder,
  fromFormerLayout,
  initializeParameters,
  type ParameterSpec,
  toFileOrder,
  viewParameters,
  wholeOf,
} from "../../src/model/parameters.ts";
import { isDenseView, resolve } from "../../src/gpu/view.ts";
import { smallNetwork } from "../networks.ts";

const spec = (name: string, shape: readonly number[], fields: Partial<ParameterSpec> = {}) =>
  ({ name, shape, order: "plain", init: "xavier", isTrained: true, ...fields }) as const;

const layoutOf = (...specs: readonly ParameterSpec[]) =>
  collectParameters((parameter) => void specs.map(parameter), input);

/** The values of parameter `index` alone. */
const valuesOf = (layout: ReturnType<typeof layoutOf>, flat: Float32Array, index: number) =>
  flat.subarray(layout.offsets[index], layout.offsets[index] + sizeOf(layout.specs[index].shape));

Deno.test("collectParameters() keeps the order of use, aligns, and counts without the gaps", () => {
  const layout = layoutOf(spec("a", [3, 5]), spec("b", [64]), spec("c", []), spec("d", [65]));
  assertEquals(layout.specs.map((s) => s.name), ["a", "b", "c", "d"]);
  assertEquals(layout.count, 15 + 64 + 1 + 65);
  layout.offsets.forEach((offset, i) => {
    const end = i === 3 ? layout.size : layout.offsets[i + 1];
    assert(end - offset >= sizeOf(layout.specs[i].shape), "parameters do not overlap");
    assertEquals(offset % 64, 0, "bindings of WebGPU start at multiples of 256 bytes");
  });
});

Deno.test("viewParameters() hands out tensors of the right shapes by name", () => {
  const layout = layoutOf(spec("a", [3, 5]), spec("b", [2]));
  const source = viewParameters(layout, [input("flat", [layout.size])]);
  assertEquals(source(spec("a", [3, 5])).shape, [3, 5]);
  assertThrows(() => source(spec("c", [1])), TypeError, "no parameter c");
});

Deno.test("files have convolutions as [out, in, height, width], we as [height, width, in, out]", () => {
  const conv = spec("conv", [3, 2, 5, 4], { order: "conv" });
  assertEquals(fileShape(conv), [4, 5, 3, 2]);
  // The number of each element says where it lies in the file.
  const file = Float32Array.from({ length: 120 }, (_, i) => i), here = fromFileOrder(conv, file);
  for (let y = 0, at = 0; y < 3; y++) {
    for (let x = 0; x < 2; x++) {
      for (let i = 0; i < 5; i++) {
        for (let o = 0; o < 4; o++) assertEquals(here[at++], ((o * 5 + i) * 3 + y) * 2 + x);
      }
    }
  }
  assertEquals(toFileOrder(conv, here), file);
});

Deno.test("dense layers are [out, in] in files and here", () => {
  const linear = spec("linear", [2, 3], { order: "linear" });
  assertEquals(fileShape(linear), [2, 3]);
  const file = new Float32Array([1, 2, 3, 4, 5, 6]), here = fromFileOrder(linear, file);
  assertEquals([...here], [1, 2, 3, 4, 5, 6]);
  assertEquals(toFileOrder(linear, here), file);
});

/** Two layers of a family with another parameter between them. */
const familyLayout = () =>
  layoutOf(
    spec("a.weight", [2, 3], { order: "linear", family: "weight" }),
    spec("b", [70]),
    spec("c.weight", [1, 3], { order: "linear", family: "weight" }),
  );

Deno.test("parameters of a family are a single one, without gaps", () => {
  const layout = familyLayout(), flat = input("flat", [layout.size]);
  assertEquals(layout.specs.map((s) => s.name), ["a.weight", "b", "c.weight"]);
  assertEquals(layout.offsets, [0, 64, 6]);
  assertEquals(layout.size, 64 + 128);
  const views = viewParameters(layout, [flat]);
  const whole = wholeOf(["a.weight", "c.weight"].map((name) => views({ name })));
  assertEquals(whole.shape, [3, 3]);
  assertEquals(resolve(whole), { source: flat, strides: [3, 1], offset: 0 });
  assert(isDenseView(whole));
  assertEquals(resolve(views({ name: "c.weight" })).offset, 6);
});

Deno.test("parameters that are no family in memory become one by concatenation", () => {
  const whole = wholeOf([input("a", [2, 3]), input("b", [1, 3])]);
  assertEquals(whole.shape, [3, 3]);
  assertEquals(whole.op.name, "concat");
});

Deno.test("parameters of states from before there were families go to where they are now", () => {
  const layout = familyLayout(), former = new Float32Array(64 + 128 + 64);
  former.set([1, 4, 2, 5, 3, 6]);
  former.set(Array.from({ length: 70 }, (_, i) => -i), 64);
  former.set([7, 8, 9], 64 + 128);
  const flat = fromFormerLayout(layout, former);
  assertEquals(flat.length, layout.size);
  assertEquals([...flat.subarray(0, 10)], [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
  assertEquals([...flat.subarray(64, 134)], Array.from({ length: 70 }, (_, i) => -i));
  const other = new Float32Array(3);
  assertEquals(fromFormerLayout(layout, other), other);
});

Deno.test("toFileOrder() gives a copy, which changes of the weights do not change", () => {
  const values = new Float32Array([1, 2]), copy = toFileOrder(spec("bias", [2]), values);
  values[0] = 5;
  assertEquals([...copy], [1, 2]);
});

Deno.test("Xavier's first weights fill their bounds evenly", () => {
  const layout = layoutOf(
    spec("conv", [3, 3, 32, 64], { order: "conv" }),
    spec("linear", [100, 50], { order: "linear" }),
  );
  const flat = initializeParameters(layout, 3);
  // sqrt(6 / (fan in + fan out)), where a convolution's fans count its 9 taps.
  [Math.sqrt(6 / (9 * 32 + 9 * 64)), Math.sqrt(6 / 150)].forEach((bound, i) => {
    const values = valuesOf(layout, flat, i), n = values.length;
    const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    assert(most <= bound && most > 0.99 * bound, `${most} is the largest, the bound is ${bound}`);
    assertAlmostEquals(values.reduce((a, b) => a + b, 0) / n / bound, 0, 0.03);
    assertAlmostEquals(values.reduce((a, b) => a + b * b, 0) / n / bound ** 2, 1 / 3, 0.02);
  });
});

Deno.test("first values are zeros, ones and normals where asked for, and zeros in gaps", () => {
  const layout = layoutOf(
    spec("zeros", [5], { init: "zeros" }),
    spec("ones", [5], { init: "ones" }),
    spec("normal", [4001], { init: "normal" }),
  );
  const flat = initializeParameters(layout, 3);
  assertEquals([...valuesOf(layout, flat, 0)], [0, 0, 0, 0, 0]);
  assertEquals([...valuesOf(layout, flat, 1)], [1, 1, 1, 1, 1]);
  const normal = [...valuesOf(layout, flat, 2)];
  assertAlmostEquals(normal.reduce((a, b) => a + b) / 4001, 0, 0.05);
  assertAlmostEquals(normal.reduce((a, b) => a + b * b, 0) / 4001, 1, 0.07);
  assert(normal[4000] !== 0, "the last of an odd number is drawn, too");
  const sum = flat.reduce((a, b) => a + Math.abs(b), 0);
  assertAlmostEquals(sum, 5 + normal.reduce((a, b) => a + Math.abs(b), 0), 0.01);
});

Deno.test("the same seed gives the same weights, another seed or parameter others", () => {
  const layout = layoutOf(spec("a", [8, 8]), spec("b", [8, 8]));
  const flat = initializeParameters(layout, 5);
  assertEquals(initializeParameters(layout, 5), flat);
  for (const seed of [0, 6, 5 + 2 ** 32]) {
    const other = initializeParameters(layout, seed);
    assert(flat.every((x, i) => x !== other[i]), `seed ${seed}`);
  }
  const [a, b] = [0, 1].map((i) => valuesOf(layout, flat, i));
  assert(a.every((x, i) => x !== b[i]));
});

Deno.test("a network starts with zeros in the last layer of every branch, and in biases", () => {
  const layout = smallNetwork().layout, flat = initializeParameters(layout, 0);
  const zeros = /(conv2|to_out\.0|conv_out)\.weight$|\.bias$/, ones = /norm\w*\.weight$/;
  let branches = 0;
  layout.specs.forEach(({ name }, i) => {
    const values = valuesOf(layout, flat, i);
    if (zeros.test(name)) assert(values.every((x) => x === 0), name);
    else if (ones.test(name)) assert(values.every((x) => x === 1), name);
    else assert(values.every((x) => x !== 0), name);
    if (/(conv2|to_out\.0|conv_out)\.weight$/.test(name)) branches++;
  });
  // 2 down, 2 in the middle, 4 up; attention at 1, 1 and 2; the network itself.
  assertEquals(branches, 8 + 4 + 1);
});
