import { assert, assertEquals, assertThrows } from "@std/assert";
import { makeTables } from "../../../src/diffusion/betas.ts";
import { parseSchedule } from "../../../src/diffusion/schedule.ts";
import { InputError } from "../../../src/errors.ts";
import type { FileTensor } from "../../../src/formats/safetensors.ts";
import { findFamily, readFamily } from "../../../src/model/families/mod.ts";
import { ldmUnconditional } from "../../../src/model/families/ldm_unconditional.ts";
import { findPipelineFamily } from "../../../src/model/families/pipelines.ts";
import { stableDiffusion } from "../../../src/model/families/stable_diffusion.ts";
import type { TensorMap } from "../../../src/model/families/family.ts";
import { flatten, type ParameterLayout } from "../../../src/model/parameters.ts";
import type { Weighted } from "../../../src/model/weights.ts";
import { Autoencoder } from "../../../src/sample/autoencoder.ts";
import { Sampler } from "../../../src/sample/sampler.ts";
import { ReferenceDevice } from "../../../src/gpu/reference.ts";
import { openCpuAs, openGpu } from "../../device.ts";
import { ldmConfig, ldmModel, ldmTensors } from "../../ldm.ts";

const expected = await ldmModel(), original = await ldmTensors();
const read = (tensors: TensorMap, config: unknown = ldmConfig) =>
  readFamily(ldmUnconditional, tensors, "x.ckpt", { config });
const numbers = (shape: number[], values: number[]): FileTensor => ({
  ...{ dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) },
});
const without = (pattern: RegExp) =>
  new Map(original.entries().filter(([name]) => !pattern.test(name)));

type AnyWeighted = Weighted<{ readonly layout: ParameterLayout }>;
const flat = ({ network: { layout }, parameters }: AnyWeighted) => flatten(layout, parameters);

Deno.test("a file of latent diffusion without texts holds a network of guided-diffusion and its autoencoder", () => {
  assertEquals(findFamily(original), ldmUnconditional);
  assertEquals(findPipelineFamily(original), undefined);
  const { model, notes } = read(original);
  assertEquals(model.network.config, expected.network.config);
  assertEquals(flat(model), flat(expected));
  assertEquals(model.schedule, expected.schedule);
  assertEquals(model.autoencoder!.network.config, expected.autoencoder!.network.config);
  assertEquals(flat(model.autoencoder!), flat(expected.autoencoder!));
  assertEquals(notes, [
    `its tensors have the names of ${ldmUnconditional.name}`,
    "a moving average is not in the file, which may have its numbers as the weights",
    "the noise is as its configuration says",
  ]);
});

const devices = {
  GPU: openGpu,
  CPU: () => openCpuAs(2, {}),
  interpreter: () => Promise.resolve(new ReferenceDevice()),
};
for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`its latents and pictures are those of the two networks alone, on the ${kind}`, async () => {
    using device = await open();
    const pictures = [];
    for (const model of [read(original).model, expected]) {
      using sampler = await Sampler.create(device, model, { steps: 2, batchSize: 3 });
      using decoder = await Autoencoder.create(device, model.autoencoder!, {
        size: [16, 16],
        only: "decode",
      });
      const latents = await sampler.sample({ count: 3, seed: 5 });
      pictures.push({ latents, ...await decoder.decode(latents) });
    }
    assertEquals(pictures[0].shape, [16, 16, 3]);
    assert(pictures[0].data.every(Number.isFinite) && new Set(pictures[0].data).size > 100);
    assertEquals(pictures[0], pictures[1]);
  });
}

Deno.test("what nothing tells is that of the published models of faces, and is said", () => {
  const groups = { unet: { norm_num_groups: 4, num_heads: 2 }, vae: { norm_num_groups: 4 } };
  const { model, notes } = read(original, groups);
  assertEquals(model.network.itemShape, [128, 128, 3]);
  assertEquals(model.network.config.num_heads, 2);
  assertEquals(model.schedule, expected.schedule);
  assertEquals(model.autoencoder!.network.scalingFactor, 1);
  const said = notes.join("\n");
  for (const what of ["128x128, of 256 pixels", "taken for 1", "the noise and what is predicted"]) {
    assert(said.includes(what), `${what} in ${said}`);
  }
  assertThrows(() => read(original, {}), InputError, "norm_num_groups, 32");
  assertThrows(
    () => read(original, { ...groups, unet: { norm_num_groups: 4 } }),
    InputError,
    "num_head_channels, 32",
  );
});

Deno.test("the average is preferred where it is complete, and tables of the noise are compared", async () => {
  const file = new Map(original);
  for (const [name, tensor] of await ldmTensors("average")) {
    const [, own] = name.match(/^state_dict\.model\.(diffusion_model\..*)$/) ?? [];
    if (own) file.set(`state_dict.model_ema.${own.replaceAll(".", "")}`, tensor);
  }
  const { model, notes } = read(file), other = await ldmModel("average");
  assertEquals(flat(model), flat(other));
  assert(notes.includes("the moving average of the weights was taken"));
  file.delete("state_dict.model_ema.diffusion_modelout2bias");
  assertEquals(flat(read(file).model), flat(expected));

  const betas = (fields: object) => {
    const { betas } = makeTables(parseSchedule({ beta_schedule: "scaled_linear", ...fields }));
    return new Map(original).set("state_dict.betas", numbers([betas.length], [...betas]));
  };
  const usual = { beta_start: 0.0015, beta_end: 0.0195 };
  assertEquals(read(betas(usual)).model.schedule, expected.schedule);
  const churches = betas({ ...usual, beta_end: 0.0155 });
  assertThrows(() => read(churches), InputError, "another noise than the table betas");
  const { unet_config, image_size } = ldmConfig.model.params;
  const own = read(churches, { ...ldmConfig, model: { params: { unet_config, image_size } } });
  assertEquals(own.model.schedule.trainedBetas!.length, 1000);
  assert(own.notes.some((note) => note.startsWith("the noise is as the file has it")));
});

Deno.test("a first stage that is missing or of other latents, and networks that are shown more, are refused", () => {
  const place = "state_dict.model.diffusion_model.";
  const bare = { unet: { norm_num_groups: 4, num_heads: 2 }, vae: { norm_num_groups: 4 } };
  assertThrows(() => read(without(/first_stage_model/)), InputError, "it lacks first_stage_model");
  const shown = new Map(original).set(
    `${place}input_blocks.0.0.weight`,
    numbers([8, 6, 3, 3], Array(432).fill(0)),
  );
  assertThrows(() => read(shown, bare), InputError, "6 channels go into its UNet and 3 come out");
  const four = new Map(original)
    .set(`${place}input_blocks.0.0.weight`, numbers([8, 4, 3, 3], Array(288).fill(0)))
    .set(`${place}out.2.weight`, numbers([4, 8, 3, 3], Array(288).fill(0)));
  assertThrows(() => read(four), InputError, "in_channels");
  assertThrows(
    () => read(four, bare),
    InputError,
    "denoises 4 channels, but its first_stage_model",
  );
  const changed = (fields: object) => () =>
    read(original, { ...ldmConfig, unet: { ...ldmConfig.unet, ...fields } });
  assertThrows(
    changed({ attention_resolutions: [1] }),
    InputError,
    "says attention_resolutions [1], but its tensors are of [2]",
  );
  assertThrows(changed({ use_linear: true }), InputError, "use_linear");
  assertThrows(
    () => read(new Map(original).set("state_dict.control.weight", numbers([1], [0]))),
    InputError,
    "it holds control.weight",
  );
  // Something that reads makes it another kind of model, which is not known.
  const told = new Map(original).set("state_dict.cond_stage_model.weight", numbers([1], [0]));
  assertEquals(findFamily(told), undefined);
  assertEquals(findPipelineFamily(told), stableDiffusion);
});
