/**
 * The device that a command runs on.
 *
 * @module
 */

import type { Device } from "../gpu/device.ts";
import { type DeviceKind, openDevice } from "../gpu/open.ts";
import type { Flag } from "./flags.ts";
import type { Progress } from "./progress.ts";

/** The flag of commands that compute. */
export const deviceFlag = {
  kind: "text",
  choices: ["auto", "gpu", "cpu"],
  value: "KIND",
  help: "gpu (WebGPU), cpu (WebAssembly), or auto, the default: a GPU if there is one",
} as const satisfies Flag;

const mayUse = (variable: string) =>
  Deno.permissions.querySync({ name: "env", variable }).state === "granted";

/** A variable of the environment, if there is one and Deno may look. */
export const environment = (variable: string): string | undefined =>
  mayUse(variable) ? Deno.env.get(variable) : undefined;

/** Opens the device; says so where `auto` does not mean a GPU. */
export async function openForCommand(
  kind: string | undefined,
  progress: Progress,
): Promise<Device> {
  // Without it, a line of EGL's about it ends up on stderr.
  const folder = "XDG_RUNTIME_DIR";
  if (Deno.build.os === "linux" && mayUse(folder) && !Deno.env.get(folder)) {
    Deno.env.set(folder, "/tmp");
  }
  return await openDevice((kind ?? "auto") as DeviceKind, {
    onNotice: (notice) => progress.say(`note: ${notice}`),
  });
}
