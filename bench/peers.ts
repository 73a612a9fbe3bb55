/**
 * Who is measured: this package on its devices, and the engines that are installed beside it. Those
 * of npm are expected in `.peers`, which git ignores, PyTorch in Python. Each is a program that prints
 * a line of JSON for a workload.
 *
 * @module
 */

import { wideEnvironment } from "../src/cli/terminal/v8_simd.ts";

/** What a run prints. */
export interface Line {
  readonly peer?: string;
  readonly op?: string;
  /** Milliseconds of each sample. */
  readonly ms?: readonly number[];
  /** Milliseconds of the first run, with all that had to be compiled. */
  readonly first?: number;
  readonly flops?: number;
  readonly bytes?: number;
  readonly rss_mb?: number;
  readonly device?: string;
  readonly software?: boolean;
  readonly variants?: readonly string[];
  readonly pipelines?: number;
  readonly error?: string;
}

/** A program that is measured. */
export interface Peer {
  /** The command for a workload, if it has that. */
  command(op: string): readonly string[] | undefined;
  readonly env?: Record<string, string>;
  /** Where it runs. */
  readonly folder?: string;
  /** Whether it is this package. */
  readonly isOwn?: boolean;
  /** Whether it computes on the CPU without passing for a GPU. */
  readonly isCpu?: boolean;
  /** Whether it is here; by default it is. */
  isInstalled?(): Promise<boolean>;
}

const PEERS = ".peers";
/** Some hang now and then; the slowest needs minutes for its first step. */
const TIMEOUT_MS = 900_000;
const deno = [Deno.execPath(), "run", "-A", "--no-check"];
/** Which Python has PyTorch is up to the machine. */
const python = Deno.env.get("PYTHON") ?? "python3";

const own = (flags: readonly string[], env: Record<string, string> = {}): Peer => ({
  command: (op) => [...deno, "bench/run.ts", "--op", op, ...flags],
  ...{ env, isOwn: true, isCpu: flags.includes("cpu") },
});

/** A network's name, mode and batch size as the peers' scripts take them. */
function step(op: string): [network: string, mode: string, batch: string] | undefined {
  const [, mode, network, batch] = /^(train|sample)_(\w+)_b(\d+)$/.exec(op) ?? [];
  return mode === undefined ? undefined : [network, mode, batch];
}

/** An engine of npm: a script for whole steps, and one that picks operations by a pattern. */
const engine = (
  module: string,
  scripts: { steps: string; ops: string; samplesOnly?: boolean },
  env: Record<string, string>,
): Peer => ({
  command(op) {
    const parts = step(op);
    if (!parts) return [...deno, scripts.ops];
    if (!scripts.samplesOnly) return [...deno, scripts.steps, ...parts];
    const [network, mode, batch] = parts;
    return mode === "sample" ? [...deno, scripts.steps, network, batch] : undefined;
  },
  ...{ env, folder: PEERS, isCpu: env.DEV !== "webgpu" && env.EP !== "webgpu" },
  isInstalled: () => exists(`${PEERS}/node_modules/${module}`),
});
const onnx = (env: Record<string, string>, module = "onnxruntime-web") =>
  engine(module, { steps: "unet_ort.mjs", ops: "ops_ort.mjs", samplesOnly: true }, env);

const torch = (device: "cpu" | "cuda", ...flags: readonly string[]): Peer => ({
  command: (op) =>
    /^(fma|copy)_/.test(op)
      ? undefined
      : [python, "bench/peers/torch_peer.py", op, device, ...flags],
  isCpu: device === "cpu",
  isInstalled: () => succeeds(python, "-c", `import torch; torch.zeros(1, device="${device}")`),
});

/** All of them, by the names that reports give them. */
export const peers: Readonly<Record<string, Peer>> = {
  gpu: own(["--device", "gpu"]),
  cpu: own(["--device", "cpu"]),
  wide: own(["--device", "cpu"], wideEnvironment()),
  cpu1: own(["--device", "cpu", "--threads", "1"]),
  torch: torch("cpu"),
  "torch-cuda": torch("cuda", "fp32"),
  "torch-cuda-compiled": torch("cuda", "fp32", "compile"),
  "torch-cuda-tf32": torch("cuda", "tf32"),
  "torch-cuda-bf16": torch("cuda", "bf16"),
  "jax-js": engine("@jax-js/jax", { steps: "unet_jax.mjs", ops: "ops_jax.mjs" }, {
    ...{ DEV: "webgpu", NS: "2" },
  }),
  tfjs: engine("@tensorflow/tfjs-backend-webgpu", { steps: "unet_tf.mjs", ops: "ops_tf.mjs" }, {
    ...{ DEV: "webgpu", NS: "1" },
  }),
  "ort-webgpu": onnx({ EP: "webgpu", THREADS: "1" }),
  "ort-wasm": onnx({ EP: "wasm", THREADS: "2", ORTFILE: "ort.node.min.mjs" }),
  "ort-node": onnx({ EP: "cpu" }, "onnxruntime-node"),
};

/** Those that a report takes unless others are asked for. */
export const defaultPeers: readonly string[] = Object.keys(peers).filter((name) => name !== "cpu1");

/** Runs a peer once, on a workload that it has. */
export async function run(peer: Peer, op: string, flags: readonly string[] = []): Promise<Line> {
  const [command, ...args] = peer.command(op)!;
  try {
    const { stdout, stderr, success } = await new Deno.Command(command, {
      ...{ args: [...args, ...flags], cwd: peer.folder ?? "." },
      // The scripts for operations run those that this matches.
      env: { ONLY: `^${op}$`, ...peer.env },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    }).output();
    const line = lastLine(stdout), said = lastLine(stderr);
    if (line.startsWith("{")) return JSON.parse(line);
    return { error: success ? "does not have it" : said };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

const lastLine = (bytes: Uint8Array) =>
  new TextDecoder().decode(bytes).trim().split("\n").at(-1) ?? "";

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch {
    return false;
  }
}

async function succeeds(command: string, ...args: string[]): Promise<boolean> {
  try {
    return (await new Deno.Command(command, { args, stdout: "null", stderr: "null" }).output())
      .success;
  } catch {
    return false;
  }
}
