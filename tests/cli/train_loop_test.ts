import {
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { openTrainingData } from "../../src/cli/data/data.ts";
import { kindOf } from "../../src/cli/terminal/files.ts";
import { parseImages } from "../../src/data/image_options.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { RunFolder } from "../../src/cli/run/run_folder.ts";
import { type Plan, runTraining } from "../../src/cli/run/train_loop.ts";
import { type Device, DeviceError, LimitError } from "../../src/gpu/device.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { noisyItemsNetwork, parseNetwork } from "../../src/model/network.ts";
import type { ParameterLayout } from "../../src/model/parameters.ts";
import { parseSchedule } from "../../src/diffusion/schedule.ts";
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

/** Trains for eight steps on the devices that it is given. */
async function trainOn(
  folder: Folder,
  run: string,
  open: () => Promise<Device>,
  plan: Partial<Plan> = {},
  layout: Partial<ParameterLayout> = {},
): Promise<string> {
  const images = parseImages({});
  const sizes = { in_channels: 1, out_channels: 1, sample_size: 8 };
  const network = noisyItemsNetwork(parseNetwork({ ...tinyUNet, ...sizes }));
  using to = new RunFolder(folder.at(run));
  using progress = new Listener();
  const opened = await openTrainingData(folder.at("data"), images, progress);
  const code = await runTraining({
    isNew: true,
    folder: to,
    command: "a test",
    ...{ ...opened, progress, plan: { last: 8, logEvery: 2, saveEvery: 4, ...plan } },
    config: {
      ...{ data: "data", steps: 8, images },
      network: { ...network, layout: { ...network.layout, ...layout } },
      scheduler: parseSchedule({ num_train_timesteps: 10 }),
      training: parseTraining({ batch_size: 5, warmup_steps: 2, held_out: 0.2 }),
    },
    open,
  });
  assertEquals(code, 0);
  return progress.told;
}

/** Trains on devices that live for as many steps as they are told. */
async function outlive(
  folder: Folder,
  run: string,
  lives: readonly number[],
  layout: Partial<ParameterLayout> = {},
): Promise<string> {
  const left = [...lives];
  const told = await trainOn(folder, run, () => openMortal(left.shift() ?? Infinity), {}, layout);
  assertEquals(left, []);
  return told;
}

Deno.test("a training goes on where it was saved when its device is lost", async () => {
  await using folder = await makeFolder();
  await outlive(folder, "a", []);
  // Before the first checkpoint, thereafter at once, and between the second and the last.
  const told = await outlive(folder, "b", [3, 1, 7]);
  assertEquals(await readState(folder, "b"), await readState(folder, "a"));
  assertEquals(await readLog(folder, "b"), await readLog(folder, "a"));
  const notes = told.split("\n").filter((line) => line.includes("Reopening it"));
  assertEquals(notes.map((line) => line.match(/after step (\d)$/)?.[1]), ["0", "0", "4"]);
  assertMatch(notes[0], /lost|reading back/);
});

Deno.test("the folder of a training does not tell that weights lie in several buffers", async () => {
  await using folder = await makeFolder();
  await outlive(folder, "a", []);
  const shards = { shardBytes: 70_000 };
  await outlive(folder, "b", [], shards);
  // Read from its checkpoint, after a device was lost.
  await outlive(folder, "c", [6], shards);
  const [a, b, c] = await Promise.all(["a", "b", "c"].map((run) => readState(folder, run)));
  assertEquals(c, b);
  const sizesOf = ({ arrays }: typeof a) =>
    Object.entries(arrays).map(([name, { length }]) => [name, length]);
  assertEquals(sizesOf(b), sizesOf(a));
});

Deno.test("a training whose device is lost three times in a row ends, and can be resumed", async () => {
  await using folder = await makeFolder();
  const { message } = await assertRejects(
    () => outlive(folder, "a", [1, 1, 1, Infinity]),
    DeviceError,
  );
  assertStringIncludes(message, "It failed 3 times in a row; --resume continues after step 0");
  assertEquals((await readState(folder, "a")).step, 0);
});

const kinds: Record<string, () => Promise<Device>> = {
  GPU: openGpu,
  CPU: () => WasmDevice.open(2),
};
for (const [kind, open] of Object.entries(kinds)) {
  Deno.test(`once it has begun, a training on a ${kind} compiles nothing`, async () => {
    await using folder = await makeFolder();
    let compiled = 0, steps = 0, allocated = 0, hasBegun = false;
    const plan: Partial<Plan> = { logEvery: 1, saveEvery: 2 };
    await trainOn(folder, "a", async () => {
      const device = await open(), compile = device.compile.bind(device);
      const buffer = device.buffer.bind(device);
      device.buffer = (...args) => {
        if (hasBegun) allocated++;
        return buffer(...args);
      };
      device.compile = async (graph, options) => {
        if (hasBegun) compiled++;
        const program = await compile(graph, options), run = program.run.bind(program);
        if (options?.label !== "a training step") return program;
        program.run = (times) => {
          hasBegun = true;
          steps++;
          run(times);
        };
        return program;
      };
      return device;
    }, plan);
    assertEquals([steps, compiled, allocated], [8, 0, 0]);
    await trainOn(folder, "b", open, { ...plan, saveEvery: 8 });
    // The sampler follows the weights.
    const [early, late, only] = await Promise.all(
      ["a/samples/step-0000002.png", "a/samples/step-0000008.png", "b/samples/step-0000008.png"]
        .map((name) => Deno.readFile(folder.at(name))),
    );
    assertEquals(late, only);
    assertNotEquals(early, late);
  });
}

Deno.test("where samples lack room, the step makes it; where it cannot, nothing begins", async () => {
  await using folder = await makeFolder();
  /** A device on which samples fit beside the nth step that is compiled. */
  const openTight = (fitting: number) => async () => {
    const device = await openGpu(), compile = device.compile.bind(device);
    let steps = 0;
    device.compile = async (graph, options) => {
      if (options?.label === "a training step") steps++;
      if (options?.label === "a sampling step" && steps < fitting) {
        throw new LimitError("It takes 9 bytes, but there are 8", 9, 8);
      }
      return await compile(graph, options);
    };
    return device;
  };
  assertStringIncludes(await trainOn(folder, "a", openTight(2)), "gradient checkpointing to fit");
  await assertRejects(() => trainOn(folder, "b", openTight(3)), LimitError, "there are 8");
  assertEquals(await kindOf(folder.at("b")), "nothing");
});
