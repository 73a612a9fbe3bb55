import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import type { HostArray } from "../../../src/gpu/tensor.ts";
import { InputError } from "../../../src/errors.ts";
import { makeGraph } from "../../../src/gpu/graph.ts";
import { grad } from "../../../src/gpu/grad.ts";
import { mul } from "../../../src/gpu/ops/map.ts";
import { sum } from "../../../src/gpu/ops/sum.ts";
import { interpret } from "../../../src/gpu/reference.ts";
import { constant, type Tensor } from "../../../src/gpu/tensor.ts";
import { sizeOf } from "../../../src/shape.ts";
import { type LinearOperator, operators } from "../../../src/sample/guidance/operators.ts";
import { assertClose } from "../../close.ts";
import { Random } from "../../random.ts";

const random = new Random("operators"), item = [8, 12, 3], shape = [2, ...item];
const some = (n: number) => Float64Array.from({ length: n }, () => random.between(-1, 1));
const image = some(sizeOf(shape)), mask = some(2 * 96).map((v) => v > 0.2 ? 1 : 0);
const values = { mask: constant(mask, [2, 8, 12, 1]) };
const run = (build: (x: Tensor) => Tensor, x: HostArray, of: readonly number[]) =>
  interpret(makeGraph({ y: build(constant(x as Float64Array<ArrayBuffer>, of)) }), {}).y;
const table: Record<string, LinearOperator> = {
  superres: operators.superres(4),
  inpaint: operators.inpaint(),
  colorize: operators.colorize(),
  deblur: operators.deblur(1.5),
};
const apply = (o: LinearOperator) => (x: Tensor) => o.apply(x, values);

for (const [name, operator] of Object.entries(table)) {
  const measured = [2, ...operator.measured(item)];
  const back = (y: Tensor) => operator.pinv(y, values);

  Deno.test(`${name} has a pseudoinverse, which it leaves nothing to add to`, () => {
    const y = run(apply(operator), image, shape), x = run(back, y, measured);
    assertEquals(x.length, image.length);
    // What cannot be undone of a blur is left out, which is not much of noise, and less of pictures.
    assertClose(run(apply(operator), x, shape), y, name === "deblur" ? 0.03 : 1e-12);
  });

  Deno.test(`the norm of ${name} is what it says`, () => {
    // Power iteration of Aᵀ A, of which the gradient makes the adjoint.
    let x = image.map((v) => v + 1), norm = 0;
    for (let i = 0; i < 60; i++) {
      const there = run(apply(operator), x, shape) as Float64Array<ArrayBuffer>;
      norm = Math.hypot(...there) / Math.hypot(...x);
      const adjoint = (v: Tensor) =>
        grad(sum(mul(apply(operator)(v), constant(there, measured))), [v])[0];
      const again = run(adjoint, x, shape), length = Math.hypot(...again);
      x = Float64Array.from(again, (v) => v / length);
    }
    assertAlmostEquals(norm, operator.norm, 1e-3);
  });
}

Deno.test("a blur is a convolution with a bell, mirrored at the edges", () => {
  const sigma = 1.5, [height, width, channels] = item, reach = 6;
  const mirror = (i: number, n: number) => i < 0 ? -1 - i : i >= n ? 2 * n - 1 - i : i;
  const bell = Array.from(
    { length: 2 * reach + 1 },
    (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma ** 2)),
  );
  const total = bell.reduce((a, b) => a + b) ** 2, expected = new Float64Array(image.length);
  for (let i = 0; i < image.length; i++) {
    const c = i % channels, x = Math.floor(i / channels) % width;
    const y = Math.floor(i / channels / width) % height, n = Math.floor(i / sizeOf(item));
    bell.forEach((a, dy) =>
      bell.forEach((b, dx) => {
        const row = mirror(y + dy - reach, height), column = mirror(x + dx - reach, width);
        expected[i] += a * b / total * image[((n * height + row) * width + column) * channels + c];
      })
    );
  }
  assertClose(run(apply(operators.deblur(sigma)), image, shape), expected, 1e-12);
});

Deno.test("operators refuse items that they cannot take", () => {
  const refuse = (f: () => unknown, message: string) =>
    assertEquals(assertThrows(f, InputError).message, message);
  refuse(
    () => operators.superres(4).measured([28, 30, 1]),
    "Cannot restore pictures of 30x28 from ones 4 times as small: sides must be multiples of 4",
  );
  refuse(
    () => operators.colorize().measured([8, 8, 1]),
    "Cannot colorize: the model's pictures are grey",
  );
  for (const operator of Object.values(table)) {
    refuse(
      () => operator.measured([16, 2]),
      "Cannot restore items of shape 16x2: they are no pictures",
    );
  }
  assert(Object.keys(operators).length === Object.keys(table).length);
});
