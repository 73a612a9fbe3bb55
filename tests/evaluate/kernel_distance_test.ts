import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import {
  kernelDistance,
  pickRows,
  squaredDiscrepancy,
} from "../../src/evaluate/kernel_distance.ts";
import { features, golden, mixedRows } from "./fixture.ts";

const { kid } = golden;

Deno.test("the discrepancy of whole sets of unequal sizes is torch-fidelity's", async () => {
  const [a, b] = [features("a"), features("b")];
  assertAlmostEquals(await squaredDiscrepancy(a, b), kid.whole_sets_unbiased, 1e-12);
  assertAlmostEquals(await squaredDiscrepancy(a, a), kid.same_set_unbiased, 1e-12);
});

Deno.test("the discrepancies of subsets are torch-fidelity's", async () => {
  for (const [i, { a, b }] of kid.subsets.entries()) {
    const found = await squaredDiscrepancy(
      pickRows(features("a"), a),
      pickRows(features("b"), b),
    );
    assertAlmostEquals(found, kid.per_subset[i], 1e-12);
  }
});

Deno.test("means over subsets come as near to the whole as their standard error says", async () => {
  let within = 0;
  for (let seed = 0; seed < 40; seed++) {
    // Of one distribution, so that the truth is 0.
    const [a, b] = ["a", "b"].map((name) => mixedRows(`${name}${seed}`, 120, 4));
    const found = await kernelDistance(a, b, { subsets: 30, subsetSize: 40, seed });
    assertEquals([found.subsets, found.subsetSize], [30, 40]);
    if (Math.abs(found.mean) < 2 * found.standardError) within++;
    const whole = await squaredDiscrepancy(a, b);
    assert(Math.abs(found.mean - whole) < 5 * found.std / Math.sqrt(30), `${found.mean} ${whole}`);
  }
  assert(within >= 34, `${within} of 40`);
});

Deno.test("subsets are half of the smaller set at the most, and drawn from the seed", async () => {
  const [a, b] = [mixedRows("a", 31, 3), mixedRows("b", 90, 3)];
  const once = await kernelDistance(a, b, { subsets: 4, seed: 5 });
  assertEquals(once.subsetSize, 15);
  assertEquals(await kernelDistance(a, b, { subsets: 4, seed: 5 }), once);
  assert((await kernelDistance(a, b, { subsets: 4, seed: 6 })).mean !== once.mean);
});

Deno.test("too few images and other widths are refused", async () => {
  const three = mixedRows("x", 3, 2), many = mixedRows("x", 9, 2), wide = mixedRows("x", 9, 3);
  await assertRejects(() => kernelDistance(three, many), InputError, "of 3 and 9 images");
  await assertRejects(() => squaredDiscrepancy(many, wide), InputError, "of width 2 with");
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => kernelDistance(many, many, { signal }), Error, "enough");
});
