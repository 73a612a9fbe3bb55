import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { grad } from "../../src/gpu/grad.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { mean, sum } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant, type HostArray, input, type Tensor } from "../../src/gpu/tensor.ts";
import { initializeModel, type LoadedModel } from "../../src/model/model.ts";
import { parameterInputs, viewParameters } from "../../src/model/parameters.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import { NoiseSchedule } from "../../src/diffusion/schedule.ts";
import {
  type Batch,
  checkObjective,
  diffusionLosses,
  type ObjectiveConfig,
  SIMPLE,
} from "../../src/train/objective.ts";
import { assertClose } from "../close.ts";
import { batch, images, noise, shape, timesteps } from "./batch.ts";
import { randomModel, tinyNetwork } from "../networks.ts";
import { Random } from "../random.ts";

const mean16 = (values: readonly number[]) => values.reduce((a, b) => a + b) / 16;

/** The losses of a model as a function of its parameters. */
function build(
  model: LoadedModel,
  settings: Partial<ObjectiveConfig>,
  changes: Partial<Batch> = {},
) {
  const { layout } = model.network, views = viewParameters(layout, parameterInputs(layout));
  const all = { ...SIMPLE, ...settings };
  const losses = diffusionLosses(denoisingNetwork(model), model.schedule, all, views, {
    ...batch,
    ...changes,
  });
  const at = (parameters: ArrayLike<number> = model.parameters) =>
    Array.from(
      interpret(makeGraph({ losses }), { parameters: Float64Array.from(parameters) }).losses,
    );
  return { losses, views, at };
}

const zeros = (schedule: object) => initializeModel(tinyNetwork(), schedule, 0);

/** What the network should have said of image i, d x_0 / d prediction, and the SNR. */
function targetsOf(
  model: LoadedModel,
  i: number,
): { target: number[]; snr: number; slope: number } {
  const { alphasCumprod } = new NoiseSchedule(model.schedule);
  const bar = alphasCumprod[timesteps[i]], a = Math.sqrt(bar), s = Math.sqrt(1 - bar);
  const [x, eps] = [images, noise].map((all) => [...all.slice(16 * i, 16 * i + 16)]);
  // What EDM's preconditioning leaves to the network, for x / α and σ / α.
  const sigma = s / a, data = 0.5, power = sigma ** 2 + data ** 2;
  const edm = x.map((x, k) =>
    (x - data ** 2 / power * (x + sigma * eps[k])) / (sigma * data / Math.sqrt(power))
  );
  const answers = {
    epsilon: { target: eps, slope: s / a },
    sample: { target: x, slope: 1 },
    v_prediction: { target: x.map((x, k) => a * eps[k] - s * x), slope: s },
    edm: { target: edm, slope: sigma * data / Math.sqrt(power) },
    flow_prediction: { target: x.map((x, k) => eps[k] - x), slope: s / (a + s) },
  };
  return { ...answers[model.schedule.predictionType], snr: bar / (1 - bar) };
}

const kinds = ["epsilon", "sample", "v_prediction", "edm", "flow_prediction"];

for (const prediction_type of kinds) {
  Deno.test(`a network that predicts zero has the target for a difference: ${prediction_type}`, () => {
    const model = zeros({ prediction_type }),
      huber = { objective: "huber", huberDelta: 0.7 } as const;
    const costs: readonly [Partial<ObjectiveConfig>, (d: number) => number][] = [
      [{}, (d) => d * d],
      [{ objective: "l1" }, Math.abs],
      [huber, (d) => Math.abs(d) < 0.7 ? d * d / 2 : 0.7 * (Math.abs(d) - 0.35)],
      [{ objective: "huber" }, (d) => Math.abs(d) < 1 ? d * d / 2 : Math.abs(d) - 0.5],
    ];
    for (const [settings, cost] of costs) {
      build(model, settings).at().forEach((loss, i) => {
        const expected = mean16(targetsOf(model, i).target.map(cost));
        assertAlmostEquals(loss, expected, 1e-6 * expected, JSON.stringify(settings));
      });
    }
  });

  Deno.test(`weights are those of errors of the image: ${prediction_type}`, () => {
    const model = zeros({ prediction_type });
    const weights: readonly [Partial<ObjectiveConfig>, (snr: number) => number][] = [
      [{ lossWeighting: "min_snr" }, (snr) => Math.min(snr, 5)],
      [{ lossWeighting: "min_snr", snrGamma: 0.003 }, (snr) => Math.min(snr, 0.003)],
      [{ lossWeighting: "edm" }, (snr) => (1 / snr + 0.25) / (0.25 / snr)],
    ];
    const plain = build(model, {}).at();
    for (const [settings, weight] of weights) {
      build(model, settings).at().forEach((loss, i) => {
        const { snr, slope } = targetsOf(model, i);
        const expected = plain[i] * weight(snr) * slope ** 2;
        assertAlmostEquals(loss, expected, 1e-5 * expected, JSON.stringify(settings));
      });
    }
  });
}

Deno.test("min_snr is what Hang et al. 2023 give for noise and v", () => {
  const weights = (prediction_type: string) => {
    const model = zeros({ prediction_type }), plain = build(model, {}).at();
    return build(model, { lossWeighting: "min_snr" }).at().map((loss, i) => loss / plain[i]);
  };
  const { alphasCumprod } = new NoiseSchedule(zeros({}).schedule);
  timesteps.forEach((t, i) => {
    const snr = alphasCumprod[t] / (1 - alphasCumprod[t]);
    assertAlmostEquals(weights("epsilon")[i], Math.min(snr, 5) / snr, 1e-6);
    assertAlmostEquals(weights("v_prediction")[i], Math.min(snr, 5) / (snr + 1), 1e-6);
  });
});

Deno.test("EDM's weighting counts all noise levels the same in what its network predicts", () => {
  const model = randomModel(tinyNetwork(), { prediction_type: "edm" });
  assertClose(build(model, { lossWeighting: "edm" }).at(), build(model, {}).at(), 1e-5);
});

Deno.test("noise levels may lie between timesteps for edm", () => {
  const model = randomModel(tinyNetwork(), { prediction_type: "edm" });
  const { sigmas } = new NoiseSchedule(model.schedule);
  const given = timesteps.map((t) => sigmas[t]);
  const zero = constant(new Int32Array(2));
  const continuous = build(model, {}, { timesteps: zero, sigmas: constant(given) });
  assertClose(continuous.at(), build(model, {}).at(), 1e-6);
  const more = given.map((s) => 1.01 * s);
  const further = build(model, {}, { timesteps: zero, sigmas: constant(more) }).at();
  assert(further.every((loss, i) => Math.abs(loss - continuous.at()[i]) > 1e-6));
});

const learned = { variance_type: "learned_range" };
const learning = (fields: object = {}) =>
  randomModel(tinyNetwork({ out_channels: 2 }), { ...learned, ...fields });
/** Of both kinds of terms. */
const early = { timesteps: constant(new Int32Array([0, 400])) };
type Case = readonly [string, LoadedModel, Partial<ObjectiveConfig>, Partial<Batch>];
const cases: readonly Case[] = [
  ...kinds.map((prediction_type): Case => [
    `mse, ${prediction_type}`,
    ...[randomModel(tinyNetwork(), { prediction_type }), {}, {}] as const,
  ]),
  ["l1", randomModel(tinyNetwork()), { objective: "l1" }, {}],
  ["huber", randomModel(tinyNetwork()), { objective: "huber", huberDelta: 0.5 }, {}],
  ["min_snr", randomModel(tinyNetwork()), { lossWeighting: "min_snr" }, {}],
  ["vlb, fixed_small", randomModel(tinyNetwork()), { objective: "vlb" }, early],
  [
    "vlb, fixed_large",
    randomModel(tinyNetwork(), { variance_type: "fixed_large", prediction_type: "v_prediction" }),
    { objective: "vlb" },
    early,
  ],
  ["vlb, learned_range", learning(), { objective: "vlb" }, early],
  [
    "vlb, learned_range, sample",
    learning({ prediction_type: "sample" }),
    { objective: "vlb" },
    early,
  ],
];

for (const [name, model, settings, changes] of cases) {
  Deno.test(`gradients of objectives equal central differences: ${name}`, () => {
    const { losses, views, at } = build(model, settings, changes);
    const { specs, offsets } = model.network.layout, random = new Random(name);
    const picked = ["conv_in.weight", "conv_out.weight", "conv_out.bias"].map((name) =>
      specs.findIndex((spec) => spec.name === name)
    );
    const gradients = grad(mean(losses), picked.map((k) => views(specs[k])));
    const outputs = Object.fromEntries(gradients.map((g, i) => [`g${i}`, g]));
    const values = interpret(makeGraph(outputs), {
      parameters: Float64Array.from(model.parameters),
    });
    picked.forEach((k, i) => {
      const g = values[`g${i}`], index = random.below(g.length);
      const moved = (by: number) => {
        const p = Float64Array.from(model.parameters);
        p[offsets[k] + index] += by;
        const [a, b] = at(p);
        return (a + b) / 2;
      };
      const expected = (moved(1e-4) - moved(-1e-4)) / 2e-4;
      const scale = Math.max(...g.map(Math.abs));
      assert(scale > 1e-6, `${specs[k].name} has a gradient`);
      assertAlmostEquals(g[index], expected, 1e-4 * scale, `${specs[k].name} ${index}`);
    });
  });
}

Deno.test("hybrid learns what it predicts as mse does, and variances by the bound", () => {
  const model = learning(), bias = "conv_out.bias";
  const gradientOf = (settings: Partial<ObjectiveConfig>) => {
    const { losses, views } = build(model, settings, early);
    const [g] = grad(mean(losses), [views({ name: bias })]);
    return interpret(makeGraph({ g }), { parameters: Float64Array.from(model.parameters) }).g;
  };
  const [hybrid, bound] = [gradientOf({ objective: "hybrid" }), gradientOf({ objective: "vlb" })];
  const simple = gradientOf({});
  assertAlmostEquals(hybrid[0], simple[0], 1e-9);
  assertEquals(simple[1], 0);
  assertAlmostEquals(hybrid[1], 0.001 * bound[1], 1e-9 * Math.abs(bound[1]));
  assert(Math.abs(bound[0]) > 1e-3 && Math.abs(bound[1]) > 1e-3);
  const values = ["hybrid", "mse", "vlb"].map((objective) =>
    build(model, { objective } as Partial<ObjectiveConfig>, early).at()
  );
  assertClose(values[0], values[1].map((x, i) => x + 0.001 * values[2][i]), 1e-9);
});

Deno.test("objectives, variances and networks that do not go together are refused", () => {
  const check = (fields: object, objective: ObjectiveConfig["objective"], channels = 1) => () => {
    const { network, schedule } = initializeModel(
      tinyNetwork({ out_channels: channels }),
      fields,
      0,
    );
    checkObjective({ ...SIMPLE, objective }, schedule, denoisingNetwork({ network }));
  };
  assertThrows(check(learned, "mse", 2), InputError, "hybrid and vlb");
  assertThrows(check({}, "hybrid"), InputError, "learned_range");
  assertThrows(check({}, "mse", 2), InputError, "out_channels 1, not 2");
  assertThrows(check(learned, "hybrid", 1), InputError, "out_channels 2, not 1");
  for (const objective of ["hybrid", "vlb"] as const) check(learned, objective, 2)();
  for (const objective of ["mse", "l1", "huber", "vlb"] as const) check({}, objective)();
});

Deno.test("the network sees the image, as noisy as its timestep says, and the timestep", () => {
  const model = randomModel(tinyNetwork());
  const lossAt = (changes: Partial<Batch>) => build(model, {}, changes).at()[0];
  // At the last step next to nothing of the image is left, at the first next to all of it.
  const at = (t: number, images: HostArray) =>
    lossAt({ timesteps: constant(new Int32Array([t, t])), images: constant(images, shape) });
  const moved = images.map((x) => x + 0.5);
  const [late, early] = [999, 0].map((t) => Math.abs(at(t, images) - at(t, moved)));
  assert(late < 0.02 * early, `${late} is much less than ${early}`);
  assert(Math.abs(at(500, images) - at(501, images)) > 1e-6);
});

Deno.test("dropout changes the loss, in another way at every step", () => {
  const model = randomModel(tinyNetwork({ dropout: 0.3 })), step = input("step", [1], "i32");
  const of = (random?: Batch["random"]): Tensor =>
    sum(build(model, {}, random ? { random } : {}).losses);
  const evaluate = (loss: Tensor, k: number) =>
    interpret(makeGraph({ loss }), {
      ...{ parameters: Float64Array.from(model.parameters), step: new Int32Array([k]) },
    }).loss[0];
  const zero = constant(new Int32Array(2)), first = constant(new Int32Array(1));
  const none = evaluate(of(), 0), dropped = of({ seed: zero, first, step });
  const losses = [0, 1, 0].map((k) => evaluate(dropped, k));
  assertEquals(losses[0], losses[2]);
  assertEquals(new Set([none, ...losses]).size, 3);
});
