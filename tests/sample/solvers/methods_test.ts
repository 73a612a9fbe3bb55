import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { NoiseSchedule, parseSchedule } from "../../../src/diffusion/schedule.ts";
import { makeDdim } from "../../../src/sample/solvers/ddim.ts";
import { makeDeis } from "../../../src/sample/solvers/deis.ts";
import { makeDpm } from "../../../src/sample/solvers/dpmpp.ts";
import type { MethodOptions } from "../../../src/sample/options.ts";
import type { Solver, UpdateTable } from "../../../src/sample/solver.ts";
import { type MethodName, methods } from "../../../src/sample/solvers/mod.ts";
import { makeUniPc } from "../../../src/sample/solvers/unipc.ts";
import { makeUpdateTable } from "../../../src/sample/timesteps.ts";
import { assertClose } from "../../close.ts";
import {
  EndlessSchedule,
  fixed,
  flowEnd,
  follow,
  MEAN,
  momentsOf,
  noiseFor,
  sampleByOracle,
  stepsBetween,
  target,
  VARIANCE,
} from "../oracle.ts";

const all = Object.values(methods), forward = all.filter((m) => !m.isInverse);
const scheduleOf = (fields: Record<string, unknown> = {}) =>
  new NoiseSchedule(parseSchedule({ clip_sample: false, ...fields }));
const planOf = (
  name: MethodName,
  steps?: number,
  options: MethodOptions = {},
  fields: Record<string, unknown> = {},
) => makeUpdateTable(methods[name], scheduleOf(fields), steps, options);

/** How far a solver ends from where the probability flow of normal images leads. */
function errorOf(plan: UpdateTable, end = plan[plan.length - 1].at): number {
  const from = plan[0].at;
  const power = (l: typeof from) => Math.sqrt(l.alpha ** 2 * VARIANCE + l.sigma ** 2);
  const exact = end.alpha * MEAN + power(end) / power(from) * (1 - from.alpha * MEAN);
  return Math.abs(follow(plan, fixed(1, plan))[0] - exact);
}

/** The power of the number of steps by which errors shrink, from twice as many steps on. */
const orderOf = (errors: readonly number[]) =>
  Math.log2(errors[errors.length - 2] / errors[errors.length - 1]);

/** Deterministic solvers whose steps can lie anywhere. */
const solvers: Record<string, Solver> = {
  ...Object.fromEntries(
    forward.filter((m) => !m.isStochastic && m.isUneven).map((m) => [m.name, m]),
  ),
  "deis of order 2": makeDeis(2),
  "DPM-Solver of order 1": makeDpm("", "", 1, {
    ...{ order: 1, isStochastic: false },
    predicts: "epsilon",
  }),
  "DPM-Solver of order 2": makeDpm("", "", 2, {
    ...{ order: 2, isStochastic: false, isMidpoint: true },
    predicts: "epsilon",
  }),
  "DPM-Solver of order 3": makeDpm("", "", 3, {
    ...{ order: 3, isStochastic: false },
    predicts: "epsilon",
  }),
  "DPM-Solver++ of order 2, integrated": makeDpm("", "", 2, { order: 2, isStochastic: false }),
  "DPM-Solver++ of order 3 as diffusers has it": makeDpm("", "", 2, {
    ...{ order: 3, isStochastic: false, isHalved: true },
  }),
  "unipc of three estimates": makeUniPc({ order: 3 }),
  "unipc of two estimates to the end": makeUniPc({ order: 2, lowerOrderFinal: false }),
  "unipc of one estimate": makeUniPc({ order: 1 }),
  "unipc with bh1": makeUniPc({ order: 2, solver: "bh1" }),
  "unipc of the noise": makeUniPc({ order: 2, predicts: "epsilon" }),
};

for (const [name, method] of Object.entries(solvers)) {
  Deno.test(`${name} converges with order ${method.order}`, () => {
    const schedule = new EndlessSchedule(parseSchedule({ clip_sample: false }));
    const errors = [256, 512, 1024].map((n) => {
      const steps = stepsBetween(n, 80, 0.1);
      return errorOf(method.plan(steps, schedule, {}), steps[n - 1].to);
    });
    const measured = orderOf(errors);
    assert(Math.abs(measured - method.order) < 0.2, `order ${measured}: ${errors}`);
  });
}

for (const name of ["pndm", "plms"] as const) {
  Deno.test(`${name} converges with order ${methods[name].order} where noise is no root of time`, () => {
    const T = 2 ** 14, fields = { beta_start: 0.1 / T, beta_end: 20 / T, num_train_timesteps: T };
    const errors = [64, 128, 256].map((n) => {
      const plan = planOf(name, n, {}, fields);
      const kept = plan.filter(({ at }) => at.time >= T / 4);
      return errorOf(kept, plan[kept.length].at);
    });
    const measured = orderOf(errors);
    assert(Math.abs(measured - methods[name].order) < 0.3, `order ${measured}: ${errors}`);
  });
}

/** Samplers that draw noise. */
const stochastic: readonly (readonly [name: MethodName, options: MethodOptions])[] = [
  ...forward.filter((m) => m.isStochastic && m.isUneven && m.name !== "lcm")
    .map((m) => [m.name as MethodName, {}] as const),
  ["ddim", { eta: 1 }],
  ["ddim", { eta: 0.5 }],
  ["heun", { churn: 5 }],
];

for (const [name, options] of stochastic) {
  const { order, plan } = methods[name], with_ = JSON.stringify(options);

  Deno.test(`the variance that ${name} ${with_} leads to converges with order ${order}`, () => {
    const fields = { clip_sample: false, beta_schedule: "edm" };
    const schedule = new EndlessSchedule(parseSchedule(fields));
    const errors = [64, 128, 256].map((n) => {
      const steps = stepsBetween(n, 80, 0.1), made = plan(steps, schedule, options);
      const { alpha, sigma } = steps[n - 1].to;
      const { mean, variance } = momentsOf(follow(made, noiseFor(made)));
      assertAlmostEquals(mean, alpha * MEAN, 1e-3);
      return Math.abs(variance / (alpha ** 2 * VARIANCE + sigma ** 2) - 1);
    });
    const measured = orderOf(errors);
    assert(Math.abs(measured - order) < 0.2, `order ${measured}: ${errors}`);
  });
}

for (const method of forward) {
  const { name } = method;

  Deno.test(`${name} makes images with the right mean and variance`, () => {
    const most = name === "lcm" ? 4 : 250, oracle = name === "lcm" ? flowEnd : undefined;
    const plan = planOf(name as MethodName, most, {}, { beta_schedule: "squaredcos_cap_v2" });
    const { mean, variance } = momentsOf(follow(plan, noiseFor(plan), oracle));
    assertAlmostEquals(mean, MEAN, 0.02, "mean");
    assertAlmostEquals(variance / VARIANCE, 1, 0.05, "variance");
  });

  Deno.test(`${name} finds the image that the network knows in any number of steps`, () => {
    for (const steps of [1, 2, 3, 4, 7, 14, 15, 50, 333]) {
      if (name === "pndm" && steps < 4) continue;
      // A consistency model says the image itself at t = 0 only, and nearly at the last of many.
      if (name === "lcm" && steps > 50) continue;
      for (const prediction_type of ["epsilon", "sample", "v_prediction"]) {
        if (steps > 20 && prediction_type !== "epsilon") continue;
        // They mix predictions of v as diffusers does, which are not the same at all noise levels.
        if (/^(pndm|plms)$/.test(name) && prediction_type === "v_prediction") continue;
        const config = parseSchedule({ prediction_type });
        const what = `${steps} steps, ${prediction_type}`;
        assertClose(sampleByOracle(config, method, steps), target, 1e-4, what);
      }
    }
  });
}

Deno.test("ddpm with the larger variance is right for images of variance 1", () => {
  // With x_0 estimated by its mean, the noise has to make up for what is unknown of it.
  const oracle: Parameters<typeof follow>[2] = (x, { alpha, sigma }) => ({
    sample: x.map((c) => alpha * c),
    epsilon: x.map((c) => sigma * c),
  });
  for (const variance_type of ["fixed_large", "fixed_large_log"]) {
    const plan = planOf("ddpm", 20, {}, { variance_type });
    assertAlmostEquals(momentsOf(follow(plan, noiseFor(plan), oracle)).variance, 1, 1e-3);
  }
  for (const variance_type of ["fixed_small", "fixed_small_log"]) {
    const plan = planOf("ddpm", 20, {}, { variance_type });
    assert(momentsOf(follow(plan, noiseFor(plan), oracle)).variance < 0.9, variance_type);
  }
});

Deno.test("ddpm with a learned range lets the network choose between both variances", () => {
  const learned = planOf("ddpm", 20, {}, { variance_type: "learned_range" });
  const [small, large] = ["fixed_small", "fixed_large"].map((variance_type) =>
    planOf("ddpm", 20, {}, { variance_type })
  );
  learned.slice(0, -1).forEach(({ range, next }, i) => {
    assertEquals(next.x.noise, 1);
    assertAlmostEquals(Math.exp(range![0] / 2) / small[i].next.x.noise, 1, 1e-5);
    assertAlmostEquals(Math.exp(range![1] / 2) / large[i].next.x.noise, 1, 1e-5);
  });
  assertEquals(learned.at(-1)!.next.x.noise, 0);
});

Deno.test("edm takes 18 steps of 35 evaluations over the noise levels of Karras", () => {
  const plan = planOf("edm");
  assertEquals([plan.length, plan.filter(({ endsStep = true }) => endsStep).length], [35, 18]);
  const { sigmas } = scheduleOf(), root = (s: number) => s ** (1 / 7);
  const ratios = [0, 2, 32, 34].map((i) => root(plan[i].at.sigma / plan[i].at.alpha));
  assertAlmostEquals(ratios[0], root(sigmas[999]), 1e-9);
  assertAlmostEquals(ratios[3], root(sigmas[0]), 1e-9);
  assertAlmostEquals(ratios[0] - ratios[1], ratios[2] - ratios[3], 1e-9);
});

Deno.test("churn adds noise within its range only, and at most as much as the paper allows", () => {
  const plan = planOf("heun", 10, { churn: 1e9, churnRange: [1, 50], churnNoise: 1.01 });
  const firsts = plan.filter(({ endsStep, next }) => endsStep === false || !next.x.start);
  const steps = planOf("heun", 10).filter(({ endsStep, next }) =>
    endsStep === false || !next.x.start
  );
  firsts.forEach(({ at, input }, i) => {
    const before = steps[i].at.sigma / steps[i].at.alpha, sigma = at.sigma / at.alpha;
    if (before < 1 || before > 50) return assertEquals([input, sigma], [undefined, before]);
    assertAlmostEquals(sigma / before, Math.SQRT2, 1e-9);
    assertAlmostEquals(input!.noise / at.alpha, 1.01 * before, 1e-9);
  });
  assert(firsts.some(({ input }) => input) && firsts.some(({ input }) => !input));
});

for (const [eta, usesClipped] of [[0, false], [0.7, true]] as const) {
  Deno.test(`ddim with eta ${eta} is ${usesClipped ? "right with clipped images" : "euler"}`, () => {
    const schedule = scheduleOf(), options = { eta };
    const plan = makeUpdateTable(makeDdim(usesClipped), schedule, 20, options);
    const other = usesClipped
      ? makeUpdateTable(makeDdim(false), schedule, 20, options)
      : makeUpdateTable(methods.euler, schedule, 20, { spacing: "leading" });
    // Without clipping, all say the same.
    assertClose(follow(plan, noiseFor(plan)), follow(other, noiseFor(other)), 1e-9);
  });
}

Deno.test("inversion by ddim, and ddim from there, returns the image", () => {
  for (const [steps, tolerance] of [[50, 1e-2], [100, 2e-3], [1000, 1e-4]] as const) {
    const back = planOf("ddim_inverse", steps), plan = planOf("ddim", steps);
    for (const value of [-1, 0.1, 0.9]) {
      const noise = follow(back, fixed(value, back));
      assertAlmostEquals(follow(plan, fixed(noise[0], plan))[0], value, tolerance);
    }
    // Normal images become standard normal noise.
    const { mean, variance } = momentsOf(
      follow(back, fixed(0, back).map((_, i) => i ? (i === 1 ? Math.sqrt(VARIANCE) : 0) : MEAN)),
    );
    assertAlmostEquals(mean, 0, 0.05);
    assertAlmostEquals(variance, 1, 8 / steps);
  }
});

Deno.test("timesteps can be given by hand, and the last step leads to the image", () => {
  for (
    const name of ["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc", "deis", "lms"] as const
  ) {
    const timesteps = [999, 800, 600, 400, 200, 100, 0];
    const plan = planOf(name, undefined, { timesteps });
    const asked = plan.filter(({ at }, i) => i === 0 || at.time !== plan[i - 1].at.time);
    assertEquals(asked.map(({ at }) => at.time), timesteps, name);
    const config = parseSchedule({});
    assertClose(sampleByOracle(config, methods[name], 7, { timesteps }), target, 1e-4, name);
  }
  assertEquals(planOf("euler", undefined, { timesteps: [500.5, 20] })[0].at.time, 500.5);
  const { to } = { to: planOf("ddpm", undefined, { timesteps: [500, 20] })[1].next.x };
  assertAlmostEquals(to.sample, 1, 1e-6);
});

Deno.test("noise levels replace timesteps, and need not be those of any", () => {
  for (const sigmas of ["karras", "exponential", "polyexponential", "vp"] as const) {
    for (const name of ["euler", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "deis"] as const) {
      const levels = planOf(name, 10, { sigmas }).map(({ at }) => at);
      assert(levels.some(({ time }) => !Number.isInteger(time)), sigmas);
      assertEquals(levels.length, 10);
      levels.forEach((at, i) => assert(i === 0 || at.sigma < levels[i - 1].sigma));
    }
  }
  const edm = { beta_schedule: "edm", prediction_type: "edm" };
  const [first] = planOf("dpmpp_2m", 10, { sigmas: "karras" }, edm);
  assertAlmostEquals(first.at.time, Math.log(80) / 4, 1e-9);
});

for (const method of forward) {
  const { name, takesZeroSnr } = method;
  // A consistency model says the image itself at t = 0 only.
  const steps = name === "lcm" ? [1, 2, 4] : [4, 7, 20, 50];
  const options = name === "lcm" ? { spacing: "trailing" } as const : {};
  // What is mixed of earlier ε is not quite that of the last level.
  const tolerance = /^(pndm|plms)$/.test(name) ? 1e-2 : 1e-3;

  Deno.test(`${name} finds the image that a network of EDM knows`, () => {
    for (const n of steps) {
      for (const sigma_schedule of ["karras", "exponential"]) {
        const config = parseSchedule({ _class_name: "EDMEulerScheduler", sigma_schedule });
        const what = `${n} ${sigma_schedule}`;
        assertClose(sampleByOracle(config, method, n, options), target, tolerance, what);
      }
    }
  });

  Deno.test(`${name} finds the image that a network of flows knows, or is refused`, () => {
    for (const n of steps) {
      for (const shift of [1, 3]) {
        const config = parseSchedule({ _class_name: "FlowMatchEulerDiscreteScheduler", shift });
        if (takesZeroSnr) {
          const what = `${n}, shift ${shift}`;
          assertClose(sampleByOracle(config, method, n, options), target, 1e-4, what);
        } else {
          const refused = () => sampleByOracle(config, method, n);
          assertThrows(
            refused,
            InputError,
            "nothing but noise (zero terminal SNR): that works with",
          );
        }
      }
    }
  });
}

for (
  const name of ["ddpm", "ddim", "euler", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde"] as const
) {
  Deno.test(`${name} along a flow makes images with the right mean and variance`, () => {
    for (const shift of [1, 2]) {
      const plan = planOf(name, 500, {}, { prediction_type: "flow_prediction", shift });
      const { mean, variance } = momentsOf(follow(plan, noiseFor(plan)));
      assertAlmostEquals(mean, MEAN, 0.02, "mean");
      assertAlmostEquals(variance / VARIANCE, 1, 0.05, "variance");
    }
  });
}

Deno.test("every step along a flow starts where the last one ended", () => {
  const fields = { prediction_type: "flow_prediction" };
  const [ddim, euler] = (["ddim", "euler"] as const).map((name) => planOf(name, 4, {}, fields));
  assertClose(follow(ddim, noiseFor(ddim)), follow(euler, noiseFor(euler)), 1e-9);
});

Deno.test("the last step of ddpm adds no noise from the least level, whatever networks are told", () => {
  for (const prediction_type of ["epsilon", "flow_prediction", "edm"]) {
    const beta_schedule = prediction_type === "epsilon"
      ? "linear"
      : prediction_type === "edm"
      ? "edm"
      : "flow";
    const fields = { prediction_type, beta_schedule, variance_type: "fixed_large" };
    const noise = planOf("ddpm", 1000, {}, fields).map(({ next }) => next.x.noise);
    assertEquals([noise.at(-1), noise.every((n, i) => i === 999 || n > 0)], [0, true]);
  }
});

const zero = { rescale_betas_zero_snr: true, prediction_type: "v_prediction" };

Deno.test("methods that can start from nothing but noise do so", () => {
  for (const method of forward.filter((m) => m.takesZeroSnr)) {
    const config = parseSchedule(zero), options = { spacing: "trailing" } as const;
    const found = sampleByOracle(config, method, 10, options);
    assertClose(found, target, 1e-4, method.name);
    assertEquals(makeUpdateTable(method, new NoiseSchedule(config), 10, options)[0].at.alpha, 0);
  }
});

/** What does not go together, and what the message has to say. */
const refusals: readonly [MethodName, number | undefined, MethodOptions, string, object?][] = [
  ["ddpm", 0, {}, "Cannot sample in 0 steps: this model allows 1 to 1000"],
  ["heun", 1001, {}, "1001 steps"],
  ["dpmpp_2m", 1.5, {}, "1.5 steps"],
  ["pndm", 3, {}, "in 3 steps: it takes 4 at least"],
  ["ddpm", 10, { eta: 0 }, "by ddpm with eta: that is for ddim"],
  ["dpmpp_2m", 10, { eta: 1 }, "by dpmpp_2m with eta: that is for ddim"],
  ["ddim", 10, { eta: 1.1 }, "eta 1.1: it must lie between 0 and 1"],
  ["ddim", 10, { eta: NaN }, "eta NaN"],
  ["euler", 10, { churn: 1 }, "by euler with churn: that is for heun, edm"],
  ["heun", 10, { churn: -1 }, "churn -1: it must be 0 or more"],
  ["ddim", 10, { sigmas: "karras" }, "it walks timesteps; they work with lms, euler"],
  ["lms", 10, {}, "zero terminal SNR): that works with ddpm, ddim", zero],
  ["euler", 10, { sigmas: "karras" }, "infinite noise at its end", zero],
  ["plms", undefined, { timesteps: [900, 0] }, "steps are even; timesteps work with ddpm"],
  ["ddim", undefined, { timesteps: [0, 900] }, "timesteps 0, 900: they must fall"],
  ["ddim", undefined, { timesteps: [1000, 0] }, "from 999 to 0 at most, and be whole"],
  ["ddim", undefined, { timesteps: [10.5] }, "be whole"],
  ["euler", undefined, { timesteps: [] }, "they must fall"],
  ["euler", undefined, { timesteps: [NaN] }, "they must fall"],
  ["euler", 3, { timesteps: [10] }, "in 3 steps: 1 timesteps are given"],
  ["euler", undefined, { timesteps: [10], spacing: "leading" }, "then there is no spacing"],
];

for (const [name, steps, options, why, fields = {}] of refusals) {
  Deno.test(`makeUpdateTable() refuses ${name} ${steps ?? ""} ${JSON.stringify(options)}: ${why}`, () => {
    assertThrows(() => planOf(name, steps, options, { ...fields }), InputError, why);
  });
}
