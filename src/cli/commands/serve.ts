/**
 * `ddpm serve`: the page, and an API, over the device of this machine.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { shippedModels } from "../../model/shipped.ts";
import { Interruption } from "../run/interruption.ts";
import { safetyFlags } from "../run/withheld.ts";
import { ComputeThread } from "../serve/compute_thread.ts";
import { isLoopback, makeToken } from "../serve/guard.ts";
import { openModels } from "../serve/models.ts";
import { startServer } from "../serve/server.ts";
import { checkDeviceFlags, deviceFlags } from "../terminal/device.ts";
import { type Flag, parseFlags } from "../terminal/flags.ts";
import { print, Progress } from "../terminal/progress.ts";
import { splitModels } from "./cascade.ts";

/** The flags of `serve`. */
export const serveFlags = {
  model: {
    kind: "text",
    value: "MODEL,...",
    default: shippedModels.join(","),
    help: "models to serve, each as sample takes it; clients know them by name, never by path",
  },
  port: {
    kind: "integer",
    min: 0,
    max: 65535,
    default: 8080,
    help: "port to listen at; 0 is any that is free",
  },
  host: {
    kind: "text",
    value: "HOST",
    default: "127.0.0.1",
    help: "address to listen at; whoever can reach another one needs the token",
  },
  token: {
    kind: "text",
    value: "TEXT",
    default: "none for this machine alone, else one that is made and printed",
    help: "what clients must show: Authorization: Bearer TEXT, or /?token=TEXT for the page",
  },
  queue: { kind: "integer", min: 1, max: 10_000, default: 16, help: "jobs that may wait" },
  "max-images": {
    kind: "integer",
    min: 1,
    max: 1024,
    default: 16,
    help: "pictures of a job at most",
  },
  "max-steps": {
    kind: "integer",
    min: 1,
    max: 100_000,
    default: 1000,
    help: "steps of a job at most",
  },
  ...safetyFlags,
  ...deviceFlags,
} as const satisfies Record<string, Flag>;

/** Runs the command, until it is interrupted. */
export async function serveCommand(args: readonly string[]): Promise<number> {
  const { flags, rest } = parseFlags(args, serveFlags);
  if (rest.length) throw new InputError(`serve takes flags only, not ${rest[0]}`);
  checkDeviceFlags(flags);
  const { host = "127.0.0.1", port = 8080, queue = 16 } = flags;
  const isMade = flags.token === undefined && !isLoopback(host);
  const token = isMade ? makeToken() : flags.token;
  const places = flags.model === undefined ? shippedModels : await splitModels(flags.model);
  const { "no-safety-checker": isUnchecked = false } = flags;
  const models = await openModels(places, isUnchecked);
  using progress = new Progress();
  using interruption = new Interruption(progress, "ending what is being computed");
  const stopped = new Promise((resolve) => interruption.signal.addEventListener("abort", resolve));
  await using server = await startServer({
    ...{ host, port, token, models, queue },
    limits: { images: flags["max-images"] ?? 16, steps: flags["max-steps"] ?? 1000 },
    start: () =>
      ComputeThread.start({
        places,
        isUnchecked,
        flags,
        models,
        onNotice: (text) => progress.say(text),
      }),
    onError: (message) => progress.say(`error: ${message}`),
  });
  const address = isMade ? `${server.url}?token=${token}` : server.url;
  print(`${address} serves ${[...models.keys()].join(", ")} on ${server.device}`);
  if (!interruption.signal.aborted) await stopped;
  return 0;
}
