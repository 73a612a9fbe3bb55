import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { basename } from "@std/path";
import { decode, Image } from "imagescript";
import { parseModel } from "../../src/model/model.ts";
import { encodeIdx, Folder, imagesFile, tinyModelFile, tinyUNet } from "./cli.ts";
import { IMAGES, makeFolder, readFiles, readLog, readState, train } from "./training.ts";

const gzip = async (bytes: Uint8Array<ArrayBuffer>) =>
  new Uint8Array(
    await new Response(new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip")))
      .arrayBuffer(),
  );

for (const flags of ["--device gpu", "--device cpu", "--device gpu --precision f16"]) {
  Deno.test(`a training that goes on equals one in one go, with ${flags}`, async () => {
    await using folder = await makeFolder();
    const on = flags.split(" "), isHalf = on.includes("f16");
    await folder.succeed(...train("a", 12, ...on));
    await folder.succeed(...train("b", 6, ...on));
    assertEquals((await readState(folder, "b")).step, 6);
    const { code, stderr } = await folder.run(...train("b", 12, ...on, "--resume"));
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, "after step 6");
    const [a, b] = [await readState(folder, "a"), await readState(folder, "b")];
    assertEquals(a.step, 12);
    assertEquals(b, a);
    const [{ "config.json": _, ...files }, others] = [
      await readFiles(folder, "a"),
      await readFiles(folder, "b"),
    ];
    for (const [name, bytes] of Object.entries(files)) assertEquals(others[name], bytes, name);
    for (const name of ["model", "state", "state-0000008"]) assert(files[`${name}.safetensors`]);
    const names = ["ema", "history", "moment1", "moment2", "parameters"];
    assertEquals(Object.keys(a.arrays).sort(), [...names, ...(isHalf ? ["scaling"] : [])]);
    const log = await readLog(folder, "a");
    assertEquals(await readLog(folder, "b"), log);
    const scaled = log.filter((line) => line.loss_scale === 65536 && line.skipped_steps === 0);
    assertEquals(scaled.length, isHalf ? log.length : 0);
  });
}

Deno.test("the same training twice writes the same files, byte for byte", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 6, "--device", "cpu", "--half"));
  await folder.succeed(...train("b", 6, "--device", "cpu", "--half"));
  const files = await readFiles(folder, "a");
  assertEquals(Object.keys(files).sort(), [
    ...["config.json", "model.safetensors", "samples/step-0000004.png"],
    ...["samples/step-0000006.png", "state-0000004.safetensors", "state.safetensors"],
  ]);
  assertEquals(await readFiles(folder, "b"), files);
});

Deno.test("a training tells what it does, and leaves a model, a log and pictures", async () => {
  await using folder = await makeFolder();
  const { code, stdout, stderr } = await folder.run(...train("a", 12));
  assertEquals([code, stdout], [0, ""], stderr);
  assertMatch(stderr, /^data +data: 12 images of 8x8x1$/m);
  assertMatch(stderr, /^network +[\d,]+ parameters$/m);
  assertMatch(
    stderr,
    /^memory +.*MB in the process: .*kB to save, [\d.]+ MB for program and data$/m,
  );
  assertMatch(stderr, /^written to +a$/m);
  assertMatch(stderr, /^step 12 of 12, loss \d\.\d+, [\d.]+ images\/s$/m);

  const log = await readLog(folder, "a");
  assertEquals(log.map(({ step }) => step), [2, 4, 6, 8, 10, 12]);
  assert(log.every(({ loss, grad_norm }) => loss > 0 && grad_norm > 0));

  const files = (await folder.list(folder.at("a"))).map((line) => basename(line.split(" ")[0]));
  assertEquals(
    files.sort(),
    [
      ...[".lock", "config.json", "log.jsonl", "model.safetensors", "report.html"],
      ...[
        "samples",
        "state-0000008.safetensors",
        "state.safetensors",
        "step-0000004.png",
        "step-0000008.png",
        "step-0000012.png",
      ],
    ].sort(),
  );
  const picture = await decode(await Deno.readFile(folder.at("a/samples/step-0000012.png")));
  assert(picture instanceof Image);
  assertEquals(picture.width, 16 * (4 * 9 + 1));

  const model = parseModel(await Deno.readFile(folder.at("a/model.safetensors")));
  assertEquals([model.card.data, model.card.steps], ["data", "12"]);
  assertEquals(model.network.itemShape.slice(0, 2), [8, 8]);
  await folder.succeed("sample", "--model", "a", "--device", "cpu", "--count", "1", "--steps", "1");
});

Deno.test("a training takes a schedule of the learning rate, and halves its model", async () => {
  await using folder = await makeFolder();
  const schedule = ["--learning-rate-schedule", "cosine"];
  await folder.succeed(...train("a", 4, "--device", "cpu"));
  await folder.succeed(...train("b", 4, "--device", "cpu", "--half", ...schedule));
  const { training } = JSON.parse(await Deno.readTextFile(folder.at("b/config.json")));
  assertEquals([training.learning_rate_schedule, training.decay_steps], ["cosine", 4]);
  const [a, b] = await Promise.all(
    ["a", "b"].map((name) => Deno.readFile(folder.at(`${name}/model.safetensors`))),
  );
  assert(b.length < 0.7 * a.length);
  const rounded = parseModel(a).parameters.map(Math.f16round);
  assert(parseModel(b).parameters.some((p, i) => p !== rounded[i]), "the rate did not fall");
});

const signals = [["SIGINT"], ["SIGTERM", "--wide"], ["SIGHUP"], ["SIGHUP", "--wide"]] as const;
for (const [signal, ...mode] of signals) {
  const how = [signal, ...mode].join(" with ");
  Deno.test(`a training that gets ${how} is saved, and goes on where it was`, async () => {
    await using folder = await makeFolder();
    const child = folder.start(...train("a", 100_000, "--save-every", "100000", ...mode));
    const decoder = new TextDecoder();
    let told = "", isKilled = false;
    for await (const chunk of child.stderr) {
      told += decoder.decode(chunk, { stream: true });
      // By then it is in its loop.
      if (isKilled || !told.includes("step 4 of")) continue;
      isKilled = true;
      child.kill(signal);
      // The system and the shell both tell that a terminal was closed.
      if (signal === "SIGHUP") child.kill(signal);
    }
    await child.stdout.cancel();
    assertEquals((await child.status).code, 130, told);
    assertMatch(
      told,
      signal === "SIGHUP"
        ? /^terminal closed: saving$/m
        : /^interrupted: saving; press Ctrl-C again to exit at once$/m,
    );
    const { step } = await readState(folder, "a");
    assertStringIncludes(told, `saved after step ${step}; --resume continues`);

    const last = step + 2;
    await folder.succeed(...train("a", last, "--resume", "--save-every", "100000", ...mode));
    await folder.succeed(...train("b", last, "--save-every", "100000", ...mode));
    assertEquals(await readState(folder, "a"), await readState(folder, "b"));
    assertEquals(await readLog(folder, "a"), await readLog(folder, "b"));
    const files = await folder.list();
    assert(!files.some((line) => line.includes(".part")), files.join("\n"));
  });
}

/** Closes the terminal of a program when it first tells how long it is going to take. */
const CLOSE = `
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0: os.execvp(sys.argv[1], sys.argv[1:])
said = b""
while b" left" not in said: said += os.read(terminal, 4096)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

const hasPython = await new Deno.Command("python3", { args: ["-c", "import pty"], stderr: "null" })
  .output().then(({ success }) => success, () => false);

for (const mode of ["--no-tune", "--wide"]) {
  Deno.test({
    name: `a training outlives its terminal under nohup only, with ${mode}`,
    ignore: Deno.build.os === "windows",
    async fn() {
      await using folder = await makeFolder();
      const args = ["--device", "cpu", "--save-every", "100000", mode];
      const child = folder.startUnder(["nohup"], train("a", 24, ...args));
      const decoder = new TextDecoder();
      let told = "", isKilled = false;
      for await (const chunk of child.stderr) {
        told += decoder.decode(chunk, { stream: true });
        if (isKilled || !told.includes("step 4 of")) continue;
        isKilled = true;
        child.kill("SIGHUP");
      }
      await child.stdout.cancel();
      assertEquals((await child.status).code, 0, told);
      assertStringIncludes(told, "done: 24 steps");
      assertEquals((await readState(folder, "a")).step, 24);

      if (!hasPython) return;
      const under = async (steps: number, out: string, ...more: string[]) => {
        const wrapper = ["python3", "-c", CLOSE, ...more];
        return (await folder.startUnder(wrapper, train(out, steps, ...args)).output()).code;
      };
      assertEquals(await under(24, "b", "sh", "-c", 'trap "" HUP; exec "$@"', "sh"), 0);
      assertEquals(await readState(folder, "b"), await readState(folder, "a"));
      assertEquals(await under(100_000, "c"), 130);
      assert((await readState(folder, "c")).step > 0);
    },
  });
}

Deno.test({
  name: "images are written when the terminal is closed while they are painted",
  ignore: !hasPython,
  async fn() {
    await using folder = await Folder.make();
    await folder.write("m.safetensors", tinyModelFile());
    const args = ["sample", "--model", "m.safetensors", "--count", "100000", "--device", "cpu"];
    const wrapper = ["python3", "-c", CLOSE];
    const run = folder.startUnder(wrapper, [...args, "--out", "x.png"]);
    assertEquals((await run.output()).code, 130);
    assert((await decode(await Deno.readFile(folder.at("x.png")))).width > 8);
  },
});

Deno.test("a training can be resumed on another device", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 2, "--device", "cpu"));
  await folder.succeed(...train("a", 4, "--device", "gpu", "--resume"));
  assertEquals((await readLog(folder, "a")).map(({ step }) => step), [2, 4]);
});

Deno.test("compressed data train the same network", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 2));
  await Deno.mkdir(folder.at("packed"));
  await folder.write(`packed/${IMAGES.replace("-idx", ".idx")}.gz`, await gzip(imagesFile()));
  await folder.succeed(...train("b", 2, "--data", "packed"));
  assertEquals(await readState(folder, "a"), await readState(folder, "b"));
});

Deno.test("a training is not started over, and resumed only as it was", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 2, "--batch-size", "3"));
  await folder.write("wide.json", { unet: { ...tinyUNet, block_out_channels: [8, 24] } });
  await folder.write("cosine.json", { scheduler: { beta_schedule: "squaredcos_cap_v2" } });
  await folder.write("eps.json", { training: { eps: 1e-6 } });
  const resume = ["train", "--out", "a", "--resume", "--device", "cpu", "--steps", "4"];
  const cases: [string[], RegExp][] = [
    [train("a", 2), /a holds a training already: continue it with --resume/],
    [["train", "--data", "data", "--out", "a"], /a holds a training already/],
    [[...resume, "--steps", "2"], /The training has done 2 steps; give more --steps/],
    [[...resume, "--batch-size", "4"], /batch_size is 3 in a and 4 in this command/],
    [[...resume, "--seed", "1"], /seed is 0 in a and 1 in/],
    [[...resume, "--config", "wide.json"], /block_out_channels is \[8,16\] in a and \[8,24\] in/],
    [[...resume, "--config", "cosine.json"], /beta_schedule is "linear" in a/],
    [[...resume, "--config", "eps.json"], /eps is 1e-8 in a and 0\.000001 in/],
    [[...resume, "--data", "nowhere"], /Cannot use nowhere/],
  ];
  for (const [args, message] of cases) await folder.refuse(args, message);
  // What it was started with may be repeated.
  await folder.succeed(...train("a", 4, "--resume", "--batch-size", "3"));
});

Deno.test("a damaged training is not resumed", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 2));
  await folder.write("wide.json", { unet: { ...tinyUNet, block_out_channels: [8, 24] } });
  const wide = ["--config", "wide.json", "--data", "data", "--steps", "2"];
  await folder.succeed("train", ...wide, "--out", "wide");
  await Deno.mkdir(folder.at("large"));
  await folder.write(`large/${IMAGES}`, encodeIdx([1, 16, 16], new Uint8Array(256).fill(200)));

  const resume = ["train", "--out", "a", "--resume", "--device", "cpu", "--steps", "4"];
  await folder.refuse([...resume, "--data", "large"], /images are 16x16, but the sample_size/);
  const good = await Deno.readFile(folder.at("a/state.safetensors"));
  const other = await Deno.readFile(folder.at("wide/state.safetensors"));
  await folder.write("a/state.safetensors", other);
  await folder.refuse(resume, /the state is of another network: block_out_channels is \[8,24\] in/);
  await folder.write("a/state.safetensors", good.subarray(0, good.length / 2));
  await folder.refuse(resume, /Cannot read .*state\.safetensors as safetensors: .*truncated/);
  await Deno.remove(folder.at("a/state.safetensors"));
  await Deno.remove(folder.at("a/state-0000000.safetensors"));
  await folder.refuse(resume, /holds no state\.safetensors/);
  await folder.write("a/state.safetensors", good);
  await folder.write("a/config.json", "{}");
  await folder.refuse(resume, /config\.json is incomplete/);
});

Deno.test("a training that diverges ends, and keeps its last checkpoint", async () => {
  await using folder = await makeFolder();
  await folder.write("wild.json", {
    unet: tinyUNet,
    training: { batch_size: 2, learning_rate: 1e30, warmup_steps: 0 },
  });
  const wild = ["--config", "wild.json", "--data", "data", "--device", "cpu", "--steps", "9"];
  const { code, stderr } = await folder.run("train", ...wild, "--out", "a", "--save-every", "3");
  assertEquals(code, 1);
  assertMatch(
    stderr,
    /^error: The loss is (Inf|NaN).* at step [2-4], with a gradient of norm \w+: /m,
  );
  assertMatch(stderr, /try a lower --learning-rate; the checkpoint of step 0 is kept\n$/);
  const { step } = await readState(folder, "a");
  assertEquals(step, 0);
});
