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

const mayUse = (variable: string) =>
  Deno.permissions.querySync({ name: "env", variable }).state === "granted";

/** A variable of the environment, if there is one and Deno may look. */
export const environment = (variable: string): string | undefined =>
  mayUse(variable) ? Deno.env.get(variable) : undefined;

/** Opens the device; warns once where it will be slow. */
export async function openForCommand(
  kind: string | undefined,
  progress: Progress,
): Promise<Device> {
  // Without it, a line of EGL's about it ends up on stderr.
  const folder = "XDG_RUNTIME_DIR";
  if (Deno.build.os === "linux" && mayUse(folder) && !Deno.env.get(folder)) {
    Deno.env.set(folder, "/tmp");
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
