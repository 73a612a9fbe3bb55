import { assert, assertEquals } from "@std/assert";
import type { Dataset } from "../../src/data/dataset.ts";
import type { Device } from "../../src/gpu/device.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import type { LoadedModel } from "../../src/model/model.ts";
import { parameterInputs, shardsOf } from "../../src/model/parameters.ts";
import { measureBound } from "../../src/sample/likelihood.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { parseTraining } from "../../src/train/config.ts";
import { Trainer } from "../../src/train/trainer.ts";
import { assertParametersClose } from "../close.ts";
import { openCpuAs, openGpu } from "../device.ts";
import { randomModel, tinyNetwork } from "../networks.ts";

const ramps: Dataset = {
  ...{ name: "ramps", count: 6, shape: [4, 4, 1] },
  read: (index, out, offset) => {
    for (let i = 0; i < 16; i++) out[offset + i] = Math.sin(i * (index + 1));
  },
};

const whole = randomModel(tinyNetwork({ sample_size: 4 }), { num_train_timesteps: 10 });

/** Frequencies that are not trained are among its parameters. */
const fourier = randomModel(
  tinyNetwork({ sample_size: 4, time_embedding_type: "fourier", flip_sin_to_cos: false }),
);

/** The same model, its weights in three buffers. */
function part({ network, ...rest }: LoadedModel): LoadedModel {
  const { layout } = network, shardBytes = 1.5 * layout.size;
  return { ...rest, network: { ...network, layout: { ...layout, shardBytes } } };
}

const devices: Readonly<Record<string, () => Promise<Device>>> = {
  "a GPU": openGpu,
  "a CPU": () => openCpuAs(2, {}),
  "the interpreter": () => Promise.resolve(new ReferenceDevice()),
};

Deno.test("shards hold families in order, as many as fit", () => {
  const { layout } = part(whole).network, shards = shardsOf(layout);
  assertEquals(shards.length, 3);
  assertEquals(shards.reduce((n, { size }) => n + size, 0), layout.size);
  let start = 0;
  for (const { size, families } of shards) {
    assert(4 * size <= layout.shardBytes || families.length === 1);
    for (const { members: [first], offset } of families) {
      assertEquals(layout.offsets[first], start + offset);
    }
    start += size;
  }
  assertEquals(shardsOf(whole.network.layout).map(({ size }) => size), [layout.size]);
  assertEquals(
    parameterInputs(layout).map(({ attributes }) => attributes),
    shards.map(({ size }, k) => ({
      ...{ name: k ? `parameters.${k}` : "parameters", shape: [size], dtype: "f32" },
    })),
  );
});

for (const [kind, open] of Object.entries(devices)) {
  const settings: Readonly<Record<string, readonly [LoadedModel, Record<string, unknown>]>> = {
    "at once": [whole, { held_out: 0.3 }],
    "in parts": [fourier, { micro_batch: 2, optimizer: "adam" }],
  };
  for (const [way, [whole, fields]] of Object.entries(settings)) {
    const parted = part(whole), { network } = whole;
    Deno.test(`weights in three buffers are trained as in one, ${way}, on ${kind}`, async () => {
      using device = await open();
      const all = { batch_size: 4, max_grad_norm: 0.05, weight_decay: 0.1, ...fields };
      const create = (model: LoadedModel) =>
        Trainer.create(device, model, ramps, parseTraining(all));
      using one = await create(whole);
      using three = await create(parted);
      assertEquals(Object.keys(three.average), ["parameters", "parameters.1", "parameters.2"]);
      for (let i = 0; i < 3; i++) for (const trainer of [one, three]) await trainer.run();
      const [expected, actual] = [await one.state(), await three.state()];
      assertEquals(Object.keys(actual.arrays), Object.keys(expected.arrays));
      for (const name of ["parameters", "moment1", "moment2", "ema"] as const) {
        const [a, b] = [actual, expected].map(({ arrays }) => arrays[name]);
        assert(b.some((x, i) => x !== whole.parameters[i]));
        // The norm of the gradient is summed up in another order.
        assertParametersClose(network.layout, a, b, 1e-5, name);
      }
      const [mine, theirs] = [await three.records(3), await one.records(3)];
      mine.forEach(({ gradientNorm }, i) => {
        assert(Math.abs(gradientNorm / theirs[i].gradientNorm - 1) < 1e-5);
      });
      if (fields.held_out) {
        assert(Math.abs(await three.evaluate() / await one.evaluate() - 1) < 1e-5);
      }

      // A state does not tell how many buffers it came from.
      using second = await create(parted);
      second.restore(expected);
      one.restore(expected);
      for (const trainer of [one, second]) await trainer.run();
      const [after, same] = [await one.state(), await second.state()];
      assertParametersClose(network.layout, same.arrays.ema, after.arrays.ema, 1e-5, "ema");
      // Going on is exact.
      second.restore(actual);
      for (const trainer of [three, second]) await trainer.run();
      assertEquals(await second.state(), await three.state());
    });
  }

  Deno.test(`weights in three buffers make the same images, on ${kind}`, async () => {
    using device = await open();
    const parted = part(whole);
    const imagesOf = async (model: LoadedModel) => {
      using sampler = await Sampler.create(device, model, { steps: 2, batchSize: 2 });
      return await sampler.sample({ count: 2, seed: 4 });
    };
    const images = await imagesOf(whole);
    assertEquals(await imagesOf(parted), images);
    const options = { seed: 2 };
    assertEquals(
      await measureBound(device, parted, images, options),
      await measureBound(device, whole, images, options),
    );
    // Those of a training are read where they are.
    using trainer = await Trainer.create(device, parted, ramps, parseTraining({ batch_size: 2 }));
    using sampler = await Sampler.create(device, { ...parted, parameters: new Float32Array() }, {
      ...{ steps: 2, batchSize: 2, parameters: trainer.average },
    });
    assertEquals(await sampler.sample({ count: 2, seed: 4 }), images);
  });
}
