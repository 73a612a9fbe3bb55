/**
 * Opening the device that a command runs on.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { type Device, DeviceError, type Precision } from "../../gpu/device.ts";
import { type DeviceKind, openDevice } from "../../gpu/open.ts";
import { mayUse } from "./environment.ts";
import type { Flag, Flags } from "./flags.ts";
import type { Progress } from "./progress.ts";
import { keepTuning, tuningFile } from "./tuning.ts";

/** The most threads: more would only wait for each other. */
const MAX_THREADS = 256;

/** Flags of all commands that compute. */
export const deviceFlags = {
  device: {
    kind: "text",
    choices: ["auto", "gpu", "cpu"],
    value: "KIND",
    default: "auto",
    help: "gpu (WebGPU), cpu (WebAssembly), or auto: a GPU if there is one",
  },
  threads: {
    kind: "integer",
    min: 1,
    max: MAX_THREADS,
    default: "one per core",
    help: "CPU threads",
  },
  wide: {
    kind: "switch",
    help:
      "on the CPU, restart with V8 flags: up to twice as fast, without bounds checks in WebAssembly",
  },
  "no-tune": {
    kind: "switch",
    help: "on a GPU, choose kernels by heuristics instead of by measuring",
  },
} as const satisfies Record<string, Flag>;

/** Their values. */
export type DeviceFlags = Flags<typeof deviceFlags>;

/** The flag of commands that run networks. */
export const precisionFlag = {
  kind: "text",
  choices: ["f32", "f16"] satisfies Precision[],
  value: "NAME",
  default: "f32",
  help: "f32, or f16: activations in half the memory, on a GPU with the feature shader-f16",
} as const satisfies Flag;

/** Rejects flags that contradict each other; not all commands have `precision`. */
export function checkDeviceFlags(
  { device, threads, wide, precision }: DeviceFlags & { readonly precision?: string },
): void {
  const name = threads !== undefined ? "threads" : wide ? "wide" : undefined;
  if (device === "gpu" && name) {
    throw new InputError(`--${name} is for the CPU, not for --device gpu`);
  }
  if (precision === "f16" && (device === "cpu" || name)) {
    throw new InputError(
      `--precision f16 is for a GPU, not for --${name ?? "device cpu"}: it needs an adapter with ` +
        "the feature shader-f16",
    );
  }
}

/** Debian's packages that make a WebGPU adapter of the CPU. */
const PACKAGES = "libvulkan1 mesa-vulkan-drivers";

/** A message, with what to do about it. */
const advise = (message: string) =>
  message.replace(
    "no WebGPU adapter",
    `no WebGPU adapter (on Debian, ${PACKAGES} give a software one)`,
  );

/** Opens the device; prints a note if `auto` did not find a GPU. Wide mode is that of the CPU. */
export async function openForCommand(
  { wide, device = wide ? "cpu" : "auto", threads, "no-tune": byRules }: DeviceFlags,
  progress: Pick<Progress, "say">,
): Promise<Device> {
  // Without this variable, EGL prints a warning on stderr.
  const folder = "XDG_RUNTIME_DIR";
  if (Deno.build.os === "linux" && mayUse(folder) && !Deno.env.get(folder)) {
    Deno.env.set(folder, "/tmp");
  }
  const file = byRules || device === "cpu" ? undefined : tuningFile();
  const options = {
    ...(threads === undefined ? {} : { threads }),
    ...(file ? { tuning: await keepTuning(file) } : {}),
    onNotice: (notice: string) => progress.say(`note: ${advise(notice)}`),
  };
  try {
    return await openDevice(device as DeviceKind, options);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    throw new DeviceError(advise(error.message), { cause: error });
  }
}
