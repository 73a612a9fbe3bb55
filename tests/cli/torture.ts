/**
 * Kills a training at random moments, and compares what comes of it with a training that was left
 * alone: `deno run -A tests/cli/torture.ts 50`.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { kindOf } from "../../src/cli/files.ts";
import { Random } from "../random.ts";
import { tinyUNet } from "./cli.ts";
import { makeFolder, readLog, readState, train } from "./training.ts";

/** How far a training comes until it is killed, at most, in times of a training of two steps. */
const LONGEST = 2;

const settings = ["--device", "cpu", "--save-every", "5", "--log-every", "2"];

/** Kills a training that often, at once or in the middle; returns how many steps were done. */
export async function torture(
  kills: number,
  say: (text: string) => void = () => {},
): Promise<number> {
  await using folder = await makeFolder();
  await folder.write("tiny.json", {
    data: "data",
    unet: { ...tinyUNet, dropout: 0.1, num_class_embeds: 11 },
    scheduler: { num_train_timesteps: 10 },
    training: {
      ...{ batch_size: 6, micro_batch: 3, learning_rate: 0.002, warmup_steps: 2 },
      ...{ label_dropout: 0.2, held_out: 0.25 },
    },
  });
  const random = new Random("kills"), began = performance.now();
  await folder.succeed(...train("warm", 2, ...settings));
  const unit = performance.now() - began;
  let done = 0, resumed = false;
  for (let killed = 1; killed <= kills; killed++) {
    const isThere = await kindOf(folder.at("a/config.json")) === "file";
    const how = isThere ? ["--resume"] : [];
    const run = folder.start(...train("a", 1_000_000, ...settings, ...how));
    const timer = setTimeout(() => run.kill("SIGKILL"), random.between(0, LONGEST * unit));
    const { signal, stderr } = await run.output();
    clearTimeout(timer);
    const told = new TextDecoder().decode(stderr);
    assertEquals(signal, "SIGKILL", told);
    resumed ||= told.includes("going on");
    done = await readState(folder, "a").then(({ step }) => step, () => done);
    say(`killed ${killed} times, saved after step ${done}`);
  }
  const last = done + 7, isThere = await kindOf(folder.at("a/config.json")) === "file";
  assert(resumed || kills < 3, "it was never resumed");
  await folder.succeed(...train("a", last, ...settings, ...(isThere ? ["--resume"] : [])));
  await folder.succeed(...train("b", last, ...settings));
  assertEquals(await readState(folder, "a"), await readState(folder, "b"));
  assertEquals(await readLog(folder, "a"), await readLog(folder, "b"));
  return last;
}

if (import.meta.main) {
  // deno-lint-ignore no-console
  const steps = await torture(Number(Deno.args[0] ?? 50), (text) => console.log(text));
  // deno-lint-ignore no-console
  console.log(`after step ${steps} all bytes and all lines are those of a training in one go`);
}
