import { assertAlmostEquals } from "@std/assert";
import { primitives } from "../../src/gpu/expression.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { constant } from "../../src/gpu/tensor.ts";
import { boundTerms, priorTerm } from "../../src/diffusion/vlb.ts";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";

/** Bytes at both ends and between, and estimates of them, near and far. */
const bytes = [0, 0, 255, 255, 128, 130, 40, 200];
const images = bytes.map((byte) => byte / 127.5 - 1);
const error = [0.003, -0.01, 0.004, -0.012, 0, 0.006, -0.011, 0.02];
const range = [-1, 1, 0, -0.5, 0.7, -1.3, 1.2, 0.1];
const shape = [1, 2, 2, 2];

const terms = (fields: object, t: number, variance?: readonly number[]) =>
  boundTerms(new NoiseSchedule(parseSchedule(fields)), {
    images: constant(images, shape),
    error: constant(error, shape),
    timesteps: constant(new Int32Array([t])),
    ...(variance ? { variance: constant(variance, shape) } : {}),
  });

/** Ho et al. 2020, equations 6 and 7, and the variances of the table. */
function forward(fields: object, t: number) {
  const { betas } = new NoiseSchedule(parseSchedule(fields));
  let before = 1;
  for (let k = 0; k < t; k++) before *= 1 - betas[k];
  const bar = before * (1 - betas[t]);
  return {
    beta: betas[t],
    posterior: (1 - before) / (1 - bar) * betas[t],
    share: Math.sqrt(before) * betas[t] / (1 - bar),
  };
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
const normalCdf = (x: number) => (1 + primitives.erf.value(x / Math.SQRT2, 0, 0)) / 2;

Deno.test("terms of the bound are divergences of normal distributions", () => {
  for (const beta_schedule of ["linear", "squaredcos_cap_v2"]) {
    for (const variance_type of ["fixed_small", "fixed_large", "learned_range"]) {
      for (const t of [1, 2, 500, 999]) {
        const fields = { beta_schedule, variance_type },
          { beta, posterior, share } = forward(fields, t);
        const expected = mean(error.map((d, i) => {
          const share2 = (range[i] + 1) / 2;
          const variance = {
            fixed_small: posterior,
            fixed_large: beta,
            learned_range: Math.exp(share2 * Math.log(beta) + (1 - share2) * Math.log(posterior)),
          }[variance_type]!;
          const moved = share * d;
          return (Math.log(variance / posterior) + (posterior + moved ** 2) / variance - 1) / 2 /
            Math.LN2;
        }));
        const learned = variance_type === "learned_range" ? range : undefined;
        const [term] = interpret(makeGraph({ y: terms(fields, t, learned) }), {}).y;
        assertAlmostEquals(term, expected, 1e-6 * expected + 1e-15, `${variance_type} ${t}`);
      }
    }
  }
});

Deno.test("the last term is the code length of bytes, for which the variance is never nought", () => {
  for (const variance_type of ["fixed_small", "fixed_large", "learned_range"]) {
    const fields = { variance_type }, first = forward(fields, 1).posterior;
    const { beta } = forward(fields, 0);
    const expected = mean(images.map((x, i) => {
      const share = variance_type === "learned_range" ? (range[i] + 1) / 2 : 0;
      const deviation = Math.sqrt(first ** (1 - share) * beta ** share);
      const upper = bytes[i] === 255 ? 1 : normalCdf((x + 1 / 255 - x - error[i]) / deviation);
      const lower = bytes[i] === 0 ? 0 : normalCdf((x - 1 / 255 - x - error[i]) / deviation);
      return -Math.log2(upper - lower);
    }));
    const learned = variance_type === "learned_range" ? range : undefined;
    const [term] = interpret(makeGraph({ y: terms(fields, 0, learned) }), {}).y;
    assertAlmostEquals(term, expected, 1e-6 * expected, variance_type);
  }
});

Deno.test("all devices work out the same terms", async () => {
  const graph = makeGraph(Object.fromEntries(
    [0, 1, 20].map((t) => [`t${t}`, terms({ variance_type: "learned_range" }, t, range)]),
  ));
  const expected = interpret(graph, {});
  for (const [kind, open] of Object.entries(devices)) {
    using device = await open();
    using program = await device.compile(graph);
    program.run();
    for (const [name, values] of Object.entries(expected)) {
      assertClose(await program.buffers[name].read(), values, 1e-3, `${name} on ${kind}`);
    }
  }
});

Deno.test("next to nothing is left of images at the end of the linear schedule", () => {
  const schedule = new NoiseSchedule(parseSchedule({}));
  assertAlmostEquals(priorTerm(schedule, new Float32Array([1, -1])), 2.911e-5, 1e-8);
});
