import { assert, assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { ReferenceDevice } from "../../../src/gpu/reference.ts";
import { denoiserOf } from "../../../src/model/denoiser.ts";
import { parseNetwork } from "../../../src/model/network.ts";
import { guided } from "../../../src/sample/guidance/guided.ts";
import { Sampler } from "../../../src/sample/sampler.ts";
import { assertClose } from "../../close.ts";
import { openCpuAs, openGpu } from "../../device.ts";
import { randomModel } from "../../networks.ts";
import { Random } from "../../random.ts";
import { BATCH, estimateOn, ofItem } from "./guidance.ts";

/** Latents of 4 x 4 with 4 channels, of which a part is to be filled, by texts of 3 tokens. */
const model = randomModel(
  parseNetwork({
    ...{ _class_name: "UNet2DConditionModel", sample_size: 4, in_channels: 9, out_channels: 4 },
    ...{ block_out_channels: [8], norm_num_groups: 4, layers_per_block: 1 },
    ...{ down_block_types: ["CrossAttnDownBlock2D"], up_block_types: ["CrossAttnUpBlock2D"] },
    ...{ cross_attention_dim: 6, attention_head_dim: 2, encoder_sequence_length: 3 },
  }),
  { clip_sample: false },
);
const random = new Random("texts");
const numbers = (count: number) => Array.from({ length: count }, () => random.between(-1, 1));
const text = numbers(BATCH * 18), negative = numbers(BATCH * 18);
const shown = { mask: numbers(BATCH * 16), masked_image: numbers(BATCH * 64) };
const reference = new ReferenceDevice();

Deno.test("guidance by texts leads from the negative one to the other, and shows both the same hole", async () => {
  const denoiser = denoiserOf(model), wrapper = guided({ scale: 3 })(denoiser);
  assertEquals(
    Object.keys(wrapper.conditions).filter((name) => !(name in denoiser.conditions)),
    ["guidance", "negative_encoder_hidden_states"],
  );
  const [good, bad] = [
    await estimateOn(reference, denoiser, { ...shown, encoder_hidden_states: text }),
    await estimateOn(reference, denoiser, { ...shown, encoder_hidden_states: negative }),
  ];
  assert(good.epsilon.some((x, i) => Math.abs(x - bad.epsilon[i]) > 1e-2));
  const scales = [3, 7.5, 0];
  const conditions = {
    ...{ ...shown, encoder_hidden_states: text, negative_encoder_hidden_states: negative },
    guidance: scales,
  };
  for (const open of [() => Promise.resolve(reference), () => openCpuAs(2, {}), openGpu]) {
    using device = await open();
    const found = await estimateOn(device, wrapper, conditions);
    for (const name of ["epsilon", "sample"] as const) {
      const expected = Array.from(
        good[name],
        (e, i) => bad[name][i] + scales[ofItem(i)] * (e - bad[name][i]),
      );
      assertClose(found[name], expected, 1e-4, name);
    }
  }
});

Deno.test("a sampler of texts needs a text, and where it is guided another one", async () => {
  using device = await openCpuAs(1, {});
  const settings = { steps: 2, batchSize: 2 };
  using plain = await Sampler.create(device, model, settings);
  const encoder_hidden_states = text.slice(0, 18),
    hole = {
      mask: shown.mask.slice(0, 16),
      masked_image: shown.masked_image.slice(0, 64),
    };
  const conditions = { ...hole, encoder_hidden_states };
  assertEquals((await plain.sample({ count: 3, conditions })).count, 3);
  await assertRejects(
    () => plain.sample({ conditions: hole }),
    InputError,
    "needs the condition encoder_hidden_states, [3, 6]",
  );
  using sampler = await Sampler.create(device, model, { ...settings, wrap: [guided()] });
  await assertRejects(
    () => sampler.sample({ conditions }),
    InputError,
    "needs the condition negative_encoder_hidden_states",
  );
  const both = { ...conditions, negative_encoder_hidden_states: negative.slice(0, 18) };
  const samples = await sampler.sample({ count: 3, conditions: both });
  assertEquals(samples.shape, [4, 4, 4]);
  // Away from itself is nowhere.
  const same = { ...conditions, negative_encoder_hidden_states: encoder_hidden_states };
  const [a, b] = [
    await sampler.sample({ conditions: same }),
    await plain.sample({ conditions }),
  ];
  assertClose(a.data, b.data, 1e-4);
});
