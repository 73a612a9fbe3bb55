import { assert } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { ReferenceDevice } from "../src/gpu/reference.ts";
import { openGpu } from "./device.ts";
import { compareAll } from "./parity.ts";

const fixtures = fromFileUrl(new URL("./fixtures", import.meta.url));

for (const kind of ["gpu", "cpu"]) {
  Deno.test(`the ${kind} device agrees with PyTorch and diffusers`, async () => {
    using device = kind === "gpu" ? await openGpu() : new ReferenceDevice();
    let count = 0;
    for await (const { name, error, tolerance, worst } of compareAll(device, fixtures)) {
      assert(error <= tolerance, `${name}: ${error} at ${worst} is more than ${tolerance}`);
      count++;
    }
    assert(count >= 55, `only ${count} comparisons were made`);
  });
}
