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

import { wideEnvironment } from "../src/cli/terminal/v8_simd.ts";

/** Tests of the CPU device, in which V8's flags make a difference. */
const CPU_TESTS = ["tests/gpu/cpu_test.ts", "tests/gpu/ops_test.ts", "tests/parity_test.ts"];

/** Debian's packages that make an adapter of the CPU. */
const PACKAGES = ["libvulkan1", "mesa-vulkan-drivers"];

/** Where Mesa looks for sockets that nobody needs here; without it, it complains. */
const env = { XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" };

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

async function main(args: readonly string[]): Promise<number> {
  if (!await hasAdapter()) {
    say(`There is no WebGPU adapter: installing ${PACKAGES.join(" and ")}`);
    const failure = Deno.build.os === "linux" ? await install() : "this is not Debian";
    if (failure !== undefined) say(`That failed: ${failure.trim()}`);
    if (!await hasAdapter()) {
      say("error: The tests need a WebGPU adapter, be it in software, and there is none");
      return 1;
    }
  }
  // Not the folder `tests` by name: Deno finds nothing there, since it holds workspace members.
  const code = await test(["--doc", ...args], {});
  if (code || args.length) return code;
  say("once more on the CPU, in V8's wide mode");
  return await test(["--filter", "CPU", ...CPU_TESTS], wideEnvironment());
}

/**
 * Runs `deno test`; returns its exit code. Rarely, once in some ten runs of everything, the C library
 * aborts Deno as it ends, after all tests have passed. It is given a second try, and no third.
 */
async function test(args: readonly string[], more: Record<string, string>): Promise<number> {
  const command = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--parallel", ...args],
    // Mesa's software adapter takes all cores by itself.
    env: { ...env, DENO_JOBS: Deno.env.get("DENO_JOBS") ?? "2", ...more },
  });
  const { code, signal } = await command.spawn().status;
  if (!signal) return code;
  say(`Deno was ended by ${signal}: once more from the start`);
  return (await command.spawn().status).code;
}

Deno.exitCode = await main(Deno.args);
