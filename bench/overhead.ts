// deno-lint-ignore-file no-console -- printing is what it does
/**
 * What sampling methods take outside the network: the time of a step whose network is the identity,
 * beside that of a whole step, on the model of MNIST that comes with the package:
 *
 *     deno task bench:overhead [--methods ddpm,dpmpp_2m] [--batch 16] [--device cpu] [--threads N]
 *
 * Both are taken in turns, and the best counts, since other work on a machine only ever adds.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { add } from "../src/gpu/expression.ts";
import type { Device, Program } from "../src/gpu/device.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { map } from "../src/gpu/ops/map.ts";
import { randomNormal, type RandomState } from "../src/gpu/ops/random.ts";
import { constant, input } from "../src/gpu/tensor.ts";
import type { Model } from "../src/model/model.ts";
import { flatten } from "../src/model/parameters.ts";
import { fetchModel } from "../src/model/pretrained.ts";
import { denoiserFrom, limited } from "../src/diffusion/denoiser.ts";
import { denoiserOf } from "../src/model/denoiser.ts";
import { type MethodName, methods } from "../src/sample/solvers/mod.ts";
import { encodeTable, samplingStep, tableLayout } from "../src/sample/step.ts";
import { makeUpdateTable } from "../src/sample/timesteps.ts";

/** Steps of a run, and how often each program is measured. */
const STEPS = 20, ROUNDS = 15;

/** A step of a method with the network or with the identity in its place. */
async function compile(
  device: Device,
  model: Model,
  method: MethodName,
  batch: number,
  whole: boolean,
) {
  const denoiser = denoiserOf(model), shape = [batch, ...denoiser.itemShape], x = input("x", shape);
  const index = input("index", [1], "i32"), first = input("first", [1], "i32");
  const random: RandomState = { seed: input("seed", [2], "i32"), first, step: index };
  const { schedule } = denoiser;
  const asked = whole ? denoiser : denoiserFrom((x) => x, denoiser);
  const plan = makeUpdateTable(methods[method], schedule, STEPS, {}), layout = tableLayout(plan);
  const updates = samplingStep(
    (query) => limited(asked).estimate({ ...query, random, conditions: {} }),
    layout,
    { x, index, table: constant(encodeTable(layout, plan), [STEPS, layout.columns.length]) },
    () => randomNormal(shape, random, 2),
  );
  const next = map([index], (i) => add(i, 1), "i32");
  const program = await device.compile(makeGraph({}, [...updates, [index, next]]), {
    constant: ["parameters"],
  });
  program.buffers.parameters?.write(flatten(model.network.layout, model.parameters));
  return program;
}

/** Milliseconds of an evaluation, over so many. */
async function measure(device: Device, program: Program, times: number): Promise<number> {
  program.buffers.index.write([0]);
  const began = performance.now();
  program.run(times);
  await device.idle();
  return (performance.now() - began) / times;
}

const flags = parseArgs(Deno.args, { string: ["methods", "batch", "device", "threads"] });
const batch = Number(flags.batch ?? 16), model = await fetchModel("mnist-unconditional");
using device = await openDevice((flags.device ?? "auto") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
console.log(`${device.name}, ${batch} images, milliseconds an evaluation:`);
const row = (...cells: string[]) =>
  console.log(cells.map((c, i) => i ? c.padStart(12) : c.padEnd(18)).join(""));
row("", "outside", "all", "share");
for (const method of String(flags.methods ?? Object.keys(methods)).split(",") as MethodName[]) {
  using identity = await compile(device, model, method, batch, false);
  using whole = await compile(device, model, method, batch, true);
  let outside = Infinity, all = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    outside = Math.min(outside, await measure(device, identity, STEPS));
    all = Math.min(all, await measure(device, whole, 4));
  }
  row(method, outside.toFixed(3), all.toFixed(2), `${(100 * outside / all).toFixed(2)} %`);
}
