import { assert, assertEquals, assertMatch } from "@std/assert";
import { formatLeft, formatRate, formatTime, Progress } from "../../src/cli/terminal/progress.ts";
import { watch } from "../../src/cli/terminal/sampling_run.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { tinyModel } from "./cli.ts";

/** Numbers that clocks and counters may come to, and those that they should not. */
const numbers = [NaN, -Infinity, -1, -1e-9, -0, 0, 1e-300, 1e-9, 0.4, 1, 59.6, 61, 3599, 3661, 1e9];
numbers.push(Infinity);

Deno.test("times are whole seconds, minutes or hours", () => {
  const times = [-0, 0.4, 59.4, 61, 3540, 3599, 3661, 86400].map(formatTime);
  assertEquals(times, [
    ...["0 s", "0 s", "59 s", "1 min", "59 min", "1 h 0 min", "1 h 1 min", "24 h 0 min"],
  ]);
  for (const seconds of [NaN, Infinity, -Infinity, -1, -0.4]) {
    assertEquals(formatTime(seconds), "–", `${seconds}`);
  }
});

Deno.test("what is left is told by the pace so far, once there is any", () => {
  assertEquals(formatLeft(1, 4, 2), ", 6 s left");
  assertEquals(formatLeft(4, 4, 2), ", 0 s left");
  assertEquals(formatLeft(5, 4, 2), ", 0 s left");
  assertEquals(formatLeft(0, 4, 2), "");
  assertEquals(formatLeft(0, 0, 0), "");
  assertEquals([formatRate(10, 4), formatRate(0, 4)], ["2.5", "0.0"]);
  assertEquals([formatRate(10, 0), formatRate(0, 0), formatRate(10, -1)], ["–", "–", "–"]);
});

Deno.test("progress is a number, whatever clocks and counters say", () => {
  const time = /^(\d+ s|\d+ min|\d+ h \d+ min)$/;
  for (const a of numbers) {
    assertMatch(formatTime(a), /^(–|\d+ s|\d+ min|\d+ h \d+ min)$/, `${a}`);
    for (const b of numbers) {
      assertMatch(formatRate(a, b), /^(–|\d+\.\d)$/, `${a} in ${b} s`);
      for (const c of numbers) {
        const text = formatLeft(a, b, c);
        assert(!text || time.test(text.slice(2, -5)), `${a} of ${b} in ${c} s: ${text}`);
      }
    }
  }
});

/** Keeps what is told. */
class Listener extends Progress {
  readonly updates: string[] = [];
  readonly said: string[] = [];

  override update(text: string): void {
    this.updates.push(text);
  }

  override say(text: string): void {
    this.said.push(text);
  }
}

for (const method of ["heun", "dpm_2", "edm", "pndm", "ddim"] as const) {
  Deno.test(`the progress of ${method} makes sense from its first evaluation on`, async () => {
    using device = await openDevice("cpu");
    const settings = { method, steps: 5, batchSize: 1 };
    using sampler = await Sampler.create(device, tinyModel(), settings), progress = new Listener();
    await watch(sampler, "grid", false, progress, { count: 3 });
    const told = [...progress.updates, ...progress.said];
    for (const text of told) assertMatch(text, /^step \d+ of 15(, \d+ (s|min) left)?$/);
    if (method !== "ddim") assert(told.includes("step 0 of 15"), told.join("\n"));
    // A log has a line for each batch but the last.
    if (!Deno.stderr.isTerminal()) {
      assertEquals(progress.said.map((text) => text.split(",")[0]), [
        "step 5 of 15",
        "step 10 of 15",
      ]);
    }
  });
}
