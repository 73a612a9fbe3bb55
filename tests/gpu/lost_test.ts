import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { DeviceError, LimitError } from "../../src/gpu/device.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { tinyModel } from "../browser/tiny_model.ts";
import { openGpu } from "../device.ts";

const settings = { steps: 8, batchSize: 2 };

Deno.test("a GPU that is lost in a run fails all that waits, with what happened; a new one goes on", async () => {
  const expected = await (async () => {
    using device = await openGpu();
    using sampler = await Sampler.create(device, tinyModel(), settings);
    return await sampler.sample({ seed: 3 });
  })();
  {
    using device = await openGpu();
    using sampler = await Sampler.create(device, tinyModel(), settings);
    using buffer = device.buffer(1000);
    let reading: Promise<unknown> | undefined, idling: Promise<unknown> | undefined;
    const onProgress = () => {
      if (reading) return;
      [reading, idling] = [buffer.read(), device.idle()];
      // They fail while the run goes on, and are looked at below.
      for (const waiting of [reading, idling]) waiting.catch(() => {});
      device.device.destroy();
    };
    const isLost = (work: () => Promise<unknown>) => assertRejects(work, DeviceError, "lost");
    await isLost(() => sampler.sample({ count: 4, onProgress }));
    const outcomes = await Promise.allSettled([reading, idling]);
    for (const outcome of outcomes) {
      // What was done by then may still come.
      if (outcome.status === "rejected") assert(outcome.reason instanceof DeviceError);
    }
    await isLost(() => sampler.sample());
    await isLost(() => Sampler.create(device, tinyModel(), settings));
    await isLost(() => device.idle());
    await isLost(() => buffer.read());
  }
  using device = await openGpu();
  using sampler = await Sampler.create(device, tinyModel(), settings);
  assertEquals(await sampler.sample({ seed: 3 }), expected);
});

Deno.test("what has no room says how much there is, leaves nothing behind, and the next run works", async () => {
  const cases = { cpu: await WasmDevice.open(1), gpu: await openGpu() };
  for (const [kind, opened] of Object.entries(cases)) {
    using device = opened;
    const free = device instanceof WasmDevice ? device.available : 0;
    for (const batchSize of [2 ** 17, 2 ** 22]) {
      const error = await assertRejects(
        () => Sampler.create(device, tinyModel(), { ...settings, batchSize }),
        LimitError,
      );
      assert(error.wanted > error.limit && error.limit > 0, error.message);
      assertMatch(error.message, /(takes|take|allocate) .*\d.*(allows|gives) .*\d/, kind);
    }
    if (device instanceof WasmDevice) assertEquals(device.available, free);
    using sampler = await Sampler.create(device, tinyModel(), settings);
    assertEquals((await sampler.sample()).count, 1);
  }
});
