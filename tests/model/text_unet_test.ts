import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { input } from "../../src/gpu/tensor.ts";
import { parameterInputs, viewParameters } from "../../src/model/parameters.ts";
import { denoisingNetwork } from "../../src/model/denoiser.ts";
import { initializeModel, parseModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import type { Dataset } from "../../src/data/dataset.ts";
import { guided } from "../../src/sample/guidance/guided.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { openCpuAs } from "../device.ts";

const network = denoisingNetwork({
  network: parseNetwork({
    ...{ _class_name: "TextUNet2DModel", sample_size: 4, in_channels: 1, out_channels: 1 },
    ...{ block_out_channels: [16], layers_per_block: 1, norm_num_groups: 4 },
    ...{ down_block_types: ["CrossAttnDownBlock2D"], up_block_types: ["CrossAttnUpBlock2D"] },
    ...{ attention_head_dim: 2, mid_block_type: null },
    text_encoder: { max_length: 8, width: 16, layers: 1, heads: 2 },
  }),
});

Deno.test("it paints images of any size, unless pixels at their edges are lost on the way down", () => {
  const fields = { ...network.config, _class_name: "TextUNet2DModel", sample_size: null };
  const deep = {
    ...{ ...fields, block_out_channels: [16, 16], mid_block_type: "UNetMidBlock2DCrossAttn" },
    down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
  };
  const predict = (padding: number) => {
    const { multiple, forward, layout } = denoisingNetwork({
      network: parseNetwork({ ...deep, downsample_padding: padding }),
    });
    const parameter = viewParameters(layout, parameterInputs(layout));
    const inputs = { sample: input("x", [1, 5, 7, 1]), timestep: input("t", [1]) };
    const conditions = { tokens: input("tokens", [1, 8], "i32") };
    return { multiple, run: () => forward({ parameter }, { ...inputs, conditions }).shape };
  };
  const free = predict(1), bound = predict(0);
  assertEquals([free.multiple, bound.multiple], [1, 2]);
  assertEquals(free.run(), [1, 5, 7, 1]);
  assertThrows(bound.run, InputError, "multiples of 2");
});

const captions = [["top", "upper"], ["left"], ["bottom"], ["right"]];
/** Four pictures of one side light and the other dark, and which side it is. */
const halves: Dataset = {
  ...{ name: "halves", count: 4, shape: [4, 4, 1], captions },
  read(index, out, offset) {
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 4; x++) {
        out[offset + 4 * y + x] = [y < 2, x < 2, y > 1, x > 1][index] ? 1 : -1;
      }
    }
  },
};

Deno.test("a network that learns captions paints what it is asked for in words", async () => {
  using device = await openCpuAs(1, {});
  const settings = parseTraining({
    ...{ batch_size: 16, learning_rate: 0.005, warmup_steps: 20, ema_decay: 0.98 },
    label_dropout: 0.1,
  });
  using trainer = await Trainer.create(device, initializeModel(network, {}, 0), halves, settings);
  for (let step = 0; step < 300; step++) await trainer.run();
  const model = parseModel(serializeModel(await trainer.model()));
  assertEquals(model.network.config, network.config);

  using sampler = await Sampler.create(device, model, {
    ...{ steps: 10, batchSize: 5, wrap: [guided({ scale: 1.5 })] },
  });
  const words = ["right", "upper", "bottom", "left", "top"], wanted = [3, 0, 2, 1, 0];
  const tokens = words.flatMap((word) => [...network.tokenize!(word)]);
  const { data } = await sampler.sample({ count: 5, seed: 3, conditions: { tokens } });
  wanted.forEach((index, k) => {
    const picture = new Float32Array(16);
    halves.read(index, picture, 0);
    const far = picture.reduce((sum, x, i) => sum + Math.abs(x - data[16 * k + i]) / 16, 0);
    assert(far < 0.4, `${words[k]} is ${far} from what it should be`);
  });
});
