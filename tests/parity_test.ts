import { assert } from "@std/assert";
import { fromFileUrl } from "@std/path";
import type { Device } from "../src/gpu/device.ts";
import { ReferenceDevice } from "../src/gpu/reference.ts";
import { WasmDevice } from "../src/gpu/wasm/device.ts";
import { openGpu } from "./device.ts";
import { compareAll, isUsual } from "./parity.ts";

const fixtures = fromFileUrl(new URL("./fixtures", import.meta.url));

const devices: Record<string, () => Promise<Device>> = {
  GPU: openGpu,
  CPU: () => WasmDevice.open(),
  interpreter: () => Promise.resolve(new ReferenceDevice()),
};

/** Whether a case is for a device: numbers one by one take long over networks of published sizes. */
const isFor = (device: Device) => (id: string) =>
  isUsual(id) && !(device instanceof ReferenceDevice && id.startsWith("published/"));

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`the ${kind} agrees with PyTorch and diffusers`, async () => {
    using device = await open();
    let count = 0;
    const comparisons = compareAll(device, fixtures, isFor(device));
    for await (const { name, error, tolerance, worst } of comparisons) {
      assert(error <= tolerance, `${name}: ${error} at ${worst} is more than ${tolerance}`);
      count++;
    }
    const all = device instanceof ReferenceDevice ? 128 : 129;
    assert(count >= all, `only ${count} comparisons were made`);
  });
}
