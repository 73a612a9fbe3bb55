import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { decode, GIF, Image } from "imagescript";
import { followLink, linkFile, removeTemporary, writeWhole } from "../../src/cli/terminal/files.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { Folder, imagesFile, tinyModelFile, tinyUNet } from "./cli.ts";

const sample = ["sample", "--model", "m.safetensors", "--device", "cpu", "--steps", "2"];
const interpolate = ["interpolate", ...sample.slice(1), "--seeds", "1,2"];

async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  return folder;
}

Deno.test("images do not end up among those of an earlier run", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...sample, "--count", "5", "--out", "d");
  const refusal =
    /to d: it holds more of an earlier run, 0003\.png to 0004\.png \(2 files\); delete/;
  await folder.refuse([...sample, "--count", "3", "--out", "d"], refusal);
  await folder.refuse([...interpolate, "--count", "4", "--out", "d/"], /earlier run, 0004\.png;/);
  // As many, or more, replace them all, as another file of one name would.
  await folder.write("d/notes.txt", "mine");
  await folder.succeed(...sample, "--count", "5", "--seed", "2", "--out", "d");
  await folder.succeed(...interpolate, "--count", "6", "--out", "d");
  await folder.write("d/00007.png", "of a run with more digits");
  await folder.refuse([...sample, "--count", "9", "--out", "d"], /earlier run, 00007\.png;/);
});

Deno.test("an interrupted run tells of the images of an earlier one that it did not replace", async () => {
  await using folder = await makeFolder();
  await Deno.mkdir(folder.at("d"));
  const count = 5000;
  await folder.write("d/4999.png", "of an earlier run");
  const child = folder.start(...sample, "--count", `${count}`, "--steps", "10", "--out", "d");
  const stdout = new Response(child.stdout).text(), decoder = new TextDecoder();
  let told = "", isKilled = false;
  for await (const chunk of child.stderr) {
    told += decoder.decode(chunk, { stream: true });
    if (!isKilled && told.includes("step 10 of ")) child.kill("SIGINT"), isKilled = true;
  }
  assertEquals((await child.status).code, 130, told);
  assertMatch(
    await stdout,
    /^d \(\d+ files, beside 4999\.png of an earlier run\): \d+ of 5000 images in [\d.]+ s, interr/,
  );
});

Deno.test("a training does not begin among files of an earlier one", async () => {
  await using folder = await Folder.make();
  await folder.write("train-images-idx3-ubyte", imagesFile());
  const train = ["train", "--data", ".", "--out", "run", "--steps", "1", "--device", "cpu"];
  await Deno.mkdir(folder.at("run/samples"), { recursive: true });
  for (const name of ["state-0000100.safetensors", "samples/step-0000100.png", "report.html"]) {
    await folder.write(`run/${name}`, "of an earlier run");
    await folder.refuse(train, new RegExp(`Cannot train into run: it holds a ${name} already`));
    await Deno.remove(folder.at(`run/${name}`));
  }
});

/** What a run writes to standard output, as bytes, through a pipe. */
async function pipe(folder: Folder, ...args: string[]) {
  const { code, stdout, stderr } = await folder.start(...args).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return { stdout, stderr: new TextDecoder().decode(stderr) };
}

Deno.test("--out - writes a PNG to standard output and nothing else", async () => {
  await using folder = await makeFolder();
  const run = [...sample, "--count", "3", "--seed", "7"], before = await folder.list();
  const { stdout, stderr } = await pipe(folder, ...run, "--out", "-");
  assertMatch(stderr, /^standard output: 3 images in [\d.]+ s$/m);
  assertEquals(await folder.list(), before);
  await folder.succeed(...run, "--out", "x.png");
  assertEquals(stdout, await Deno.readFile(folder.at("x.png")));
  assertEquals((await pipe(folder, ...run, "--out=-")).stdout, stdout);
  assert(await decode((await pipe(folder, ...interpolate, "--out", "-")).stdout) instanceof Image);
});

Deno.test("other formats are put before the -", async () => {
  await using folder = await makeFolder();
  const run = [...sample, "--count", "2", "--out"];
  assert(await decode((await pipe(folder, ...run, "gif:-")).stdout) instanceof GIF);
  const apng = new TextDecoder("latin1").decode((await pipe(folder, ...run, "apng:-")).stdout);
  assertEquals(apng.match(/fcTL/g)?.length, 2);
  const { stdout } = await pipe(folder, ...run, "safetensors:-");
  assertEquals(readSafetensors(stdout).tensors.get("images")?.shape, [2, 1, 8, 8]);
  await folder.refuse(
    [...run, "jpg:-"],
    /jpg:-: give - for a PNG on standard output, or gif:-, ap/,
  );
});

Deno.test("a - where none belongs is refused with what would be right", async () => {
  await using folder = await makeFolder();
  const cases: [string[], RegExp][] = [
    [
      ["sample", "--model", "-"],
      /Cannot read a model from standard input: give the path of a file/,
    ],
    [["sample", "--init", "-"], /Cannot read an image from standard input/],
    [["interpolate", "--images", "a.png,-"], /Cannot read an image from standard input/],
    [["info", "-"], /Cannot read a model from standard input/],
    [["train", "--data", "-", "--out", "x"], /Cannot read a data set from standard input/],
    [["train", "--config", "-", "--out", "x"], /Cannot read a configuration from standard input/],
    [["train", "--data", "mnist", "--out", "-"], /train writes a folder of files, not to standard/],
  ];
  for (const [args, why] of cases) await folder.refuse(args, why);
});

Deno.test("a closed pipe is an error of one line", async () => {
  await using folder = await makeFolder();
  const child = folder.start(...sample, "--out", "-");
  await child.stdout.cancel();
  const stderr = await new Response(child.stderr).text();
  assertEquals((await child.status).code, 1);
  assertMatch(stderr, /^error: Cannot write to standard output: [^\n]+\n$/m);
});

Deno.test("what is written to a symbolic link goes to its target, and the link stays", async () => {
  await using folder = await makeFolder();
  await Deno.mkdir(folder.at("disk"));
  for (const name of ["x.png", "x.gif", "x.safetensors"]) {
    await Deno.symlink(`disk/${name}`, folder.at(name));
    // Neither a target that is not there yet, nor one that is, makes a difference.
    for (let run = 0; run < 2; run++) {
      await folder.succeed(...sample, "--count", "1", "--out", name);
      assert((await Deno.lstat(folder.at(name))).isSymlink, name);
      assert((await Deno.lstat(folder.at(`disk/${name}`))).isFile, name);
    }
  }
  const names = (await Array.fromAsync(Deno.readDir(folder.at("disk")))).map(({ name }) => name);
  assertEquals(names.sort(), ["x.gif", "x.png", "x.safetensors"]);
  await Deno.symlink("b.png", folder.at("a.png"));
  await Deno.symlink("a.png", folder.at("b.png"));
  await folder.refuse([...sample, "--out", "a.png"], /Cannot (look at|write) a\.png: /);
  await Deno.symlink("nowhere/x.png", folder.at("c.png"));
  await folder.refuse(
    [...sample, "--out", "c.png"],
    /Cannot write c\.png: the folder .*nowhere do/,
  );
});

Deno.test("a training writes through links: model, state, log and report", async () => {
  await using folder = await Folder.make();
  await folder.write("train-images-idx3-ubyte", imagesFile());
  await folder.write("c.json", { unet: tinyUNet });
  for (const name of ["run", "disk"]) await Deno.mkdir(folder.at(name));
  const names = ["model.safetensors", "state.safetensors", "log.jsonl", "report.html"];
  for (const name of names) await Deno.symlink(`../disk/${name}`, folder.at(`run/${name}`));
  const train = ["train", "--data", ".", "--config", "c.json", "--out", "run", "--device", "cpu"];
  const often = ["--save-every", "1", "--batch-size", "2"];
  await folder.succeed(...train, "--steps", "2", ...often);
  await folder.succeed(...train, "--steps", "4", ...often, "--resume");
  for (const name of names) {
    assert((await Deno.lstat(folder.at(`run/${name}`))).isSymlink, name);
    assert((await Deno.lstat(folder.at(`disk/${name}`))).isFile, name);
  }
  const step = async (name: string) =>
    readSafetensors(await Deno.readFile(folder.at(name))).metadata.step;
  assertEquals(await step("disk/state.safetensors"), "4");
  // The older state is a file of its own, not another name of the link.
  assertEquals(await step("run/state-0000003.safetensors"), "3");
});

Deno.test("devices and pipes are written to, not replaced", async () => {
  await using folder = await Folder.make();
  await Deno.symlink("/dev/null", folder.at("null"));
  await writeWhole(folder.at("null"), "nothing");
  assert((await Deno.stat("/dev/null")).isCharDevice);
  assertEquals(followLink(folder.at("null")), "/dev/null");
});

Deno.test("a link may go through folders that are links themselves", async () => {
  await using folder = await Folder.make();
  for (const name of ["a", "a/b", "far"]) await Deno.mkdir(folder.at(name));
  await Deno.symlink("a/b", folder.at("near"));
  // From where the folder is, not from where its link is.
  await Deno.symlink("../x.txt", folder.at("a/b/link.txt"));
  await writeWhole(folder.at("near/link.txt"), "text");
  assertEquals(await Deno.readTextFile(folder.at("a/x.txt")), "text");

  await Deno.writeTextFile(folder.at("a/.x.txt.123.part"), "left by a killed process");
  await Deno.writeTextFile(folder.at("a/.y.txt.123.part"), "of another file");
  await removeTemporary(folder.at("near"));
  const names = (await Array.fromAsync(Deno.readDir(folder.at("a")))).map(({ name }) => name);
  assertEquals(names.sort(), [".y.txt.123.part", "b", "x.txt"]);

  await linkFile(folder.at("near/link.txt"), folder.at("far/older.txt"));
  await writeWhole(folder.at("near/link.txt"), "new text");
  assertEquals(await Deno.readTextFile(folder.at("far/older.txt")), "text");
});

Deno.test("links in circles are an error", async () => {
  await using folder = await Folder.make();
  await Deno.symlink("b", folder.at("a"));
  await Deno.symlink("a", folder.at("b"));
  await assertRejects(() => writeWhole(folder.at("a"), "x"), Error, "lead in circles");
});
