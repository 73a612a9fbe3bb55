/**
 * The device that a command runs on.
 *
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { type DeviceKind, openDevice, SOFTWARE_ADAPTER_PACKAGES } from "../gpu/open.ts";
import type { Flag } from "./flags.ts";
import type { Progress } from "./progress.ts";

/** The flag of commands that compute. */
export const deviceFlag = {
  kind: "text",
  choices: ["auto", "gpu", "cpu"],
  value: "KIND",
  help: "auto, gpu (WebGPU), or cpu (slow); default auto",
} as const satisfies Flag;

/** Opens the device; warns once where it will be slow. */
export async function openForCommand(
  kind: string | undefined,
  progress: Progress,
): Promise<Device> {
  // Without it, a line of EGL's about it ends up on stderr.
  if (Deno.build.os === "linux" && !Deno.env.get("XDG_RUNTIME_DIR")) {
    Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
  }
  const device = await openDevice((kind ?? "auto") as DeviceKind);
  if (kind !== "cpu" && device.kind === "cpu") {
    progress.say(
      "warning: there is no WebGPU adapter, so everything is computed by the slow interpreter; on " +
        `Debian, apt install ${SOFTWARE_ADAPTER_PACKAGES} gives a software adapter`,
    );
  }
  return device;
}
