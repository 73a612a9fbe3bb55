/**
 * The command line: `ddpm sample`, `ddpm interpolate`, `ddpm upscale`, `ddpm train`, `ddpm eval`,
 * `ddpm export`, `ddpm serve`, `ddpm models`, `ddpm info`.
 *
 * @module
 */

import { environment } from "./cli/terminal/environment.ts";
import { parseFlags, suggest } from "./cli/terminal/flags.ts";
import { evalCommand, evalFlags } from "./cli/commands/eval.ts";
import { exportCommand, exportFlags } from "./cli/commands/export.ts";
import { interpolateCommand, interpolateFlags } from "./cli/commands/interpolate.ts";
import { restoreCommand, restoreFlags } from "./cli/commands/restore.ts";
import { infoCommand, infoFlags } from "./cli/commands/info.ts";
import { type Commands, describeCommand, describeProgram } from "./cli/terminal/help.ts";
import { modelsCommand, modelsFlags } from "./cli/commands/models.ts";
import { print, printError, terminalWidth } from "./cli/terminal/progress.ts";
import { sampleCommand, sampleFlags } from "./cli/commands/sample.ts";
import { trainCommand } from "./cli/commands/train.ts";
import { trainFlags } from "./cli/commands/train_flags.ts";
import { isWide, runWide } from "./cli/terminal/v8_simd.ts";
import { version } from "./cli/terminal/version.ts";
import { upscaleCommand, upscaleFlags } from "./cli/commands/upscale.ts";
import { serveCommand, serveFlags } from "./cli/commands/serve.ts";
import { InputError } from "./errors.ts";

/** All commands. */
export const commands: Commands = {
  sample: {
    usage: "sample [flags]",
    help: "generate images with a trained model",
    flags: sampleFlags,
    examples: {
      "sample --count 4 --out x.gif": "an animation of the denoising",
      "sample --model runs/digits --sampler ddim --steps 50": "another model and sampler",
      "sample --init digit.png --strength 0.5": "image to image",
      'sample --model sd --prompt "a red heart" --size 512x512': "text to image",
      "sample --out - | display -": "a PNG through a pipe",
    },
    run: sampleCommand,
  },
  interpolate: {
    usage: "interpolate --seeds A,B | --images A,B [flags]",
    help: "generate images between two seeds or two images",
    flags: interpolateFlags,
    examples: { "interpolate --seeds 1,2 --count 12 --out x.gif": "a morph from seed 1 to seed 2" },
    run: interpolateCommand,
  },
  upscale: {
    usage: "upscale PICTURE... --model MODEL [flags]",
    help: "enlarge images with a super-resolution model",
    flags: upscaleFlags,
    examples: { "upscale a.png --model runs/up --out b.png": "an image of any size, in tiles" },
    run: upscaleCommand,
  },
  restore: {
    usage: "restore IMAGE... --task superres:4|inpaint|deblur:SIGMA|colorize [flags]",
    help: "restore images of which something is lost",
    flags: restoreFlags,
    examples: { "restore small.png --task superres:4": "four times as wide and high" },
    run: restoreCommand,
  },
  train: {
    usage: "train --data mnist|PATH --out FOLDER [flags]",
    help: "train a model on images",
    flags: trainFlags,
    examples: {
      "train --data mnist --out runs/digits": "a small network on MNIST",
      "train --data photos --size 64 --flip --out runs/photos": "your own images",
      "train --out runs/photos --resume --steps 20000": "continue, and train for longer",
    },
    run: trainCommand,
  },
  eval: {
    usage: "eval --data mnist|PATH [flags]",
    help: "measure how good the pictures of a model are, and how likely images are under it",
    flags: evalFlags,
    examples: {
      "eval --data mnist --count 256": "bits per dimension of the test images of MNIST",
      "eval --data mnist --metric fd,prdc,nn --report eval.html": "samples against real images",
      "eval --samples pictures --data photos --features runs/features": "pictures of anything else",
      "eval --model runs/digits --first 5000 --count 5000 --out part1.npz":
        "a part, which --samples part0.npz,part1.npz puts together with another",
    },
    run: evalCommand,
  },
  export: {
    usage: "export MODEL --out FOLDER [flags]",
    help: "write a model as other programs read it",
    flags: exportFlags,
    examples: {
      "export runs/digits --out digits": "a folder for Python's diffusers",
      "export runs/digits --out half --format safetensors --dtype f16": "one file of half the size",
    },
    run: exportCommand,
  },
  serve: {
    usage: "serve [flags]",
    help: "serve a page and an API that make images with the device of this machine",
    flags: serveFlags,
    examples: {
      "serve": "a page at http://127.0.0.1:8080/",
      "serve --model runs/digits,runs/photos --host 0.0.0.0": "for others too, who need the token",
    },
    run: serveCommand,
  },
  models: {
    usage: "models [flags]",
    help: "list the models that come with the package",
    flags: modelsFlags,
    examples: { "models": "their names, sizes and numbers" },
    run: modelsCommand,
  },
  info: {
    usage: "info [MODEL|PICTURE] [flags]",
    help: "describe a model, how a picture was made, or this machine",
    flags: infoFlags,
    examples: {
      "info samples.png": "what made a picture, and its watermark",
      "info runs/digits": "the configuration and card of a model",
    },
    run: infoCommand,
  },
};

/**
 * Runs a command.
 *
 * @returns The exit code: 0 for success, 2 for bad input, 1 for other failures, 3 if a safety
 * checker withheld images, 130 if interrupted.
 */
export async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === "--help" || name === "-h" || name === "help") {
    print(describeProgram(commands));
    return 0;
  }
  if (name === "--version" || name === "-V") {
    print(version);
    return 0;
  }
  try {
    if (name === undefined) {
      throw new InputError(
        `Give a command: ${Object.keys(commands).join(", ")}; --help describes them`,
      );
    }
    if (!Object.hasOwn(commands, name)) {
      const kind = name.startsWith("-") ? "flag" : "command";
      throw new InputError(`Unknown ${kind} ${name}${suggest(name, Object.keys(commands))}`);
    }
    const command = commands[name];
    if (rest.includes("--help") || rest.includes("-h")) {
      print(describeCommand(command, terminalWidth(Deno.stdout)));
      return 0;
    }
    const { wide } = parseFlags(rest, command.flags).flags;
    if (wide && !isWide()) return await runWide(args);
    return await command.run(rest) ?? 0;
  } catch (error) {
    printError(`error: ${error instanceof Error ? error.message : error}`);
    if (error instanceof InputError) return 2;
    if (environment("DDPM_DEBUG") && error instanceof Error) printError(error.stack ?? "");
    return 1;
  }
}
