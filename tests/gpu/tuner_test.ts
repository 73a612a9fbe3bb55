import { assert, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { GpuDevice } from "../../src/gpu/wgsl/device.ts";
import { assertClose } from "../close.ts";
import { openGpu } from "../device.ts";
import { Random } from "../random.ts";

const x = input("x", [1, 8, 8, 16]), w = input("w", [3, 3, 16, 16]);
const graph = makeGraph({ y: conv2d(x, w, undefined, same(3)) });
const random = new Random("tuner");
const numbers = (length: number) =>
  Float64Array.from({ length }, () => Math.fround(random.between(-1, 1)));
const data = { x: numbers(8 * 8 * 16), w: numbers(9 * 16 * 16) };

/** What the convolution gives on a GPU that goes by these choices, and what it chose itself. */
async function run(choices: Record<string, string>) {
  const made: Record<string, string> = {};
  const { device: raw } = await openGpu();
  const onChoice = (key: string, choice: string) => made[key] = choice;
  using device = new GpuDevice(raw, { choices, onChoice });
  using program = await device.compile(graph);
  for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
  program.run();
  return { y: await program.buffers.y.read(), made };
}

Deno.test("a GPU measures what it has no choice for, once", async () => {
  const { y, made } = await run({}), [[key, choice], ...others] = Object.entries(made);
  assertClose(y, interpret(graph, data).y, 2e-5);
  assertEquals(others, []);
  assert(key.includes(": conv2d [1, 8, 8, 16] [3, 3, 16, 16] [1, 8, 8, 16]"), key);
  assert(/^(winograd|implicit product), /.test(choice), choice);
  assertEquals(await run(made), { y, made: {} });
});

Deno.test("a GPU follows choices, but for those that it does not know", async () => {
  const [[key, choice]] = Object.entries((await run({})).made), tile = choice.split(", ")[1];
  const winograd = await run({ [key]: `winograd, ${tile}` });
  const product = await run({ [key]: `implicit product, ${tile}` });
  assertEquals([winograd.made, product.made], [{}, {}]);
  assert(winograd.y.some((v, i) => v !== product.y[i]), "both give the same bits");
  const { made } = await run({ [key]: "guesswork", "of another adapter": "winograd" });
  assertEquals(Object.keys(made), [key]);
});

Deno.test("a GPU without tuning goes by rules, which are against transforms of few channels", async () => {
  const [[key, choice]] = Object.entries((await run({})).made);
  const { y } = await run({ [key]: `implicit product, ${choice.split(", ")[1]}` });
  using device = await openGpu();
  using program = await device.compile(graph);
  for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
  program.run();
  assertEquals(await program.buffers.y.read(), y);
});
