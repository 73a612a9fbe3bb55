import { assert, assertEquals } from "@std/assert";
import { makeGraph } from "../../src/gpu/graph.ts";
import { conv2d, same } from "../../src/gpu/ops/conv2d.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { timeDispatches } from "../../src/gpu/wgsl/profile.ts";
import { candidatesOf, Tuner } from "../../src/gpu/wgsl/tuner.ts";
import { assertClose } from "../close.ts";
import { openGpu } from "../device.ts";
import { Random } from "../random.ts";

const x = input("x", [1, 8, 8, 16]), w = input("w", [3, 3, 16, 16]);
const graph = makeGraph({ y: conv2d(x, w, undefined, same(3)) });
const random = new Random("tuner");
const numbers = (length: number) =>
  Float64Array.from({ length }, () => Math.fround(random.between(-1, 1)));
const data = { x: numbers(8 * 8 * 16), w: numbers(9 * 16 * 16) };

/** How long a candidate takes, in milliseconds, in a round of measuring. */
type Clock = (candidate: string, round: number) => number;

/** What the convolution gives on a GPU that goes by these choices, and what it chose itself. */
async function run(choices: Record<string, string>, clock?: Clock) {
  const made: Record<string, string> = {};
  const onChoice = (key: string, choice: string) => made[key] = choice;
  using device = await openGpu();
  const names = candidatesOf(graph.outputs.y, device.target).map(({ name }) => name);
  let calls = 0;
  // Candidates are measured in turns.
  const time: typeof timeDispatches = (gpu, label, dispatches) => {
    const call = calls++, name = names[call % names.length];
    if (!clock) return timeDispatches(gpu, label, dispatches);
    const ms = clock(name, Math.floor(call / names.length)) / dispatches.length;
    return Promise.resolve(dispatches.map(() => ms));
  };
  Object.assign(device, { tuner: new Tuner(device, { choices, onChoice }, time) });
  using program = await device.compile(graph);
  for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
  program.run();
  return { y: await program.buffers.y.read(), made, names, calls };
}

Deno.test("a GPU measures what it has no choice for, once", async () => {
  const { y, made, names, calls } = await run({}),
    [[key, choice], ...others] = Object.entries(made);
  assertClose(y, interpret(graph, data).y, 2e-5);
  assertEquals(others, []);
  assert(key.includes(": conv2d [1, 8, 8, 16] [3, 3, 16, 16] [1, 8, 8, 16]"), key);
  assert(names.includes(choice), choice);
  assert(calls > names.length, `${calls} measurements`);
  assertEquals(await run(made), { y, made: {}, names, calls: 0 });
});

Deno.test("a GPU chooses the kernels that are the fastest, whichever they are", async () => {
  const { names } = await run({});
  assert(names.some((name) => name.startsWith("winograd, ")), `${names}`);
  assert(names.some((name) => name.startsWith("implicit product, ")), `${names}`);
  const results = new Map<string, ArrayLike<number>>();
  for (const fastest of names) {
    const { y, made } = await run({}, (name) => name === fastest ? 1 : 2);
    assertEquals(Object.values(made), [fastest]);
    assertClose(y, interpret(graph, data).y, 2e-5, fastest);
    // What was chosen is what runs.
    assertEquals((await run(made)).y, y);
    results.set(fastest, y);
  }
  const [winograd, product] = ["winograd", "implicit product"].map((variant) =>
    Array.from(results.get(names.find((name) => name.startsWith(variant))!)!)
  );
  assert(winograd.some((v, i) => v !== product[i]), "both give the same bits");
});

Deno.test("a measurement is the fastest of its rounds, but for the first, which compiles", async () => {
  const { names } = await run({}), last = names.at(-1)!;
  const choiceBy = async (clock: Clock) => Object.values((await run({}, clock)).made);
  assertEquals(await choiceBy((name, round) => name === last && round === 3 ? 1 : 2), [last]);
  assertEquals(await choiceBy((name, round) => name === last && round === 0 ? 9 : 2), [names[0]]);
  assertEquals(await choiceBy((name, round) => name === last && round === 0 ? 1 : 2), [names[0]]);
  // A clock that shows nothing tells of no time, not of the shortest.
  assertEquals(await choiceBy(() => 0), [names[0]]);
  assertEquals(await choiceBy((name) => name === last ? 5 : 0), [last]);
});

Deno.test("a GPU does not follow choices that it does not know", async () => {
  const { made: first } = await run({}), [key] = Object.keys(first);
  const { made } = await run({ [key]: "guesswork", "of another adapter": "winograd" });
  assertEquals(Object.keys(made), [key]);
});

Deno.test("a GPU without tuning goes by rules, which are against transforms of few channels", async () => {
  const { made, names } = await run({}), [key] = Object.keys(made);
  using device = await openGpu();
  using program = await device.compile(graph);
  for (const [name, values] of Object.entries(data)) program.buffers[name].write(values);
  program.run();
  const y = await program.buffers.y.read(), same: string[] = [];
  for (const name of names) {
    if ((await run({ [key]: name })).y.every((v, i) => v === y[i])) same.push(name);
  }
  assert(same.length && same.every((name) => name.startsWith("implicit product")), `${same}`);
});
