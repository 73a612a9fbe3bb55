import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { attention } from "../../src/gpu/ops/attention.ts";
import { causalAttention } from "../../src/gpu/ops/causal_attention.ts";
import { concat } from "../../src/gpu/ops/concat.ts";
import { mul } from "../../src/gpu/ops/map.ts";
import { sum } from "../../src/gpu/ops/sum.ts";
import { slice } from "../../src/gpu/ops/view.ts";
import { constant, input } from "../../src/gpu/tensor.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";
import { Random } from "../random.ts";

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`${kind}: causal attention is that of each query to what is before it`, async () => {
    const shape = [2, 3, 7, 4], [q, k, v] = ["q", "k", "v"].map((name) => input(name, shape));
    const rows = Array.from({ length: 7 }, (_, i) => {
      const [own, keys, values] = [slice(q, 2, i, 1), slice(k, 2, 0, i + 1), slice(v, 2, 0, i + 1)];
      return attention(own, keys, values);
    });
    const weights = constant(Array.from({ length: 168 }, (_, i) => Math.sin(i + 1)), shape);
    const outputs = [causalAttention(q, k, v), concat(rows, 2)].map((y) => [
      y,
      ...grad(sum(mul(y, weights)), [q, k, v]),
    ]);
    const names = ["y", "dq", "dk", "dv"];
    const graph = makeGraph(Object.fromEntries(
      outputs.flatMap((tensors, i) => tensors.map((x, j) => [`${names[j]}${i}`, x])),
    ));
    using device = await open();
    using program = await device.compile(graph);
    const random = new Random("causal");
    for (const name of ["q", "k", "v"]) {
      const { length } = program.buffers[name];
      program.buffers[name].write(Float32Array.from({ length }, () => random.between(-4, 4)));
    }
    program.run();
    for (const name of names) {
      const [own, expected] = [0, 1].map((i) => program.buffers[`${name}${i}`].read());
      assertClose(await own, await expected, 1e-5);
    }
  });
}
