import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, toFileUrl } from "@std/path";
import { keepTuning, readChoices } from "../../src/cli/terminal/tuning.ts";

Deno.test("choices of kernels are kept in a file; a damaged one is as good as none", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/cache/tuning.json`;
  try {
    assertEquals(await readChoices(path), {});
    const first = await keepTuning(path);
    assertEquals(first.choices, {});
    first.onChoice!("a GPU: conv2d", "winograd, 64x64");
    first.onChoice!("a GPU: matmul", "tile, 32x32");
    const kept = { "a GPU: conv2d": "winograd, 64x64", "a GPU: matmul": "tile, 32x32" };
    assertEquals((await keepTuning(path)).choices, kept);

    for (const damaged of [JSON.stringify(kept).slice(0, -5), "[]", '{"a": 1}', ""]) {
      await Deno.writeTextFile(path, damaged);
      const tuning = await keepTuning(path);
      assertEquals(tuning.choices, {}, damaged);
      tuning.onChoice!("b", "c");
      assertEquals(await readChoices(path), { b: "c" }, damaged);
    }
    // A place that cannot be written stops nobody.
    (await keepTuning(`${path}/below a file.json`)).onChoice!("b", "c");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("choices are written through a symbolic link, and the link stays", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/tuning.json`;
  try {
    await Deno.symlink("disk/tuning.json", path);
    for (const key of ["a", "b"]) (await keepTuning(path)).onChoice!(key, "c");
    assert((await Deno.lstat(path)).isSymlink);
    assertEquals(await readChoices(`${folder}/disk/tuning.json`), { a: "c", b: "c" });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** A process that makes 100 choices as soon as its input ends, having read those there were. */
const program = `
import { keepTuning } from ${
  JSON.stringify(import.meta.resolve("../../src/cli/terminal/tuning.ts"))
};
const [path, name] = Deno.args, tuning = await keepTuning(path);
console.log("ready");
await Deno.stdin.readable.pipeTo(new WritableStream());
for (let i = 0; i < 100; i++) tuning.onChoice(name + " " + i, "tile, 32x32");
`;

Deno.test("choices that four processes make at once are all kept", async () => {
  const folder = await Deno.makeTempDir(), path = `${folder}/cache/tuning.json`;
  try {
    await Deno.writeTextFile(`${folder}/choose.ts`, program);
    const script = toFileUrl(`${folder}/choose.ts`).href,
      config = import.meta.resolve("../../deno.json");
    const names = ["a", "b", "c", "d"];
    const processes = names.map((name) =>
      new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--no-check", "--config", fromFileUrl(config), script, path, name],
        ...{ stdin: "piped", stdout: "piped" },
      }).spawn()
    );
    const ready = processes.map(async ({ stdout }) => {
      for await (const _ of stdout) return;
    });
    await Promise.all(ready);
    await Promise.all(processes.map(({ stdin }) => stdin.close()));
    for (const { status } of processes) assertEquals((await status).code, 0);
    const kept = Object.keys(await readChoices(path)).sort();
    const made = names.flatMap((name) => Array.from({ length: 100 }, (_, i) => `${name} ${i}`));
    assertEquals(kept, made.sort());
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
