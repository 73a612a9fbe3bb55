import { assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { findNeighbors } from "../../src/evaluate/near_copies.ts";
import { nearest, NearestSearch } from "../../src/evaluate/nearest.ts";
import { precisionRecall } from "../../src/evaluate/precision_recall.ts";
import { forEachTile, TILE } from "../../src/evaluate/rows.ts";
import { between, features, golden, mixedRows } from "./fixture.ts";

Deno.test("precision, recall, density and coverage are those of their authors", async () => {
  let cases = 0;
  for (const [name, expected] of Object.entries(golden.precision_recall)) {
    const [, k, generated, real] = name.match(/^k=(\d) generated=(\w) real=(\w)$/)!;
    const found = await precisionRecall(features(generated), features(real), {
      neighbor: Number(k),
      densityNeighbor: Number(k),
    });
    for (const measure of ["precision", "recall", "density", "coverage"] as const) {
      assertAlmostEquals(found[measure], expected[measure], 1e-12, `${measure} of ${name}`);
    }
    cases++;
  }
  assertEquals(cases, 9);
});

Deno.test("neighbours are the nearest, in sets of any size", async () => {
  for (const [count, others] of [[70, 131], [3, 64], [129, 5]]) {
    const rows = mixedRows("rows", count, 5), points = mixedRows("points", others, 5);
    for (const [set, isSame] of [[points, false], [rows, true]] as const) {
      const k = 2, found = await nearest(rows, set, k);
      for (let i = 0; i < count; i++) {
        const squares = Array.from({ length: set.count }, (_, j) => {
          let sum = 0;
          for (let c = 0; c < 5; c++) sum += (rows.data[5 * i + c] - set.data[5 * j + c]) ** 2;
          return { j, sum };
        }).filter(({ j }) => !isSame || j !== i).sort((a, b) => a.sum - b.sum || a.j - b.j);
        for (let n = 0; n < k; n++) {
          assertEquals(found.indices[2 * i + n], squares[n].j);
          assertAlmostEquals(found.squares[2 * i + n], squares[n].sum, 1e-12);
        }
      }
    }
  }
});

Deno.test("numbers of pairs are those of plain loops, of rows of any width", async () => {
  for (const width of [1, 2, 255, 256, 257, 515]) {
    const a = mixedRows("a", 67, width), b = mixedRows("b", 5, width), seen = new Set<number>();
    const plain = (i: number, j: number, kind: string) => {
      let sum = 0;
      for (let c = 0; c < width; c++) {
        const x = a.data[i * width + c], y = b.data[j * width + c];
        sum += kind === "product" ? x * y : (x - y) ** 2;
      }
      return sum;
    };
    for (const kind of ["product", "distance"] as const) {
      await forEachTile(a, b, { kind }, ({ rows, columns, values }) => {
        for (let i = rows[0]; i < rows[1]; i++) {
          for (let j = columns[0]; j < columns[1]; j++) {
            const value = values[(i - rows[0]) * TILE + j - columns[0]];
            assertAlmostEquals(value, plain(i, j, kind), 1e-12 * width, `${kind} ${width}`);
            seen.add(i * b.count + j);
          }
        }
      });
      assertEquals(seen.size, a.count * b.count);
    }
  }
});

Deno.test("two computations at a time do not disturb each other", async () => {
  const [a, b] = [mixedRows("a", 700, 40), mixedRows("b", 650, 40)];
  const alone = [await nearest(a, b, 1), await nearest(b, b, 2)];
  assertEquals(await Promise.all([nearest(a, b, 1), nearest(b, b, 2)]), alone);
});

Deno.test("points may come in sets", async () => {
  const rows = mixedRows("rows", 20, 3), points = mixedRows("points", 150, 3);
  const search = new NearestSearch(rows, 3);
  for (const [from, to] of [[0, 1], [1, 100], [100, 150]]) {
    await search.add(between(points, from, to));
  }
  assertEquals(search.found(), await nearest(rows, points, 3));
});

Deno.test("a twin is a neighbour, oneself is none", async () => {
  const points = { count: 3, width: 1, data: new Float32Array([4, 4, 9]) };
  const { indices, squares } = await nearest(points, points, 1);
  assertEquals([[...indices], [...squares]], [[1, 0, 0], [0, 0, 25]]);
});

Deno.test("near copies are a third as far as the next one, or no distance at all", async () => {
  const training = { count: 4, width: 1, data: new Float32Array([0, 3, 10, 10]) };
  const samples = { count: 5, width: 1, data: new Float32Array([0.5, 0.75, 0.875, 10, 10.5]) };
  const { distances, indices, nearCopies } = await findNeighbors(samples, training);
  assertEquals([...distances], [0.5, 0.75, 0.875, 0, 0.5]);
  assertEquals([...indices], [0, 0, 0, 2, 2]);
  // 0.5 of 2.5 and 10 of 10; 0.75 of 2.25 is just not.
  assertEquals(nearCopies, 2 / 5);
});

Deno.test("too few images are refused, and a signal ends the work", async () => {
  const rows = mixedRows("x", 5, 2);
  await assertRejects(
    () => precisionRecall(mixedRows("y", 9, 2), rows),
    InputError,
    "the 5 nearest of 5 images: there are too few",
  );
  await assertRejects(
    () => findNeighbors(rows, mixedRows("y", 1, 2)),
    InputError,
    "the 2 nearest of 1 images: there are too few",
  );
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => nearest(rows, rows, 1, { signal }), Error, "enough");
});
