import { assert, assertEquals, assertThrows } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { quantile } from "../../src/gpu/ops/quantile.ts";
import { interpret, ReferenceDevice } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";

const all = { ...devices, "the interpreter": () => Promise.resolve(new ReferenceDevice()) };

/** Three rows of 48 numbers, and what torch.quantile (1.13, double precision) finds in them. */
const rows = Float64Array.from(
  { length: 3 * 48 },
  (_, j) => {
    const k = Math.floor(j / 48), i = j % 48;
    return 3 * Math.sin(1.7 * i + k) * Math.cos(0.3 * i * k);
  },
);
const torch: readonly (readonly [ratio: number, ...found: number[]])[] = [
  [0.5, 0.061039886024797284, 0.0017732565444724471, -0.002011737896733236],
  [0.9, 2.8293642968067436, 2.0337999654975465, 2.341917493700256],
  [0.995, 2.993648397196416, 2.847106115249275, 2.7371209754335397],
];

Deno.test("a quantile is the one that PyTorch finds", () => {
  for (const [ratio, ...expected] of torch) {
    const graph = makeGraph({ q: quantile(input("x", [3, 48]), ratio) });
    assertClose(interpret(graph, { x: rows }).q, expected, 1e-12, `${ratio}`);
  }
});

/** Rows of four with what is between 0.5 of the way between the second and the third, and exactly the third. */
const special: readonly (readonly [row: readonly number[], between: number, third: number])[] = [
  [[NaN, 1, 2, 3], NaN, NaN],
  [[1, 2, 3, -NaN], NaN, NaN],
  [[-Infinity, -Infinity, 2, Infinity], -Infinity, 2],
  [[Infinity, 1, -1, Infinity], Infinity, Infinity],
  [[0, -0, 0, -0], 0, 0],
  [[-1e-30, 1e-30, -3, 3], 0, 1e-30],
  [[3e38, -3e38, 1, 1], 1, 1],
  [[5, 5, 5, 7], 5, 5],
];

for (const [kind, open] of Object.entries(all)) {
  Deno.test(`quantiles of what is not finite, tiny or equal, on ${kind}`, async () => {
    using device = await open();
    const x = input("x", [special.length, 4]);
    const graph = makeGraph({ between: quantile(x, 0.5), third: quantile(x, 2 / 3) });
    using program = await device.compile(graph);
    program.buffers.x.write(special.flatMap(([row]) => row));
    program.run();
    const [between, third] = [
      await program.buffers.between.read(),
      await program.buffers.third.read(),
    ];
    special.forEach(([row, ...expected], i) => {
      [between[i], third[i]].forEach((found, k) => {
        if (Number.isFinite(expected[k])) {
          const error = Math.abs(found - expected[k]);
          assert(error <= 1e-6 * Math.abs(expected[k]), `${found} of ${row}, not ${expected[k]}`);
        } else assertEquals(found, expected[k], `${row}`);
      });
    });
  });
}

Deno.test("a quantile is of floats, in a row that has as many", () => {
  assertThrows(() => quantile(input("x", [3, 4]), 1.5), RangeError, "value 4");
  assertThrows(() => quantile(input("x", [3, 4]), -0.5), RangeError);
  assertThrows(() => quantile(input("x", [3, 4], "i32"), 0.5), TypeError, "integers");
});
