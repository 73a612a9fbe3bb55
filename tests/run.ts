/**
 * `deno task test`: makes sure that there is a WebGPU adapter, then runs all tests and all examples
 * of the documentation; then those of the CPU device again in V8's wide mode. Further arguments go
 * to `deno test`, paths among them.
 *
 * Without an adapter nothing is skipped: on Debian, Mesa's software Vulkan is installed where that is
 * allowed, and otherwise the run fails.
 *
 * @module
 */

import { stripVTControlCharacters } from "node:util";
import { wideEnvironment } from "../src/cli/terminal/v8_simd.ts";

/** Tests of the CPU device, in which V8's flags make a difference. */
const CPU_TESTS = [
  ...["tests/gpu/cpu_test.ts", "tests/gpu/in_place_test.ts", "tests/gpu/ops_test.ts"],
  "tests/parity_test.ts",
];

/** Debian's packages that make an adapter of the CPU. */
const PACKAGES = ["libvulkan1", "mesa-vulkan-drivers"];

/**
 * Of Mesa's drivers only those of Vulkan: one that ends with a thread may take the process along. And
 * its software adapter does not optimize, as most kernels of tests take longer to compile than to run.
 */
const env: Record<string, string> = Deno.build.os === "linux"
  ? { DENO_WEBGPU_BACKEND: "vulkan", GALLIVM_PERF: "nopt", ...Deno.env.toObject() }
  : {};

/** Runs a program in silence; returns what it said if it failed, `undefined` if it did not. */
async function failureOf(command: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(command, {
      ...{ args, stdin: "null" },
      env: { ...env, DEBIAN_FRONTEND: "noninteractive" },
    }).output();
    if (success) return undefined;
    return [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return `${command} is not there`;
    throw error;
  }
}

/** Whether there is an adapter. Asked in a new process: one that saw none will not see a new one. */
const hasAdapter = async () =>
  await failureOf(
    Deno.execPath(),
    "eval",
    "if (!await navigator.gpu.requestAdapter()) Deno.exit(1)",
  ) === undefined;

/** Installs the packages; returns what prevented it. */
async function install(): Promise<string | undefined> {
  const [command, ...before] = Deno.uid() === 0 ? ["apt-get"] : ["sudo", "-n", "apt-get"];
  const apt = (...args: string[]) => failureOf(command, ...before, "-q", "-y", ...args);
  const needed = ["install", "--no-install-recommends", ...PACKAGES];
  if (await apt(...needed) === undefined) return undefined;
  // The lists of packages may be missing or old.
  return await apt("update") ?? await apt(...needed);
}

function say(text: string): void {
  // deno-lint-ignore no-console
  console.error(text);
}

/** How a run of `deno test` went. */
export interface Outcome {
  readonly passed: number;
  readonly failed: number;
  /** What its own last lines do not say. */
  readonly note?: string;
}

/** The line that `deno test` ends with: `ok | 5 passed (2 steps) | 0 failed | 1 ignored (3s)`. */
const SUMMARY = /^(?:ok|FAILED) \| (\d+) passed[^|]*\| (\d+) failed/;

/**
 * Judges a run by what it printed and how it ended. Deno is forgiven for aborting once it has told
 * that all tests passed (see CONTRIBUTING.md); every other signal is a failure.
 */
export function judge(output: string, { code, signal }: Deno.CommandStatus): Outcome {
  const lines = stripVTControlCharacters(output).trimEnd().split("\n");
  const summary = lines.at(-1)!.match(SUMMARY);
  const [passed, failed] = summary ? summary.slice(1).map(Number) : [0, 0];
  if (!code) return { passed, failed };
  if (summary && !failed && signal === "SIGABRT") {
    return { passed, failed, note: "Deno aborted as it ended, after all tests had passed" };
  }
  const note = signal
    ? `Deno was ended by ${signal} ${summary ? "after" : "before"} the last test had run`
    : failed
    ? undefined
    : `Deno ended with code ${code}, without a test that failed`;
  return { passed, failed: Math.max(1, failed), ...(note ? { note } : {}) };
}

/** Runs a program, shows what it prints, and judges it. */
export async function observe(
  program: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<Outcome> {
  const child = new Deno.Command(program, { args: [...args], env, stdout: "piped" }).spawn();
  const decoder = new TextDecoder();
  let output = "";
  for await (const chunk of child.stdout) {
    output += decoder.decode(chunk, { stream: true });
    for (let at = 0; at < chunk.length;) at += Deno.stdout.writeSync(chunk.subarray(at));
  }
  return judge(output, await child.status);
}

/** Runs `deno test`. */
const test = (args: readonly string[], more: Record<string, string> = {}) =>
  observe(Deno.execPath(), ["test", "-A", "--parallel", ...args], {
    // Mesa's software adapter takes all cores by itself.
    ...{ ...env, DENO_JOBS: Deno.env.get("DENO_JOBS") ?? "2", ...more },
  });

async function main(args: readonly string[]): Promise<number> {
  if (!await hasAdapter()) {
    say(`There is no WebGPU adapter: installing ${PACKAGES.join(" and ")}`);
    const failure = Deno.build.os === "linux" ? await install() : "this is not Debian";
    if (failure !== undefined) say(`That failed: ${failure.trim()}`);
    if (!await hasAdapter()) {
      const note = "error: The tests need a WebGPU adapter, be it in software, and there is none";
      return report([{ passed: 0, failed: 1, note }]);
    }
  }
  // Not the folder `tests` by name: Deno finds nothing there, since it holds workspace members.
  // The types of all of it are checked by `deno task ok`.
  const unchecked = args.length ? [] : ["--no-check"];
  const outcomes = [await test(["--doc", ...unchecked, ...args])];
  if (!outcomes[0].failed && !args.length) {
    say("once more on the CPU, in V8's wide mode");
    outcomes.push(await test(["--no-check", "--filter", "CPU", ...CPU_TESTS], wideEnvironment()));
  }
  return report(outcomes);
}

/** Closes with what is remarkable, and a line for machines; returns the exit code. */
export function report(
  outcomes: readonly Outcome[],
  // deno-lint-ignore no-console
  print: (line: string) => void = console.log,
): number {
  for (const { note } of outcomes) if (note) print(note);
  const sum = (key: "passed" | "failed") => outcomes.reduce((n, outcome) => n + outcome[key], 0);
  print(`${sum("passed")} passed, ${sum("failed")} failed`);
  return sum("failed") ? 1 : 0;
}

if (import.meta.main) Deno.exitCode = await main(Deno.args);
