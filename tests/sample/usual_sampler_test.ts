import { assert, assertEquals } from "@std/assert";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { methods } from "../../src/sample/solvers/mod.ts";
import { makeUpdateTable } from "../../src/sample/timesteps.ts";
import { usualSampler } from "../../src/sample/usual_sampler.ts";

/** Fields and their defaults in all versions of diffusers, the latest first, by class. */
const known: Record<string, Record<string, unknown[]>> = JSON.parse(
  Deno.readTextFileSync(new URL("../fixtures/diffusers-fields.json", import.meta.url))
    .replaceAll("-Infinity", "-1e999"),
);

/** A scheduler's file as diffusers writes it. */
const file = (className: string, changes: object = {}) => ({
  ...{ _class_name: className },
  ...Object.fromEntries(Object.entries(known[className]).map(([key, [first]]) => [key, first])),
  ...changes,
});

const expected: Readonly<Record<string, string>> = {
  ...{ DDPMScheduler: "ddpm", DDIMScheduler: "ddim", PNDMScheduler: "pndm" },
  ...{ EulerDiscreteScheduler: "euler", EulerAncestralDiscreteScheduler: "euler_ancestral" },
  ...{ LMSDiscreteScheduler: "lms", HeunDiscreteScheduler: "heun" },
  ...{ KDPM2DiscreteScheduler: "dpm_2", KDPM2AncestralDiscreteScheduler: "dpm_2_ancestral" },
  ...{ DPMSolverMultistepScheduler: "dpmpp_2m", UniPCMultistepScheduler: "unipc" },
  ...{ LCMScheduler: "lcm", EDMEulerScheduler: "euler", UnCLIPScheduler: "ddpm" },
  ...{ EDMDPMSolverMultistepScheduler: "dpmpp_2m", FlowMatchEulerDiscreteScheduler: "euler" },
};

Deno.test("a scheduler as diffusers writes it is a sampler, and its settings are what that does", () => {
  for (const [className, method] of Object.entries(expected)) {
    const fields = file(className, className === "UnCLIPScheduler" ? {} : { sigma_min: null });
    assertEquals(usualSampler(fields), { className, method, options: {}, ignored: [] } as never);
  }
  const deis = usualSampler(file("DEISMultistepScheduler"))!;
  assertEquals([deis.method, deis.ignored], ["deis", ["solver_order"]]);
});

Deno.test("a sampler that a scheduler stands for samples by its schedule", () => {
  for (const className of Object.keys(expected)) {
    if (className === "UnCLIPScheduler") continue;
    const fields = file(className), { method, options } = usualSampler(fields)!;
    const schedule = new NoiseSchedule(parseSchedule(fields));
    assert(makeUpdateTable(methods[method!], schedule, 4, options).length >= 4, className);
  }
});

Deno.test("settings of schedulers choose among samplers, and what none does is told", () => {
  const cases: [string, object, unknown[]][] = [
    ["PNDMScheduler", { skip_prk_steps: true }, ["plms", {}, []]],
    ["DPMSolverMultistepScheduler", { solver_order: 1 }, ["dpmpp_1", {}, []]],
    ["DPMSolverMultistepScheduler", { solver_order: 3 }, ["dpmpp_3m", {}, []]],
    [
      "DPMSolverMultistepScheduler",
      { algorithm_type: "sde-dpmsolver++", use_karras_sigmas: true },
      ["dpmpp_2m_sde", { sigmas: "karras" }, []],
    ],
    [
      "DPMSolverMultistepScheduler",
      { use_exponential_sigmas: true, euler_at_final: true, use_lu_lambdas: true },
      ["dpmpp_2m", { sigmas: "exponential" }, ["euler_at_final", "use_lu_lambdas"]],
    ],
    ["DPMSolverMultistepScheduler", { algorithm_type: "dpmsolver" }, [undefined, {}, []]],
    ["UniPCMultistepScheduler", { solver_type: "bh1" }, ["unipc", {}, ["solver_type"]]],
    ["DPMSolverSinglestepScheduler", {}, [undefined, {}, []]],
    ["SASolverScheduler", {}, [undefined, {}, []]],
  ];
  for (const [className, changes, [method, options, ignored]] of cases) {
    const usual = usualSampler(file(className, changes))!;
    assertEquals([usual.method, usual.options, usual.ignored], [method, options, ignored]);
  }
  assertEquals(usualSampler({ beta_schedule: "linear" }), undefined);
  assertEquals(usualSampler({ _class_name: "FlaxDDIMScheduler" })?.method, "ddim");
});
