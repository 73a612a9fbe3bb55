import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { openDataset } from "../../src/cli/data.ts";
import { parseImages } from "../../src/cli/image_options.ts";
import { Progress } from "../../src/cli/progress.ts";
import { RunFolder } from "../../src/cli/run_folder.ts";
import { runTraining } from "../../src/cli/train_loop.ts";
import { type Device, DeviceError } from "../../src/gpu/device.ts";
import { parseUNetConfig } from "../../src/model/config.ts";
import { parseSchedule } from "../../src/model/schedule.ts";
import { parseTraining } from "../../src/train/config.ts";
import { openGpu } from "../device.ts";
import { type Folder, tinyUNet } from "./cli.ts";
import { makeFolder, readLog, readState } from "./training.ts";

/** A GPU that is lost right before its nth training step. */
async function openMortal(steps: number): Promise<Device> {
  const device = await openGpu(), compile = device.compile.bind(device);
  device.compile = async (graph, options) => {
    const program = await compile(graph, options), run = program.run.bind(program);
    if (options?.label === "a training step") {
      program.run = (times) => {
        if (--steps === 0) device.device.destroy();
        run(times);
      };
    }
    return program;
  };
  return device;
}

class Listener extends Progress {
  told = "";
  override say(text: string): void {
    this.told += `${text}\n`;
  }
}

/** Trains for eight steps on devices that live for as many steps as they are told. */
async function trainOn(folder: Folder, run: string, lives: readonly number[]): Promise<string> {
  const left = [...lives], images = parseImages({});
  const sizes = { in_channels: 1, out_channels: 1, sample_size: 8 };
  using to = new RunFolder(folder.at(run));
  using progress = new Listener();
  const data = await openDataset(folder.at("data"), images, progress);
  const code = await runTraining({
    isNew: true,
    folder: to,
    command: "a test",
    ...{ data, progress, plan: { last: 8, logEvery: 2, saveEvery: 4 } },
    config: {
      ...{ data: "data", steps: 8, images },
      unet: parseUNetConfig({ ...tinyUNet, ...sizes }),
      scheduler: parseSchedule({ num_train_timesteps: 10 }),
      training: parseTraining({ batch_size: 5, warmup_steps: 2 }),
    },
    open: () => openMortal(left.shift() ?? Infinity),
  });
  assertEquals([code, left], [0, []]);
  return progress.told;
}

Deno.test("a training goes on where it was saved when its device is lost", async () => {
  await using folder = await makeFolder();
  await trainOn(folder, "a", []);
  // Before the first checkpoint, thereafter at once, and between the second and the last.
  const told = await trainOn(folder, "b", [3, 1, 7]);
  assertEquals(await readState(folder, "b"), await readState(folder, "a"));
  assertEquals(await readLog(folder, "b"), await readLog(folder, "a"));
  const notes = told.split("\n").filter((line) => line.includes("Opening it anew"));
  assertEquals(notes.map((line) => line.match(/after step (\d)$/)?.[1]), ["0", "0", "4"]);
  assertMatch(notes[0], /lost|reading back/);
});

Deno.test("a training whose device is lost three times in a row ends, and can be resumed", async () => {
  await using folder = await makeFolder();
  const { message } = await assertRejects(
    () => trainOn(folder, "a", [1, 1, 1, Infinity]),
    DeviceError,
  );
  assertStringIncludes(message, "It failed 3 times in a row; --resume goes on after step 0");
  assertEquals((await readState(folder, "a")).step, 0);
});
