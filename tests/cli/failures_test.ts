import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { kindOf, listFolder } from "../../src/cli/terminal/files.ts";
import { RunFolder } from "../../src/cli/run/run_folder.ts";
import { isIntact, writeSealed } from "../../src/cli/run/state_file.ts";
import { sizeOf } from "../../src/shape.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { Random } from "../random.ts";
import { serializeModel } from "../../src/model/model.ts";
import { Folder, tinyModel, tinyUNet } from "./cli.ts";
import { makeFolder, readLog, readState, train } from "./training.ts";

/** A training that is told what to do when it says something. */
async function follow(
  child: Deno.ChildProcess,
  cues: readonly [said: string, action: () => void | Promise<void>][],
): Promise<{ code: number; signal: string | null; told: string }> {
  const decoder = new TextDecoder(), left = [...cues];
  let told = "";
  for await (const chunk of child.stderr) {
    told += decoder.decode(chunk, { stream: true });
    while (left.length && told.includes(left[0][0])) await left.shift()![1]();
  }
  await child.stdout.cancel();
  const { code, signal } = await child.status;
  assertEquals(left.length, 0, `${left[0]?.[0]} was never said: ${told}`);
  return { code, signal, told };
}

const cpu = ["--device", "cpu"], endless = 1_000_000;

/** Goes on for some steps, which must end as a training that nothing happened to. */
async function assertGoesOn(folder: Folder, run: string, last?: number): Promise<void> {
  const { step } = await readState(folder, run).catch(() => ({ step: 0 }));
  last ??= step + 3;
  await folder.succeed(...train(run, last, "--resume", ...cpu));
  const undisturbed = `undisturbed-${last}`;
  if (await kindOf(folder.at(undisturbed)) === "nothing") {
    await folder.succeed(...train(undisturbed, last, ...cpu));
  }
  assertEquals(await readState(folder, run), await readState(folder, undisturbed));
  assertEquals(await readLog(folder, run), await readLog(folder, undisturbed));
  const files = await folder.list(folder.at(run));
  assert(!files.some((line) => line.includes(".part")), files.join("\n"));
}

const mount = (...args: string[]) => new Deno.Command("mount", { args, stderr: "null" }).output();

/** Whether this process may make small disks to fill. */
const canMount = await (async () => {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  const folder = await Deno.makeTempDir();
  const { success } = await mount("-t", "tmpfs", "-o", "size=64k", "none", folder);
  if (success) await new Deno.Command("umount", { args: [folder] }).output();
  await Deno.remove(folder);
  return success;
})();

Deno.test({
  name: "a training whose disk fills up ends, and goes on when there is room again",
  ignore: !canMount,
  async fn() {
    await using folder = await makeFolder();
    await Deno.mkdir(folder.at("disk"));
    await mount("-t", "tmpfs", "-o", "size=4m", "none", folder.at("disk"));
    try {
      const fill = async () => {
        using file = await Deno.open(folder.at("disk/filler"), { create: true, write: true });
        const block = new Uint8Array(4096);
        try {
          for (;;) await file.write(block);
        } catch { /* It is full. */ }
      };
      const run = folder.start(...train("disk/a", endless, ...cpu));
      const { code, told } = await follow(run, [["step 4 of", fill]]);
      assertEquals(code, 1);
      assertMatch(
        told,
        /error: Cannot (write|save to) .*(No space left on device|the disk has .* left)\n$/,
      );
      await Deno.remove(folder.at("disk/filler"));
      await assertGoesOn(folder, "disk/a");

      // Room is looked for beforehand.
      await mount("-o", "remount,size=3m", folder.at("disk"));
      await folder.refuse(
        train("disk/b", 4, ...cpu),
        /Cannot train into disk\/b: it takes 2\.\d+ MB with 2 checkpoints, and the disk has/,
      );
    } finally {
      await new Deno.Command("umount", { args: [folder.at("disk")] }).output();
    }
  },
});

Deno.test({
  name: "a training that cannot write a file takes away what there is of it",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using folder = await makeFolder();
    // In blocks of 512 or 1024 bytes: room for the configuration, not for the model.
    const limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 100; exec "$@"', "sh"];
    const run = folder.startUnder(limited, train("a", 4, ...cpu));
    const { code, told } = await follow(run, []);
    assertEquals(code, 1);
    assertMatch(told, /error: Cannot write a.model\.safetensors: File too large\n$/);
    await assertGoesOn(folder, "a");
  },
});

Deno.test({
  name: "a training whose folder is made read-only ends, and goes on when it is writable",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using folder = await makeFolder();
    // Root may write everywhere, unless it is told to be like others.
    const wrapper = Deno.uid() === 0 ? ["setpriv", "--bounding-set", "-dac_override"] : [];
    const run = folder.startUnder(wrapper, train("a", endless, ...cpu));
    const close = async () => {
      await Deno.chmod(folder.at("a/samples"), 0o555);
      await Deno.chmod(folder.at("a"), 0o555);
    };
    const { code, told } = await follow(run, [["step 4 of", close]]);
    assertEquals(code, 1);
    assertMatch(told, /error: Cannot write .*: permission denied\n$/);
    await Deno.chmod(folder.at("a"), 0o755);
    await Deno.chmod(folder.at("a/samples"), 0o755);
    await assertGoesOn(folder, "a");
  },
});

Deno.test("a folder has one training at a time, and that one may be killed", async () => {
  await using folder = await makeFolder();
  const run = folder.start(...train("a", endless, ...cpu, "--save-every", "1000000"));
  const { signal } = await follow(run, [["step 2 of", async () => {
    const again = await folder.run(...train("a", endless, "--resume", ...cpu));
    assertEquals(again.code, 2);
    assertMatch(
      again.stderr,
      /^error: Cannot train into a: process \d+ has been training there since 20.*/,
    );
    assertStringIncludes(again.stderr, `process ${run.pid} `);
    run.kill("SIGKILL");
  }]]);
  assertEquals(signal, "SIGKILL");
  await assertGoesOn(folder, "a");
});

Deno.test("a training that is interrupted twice ends at once", async () => {
  await using folder = await makeFolder();
  const run = folder.start(...train("a", endless, ...cpu));
  const interrupt = () => run.kill("SIGINT");
  const { code } = await follow(run, [["step 6 of", interrupt], ["press Ctrl-C again", interrupt]]);
  assertEquals(code, 130);
  await assertGoesOn(folder, "a");
});

Deno.test("a training goes on from whatever a kill can leave", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("whole", 6, ...cpu));
  const leave = async (changes: (at: (name: string) => string) => Promise<void>) => {
    await Deno.mkdir(folder.at("a/samples"), { recursive: true });
    for (const name of await listFolder(folder.at("whole"))) {
      if (name === "samples") continue;
      await Deno.copyFile(folder.at(`whole/${name}`), folder.at(`a/${name}`));
    }
    await changes((name) => folder.at(`a/${name}`));
    await assertGoesOn(folder, "a", 9);
    await Deno.remove(folder.at("a"), { recursive: true });
  };
  const removeStates = async (at: (name: string) => string) => {
    for (const name of ["state.safetensors", "state-0000004.safetensors"]) {
      await Deno.remove(at(name));
    }
  };
  // While it was made: before its first state, and before its first model.
  await leave(async (at) => {
    await removeStates(at);
    await Deno.remove(at("log.jsonl"));
  });
  await leave(async (at) => {
    await removeStates(at);
    for (const name of ["log.jsonl", "model.safetensors"]) await Deno.remove(at(name));
    await Deno.remove(at("samples"), { recursive: true });
  });
  // Within a line of the log, and within a file.
  await leave(async (at) => {
    await Deno.writeTextFile(at("log.jsonl"), '{"step":8,"lo', { append: true });
    await Deno.writeTextFile(at(".state.safetensors.123.part"), "half");
    await Deno.writeTextFile(at("samples/.step-0000004.png.123.part"), "half");
  });
  // Between the second name of the old state and the new state.
  await leave((at) => Deno.copyFile(at("state.safetensors"), at("state-0000006.safetensors")));
});

Deno.test("a state whose bytes were flipped is refused, and the one before it offered", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 6, ...cpu));
  const path = folder.at("a/state.safetensors"), bytes = await Deno.readFile(path);
  bytes[bytes.length >> 1] ^= 4;
  await Deno.writeFile(path, bytes);
  await folder.refuse(
    train("a", 9, ...cpu, "--resume"),
    /a.state\.safetensors is damaged, its checksum does not match\. a.state-0000004\.safetensors, of step 4, is intact: delete a.state\.safetensors, and --resume continues from there/,
  );
  await Deno.remove(path);
  await assertGoesOn(folder, "a", 9);

  bytes[1] ^= 255;
  await Deno.writeFile(path, bytes);
  for (const name of await Array.fromAsync(Deno.readDir(folder.at("a")))) {
    if (name.name.startsWith("state-")) await Deno.writeFile(folder.at(`a/${name.name}`), bytes);
  }
  const { stderr } = await folder.run(...train("a", 12, ...cpu, "--resume"));
  assert(!stderr.includes("intact"), "nothing is offered where nothing is intact");
});

Deno.test("a checksum notices every bit", async () => {
  const values = Float32Array.from({ length: 60 }, (_, i) => i / 7);
  await using folder = await Folder.make();
  const read = (from = 0, count = 60) => Promise.resolve(values.slice(from, from + count));
  await writeSealed(folder.at("x"), { x: { length: 60, read } }, { step: "5" });
  const bytes = await Deno.readFile(folder.at("x"));
  const { tensors, metadata } = readSafetensors(bytes);
  assertEquals([toFloat32(tensors.get("x")!), metadata.step], [values, "5"]);
  assert(isIntact(bytes));
  const random = new Random("bits");
  for (let i = 0; i < 300; i++) {
    const at = Math.floor(random.between(0, bytes.length)), bit = 1 << random.between(0, 8);
    bytes[at] ^= bit;
    assert(!isIntact(bytes), `bit ${bit} of byte ${at}`);
    bytes[at] ^= bit;
  }
  assert(isIntact(bytes));
  assert(!isIntact(bytes.slice(0, -1)) && !isIntact(new Uint8Array(10)));
});

Deno.test("a training keeps as many checkpoints as it is told", async () => {
  await using folder = await makeFolder();
  const states = async (run: string) =>
    (await Array.fromAsync(Deno.readDir(folder.at(run)))).map(({ name }) => name)
      .filter((name) => name.startsWith("state")).sort();
  await folder.succeed(...train("a", 14, ...cpu, "--keep", "3"));
  assertEquals(await states("a"), [
    ...["state-0000008.safetensors", "state-0000012.safetensors", "state.safetensors"],
  ]);
  await folder.succeed(...train("b", 14, ...cpu, "--keep", "1"));
  assertEquals(await states("b"), ["state.safetensors"]);
  const { code, stderr } = await folder.run(...train("c", 14, ...cpu, "--keep", "0"));
  assertEquals(code, 2);
  assertMatch(stderr, /--keep must be a whole number from 1/);
});

Deno.test("a loss that explodes ends the training, which tells where", async () => {
  await using folder = await makeFolder();
  await folder.write("wild.json", {
    unet: tinyUNet,
    training: { batch_size: 4, learning_rate: 30, warmup_steps: 0 },
  });
  const wild = [
    "--config",
    "wild.json",
    "--data",
    "data",
    "--steps",
    "40",
    "--save-every",
    "2",
    "--log-every",
    "1",
  ];
  const { code, stderr } = await folder.run("train", ...wild, ...cpu, "--out", "a");
  assertEquals(code, 1);
  const [, step, saved] = stderr.match(
    /error: The loss is \S+ at step (\d+), with a gradient of norm \S+, up from \S+ at first: .* the checkpoint of step (\d+) is kept\n$/,
  )!;
  assert(Number(step) > Number(saved) && Number(step) <= Number(saved) + 2);
  assertEquals((await readState(folder, "a")).step, Number(saved));
});

Deno.test("a network that predicts NaN is a failure at work, not bad input", async () => {
  await using folder = await makeFolder();
  const model = tinyModel(), parameters = model.parameters.map((x) => 1e25 * x);
  await folder.write("wild.safetensors", serializeModel({ ...model, parameters }));
  const wild = ["--model", "wild.safetensors", ...cpu];
  for (
    const [message, ...args] of [
      ["Cannot sample: the network predicts what is no number", "sample", "--steps", "2"],
      [
        "Cannot sample: the network",
        "interpolate",
        "--seeds",
        "1,2",
        "--count",
        "3",
        "--steps",
        "4",
      ],
      ...["ode", "vlb"].map((
        by,
      ) => ["Cannot measure the likelihood", "eval", "--data", "data", "--count", "2", "--by", by]),
    ]
  ) {
    const { code, stderr } = await folder.run(...args, ...wild);
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, message);
  }
});

Deno.test("a training goes on where gradients in 16-bit floats overflow, and logs it", async () => {
  await using folder = await makeFolder();
  const on = ["--device", "gpu", "--precision", "f16"], state = folder.at("a/state.safetensors");
  await folder.succeed(...train("a", 4, ...on));
  const { tensors, metadata: { sha256: _, ...rest } } = readSafetensors(await Deno.readFile(state));
  const arrays = new Map([...tensors].map(([name, tensor]) => [name, toFloat32(tensor)]));
  // A scale that is too large, for a network whose last weights are not small.
  arrays.get("scaling")![0] = 2 ** 24;
  const sizes = { in_channels: 1, out_channels: 1 };
  const { specs, offsets } = parseNetwork({ ...tinyUNet, ...sizes }).layout;
  const last = specs.findIndex(({ name }) => name === "conv_out.weight");
  for (let i = 0; i < sizeOf(specs[last].shape); i++) {
    arrays.get("parameters")![offsets[last] + i] = Math.sin(i);
  }
  const readable = [...arrays].map(([name, values]) => [name, {
    length: values.length,
    read: (from = 0, count = values.length) => Promise.resolve(values.slice(from, from + count)),
  }]);
  await writeSealed(state, Object.fromEntries(readable), rest);
  await folder.succeed(...train("a", 24, "--resume", ...on));
  const log = (await readLog(folder, "a")).slice(2);
  const skipped = log.reduce((sum, line) => sum + line.skipped_steps, 0);
  assert(skipped > 0 && skipped < 20, `${skipped} of 20 steps were skipped`);
  assertEquals(log.at(-1)!.loss_scale, 2 ** (24 - skipped));
  assert(log.every((line) => Number.isFinite(line.loss) && line.loss < 100));
  assertEquals((await readState(folder, "a")).step, 24);
});

Deno.test("a folder that is disposed of can be written to by others", async () => {
  await using folder = await Folder.make();
  {
    using first = new RunFolder(folder.at("a"));
    await first.lock();
  }
  using second = new RunFolder(folder.at("a"));
  await second.lock();
});
