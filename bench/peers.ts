// deno-lint-ignore-file no-console -- printing is what it does
/**
 * Runs one workload here and in the peers, in turns so that all of them meet the same moods of the
 * machine, and prints what each took:
 *
 *     deno task bench:peers --op train_small_b32 [--rounds 3] [--only cpu,torch]
 *
 * The peers' scripts are expected in `.peers`, which git ignores, each printing the line of JSON that
 * bench/run.ts prints. One that is not there, or fails, is named and left out.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { wideEnvironment } from "../src/cli/wide.ts";

/** What a run prints. */
interface Line {
  readonly ms?: readonly number[];
  readonly first?: number;
  readonly rss_mb?: number;
  readonly error?: string;
}

interface Peer {
  /** The command for a workload, if it has that. */
  command(op: string): readonly string[] | undefined;
  readonly env?: Record<string, string>;
  /** Where it runs. */
  readonly folder?: string;
}

const PEERS = ".peers";
/** Some hang now and then; the slowest needs minutes for its first step. */
const TIMEOUT_MS = 900_000;
const deno = [Deno.execPath(), "run", "-A", "--no-check"];
const own = (...flags: string[]): Peer["command"] => (op) => [
  ...[...deno, "bench/run.ts", "--op", op, ...flags],
];

/** A network's name, mode and batch size as the peers' scripts take them. */
function step(op: string, modes: readonly string[]): [string, string, string] | undefined {
  const [, mode, network, batch] = /^(train|sample)_(\w+)_b(\d+)$/.exec(op) ?? [];
  return modes.includes(mode) ? [network, mode, batch] : undefined;
}

function prefixed(
  command: readonly string[],
  args: readonly string[] | undefined,
): readonly string[] | undefined {
  return args && [...command, ...args];
}

const both = ["train", "sample"];
const onnx = (op: string) => step(op, ["sample"])?.filter((_, i) => i !== 1);

const peers: Record<string, Peer> = {
  cpu: { command: own("--device", "cpu") },
  cpu1: { command: own("--device", "cpu", "--threads", "1") },
  wide: {
    command: own("--device", "cpu"),
    env: wideEnvironment(),
  },
  gpu: { command: own("--device", "gpu") },
  torch: {
    command: (op) => prefixed(["/usr/bin/python3", "unet_torch.py"], step(op, both)),
    folder: PEERS,
  },
  "jax-js": {
    command: (op) => prefixed([...deno, "unet_jax.mjs"], step(op, both)),
    env: { DEV: "webgpu", NS: "2" },
    folder: PEERS,
  },
  "ort-web": {
    command: (op) => prefixed([...deno, "unet_ort.mjs"], onnx(op)),
    env: { EP: "wasm", THREADS: "2", ORTFILE: "ort.node.min.mjs" },
    folder: PEERS,
  },
  "ort-node": {
    command: (op) => prefixed([...deno, "unet_ort.mjs"], onnx(op)),
    env: { EP: "cpu" },
    folder: PEERS,
  },
};

/** Runs a peer once. */
async function run({ env = {}, folder = "." }: Peer, command: readonly string[]): Promise<Line> {
  try {
    const { stdout, stderr, success } = await new Deno.Command(command[0], {
      ...{ args: command.slice(1), cwd: folder, env, signal: AbortSignal.timeout(TIMEOUT_MS) },
    }).output();
    const line = new TextDecoder().decode(stdout).trim().split("\n").at(-1) ?? "";
    if (line.startsWith("{")) return JSON.parse(line);
    const said = new TextDecoder().decode(stderr).trim().split("\n").at(-1) ?? "";
    return { error: success ? "it printed nothing" : said };
  } catch (error) {
    return { error: String(error) };
  }
}

const median = (values: readonly number[]) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const flags = parseArgs(Deno.args, { string: ["op", "rounds", "only"] });
const op = String(flags.op ?? "train_small_b32"), rounds = Number(flags.rounds ?? 3);
const only = flags.only ? String(flags.only).split(",") : Object.keys(peers);
const lines = new Map<string, Line[]>();
for (let round = 0; round < rounds; round++) {
  for (const name of only) {
    const command = peers[name]?.command(op);
    if (!command) continue;
    const line = await run(peers[name], command);
    lines.set(name, [...lines.get(name) ?? [], line]);
    console.error(`${name}: ${line.error ?? line.ms?.map((ms) => ms.toFixed(0)).join(" ")}`);
  }
}
console.log(`${op}, milliseconds of ${rounds} rounds in turns`);
const row = (...cells: (string | number)[]) =>
  console.log(
    cells.map((c, i) => i ? String(c).padStart(10) : String(c).padEnd(10)).join(""),
  );
row("", "best", "median", "first", "MB");
for (const [name, all] of lines) {
  const good = all.filter((line) => line.ms), ms = good.flatMap((line) => line.ms!);
  if (!ms.length) {
    row(name, all[0].error!);
    continue;
  }
  const most = (values: (number | undefined)[]) =>
    Math.round(Math.max(...values.map((v) => v ?? 0)));
  row(
    name,
    ...[Math.min(...ms).toFixed(1), median(ms).toFixed(1), most(good.map((l) => l.first))],
    most(good.map((l) => l.rss_mb)),
  );
}
