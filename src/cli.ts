/**
 * The command line: `ddpm sample`, `ddpm interpolate`, `ddpm train`, `ddpm eval`, `ddpm info`.
 *
 * @module
 */

import { environment } from "./cli/terminal/environment.ts";
import { describeFlags, type Flag, suggest } from "./cli/terminal/flags.ts";
import { evalCommand, evalFlags } from "./cli/commands/eval.ts";
import { interpolateCommand, interpolateFlags } from "./cli/commands/interpolate.ts";
import { restoreCommand, restoreFlags } from "./cli/commands/restore.ts";
import { infoCommand, infoFlags } from "./cli/commands/info.ts";
import { print, printError } from "./cli/terminal/progress.ts";
import { sampleCommand, sampleFlags } from "./cli/commands/sample.ts";
import { trainCommand } from "./cli/commands/train.ts";
import { trainFlags } from "./cli/commands/train_flags.ts";
import { packageName, version } from "./cli/terminal/version.ts";
import { InputError } from "./errors.ts";

interface Command {
  readonly usage: string;
  readonly help: string;
  readonly flags: Record<string, Flag>;
  /** Returns the exit code, 0 if nothing. */
  readonly run: (args: readonly string[]) => Promise<number | void>;
}

const commands: Record<string, Command> = {
  sample: {
    usage: "sample [flags]",
    help: "paint pictures with a trained model",
    flags: sampleFlags,
    run: sampleCommand,
  },
  interpolate: {
    usage: "interpolate --seeds A,B | --images A,B [flags]",
    help: "paint pictures on the way from one to another",
    flags: interpolateFlags,
    run: interpolateCommand,
  },
  restore: {
    usage: "restore PICTURE... --task superres:4|inpaint|deblur:SIGMA|colorize [flags]",
    help: "restore pictures of which something is lost",
    flags: restoreFlags,
    run: restoreCommand,
  },
  train: {
    usage: "train --data mnist|PATH --out FOLDER [flags]",
    help: "train a model on pictures",
    flags: trainFlags,
    run: trainCommand,
  },
  eval: {
    usage: "eval --data mnist|PATH [flags]",
    help: "measure how likely a model finds pictures",
    flags: evalFlags,
    run: evalCommand,
  },
  info: {
    usage: "info [MODEL] [flags]",
    help: "describe a model, or this machine",
    flags: infoFlags,
    run: infoCommand,
  },
};

const PROGRAM = `deno run -A jsr:${packageName}`;

function help(): string {
  const lines = Object.entries(commands).map(([name, c]) => `  ${name.padEnd(13)}${c.help}`);
  return [
    `${packageName} ${version}: diffusion models on any GPU`,
    "",
    `Usage: ${PROGRAM} COMMAND [flags]`,
    "",
    ...lines,
    "",
    "COMMAND --help tells its flags.",
  ].join("\n");
}

/**
 * Runs a command.
 *
 * @returns The exit code: 0; 2 for bad input; 1 for a failure at work; 130 if interrupted.
 */
export async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "--help" || name === "-h" || name === "help") {
    print(help());
    return 0;
  }
  if (name === "--version" || name === "-V") {
    print(version);
    return 0;
  }
  try {
    if (name === undefined) {
      throw new InputError(
        `Give a command: ${Object.keys(commands).join(", ")}; --help tells more`,
      );
    }
    if (!Object.hasOwn(commands, name)) {
      const kind = name.startsWith("-") ? "flag" : "command";
      throw new InputError(`Unknown ${kind} ${name}${suggest(name, Object.keys(commands))}`);
    }
    const command = commands[name];
    if (rest.includes("--help") || rest.includes("-h")) {
      const usage = `Usage: ${PROGRAM} ${command.usage}`;
      print(`${command.help}\n\n${usage}\n\n${describeFlags(command.flags)}`);
      return 0;
    }
    return await command.run(rest) ?? 0;
  } catch (error) {
    printError(`error: ${error instanceof Error ? error.message : error}`);
    if (error instanceof InputError) return 2;
    if (environment("DDPM_DEBUG") && error instanceof Error) printError(error.stack ?? "");
    return 1;
  }
}
