import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { NoiseSchedule, parseSchedule } from "../../src/diffusion/schedule.ts";
import { InputError } from "../../src/errors.ts";
import { collect, type EncodedFile, readSafetensors } from "../../src/formats/safetensors.ts";
import { encodeDiffusers } from "../../src/model/diffusers.ts";
import { assembleModel, initializeModel, type Model, readNotes } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { classModel, tinyModel, tinyUNet } from "../cli/cli.ts";

type Json = Record<string, unknown>;
const WEIGHTS = "unet/diffusion_pytorch_model.safetensors";

/** Fields and their defaults in all versions of diffusers, by class. */
const known: Record<string, Json> = JSON.parse(
  Deno.readTextFileSync(new URL("../fixtures/diffusers-fields.json", import.meta.url))
    .replaceAll(/-?Infinity/g, "0"),
);

/** A folder that was written, in memory. */
function write(model: Model, dtype: "F32" | "F16" | "BF16" = "F32") {
  const { files, notes } = encodeDiffusers(model, dtype);
  const json = (path: string) => files.get(path) as Json | undefined;
  const weights = readSafetensors(collect(files.get(WEIGHTS) as EncodedFile));
  return { json, weights, notes, paths: [...files.keys()] };
}

const withSchedule = (fields: object): Model => ({
  ...tinyModel(),
  schedule: parseSchedule({ num_train_timesteps: 50, ...fields }),
});

Deno.test("the folder of a model is that of a DDPMPipeline, and gives the same model", () => {
  const model = { ...tinyModel(3), card: { data: "mnist", steps: "5" } };
  const { json, weights, notes, paths } = write(model);
  assertEquals(paths, [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    WEIGHTS,
  ]);
  const { _diffusers_version, ...index } = json("model_index.json")!;
  assertEquals(index, {
    _class_name: "DDPMPipeline",
    scheduler: ["diffusers", "DDPMScheduler"],
    unet: ["diffusers", "UNet2DModel"],
  });
  assertEquals([notes, weights.metadata.format], [[], "pt"]);
  const again = assembleModel(
    parseNetwork(json("unet/config.json")),
    parseSchedule(json("scheduler/scheduler_config.json")),
    weights.tensors,
    "the folder",
    readNotes(weights.metadata, "the folder"),
  );
  assertEquals(again.network.config, model.network.config);
  assertEquals([again.schedule, again.card], [model.schedule, model.card]);
  const second = write(again);
  for (const [name, { bytes }] of weights.tensors) {
    assertEquals(second.weights.tensors.get(name)!.bytes, bytes, name);
  }
});

/** Schedules, the class that each becomes, and what cannot be kept. */
const schedules: readonly [object, string, string?][] = [
  [{}, "DDPMScheduler"],
  [{ beta_schedule: "quadratic", prediction_type: "sample" }, "DDPMScheduler"],
  [{ beta_schedule: "scaled_linear", prediction_type: "v_prediction" }, "DDPMScheduler"],
  [{ beta_schedule: "squaredcos_cap_v2", variance_type: "learned_range" }, "DDPMScheduler"],
  [{ beta_schedule: "sigmoid", thresholding: true, clip_sample: false }, "DDPMScheduler"],
  [{ beta_schedule: "laplace", timestep_spacing: "trailing" }, "DDPMScheduler"],
  [{ beta_schedule: "exponential", steps_offset: 1 }, "DDPMScheduler"],
  [{ beta_schedule: "exp" }, "DDPMScheduler"],
  [{ trained_betas: new Array(50).fill(0.01) }, "DDPMScheduler"],
  [{ rescale_betas_zero_snr: true, prediction_type: "v_prediction" }, "DDPMScheduler"],
  [
    { beta_schedule: "exp", rescale_betas_zero_snr: true, prediction_type: "sample" },
    "DDPMScheduler",
  ],
  [{ set_alpha_to_one: false }, "DDPMScheduler", "set_alpha_to_one"],
  [{ _class_name: "EDMEulerScheduler", sigma_data: 1, rho: 5 }, "EDMEulerScheduler"],
  [
    {
      _class_name: "EDMDPMSolverMultistepScheduler",
      ...{ sigma_schedule: "exponential", final_sigmas_type: "sigma_min" },
    },
    "EDMEulerScheduler",
  ],
  [{ _class_name: "EDMEulerScheduler", clip_sample: true }, "EDMEulerScheduler", "clip_sample"],
  [{ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 }, "FlowMatchEulerDiscreteScheduler"],
];

Deno.test("a schedule has only the fields that its class in diffusers has, and reads as the same", () => {
  for (const [fields, className, lost] of schedules) {
    const model = withSchedule(fields), { json, notes } = write(model);
    const written = json("scheduler/scheduler_config.json")!, what = JSON.stringify(fields);
    assertEquals(written._class_name, className);
    for (const field of Object.keys(written)) {
      assert(field.startsWith("_") || field in known[className], `${what}: ${field}`);
    }
    assertEquals(notes[0]?.startsWith(`${className} has no `) ?? false, lost !== undefined, what);
    if (lost) assertMatch(notes[0], new RegExp(`has no ${lost}$`));
    const [before, after] = [model.schedule, parseSchedule(JSON.parse(JSON.stringify(written)))];
    const { alphasCumprod } = new NoiseSchedule(before);
    assertEquals(new NoiseSchedule(after).alphasCumprod, alphasCumprod, what);
    // What named schedules became is told by their numbers.
    const rest = { betaSchedule: "linear", trainedBetas: null } as const;
    const same = { ...rest, setAlphaToOne: true, clipSample: false };
    assertEquals(
      { ...after, ...(lost ? same : rest) },
      { ...before, ...(lost ? same : rest) },
      what,
    );
  }
});

Deno.test("fields that are newer than their class are written only where they say something", () => {
  const fieldsOf = (fields: object) => {
    const { json } = write(withSchedule({ _class_name: "EDMEulerScheduler", ...fields }));
    return Object.keys(json("scheduler/scheduler_config.json")!);
  };
  const first = [
    ...["_class_name", "_diffusers_version", "sigma_min", "sigma_max", "sigma_data"],
    ...["num_train_timesteps", "prediction_type", "rho"],
  ];
  assertEquals(fieldsOf({}).sort(), first.toSorted());
  const more = fieldsOf({ sigma_schedule: "exponential", final_sigmas_type: "sigma_min" });
  assertEquals(more.sort(), [...first, "sigma_schedule", "final_sigmas_type"].sort());
});

Deno.test("a network has only the fields that its class in diffusers has", () => {
  const configs: object[] = [{}, { dropout: 0.1 }, { num_class_embeds: 3 }];
  for (const more of configs) {
    const network = parseNetwork({ ...tinyUNet, sample_size: [8, 4], ...more });
    const written = write(initializeModel(network, {}, 0)).json("unet/config.json")!;
    for (const field of Object.keys(written)) {
      assert(field.startsWith("_") || field in known.UNet2DModel, field);
    }
  }
});

Deno.test("classes are kept in the header, and no pipeline is claimed for them", () => {
  const model = classModel(["cat", "dog"]), { weights, notes, paths } = write(model);
  assert(!paths.includes("model_index.json"));
  assertEquals(readNotes(weights.metadata, "x"), { card: {}, classes: ["cat", "dog"] });
  assertEquals(notes.length, 2);
  assertMatch(notes[1], /no pipeline of diffusers tells a UNet2DModel its class/);
});

Deno.test("16-bit weights are the nearest ones, and numbers beyond them are refused", () => {
  const model = tinyModel(), exact = write(model).weights.tensors;
  for (const [dtype, bits] of [["F16", 11], ["BF16", 8]] as const) {
    const { tensors } = write(model, dtype).weights;
    const read = (tensors: typeof exact) =>
      assembleModel(model.network, model.schedule, tensors, "x").parameters;
    const [near, far] = [read(tensors), read(exact)];
    assert("read" in near && "read" in far);
    for (const i of model.network.layout.specs.keys()) {
      const values = far.read(i);
      near.read(i).forEach((x, j) => {
        assert(Math.abs(x - values[j]) <= 2 ** -bits * Math.abs(values[j]) + 2 ** -25);
      });
    }
    assertEquals(new Set(tensors.values().map((tensor) => tensor.dtype)), new Set([dtype]));
  }
  const large = { ...model, parameters: model.parameters.map((x) => x + 1e5) };
  assertThrows(() => write(large, "F16"), RangeError, "as F16: it holds numbers beyond 65504");
  assertEquals(write(large, "BF16").notes, []);
});

Deno.test("networks and schedules that diffusers has no class for are refused by name", () => {
  const { sample_size, in_channels, out_channels } = {
    sample_size: 8,
    in_channels: 3,
    out_channels: 3,
  };
  const upscaler = { ...tinyUNet, sample_size, in_channels, out_channels, factor: 2 };
  const { up_block_types: _, ...encoder } = tinyUNet;
  const networks = [
    { _class_name: "SuperResolutionUNet2DModel", ...upscaler },
    { _class_name: "UNet2DClassifier", ...encoder, sample_size, in_channels, num_classes: 3 },
  ];
  for (const fields of networks) {
    const model = initializeModel(parseNetwork(fields), {}, 0);
    const message = `Cannot write a ${fields._class_name} for diffusers, which has no such class`;
    assertThrows(() => encodeDiffusers(model, "F32"), InputError, message);
  }
  for (
    const fields of [
      { prediction_type: "edm" },
      { prediction_type: "epsilon", beta_schedule: "edm" },
      { prediction_type: "v_prediction", beta_schedule: "flow" },
    ]
  ) {
    const message = `none with the prediction_type ${fields.prediction_type}`;
    assertThrows(() => encodeDiffusers(withSchedule(fields), "F32"), InputError, message);
  }
});
