import { assert, assertEquals, assertMatch } from "@std/assert";
import { readSafetensors, writeSafetensors } from "../../src/formats/safetensors.ts";
import { nameTensors } from "../../src/model/tensors.ts";
import { formatNetwork } from "../../src/model/network.ts";
import { makeTorch } from "../torch.ts";
import { Folder, imagesFile, tinyModel } from "./cli.ts";

/** What today's diffusers write into the configuration of a network beside what older ones did. */
const today = {
  ...{ _class_name: "UNet2DModel", _diffusers_version: "0.35.1", time_embedding_dim: null },
  ...{ mid_block_type: "UNetMidBlock2D", attn_norm_num_groups: null, num_train_timesteps: null },
};

/** Writes a network in the layout of diffusers. */
async function writeNetwork(folder: Folder, path: string, fields: object = today): Promise<void> {
  const { network, parameters } = tinyModel(), { layout } = network;
  await Deno.mkdir(folder.at(path), { recursive: true });
  const weights = writeSafetensors(nameTensors(layout, parameters));
  await folder.write(`${path}/diffusion_pytorch_model.safetensors`, weights);
  await folder.write(`${path}/config.json`, { ...formatNetwork(network), ...fields });
}

async function writeScheduler(folder: Folder, path: string, json: string | object): Promise<void> {
  await Deno.mkdir(folder.at(path), { recursive: true });
  await folder.write(`${path}/scheduler_config.json`, json);
}

const sample = ["--count", "1", "--steps", "4", "--device", "cpu", "--out", "x.safetensors"];

/** Files of schedulers as diffusers write them, and what `info` says then. */
const schedulers: Record<string, readonly [file: string | object, facts: Record<string, unknown>]> =
  {
    "DPM-Solver, with Python's infinity": [
      '{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity, ' +
      '"num_train_timesteps": 1000, "variance_type": null}',
      { predictionType: "epsilon", clipSample: false, timestepSpacing: "linspace" },
    ],
    "Euler, with null for its levels": [
      {
        ...{ _class_name: "EulerDiscreteScheduler", sigma_min: null, sigma_max: null },
        ...{ interpolation_type: "linear", timestep_type: "discrete", use_beta_sigmas: false },
      },
      { betaSchedule: "linear", sigmaMin: 0.002 },
    ],
    "DDPM, with null for what it does not say": [
      {
        ...{ _class_name: "DDPMScheduler", _diffusers_version: "0.1.1", clip_sample: null },
        ...{ clip_sample_range: null, thresholding: null, prediction_type: null },
        ...{ timestep_spacing: null, steps_offset: null, variance_type: "fixed_large" },
      },
      {
        clipSample: true,
        clipSampleRange: 1,
        predictionType: "epsilon",
        varianceType: "fixed_large",
      },
    ],
    "EDM": [
      {
        ...{ _class_name: "EDMDPMSolverMultistepScheduler", sigma_min: 0.002, sigma_max: 80 },
        ...{ sigma_data: 0.5, sigma_schedule: "karras", prediction_type: "epsilon", rho: 7 },
        ...{ num_train_timesteps: 1000, solver_order: 2, euler_at_final: false },
      },
      { betaSchedule: "edm", predictionType: "edm", sigmaData: 0.5, sigmaSchedule: "karras" },
    ],
    "flow matching": [
      { _class_name: "FlowMatchEulerDiscreteScheduler", num_train_timesteps: 1000, shift: 3 },
      { betaSchedule: "flow", predictionType: "flow_prediction", shift: 3 },
    ],
  };

for (const [name, [file, expected]] of Object.entries(schedulers)) {
  Deno.test(`a folder of diffusers is described and sampled: ${name}`, async () => {
    await using folder = await Folder.make();
    await writeNetwork(folder, "pipe/unet");
    await writeScheduler(folder, "pipe/scheduler", file);
    const { code, stdout, stderr } = await folder.run("info", "pipe", "--json", "--device", "cpu");
    assertEquals([code, stderr], [0, ""]);
    const facts = JSON.parse(stdout);
    for (const [field, value] of Object.entries(expected)) assertEquals(facts[field], value, field);
    assertMatch(await folder.succeed("sample", "--model", "pipe", ...sample), /1 image in/);
  });
}

Deno.test("samplers that start from nothing but noise follow flows, others say which do", async () => {
  await using folder = await Folder.make();
  await writeNetwork(folder, "pipe/unet");
  await writeScheduler(folder, "pipe/scheduler", {
    _class_name: "FlowMatchEulerDiscreteScheduler",
  });
  const from = ["sample", "--model", "pipe", ...sample, "--sampler"];
  await folder.succeed(...from, "euler");
  await folder.refuse([...from, "heun"], /zero terminal SNR\): that works with ddpm, ddim, euler/);
});

Deno.test("a scheduler or a field that is not known is refused by name", async () => {
  await using folder = await Folder.make();
  await writeNetwork(folder, "pipe/unet");
  const cases: [object, RegExp][] = [
    [{ _class_name: "SCMScheduler" }, /"SCMScheduler" is no scheduler that can be read: .*DDPMSch/],
    [{ _class_name: "DDPMScheduler", beta_strat: 1 }, /beta_strat/],
    [
      { _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true },
      /use_dynamic_shifting true of FlowMatchEulerDiscreteScheduler is not supported/,
    ],
  ];
  for (const [json, message] of cases) {
    await writeScheduler(folder, "pipe/scheduler", json);
    await folder.refuse(["info", "pipe"], message);
    await folder.refuse(["sample", "--model", "pipe", ...sample], message);
  }
  await writeNetwork(folder, "pipe/unet", { ...today, mid_block_type: null });
  await folder.refuse(["info", "pipe"], /mid_block_type null is not supported/);
});

Deno.test("the schedule of a folder without one is that beside it, which is said", async () => {
  await using folder = await Folder.make();
  for (const path of ["run/checkpoint-5/unet", "run/unet_ema"]) await writeNetwork(folder, path);
  const cosine = { _class_name: "DDPMScheduler", beta_schedule: "squaredcos_cap_v2" };
  await writeScheduler(folder, "run/scheduler", cosine);
  for (
    const model of ["run/checkpoint-5", "run/checkpoint-5/unet", "run/unet_ema", "run/unet_ema/"]
  ) {
    const { code, stdout, stderr } = await folder.run("info", model, "--json", "--device", "cpu");
    assertEquals(code, 0, stderr);
    assertMatch(
      stderr,
      /^the noise schedule is that of \S+run\/scheduler\/scheduler_config\.json\n$/,
    );
    assertEquals(JSON.parse(stdout).betaSchedule, "squaredcos_cap_v2");
  }
  // What is the folder's own needs no words, and comes first.
  await writeScheduler(folder, "run/checkpoint-5/scheduler", { beta_schedule: "sigmoid" });
  const { stdout, stderr } = await folder.run(
    "info",
    "run/checkpoint-5",
    "--json",
    "--device",
    "cpu",
  );
  assertEquals([stderr, JSON.parse(stdout).betaSchedule], ["", "sigmoid"]);
});

Deno.test("where there is no schedule, the guess is announced", async () => {
  await using folder = await Folder.make();
  await writeNetwork(folder, "run/checkpoint-5/unet");
  for (const args of [["info"], ["sample", ...sample, "--model"]]) {
    const { code, stdout, stderr } = await folder.run(...args, "run/checkpoint-5");
    assertEquals(code, 0, stderr);
    const guess =
      /^run\/checkpoint-5 has no scheduler.*guessing 1000 timesteps of linear betas.*epsilon$/m;
    assertMatch(stderr, guess);
    assert(!stdout.includes("guessing"));
  }
});

Deno.test("a flow is learnt, sampled, continued and measured", async () => {
  await using folder = await Folder.make();
  await folder.write("data.idx", imagesFile());
  const { unet, training } = {
    unet: formatNetwork(tinyModel().network),
    training: { batch_size: 4, warmup_steps: 1 },
  };
  const scheduler = {
    ...{ _class_name: "FlowMatchEulerDiscreteScheduler", shift: 2, num_train_timesteps: 20 },
  };
  await folder.write("flow.json", { unet, training, scheduler });
  const device = ["--device", "cpu"];
  const train = ["train", "--data", "data.idx", "--out", "run", ...device];
  await folder.succeed(...train, "--config", "flow.json", "--steps", "2");
  const written = JSON.parse(await Deno.readTextFile(folder.at("run/config.json"))).scheduler;
  assertEquals(written._class_name, "FlowMatchEulerDiscreteScheduler");
  assertEquals([written.prediction_type, written.shift], ["flow_prediction", 2]);
  await folder.succeed(...train, "--resume", "--steps", "3");
  const facts = JSON.parse(await folder.succeed("info", "run", "--json", ...device));
  assertEquals([facts.betaSchedule, facts.predictionType], ["flow", "flow_prediction"]);
  await folder.succeed("sample", "--model", "run", ...sample);
  const measured = await folder.succeed(
    ...["eval", "--model", "run", "--data", "data.idx", "--count", "2", "--json", "--steps", "4"],
    ...device,
  );
  const { vlb, ode } = JSON.parse(measured);
  for (const { total } of [vlb, ode]) assert(Number.isFinite(total), measured.slice(0, 200));
});

Deno.test("weights in a file of PyTorch paint what those in safetensors do, by folder or by file", async () => {
  await using folder = await Folder.make();
  const { network, parameters } = tinyModel();
  await writeNetwork(folder, "safe/unet");
  await writeNetwork(folder, "torch/unet");
  for (const name of ["safe", "torch"]) {
    await writeScheduler(folder, `${name}/scheduler`, { num_train_timesteps: 10 });
  }
  const name = "torch/unet/diffusion_pytorch_model";
  await Deno.remove(folder.at(`${name}.safetensors`));
  await folder.write(`${name}.bin`, makeTorch(nameTensors(network.layout, parameters)));
  const paint = async (model: string) => {
    await folder.succeed("sample", "--model", model, ...sample);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return tensors.values().map(({ bytes }) => bytes).toArray();
  };
  const expected = await paint("safe");
  assert(expected[0].length >= 256);
  assertEquals(await paint("torch"), expected);
  assertEquals(await paint("safe/unet/diffusion_pytorch_model.safetensors"), expected);
  assertEquals(await paint(`${name}.bin`), expected);
  // Safetensors are preferred, but what is named is taken.
  await folder.write(`${name}.bin`, "anything");
  await writeNetwork(folder, "torch/unet");
  assertEquals(await paint("torch"), expected);
});

Deno.test("weights in several files, and in variants, are read as those in one", async () => {
  await using folder = await Folder.make();
  const { network, parameters } = tinyModel(), stem = "m/unet/diffusion_pytorch_model";
  const tensors = nameTensors(network.layout, parameters), half = tensors.length >> 1;
  await writeNetwork(folder, "m/unet");
  await writeScheduler(folder, "m/scheduler", { num_train_timesteps: 10 });
  const paint = async (model: string) => {
    const { code, stderr } = await folder.run("sample", "--model", model, ...sample);
    assertEquals(code, 0, stderr);
    const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
    return { told: stderr, images: tensors.values().map(({ bytes }) => bytes).toArray() };
  };
  const { images: expected } = await paint("m");
  await Deno.remove(folder.at(`${stem}.safetensors`));

  const parts = [tensors.slice(0, half), tensors.slice(half)];
  const writeIndex = (name: string, map: Record<string, string>) =>
    folder.write(name, { metadata: { total_size: 1 }, weight_map: map });
  for (const [format, write] of [["bin", makeTorch], ["safetensors", writeSafetensors]] as const) {
    const map: Record<string, string> = {};
    for (const [i, part] of parts.entries()) {
      const file = `diffusion_pytorch_model-0000${i + 1}-of-00002.${format}`;
      await folder.write(`m/unet/${file}`, write(part));
      for (const { name } of part) map[name] = file;
    }
    const index = `${stem}.${format}.index.json`;
    await writeIndex(index, map);
    assertEquals((await paint("m")).images, expected, format);
    assertEquals((await paint(index)).images, expected, format);
    const [first, second] = [parts[0][0].name, parts[1][0].name];
    const wrong: [Record<string, string>, RegExp][] = [
      [
        { ...map, [first]: "../../x.bin" },
        /is said to be in "\.\.\/\.\.\/x\.bin", but files lie beside their index/,
      ],
      [{ ...map, [first]: ".." }, /is said to be in "\.\.", but files lie beside their index/],
      [{ ...map, [first]: "gone.bin" }, /there is no gone\.bin/],
      [{ ...map, [first]: map[second] }, /is said to be in .*-00002-of-.*does not hold it/],
      [{ ...map, more: map[first] }, /more is said to be in .*-00001-of-.*does not hold it/],
    ];
    for (const [places, why] of wrong) {
      await writeIndex(index, places);
      await folder.refuse(["info", "m"], why);
    }
    await writeIndex(index, map);
    if (format === "bin") {
      for (const { name } of Deno.readDirSync(folder.at("m/unet"))) {
        if (/bin/.test(name)) await Deno.remove(folder.at(`m/unet/${name}`));
      }
    }
  }
  for (const { name } of Deno.readDirSync(folder.at("m/unet"))) {
    if (/safetensors/.test(name)) await Deno.remove(folder.at(`m/unet/${name}`));
  }

  await folder.write(`${stem}.fp16.safetensors`, writeSafetensors(tensors));
  const variant = await paint("m");
  assertEquals(variant.images, expected);
  assertMatch(
    variant.told,
    /the weights are the variant fp16: unet\/diffusion_pytorch_model\.fp16\.safetensors/,
  );
  // Weights without their moving average are the last choice.
  await folder.write(`${stem}.non_ema.safetensors`, "anything");
  assertEquals(await paint("m"), variant);
  assertEquals((await paint(`${stem}.fp16.safetensors`)).images, expected);
});
