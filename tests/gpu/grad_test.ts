import { assert, assertEquals } from "@std/assert";
import { grad } from "../../src/gpu/grad.ts";
import { ancestorsOf, makeGraph } from "../../src/gpu/graph.ts";
import { mean } from "../../src/gpu/ops/sum.ts";
import { square } from "../../src/gpu/ops/map.ts";
import { simplify } from "../../src/gpu/simplify.ts";
import { input, type Tensor } from "../../src/gpu/tensor.ts";
import { sourceOf, viewParameters } from "../../src/model/parameters.ts";
import { parameterLayout, unet } from "../../src/model/unet.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";
import { randomModel, smallConfig } from "../networks.ts";
import { Random } from "../random.ts";

const model = randomModel(smallConfig()), { config } = model, layout = parameterLayout(config);
const shape = [8, 16, 16, config.inChannels];

/** The loss of a network and its gradients, keeping all tensors or only those between blocks. */
function build(keepsAll: boolean) {
  const flat = input("parameters", [layout.size]), views = viewParameters(layout, flat);
  const blocks: Tensor[] = [];
  const loss = mean(square(unet(config, sourceOf(views), {
    ...{ sample: input("sample", shape), timestep: input("timestep", [shape[0]]) },
    onBlock: (h) => blocks.push(h),
  })));
  const [gradient] = grad(loss, [flat], keepsAll ? [] : blocks);
  return { graph: makeGraph({ gradient }), blocks };
}

for (const name of ["this GPU", "a GPU without subgroups", "a CPU with three threads"]) {
  Deno.test(`gradients that recompute what they need are the same and take less memory, on ${name}`, async () => {
    using device = await devices[name]();
    const random = new Random("grad");
    const sample = Float32Array.from(
      { length: shape.reduce((a, b) => a * b) },
      () => random.between(-1, 1),
    );
    const results = [], memory = [];
    for (const keepsAll of [true, false]) {
      const { graph } = build(keepsAll);
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
    assertClose(results[1], results[0], 1e-6);
    assert(memory[1] < 0.8 * memory[0], `${memory[1]} bytes are not much less than ${memory[0]}`);
  });
}

Deno.test("without checkpoints nothing is computed twice, with them all but the checkpoints is", () => {
  const count = (keepsAll: boolean) => {
    const { graph, blocks } = build(keepsAll), { outputs } = simplify(graph);
    const nodes = ancestorsOf(Object.values(outputs));
    return {
      convolutions: nodes.filter((n) => n.op.name === "conv2d").length,
      blocks: blocks.length,
    };
  };
  const all = count(true), few = count(false);
  assertEquals(all.blocks, few.blocks);
  assert(few.convolutions > 1.4 * all.convolutions, `${few.convolutions} of ${all.convolutions}`);
});
