import { assertEquals } from "@std/assert";
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
