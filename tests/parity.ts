// deno-lint-ignore-file no-console -- It is a program, too.
/**
 * Compares this project with PyTorch and diffusers: runs every case below a folder laid out like
 * `tests/fixtures` and prints the worst relative error of each.
 *
 *     deno task parity [--device auto|gpu|cpu] [--only unet-condition/sd-like] DIR...
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import * as e from "../src/gpu/expression.ts";
import type { Device } from "../src/gpu/device.ts";
import { grad } from "../src/gpu/grad.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { gather } from "../src/gpu/ops/gather.ts";
import { map, square, sub } from "../src/gpu/ops/map.ts";
import { mean } from "../src/gpu/ops/sum.ts";
import { reshape, slice } from "../src/gpu/ops/view.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { sizeOf } from "../src/shape.ts";
import { constant, input } from "../src/gpu/tensor.ts";
import {
  byName,
  compare,
  compareGradients,
  type Comparison,
  readJson,
  readTensors,
  relativeNorm,
} from "./comparison.ts";
import { compareAutoencoder } from "./autoencoders.ts";
import { comparePipeline } from "./pipelines.ts";
import { compareText, compareTokens } from "./texts.ts";
import { compareUNetCondition } from "./unet_condition.ts";
import { channelsLast, goldenModels, ioOf, predictGolden } from "./families.ts";
import { formulaWeights } from "./formula.ts";
import { parseNetwork } from "../src/model/network.ts";
import { denoisingNetwork } from "../src/model/denoiser.ts";
import { denoiserFrom, limited } from "../src/diffusion/denoiser.ts";
import { assembleModel } from "../src/model/model.ts";
import { parametersFrom } from "../src/model/tensors.ts";
import { flatten, viewParameters } from "../src/model/parameters.ts";
import { type FileTensor, toFloat32 } from "../src/formats/safetensors.ts";
import { type NoiseLevel, NoiseSchedule, parseSchedule } from "../src/diffusion/schedule.ts";
import "../src/model/unet.ts";
import { makeDdim } from "../src/sample/solvers/ddim.ts";
import { makeDeis } from "../src/sample/solvers/deis.ts";
import { makeDpm } from "../src/sample/solvers/dpmpp.ts";
import type { Solver } from "../src/sample/solver.ts";
import { makePndm } from "../src/sample/solvers/pndm.ts";
import { methods } from "../src/sample/solvers/mod.ts";
import { encodeTable, samplingStep, tableLayout } from "../src/sample/step.ts";
import { makeUniPc } from "../src/sample/solvers/unipc.ts";
import { makeUpdateTable } from "../src/sample/timesteps.ts";
import { SIMPLE } from "../src/train/objective.ts";
import { encodeRates, HISTORY, ROW, trainingStep } from "../src/train/step.ts";

async function compareUNet(device: Device, folder: string): Promise<Comparison[]> {
  const fields = await readJson(join(folder, "config.json"));
  const network = denoisingNetwork({ network: parseNetwork(fields) });
  const io = await readTensors(join(folder, "io.safetensors"));
  const golden = await readTensors(join(folder, "grads.safetensors"));
  const weights = await readTensors(join(folder, "diffusion_pytorch_model.safetensors"));
  const { layout } = network, flat = flatten(layout, parametersFrom(layout, weights, folder));
  const sample = channelsLast(io.get("sample")!), output = channelsLast(io.get("output")!);
  const target = channelsLast(golden.get("target")!), labels = io.get("class_labels");

  const parameters = input("parameters", [layout.size]);
  const parameter = viewParameters(layout, [parameters]);
  const { labels: condition } = network.conditions(sample.shape.slice(1));
  const prediction = network.forward({ parameter }, {
    sample: input("sample", sample.shape),
    timestep: input("timestep", [sample.shape[0]]),
    conditions: labels ? { labels: input("labels", labels.shape, condition.dtype) } : {},
  });
  const loss = mean(square(sub(prediction, input("target", target.shape))));
  const [gradient] = grad(loss, [parameters]);
  using program = await device.compile(makeGraph({ prediction, loss, gradient }), {
    label: folder,
  });
  const { buffers } = program;
  buffers.parameters.write(flat);
  buffers.sample.write(sample.values);
  buffers.timestep.write(toFloat32(io.get("timestep")!));
  buffers.target.write(target.values);
  if (labels) buffers.labels.write(toFloat32(labels));
  program.run();

  const actual = byName(layout, Float32Array.from(await buffers.gradient.read()));
  const pairs = layout.specs.filter((s) => s.isTrained).map(({ name }) => ({
    name,
    actual: actual.get(name)!,
    expected: toFloat32(golden.get(name)!),
  }));
  return [
    compare(`${folder} output`, 1e-4, [
      { name: "output", actual: await buffers.prediction.read(), expected: output.values },
      { name: "loss", actual: await buffers.loss.read(), expected: toFloat32(golden.get("loss")!) },
    ]),
    compareGradients(folder, pairs),
  ];
}

interface TrainLog {
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
  max_grad_norm: number;
  ema_decay: number;
  loss: number[];
  grad_norm: number[];
}

async function compareTraining(device: Device, folder: string): Promise<Comparison[]> {
  const network = denoisingNetwork({
    network: parseNetwork(await readJson(join(folder, "config.json"))),
  });
  const log: TrainLog = await readJson(join(folder, "log.json"));
  const batches = await readTensors(join(folder, "batches.safetensors"));
  const { layout } = network;
  const flat = flatten(
    layout,
    parametersFrom(layout, await readTensors(join(folder, "initial.safetensors")), folder),
  );
  const [steps, n, c, h, w] = batches.get("x0")!.shape, shape = [n, h, w, c];
  const labels = batches.get("class_labels");
  const settings = {
    ...{ betas: log.betas, eps: log.eps, weightDecay: log.weight_decay },
    ...{ maxGradNorm: log.max_grad_norm, optimizer: "adamw" as const, precision: "f32" as const },
  };
  const batch = {
    images: input("images", shape),
    noise: input("noise", shape),
    timesteps: input("timesteps", [n], "i32"),
    ...(labels ? { conditions: { labels: input("labels", [n], "i32") } } : {}),
  };
  const spec = {
    objective: SIMPLE,
    network,
    schedule: parseSchedule({}),
    batch,
    images: n,
  };
  const graph = trainingStep(spec, settings);
  using program = await device.compile(graph, { label: folder });
  const { buffers } = program;
  for (const name of ["parameters", "ema"]) buffers[name].write(flat);
  const stepOf = (name: string, step: number): FileTensor => {
    const { dtype, shape, bytes } = batches.get(name)!, each = bytes.length / steps;
    return { dtype, shape: shape.slice(1), bytes: bytes.subarray(step * each, (step + 1) * each) };
  };
  for (let step = 0; step < steps; step++) {
    buffers.images.write(channelsLast(stepOf("x0", step)).values);
    buffers.noise.write(channelsLast(stepOf("noise", step)).values);
    buffers.timesteps.write(toFloat32(stepOf("timestep", step)));
    if (labels) buffers.labels.write(toFloat32(stepOf("class_labels", step)));
    const rates = { learningRate: log.lr, emaDecay: log.ema_decay, step };
    buffers.rates.write(encodeRates(rates, settings));
    program.run();
  }
  const history = await buffers.history.read(0, ROW * Math.min(steps, HISTORY));
  const pick = (column: number) => log.loss.map((_, i) => history[ROW * i + column]);
  const weights = async (name: string, file: string) => {
    const actual = byName(layout, await buffers[name].read() as Float32Array<ArrayBuffer>);
    const expected = await readTensors(join(folder, file));
    return [...actual].map(([name, values]) => ({
      name,
      actual: values,
      expected: toFloat32(expected.get(name)!),
    }));
  };
  // Where a gradient is as small as Adam's eps, float32 decides by its last bits where the weight
  // goes: PyTorch's own float32 run ends 1.3e-3 away from its float64 run at one weight of 181,000
  // of the `mnist-like` case. Weights are therefore compared tensor by tensor, in norm.
  const final = await weights("parameters", "final.safetensors");
  const average = await weights("ema", "ema.safetensors");
  return [
    compare(`${folder} losses`, 1e-4, [
      { name: "loss", actual: pick(0), expected: log.loss },
      { name: "gradient norm", actual: pick(1), expected: log.grad_norm },
    ]),
    compare(`${folder} final weights`, 1e-3, final, relativeNorm),
    compare(`${folder} moving average`, 1e-3, average, relativeNorm),
  ];
}

interface Trace {
  scheduler: string;
  config: Record<string, unknown>;
  num_inference_steps: number;
  step_kwargs: { eta?: number; use_clipped_model_output?: boolean };
  shape: number[];
  timesteps: number[];
  x_init: number[];
  noise: number[][];
  x: number[][];
  kept_steps?: number[];
  betas?: number[];
  alphas_cumprod?: number[];
}

/** The method that is called so in diffusers, as configured there; fields are those of its files. */
function methodOf({ scheduler, config, step_kwargs }: Trace): Solver {
  const order = (config.solver_order ?? 2) as 1 | 2 | 3;
  const lowerOrderFinal = (config.lower_order_final ?? true) as boolean;
  switch (scheduler) {
    case "DDPMScheduler":
      return methods.ddpm;
    case "DDIMScheduler":
      return makeDdim(step_kwargs.use_clipped_model_output ?? false);
    case "PNDMScheduler":
      return config.skip_prk_steps ? methods.plms : makePndm(true);
    case "LMSDiscreteScheduler":
      return methods.lms;
    case "EulerDiscreteScheduler":
    case "EDMEulerScheduler":
    case "FlowMatchEulerDiscreteScheduler":
      return methods.euler;
    case "EulerAncestralDiscreteScheduler":
      return methods.euler_ancestral;
    case "HeunDiscreteScheduler":
      return methods.heun;
    case "KDPM2DiscreteScheduler":
      return methods.dpm_2;
    case "KDPM2AncestralDiscreteScheduler":
      return methods.dpm_2_ancestral;
    case "DEISMultistepScheduler":
      return makeDeis(order, lowerOrderFinal);
    case "UniPCMultistepScheduler":
      return makeUniPc({
        ...{ order, lowerOrderFinal },
        solver: (config.solver_type ?? "bh2") as "bh1" | "bh2",
        predicts: config.predict_x0 ?? true ? "sample" : "epsilon",
        uncorrected: (config.disable_corrector ?? []) as number[],
      });
    case "DPMSolverMultistepScheduler": {
      const algorithm = String(config.algorithm_type ?? "dpmsolver++");
      return makeDpm("dpm", "", order, {
        ...{ order, lowerOrderFinal, isHalved: true },
        isStochastic: algorithm.startsWith("sde"),
        predicts: algorithm.endsWith("++") ? "sample" : "epsilon",
        isMidpoint: (config.solver_type ?? "midpoint") === "midpoint",
      });
    }
    default:
      throw new Error(`There is no case for ${scheduler}`);
  }
}

/** What a class of diffusers 0.20 does beside what its configuration says. */
function fieldsOf({ scheduler, config }: Trace): Record<string, unknown> {
  const clips = /^(DDPM|DDIM|Heun)/.test(scheduler), solves = /^(DPM|DEIS|UniPC)/.test(scheduler);
  return {
    _class_name: scheduler,
    ...(clips ? {} : { clip_sample: false }),
    ...(solves ? { final_sigmas_type: "sigma_min" } : {}),
    ...config,
  };
}

async function compareSchedule(device: Device, path: string): Promise<Comparison[]> {
  const trace: Trace = await readJson(path), name = path;
  if (!trace.scheduler) {
    const schedule = new NoiseSchedule(parseSchedule(trace.config));
    return [compare(`${name}`, 1e-4, [
      { name: "betas", actual: schedule.betas, expected: trace.betas! },
      { name: "alphas", actual: schedule.alphasCumprod, expected: trace.alphas_cumprod! },
    ])];
  }
  const method = methodOf(trace), config = parseSchedule(fieldsOf(trace));
  const plan = makeUpdateTable(method, new NoiseSchedule(config), trace.num_inference_steps, {
    // Version 0.20 rounds the levels of Karras to timesteps.
    ...(trace.config.use_karras_sigmas
      ? { timesteps: trace.timesteps }
      : trace.config.timestep_spacing
      ? { spacing: config.timestepSpacing }
      : {}),
    ...(trace.step_kwargs.eta === undefined ? {} : { eta: trace.step_kwargs.eta }),
  });
  // What moves along the probability flow is x_0 + σ ε in diffusers, and here √ᾱ times that; along a
  // straight one it is (1 - t) x_0 + t ε.
  const scaleOf = ({ alpha, sigma }: NoiseLevel) =>
    method.kind !== "continuous" ? 1 : config.betaSchedule === "flow" ? alpha + sigma : alpha;
  const scaleAfter = (i: number) => plan[i + 1] ? 1 / scaleOf(plan[i + 1].at) : 1;
  const [n, c, h, w] = trace.shape, shape = [n, h, w, c], size = sizeOf(shape);
  const toLast = (values: number[], scale = 1) => {
    const bytes = new Uint8Array(new Float32Array(values.map((v) => v * scale)).buffer);
    return channelsLast({ dtype: "F32", shape: trace.shape, bytes }).values;
  };
  const x = input("x", shape), index = input("index", [1], "i32");
  // Of two evaluations a step, the second draws the noise.
  const draws = plan.filter(({ next }) => next.x.noise !== undefined);
  const drawn = plan.map((e) => toLast(trace.noise[draws.indexOf(e)] ?? new Array(size).fill(0)));
  const noise = constant(Float32Array.from(drawn.flatMap((d) => [...d])), [plan.length, size]);
  const layout = tableLayout(plan), zero = constant(new Int32Array(2));
  const random = { seed: zero, first: slice(zero, 0, 0, 1), step: index };
  const denoiser = limited(denoiserFrom(
    (x, t) =>
      map(
        [x, reshape(t, [n, 1, 1, 1])],
        (x, t) => e.add(e.mul(e.tanh(x), e.cos(e.div(t, 300))), e.mul(x, 0.1)),
      ),
    { schedule: new NoiseSchedule(config), itemShape: shape.slice(1) },
  ));
  const updates = samplingStep(
    (query) => denoiser.estimate({ ...query, random, conditions: {} }),
    layout,
    { x, index, table: constant(encodeTable(layout, plan), [plan.length, layout.columns.length]) },
    () => reshape(gather(noise, index), shape),
  );
  const graph = makeGraph({}, [...updates, [index, map([index], (i) => e.add(i, 1), "i32")]]);
  using program = await device.compile(graph, { label: name });
  program.buffers.x.write(toLast(trace.x_init, scaleOf(plan[0].at)));
  const kept = trace.kept_steps ?? trace.x.map((_, i) => i), pairs = [];
  let done = 0;
  for (const [i, step] of kept.entries()) {
    program.run(step + 1 - done);
    done = step + 1;
    const actual = (await program.buffers.x.read()).map((v) => v * scaleAfter(step));
    pairs.push({ name: `step ${step}`, actual, expected: toLast(trace.x[i]) });
  }
  return [
    compare(`${name} timesteps`, 1e-6, [
      { name: "timesteps", actual: plan.map(({ at }) => at.time), expected: trace.timesteps },
    ]),
    compare(name, 1e-4, pairs),
  ];
}

/** A model of another project in all of its files. */
async function compareFamily(device: Device, folder: string): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  if ((await Deno.stat(folder)).isFile) return comparisons;
  for await (const { path, model, io } of goldenModels(folder)) {
    const output = await predictGolden(device, model, io);
    comparisons.push(compare(path, 1e-4, [{ name: "output", ...output }]));
  }
  return comparisons;
}

/** A network of a published size, whose weights a formula gives. */
async function comparePublished(device: Device, folder: string): Promise<Comparison[]> {
  const network = parseNetwork(await readJson(join(folder, "config.json")));
  const model = assembleModel(network, parseSchedule({}), formulaWeights(network), folder);
  const io = ioOf(await readTensors(join(folder, "io.safetensors")));
  return [
    compare(folder, 1e-4, [{ name: "output", ...await predictGolden(device, model, io) }]),
  ];
}

/** Cases that take gigabytes and minutes, and are run only if they are named. */
const LARGE = ["autoencoder/formula-sd15", "unet-condition/formula-sd15"];

/** Whether a case is run though nobody named it. */
export const isUsual = (id: string): boolean => !LARGE.includes(id);

/**
 * Runs every case below a folder.
 *
 * @param takes Whether a case is run, by its name, as `unet-condition/sd-like`.
 */
export async function* compareAll(
  device: Device,
  folder: string,
  takes = isUsual,
): AsyncGenerator<Comparison> {
  const kinds = [
    ["adm", compareFamily],
    ["lucidrains", compareFamily],
    ["ddpm-original", compareFamily],
    ["unet", compareUNet],
    ["unet-condition", compareUNetCondition],
    ["autoencoder", compareAutoencoder],
    ["published", comparePublished],
    ["train", compareTraining],
    ["schedulers", compareSchedule],
    ["clip", compareText],
    ["tokenizer", compareTokens],
    ["pipelines", comparePipeline],
  ] as const;
  for (const [kind, run] of kinds) {
    const entries: string[] = [];
    try {
      for await (const { name } of Deno.readDir(join(folder, kind))) entries.push(name);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue;
      throw error;
    }
    // A kind may be a single case.
    const cases = entries.includes("config.json") ? ["."] : entries.sort();
    for (const name of cases) {
      const id = `${kind}/${name}`;
      if (!takes(id)) continue;
      yield* await run(device, join(folder, kind, name));
    }
  }
}

if (import.meta.main) {
  const { device: kind, only, _: folders }: { device?: string; only?: string; _: unknown[] } =
    parseArgs(Deno.args, {
      string: ["device", "only"],
    });
  using device = await openDevice((kind ?? "auto") as DeviceKind);
  console.log(`device: ${device.name}`);
  let cases = 0, failed = 0;
  for (const folder of folders) {
    for await (
      const { name, error, tolerance, worst } of compareAll(
        device,
        String(folder),
        only === undefined ? isUsual : (id) => id.includes(only),
      )
    ) {
      const isGood = error <= tolerance;
      cases++;
      if (!isGood) failed++;
      console.log(
        `${isGood ? "ok  " : "FAIL"} ${error.toExponential(1)} of ${tolerance.toExponential(0)}  ` +
          `${name} (${worst})`,
      );
    }
  }
  console.log(`${cases} comparisons, ${failed} beyond tolerance`);
  if (cases === 0) console.error("No case was found: give folders laid out like tests/fixtures");
  Deno.exitCode = failed || !cases ? 1 : 0;
}
