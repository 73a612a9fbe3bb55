import { assertEquals, assertRejects } from "@std/assert";
import { createSampler } from "../../src/cli/commands/samplers.ts";
import { LimitError } from "../../src/gpu/device.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { openGpu } from "../device.ts";
import { tinyModel } from "./cli.ts";

Deno.test("sample computes fewer images together where all of them do not fit", async () => {
  using device = await openGpu();
  const options = { steps: 2, batchSize: 20 } as const, model = tinyModel();
  // Parameters, 15,000 of them, are bound one by one; 16 channels of 8 x 8 are not.
  Object.assign(device.target, { maxBindingElements: 16 * 8 * 8 * 10 });
  await assertRejects(() => Sampler.create(device, model, options), LimitError, "takes");
  using sampler = await createSampler(device, model, options);
  using other = await Sampler.create(device, model, { ...options, batchSize: 1 });
  const images = await sampler.sample({ count: 3, seed: 1 });
  assertEquals(images.count, 3);
  assertEquals(images.data, (await other.sample({ count: 3, seed: 1 })).data);
  Object.assign(device.target, { maxBindingElements: 2000 });
  await assertRejects(() => createSampler(device, model, options), LimitError, "allows 8000");
});
