/**
 * Kills a training at random moments, and compares what comes of it with a training that was left
 * alone: `deno run -A tests/cli/torture.ts 50`. At which moments depends on how fast the machine is;
 * what has to come of it does not.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { kindOf } from "../../src/cli/terminal/files.ts";
import { makeBmp, pictureFile } from "../pictures.ts";
import { Random } from "../random.ts";
import { type Folder, tinyUNet } from "./cli.ts";
import { makeFolder, readLog, readState, train } from "./training.ts";

/** How far a training comes until it is killed, at most, in times of a training of two steps. */
const LONGEST = 2;

const settings = [
  ...["--device", "cpu", "--save-every", "5", "--log-every", "2", "--max-bad", "1"],
];

/** A folder of image files in two classes and many sizes, of which one is damaged. */
async function writePhotos(folder: Folder, random: Random): Promise<void> {
  for (const name of ["photos", "photos/cats", "photos/dogs"]) await Deno.mkdir(folder.at(name));
  for (let i = 0; i < 12; i++) {
    const [width, height] = [0, 0].map(() => 8 + random.below(12));
    const bmp = makeBmp(width, height, [0, 0, 0]);
    for (let at = 54; at < bmp.length; at++) bmp[at] = random.below(256);
    await folder.write(`photos/${i % 2 ? "cats" : "dogs"}/${i}.bmp`, bmp);
  }
  for (const name of ["progressive.jpg", "turned.jpg", "rgba.png", "lossy.webp", "rgb.gif"]) {
    await folder.write(`photos/cats/${name}`, await pictureFile(name));
  }
  await folder.write("photos/dogs/damaged.png", (await pictureFile("rgb.png")).slice(0, 60));
}

/** Kills a training that often, at once or in the middle; returns how many steps were done. */
export async function torture(
  kills: number,
  say: (text: string) => void = () => {},
): Promise<number> {
  await using folder = await makeFolder();
  const random = new Random("kills");
  await writePhotos(folder, random);
  await folder.write("tiny.json", {
    data: "photos",
    images: { size: 8, classes: "folders", crop: "random", flip: true, shift: 1 },
    unet: { ...tinyUNet, in_channels: 3, out_channels: 3, dropout: 0.1, num_class_embeds: 3 },
    scheduler: { num_train_timesteps: 10 },
    training: {
      ...{ batch_size: 6, micro_batch: 3, learning_rate: 0.002, warmup_steps: 2 },
      ...{ ema_decay: 0.9, label_dropout: 0.2, held_out: 0.25 },
    },
  });
  const began = performance.now();
  await folder.succeed(...train("warm", 2, ...settings));
  const unit = performance.now() - began;
  let done = 0, resumed = false;
  for (let killed = 1; killed <= kills; killed++) {
    const isThere = await kindOf(folder.at("a/config.json")) === "file";
    // Whether decoded pictures are kept does not matter.
    const how = [...isThere ? ["--resume"] : [], ...random.below(2) ? ["--cache"] : []];
    const run = folder.start(...train("a", 1_000_000, ...settings, ...how));
    const killWithin = (time: number) =>
      setTimeout(() => run.kill("SIGKILL"), random.between(0, time));
    // Every other time it comes past a checkpoint before.
    const lines = killed % 2 ? 4 + random.below(6) : 0, decoder = new TextDecoder();
    let told = "", timer = lines ? undefined : killWithin(LONGEST * unit);
    for await (const chunk of run.stderr) {
      told += decoder.decode(chunk, { stream: true });
      if (told.split("\nstep ").length > lines + 2) timer ??= killWithin(unit / 4);
    }
    await run.stdout.cancel();
    clearTimeout(timer);
    assertEquals((await run.status).signal, "SIGKILL", told);
    resumed ||= told.includes("resuming ");
    done = await readState(folder, "a").then(({ step }) => step, () => done);
    say(`killed ${killed} times, saved after step ${done}`);
  }
  const last = done + 7, isThere = await kindOf(folder.at("a/config.json")) === "file";
  assert(resumed || kills < 3, "it was never resumed");
  await folder.succeed(...train("a", last, ...settings, ...(isThere ? ["--resume"] : [])));
  const { code, stderr } = await folder.run(...train("b", last, ...settings));
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "18 images of 8x8x3, 2 classes");
  assertStringIncludes(stderr, "damaged.png as PNG");
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
