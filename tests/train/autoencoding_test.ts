import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Dataset } from "../../src/data/dataset.ts";
import { InputError } from "../../src/errors.ts";
import { latentDataset, latentScaling } from "../../src/data/latents.ts";
import {
  initializeModel,
  parseModel,
  readAutoencoder,
  serializeModel,
} from "../../src/model/model.ts";
import { autoencoderNetwork, formatNetwork, parseNetwork } from "../../src/model/network.ts";
import { flatten } from "../../src/model/parameters.ts";
import { initializeNetwork } from "../../src/model/weights.ts";
import { Autoencoder } from "../../src/sample/autoencoder.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { tinyNetwork } from "../networks.ts";

/** Four pictures of one side light and the other dark, in colours. */
const halves: Dataset = {
  ...{ name: "halves", count: 4, shape: [8, 8, 3] },
  read(index, out, offset) {
    for (let i = 0; i < 64; i++) {
      const [x, y] = [i % 8, i >> 3], isLight = [y < 4, x < 4, y > 3, x > 3][index];
      for (let c = 0; c < 3; c++) out[offset + 3 * i + c] = isLight ? 1 - 0.5 * c : -1;
    }
  },
};
const pictures = { count: 4, shape: halves.shape, data: new Float32Array(4 * 192) };
for (let i = 0; i < 4; i++) halves.read(i, pictures.data, 192 * i);

const tiny = (_class_name: string, rest: object = {}) => {
  const network = autoencoderNetwork(parseNetwork({
    ...{ _class_name, block_out_channels: [8, 16], norm_num_groups: 4, latent_channels: 3 },
    down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    ...(_class_name === "VQModel" ? { num_vq_embeddings: 16 } : {}),
    ...rest,
  }));
  return { ...initializeNetwork(network, 0), card: {} };
};

const settings = (fields: object = {}) =>
  parseTraining({
    ...{ objective: "autoencoder", batch_size: 4, learning_rate: 0.01, warmup_steps: 5 },
    ...{ ema_decay: 0.9, ...fields },
  });

for (const name of ["AutoencoderKL", "VQModel"]) {
  Deno.test(`${name} learns four pictures, and gives them back`, async () => {
    using device = await openCpuAs(1, {});
    using trainer = await Trainer.create(device, tiny(name), halves, settings());
    for (let i = 0; i < 120; i++) await trainer.run();
    const records = await trainer.records(120), [first, last] = [records[0], records.at(-1)!];
    assertEquals(first.quartiles, []);
    assert(last.reconstruction! < first.reconstruction! / 5, `${first.loss} became ${last.loss}`);
    const weight = name === "VQModel" ? 1 : 1e-6 / 192;
    assertClose([last.loss], [last.reconstruction! + weight * last.penalty!], 1e-5);

    // As a file, on another device.
    const trained = readAutoencoder(serializeModel(await trainer.model({ data: "halves" })));
    assertEquals([trained.card.data, trained.network.config.sample_size], ["halves", 8]);
    using gpu = await openGpu();
    using autoencoder = await Autoencoder.create(gpu, trained, { size: [8, 8], batchSize: 4 });
    const back = await autoencoder.decode(await autoencoder.encode(pictures, { sample: false }));
    const far = back.data.reduce((sum, x, i) => sum + Math.abs(x - pictures.data[i]), 0) / 768;
    assert(far < 0.2, `pictures differ by ${far} on average`);
  });

  Deno.test(`${name} learns the same in parts, and with what is computed again`, async () => {
    using device = await openCpuAs(1, {});
    const learn = async (fields: object) => {
      const config = settings({ ...fields, held_out: 0.25 });
      using trainer = await Trainer.create(device, tiny(name), halves, config);
      for (let i = 0; i < 3; i++) await trainer.run();
      const { parameters, network } = await trainer.model();
      const { loss, reconstruction, penalty } = (await trainer.records(1))[0];
      return {
        parameters: flatten(network.layout, parameters),
        losses: [loss, reconstruction!, penalty!, await trainer.evaluate()],
      };
    };
    const whole = await learn({});
    for (const fields of [{ micro_batch: 2 }, { gradient_checkpointing: true }]) {
      const other = await learn(fields);
      assertClose(other.losses, whole.losses, 1e-4);
      assertClose(other.parameters, whole.parameters, 1e-3);
    }
  });
}

Deno.test("pictures that an autoencoder cannot take are refused", async () => {
  using device = await openCpuAs(1, {});
  const refuse = async (rest: object, shape: readonly number[], message: string) => {
    const data = { ...halves, shape };
    await assertRejects(
      () => Trainer.create(device, tiny("AutoencoderKL", rest), data, settings()),
      InputError,
      message,
    );
  };
  await refuse({}, [8, 7, 3], "multiples of that, as of 8x8");
  await refuse({ in_channels: 1, out_channels: 1 }, [8, 8, 3], "for pictures of 1 channel");
  await assertRejects(
    () => Trainer.create(device, tiny("VQModel"), halves, parseTraining({})),
    InputError,
    "Cannot train a VQModel by mse: the objective of autoencoders is autoencoder",
  );
});

Deno.test("a model of latents paints the one of four pictures that it is asked for", async () => {
  using device = await openCpuAs(1, {});
  using encoding = await Trainer.create(device, tiny("AutoencoderKL"), halves, settings());
  for (let i = 0; i < 120; i++) await encoding.run();
  const trained = await encoding.model();
  using autoencoder = await Autoencoder.create(device, trained, { size: [8, 8], batchSize: 4 });
  const latents = await autoencoder.latents(pictures), scalingFactor = latentScaling(latents);
  const fields = { ...formatNetwork(trained.network), scaling_factor: scalingFactor };
  const network = autoencoderNetwork(parseNetwork(fields));
  const data = latentDataset({ ...halves, labels: [0, 1, 2, 3] }, latents, network);
  assertEquals(data.shape, [4, 4, 3]);
  const unet = tinyNetwork({
    ...{ sample_size: 4, in_channels: 3, out_channels: 3, num_class_embeds: 4 },
    block_out_channels: [16],
  });
  const start = initializeModel(unet, { clip_sample: false }, 0);
  const model = { ...start, autoencoder: { ...trained, network } };
  using training = await Trainer.create(
    ...[device, model, data] as const,
    parseTraining({ batch_size: 16, learning_rate: 0.01, warmup_steps: 10, ema_decay: 0.98 }),
  );
  for (let i = 0; i < 400; i++) await training.run();

  const whole = parseModel(serializeModel(await training.model()));
  assertEquals(whole.autoencoder!.network.scalingFactor, scalingFactor);
  using sampler = await Sampler.create(device, whole, { method: "dpmpp_2m", batchSize: 8 });
  const labels = [0, 1, 2, 3, 3, 2, 1, 0];
  const sampled = await sampler.sample({ count: 8, seed: 5, labels });
  using decoder = await Autoencoder.create(device, whole.autoencoder!, {
    ...{ size: [8, 8], batchSize: 8, only: "decode" },
  });
  const { data: painted } = await decoder.decode(sampled);
  labels.forEach((label, k) => {
    const far = [0, 1, 2, 3].map((other) => {
      const picture = pictures.data.subarray(192 * other, 192 * other + 192);
      return picture.reduce((sum, x, i) => sum + Math.abs(x - painted[192 * k + i]), 0) / 192;
    });
    assertEquals(far.indexOf(Math.min(...far)), label, `image ${k}: ${far}`);
    const others = far.filter((_, other) => other !== label);
    assert(far[label] < Math.min(...others) / 2, `image ${k} is between: ${far}`);
  });
});
