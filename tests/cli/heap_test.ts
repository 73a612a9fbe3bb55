import { assert, assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { lastOfEach } from "./cli.ts";
import { makeFolder, train } from "./training.ts";

const program = fromFileUrl(new URL("./heap.ts", import.meta.url));

/** Steps of the training, each with a checkpoint, samples and a line of the log. */
const STEPS = 100;
/**
 * Lines whose median heap is compared with that of as many others: some have buffers on their way, and
 * after some V8 gave code back.
 */
const SPAN = 30;

Deno.test("a training's heap does not grow", async () => {
  await using folder = await makeFolder();
  const settings = [
    ...["--device", "cpu", "--threads", "1", "--held-out", "0.25"],
    ...["--save-every", "1", "--log-every", "1"],
  ];
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "-A",
      "--v8-flags=--expose-gc",
      program,
      ...lastOfEach(train("a", STEPS, ...settings)),
    ],
    cwd: folder.path,
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const lines = (await Deno.readTextFile(folder.at("a/log.jsonl"))).trimEnd().split("\n");
  const used: number[] = lines.map((line) => JSON.parse(line).rss_mb);
  assertEquals(used.length, STEPS);
  const median = (from: number) =>
    used.slice(from, from + SPAN).toSorted((a, b) => a - b)[SPAN >> 1];
  const growth = (median(STEPS - SPAN) - median(STEPS - 2 * SPAN)) / SPAN;
  // A line of the log is half a kilobyte; the weights, of which each step reads some, are 60.
  assert(growth < 7e-3, `${(1000 * growth).toFixed(1)} kB a step: ${used.join(" ")}`);
});
