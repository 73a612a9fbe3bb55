import { assertEquals, assertMatch } from "@std/assert";
import { judge, observe, report } from "./run.ts";

const ended = (code: number, signal: Deno.Signal | null = null): Deno.CommandStatus => ({
  ...{ success: !code, code, signal },
});
const ok = "a test ... ok (3ms)\n\n\x1b[32mok\x1b[0m | 5 passed (7 steps) | 0 failed (3s)\n\n";
const failed = "\nFAILED | 4 passed | 2 failed | 1 ignored (3s)\n";

const odd = `another run ... ok\n${ok}a test ... ok (3ms)\n\n${ok}`;

/** What `deno test` printed, how it ended, and what is to be made of it. */
const runs: readonly [string, Deno.CommandStatus, number, number, RegExp | undefined][] = [
  [ok, ended(0), 5, 0, undefined],
  [failed, ended(1), 4, 2, undefined],
  [odd.replace("5 passed", "1 passed"), ended(0), 5, 0, undefined],
  [ok, ended(134, "SIGABRT"), 5, 0, /^Deno aborted as it ended, after all tests had passed$/],
  [failed, ended(134, "SIGABRT"), 4, 2, /ended by SIGABRT after the last test had run/],
  [ok, ended(139, "SIGSEGV"), 5, 1, /ended by SIGSEGV after the last test had run/],
  ["a test ... ok (3ms)\n", ended(134, "SIGABRT"), 0, 1, /ended by SIGABRT before the last test/],
  // A test that prints what Deno does, and is the end of it.
  [`${ok}another test ...`, ended(134, "SIGABRT"), 0, 1, /ended by SIGABRT before the last test/],
  [ok, ended(1), 5, 1, /ended with code 1, without a test that failed/],
  ["", ended(1), 0, 1, /ended with code 1, without a test that failed/],
];

for (const [output, status, passed, failures, note] of runs) {
  const how = status.signal ?? `code ${status.code}`, last = output.trim().split("\n").at(-1);
  Deno.test(`a suite that ends with ${how} after ${JSON.stringify(last)} is judged`, () => {
    const outcome = judge(output, status);
    assertEquals([outcome.passed, outcome.failed], [passed, failures]);
    if (note) assertMatch(outcome.note!, note);
    else assertEquals(outcome.note, undefined);
  });
}

Deno.test({
  name: "a program that aborts is seen to, before and after its last line",
  ignore: Deno.build.os === "windows",
  async fn() {
    const run = (text: string) =>
      observe(Deno.execPath(), [
        "eval",
        `console.log(${JSON.stringify(text)}); Deno.kill(Deno.pid, "SIGABRT"); while (true);`,
      ], { NO_COLOR: "1" });
    const note = "Deno aborted as it ended, after all tests had passed";
    assertEquals(await run("ok | 3 passed | 0 failed (1s)"), { passed: 3, failed: 0, note });
    assertEquals((await run("one test ... ok")).failed, 1);
  },
});

Deno.test("a run of the tests closes with what is remarkable and the sums", () => {
  const lines: string[] = [], print = (line: string) => void lines.push(line);
  assertEquals(report([{ passed: 3, failed: 0, note: "odd" }, { passed: 4, failed: 0 }], print), 0);
  assertEquals(report([{ passed: 3, failed: 2 }], print), 1);
  assertEquals(lines, ["odd", "7 passed, 0 failed", "3 passed, 2 failed"]);
});
