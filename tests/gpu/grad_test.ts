import { assert, assertEquals } from "@std/assert";
import { grad, type Segment } from "../../src/gpu/grad.ts";
import { ancestorsOf, makeGraph } from "../../src/gpu/graph.ts";
import { mean } from "../../src/gpu/ops/sum.ts";
import { square } from "../../src/gpu/ops/map.ts";
import { simplify } from "../../src/gpu/compile/simplify.ts";
import { input } from "../../src/gpu/tensor.ts";
import { viewParameters } from "../../src/model/parameters.ts";
import type { SegmentKind } from "../../src/model/network.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";
import { randomModel, smallNetwork } from "../networks.ts";
import { Random } from "../random.ts";

const network = smallNetwork(), model = randomModel(network), { layout } = network;
const shape = [8, 16, 16, 1];

/** The loss of a network and its gradients, which compute again what lies within some segments. */
function build(again?: SegmentKind) {
  const flat = input("parameters", [layout.size]), parameter = viewParameters(layout, [flat]);
  const segments: Segment[] = [];
  const prediction = network.forward({
    parameter,
    onSegment: (kind, segment) => kind === again && segments.push(segment),
  }, {
    ...{ sample: input("sample", shape), timestep: input("timestep", [shape[0]]) },
    conditions: {},
  });
  const loss = mean(square(prediction));
  const [gradient] = grad(loss, [flat], segments);
  return { graph: makeGraph({ gradient }), segments };
}

for (
  const name of ["this GPU", "a GPU without subgroups", "a CPU with three threads, above 2 GiB"]
) {
  Deno.test(`gradients that recompute what they need are the same and take less memory, on ${name}`, async () => {
    using device = await devices[name]();
    const random = new Random("grad");
    const sample = Float32Array.from(
      { length: shape.reduce((a, b) => a * b) },
      () => random.between(-1, 1),
    );
    const results = [], memory = [];
    for (const again of [undefined, "attention", "block"] as const) {
      const { graph } = build(again);
      using program = await device.compile(graph);
      program.buffers.parameters.write(model.parameters);
      program.buffers.sample.write(sample);
      program.buffers.timestep.write(new Float32Array(shape[0]).fill(500));
      program.run();
      memory.push(program.memory);
      const values = await Promise.all(
        Object.keys(graph.outputs).map((o) => program.buffers[o].read()),
      );
      results.push(values.flatMap((v) => [...v]));
    }
    for (const result of results.slice(1)) assertClose(result, results[0], 1e-6);
    const [all, most, few] = memory;
    assert(most < 0.98 * all && few < 0.8 * all, `${all}, ${most} and ${few} bytes`);
  });
}

Deno.test("nothing is computed twice but what lies within segments", () => {
  const count = (again?: SegmentKind) => {
    const { graph, segments } = build(again), { outputs } = simplify(graph);
    const nodes = ancestorsOf(Object.values(outputs));
    const numberOf = (op: string) => nodes.filter((n) => n.op.name === op).length;
    const [convolutions, softmaxes] = ["conv2d", "softmax"].map(numberOf);
    return { segments: segments.length, convolutions, softmaxes };
  };
  const none = count(), attention = count("attention"), block = count("block");
  assertEquals(none.segments, 0);
  assertEquals(attention.convolutions, none.convolutions);
  // All but the one in the middle.
  assertEquals(attention.segments, none.softmaxes - 1);
  assertEquals(attention.softmaxes, none.softmaxes + attention.segments);
  assertEquals(block.softmaxes, 2 * none.softmaxes);
  assert(block.convolutions > 1.4 * none.convolutions, JSON.stringify({ none, block }));
});
