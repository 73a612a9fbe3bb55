/**
 * The command line in a folder of its own: as users run it, or one command after the other in one
 * process.
 *
 * @module
 */

import { assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { parseNetwork } from "../../src/model/network.ts";
import { initializeModel, type LoadedModel, serializeModel } from "../../src/model/model.ts";
import { type Outcome, Shell } from "./shell.ts";

/** The package's entry. */
const program = fromFileUrl(new URL("../../mod.ts", import.meta.url));

/**
 * Arguments without flags that come again: tests vary a command by adding to it, and the program takes
 * a flag once.
 */
export function lastOfEach(args: readonly string[]): string[] {
  const nameOf = (arg = "") => /^--[\w-]+/.exec(arg)?.[0];
  return args.filter((arg, i) => {
    const isValue = !nameOf(arg) && !args[i - 1]?.includes("="), at = isValue ? i - 1 : i;
    const name = nameOf(args[at]);
    return !name || !args.some((other, k) => k > at && nameOf(other) === name);
  });
}

/** Commands that run networks. */
const COMPUTING = ["train", "sample", "eval", "interpolate", "restore", "upscale", "serve"];

/** Arguments that compute on one thread unless they say otherwise: tests run side by side. */
function onOneThread(args: readonly string[]): readonly string[] {
  const isFree = COMPUTING.includes(args[0]) &&
    !args.some((arg) => /^(gpu|--(threads|precision|device=gpu).*)$/.test(arg));
  return isFree ? [...args, "--threads", "1"] : args;
}

/**
 * What the program finds in its environment. Commands of a test run the same shaders, of which Mesa
 * keeps what it compiled: optimized ones.
 */
const environment = { NO_COLOR: "1", GALLIVM_PERF: "" };

/** Runs the commands of a file of tests; ends when they do. */
const shell = new Shell(environment);

/** A folder that is gone after the test. */
export class Folder implements AsyncDisposable {
  readonly path: string;
  /** Further variables of the environment that the program runs in. */
  readonly env: Record<string, string> = {};

  private constructor(path: string) {
    this.path = path;
  }

  static async make(): Promise<Folder> {
    return new Folder(await Deno.makeTempDir({ prefix: "ddpm-" }));
  }

  /** A path within. */
  at(name: string): string {
    return join(this.path, name);
  }

  /** Writes a file, JSON for objects. */
  async write(name: string, content: string | Uint8Array | object): Promise<void> {
    if (content instanceof Uint8Array) return await Deno.writeFile(this.at(name), content);
    const text = typeof content === "string" ? content : JSON.stringify(content);
    await Deno.writeTextFile(this.at(name), text);
  }

  /** Starts the program here. */
  start(...args: string[]): Deno.ChildProcess {
    return this.startUnder([], args);
  }

  /** Starts the program here through another one, whose arguments end with a command to run. */
  startUnder(
    wrapper: readonly string[],
    args: readonly string[],
    permissions: readonly string[] = ["-A"],
  ): Deno.ChildProcess {
    const run = [Deno.execPath(), "run", "--no-prompt", ...permissions, program];
    const [command, ...rest] = [...wrapper, ...run, ...onOneThread(lastOfEach(args))];
    return new Deno.Command(command, {
      args: rest,
      cwd: this.path,
      env: { ...environment, ...this.env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  }

  /**
   * Runs a command here, in a process that has run others before, but for those in an environment of
   * their own and those that start the program again.
   */
  async run(...args: string[]): Promise<Outcome> {
    const isAlone = Object.keys(this.env).length || args.includes("--wide");
    if (isAlone) return await this.runWith(["-A"], ...args);
    return await shell.run(this.path, onOneThread(lastOfEach(args)));
  }

  /** Runs the program here, in a process of its own, with no more than these permissions. */
  async runWith(permissions: readonly string[], ...args: string[]): Promise<Outcome> {
    const { code, stdout, stderr } = await this.startUnder([], args, permissions).output();
    const decoder = new TextDecoder();
    return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  }

  /** Runs the program, which must succeed; returns what it printed. */
  async succeed(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    assertEquals(code, 0, `${args.join(" ")} failed: ${stderr}`);
    return stdout;
  }

  /** Runs a command, which must refuse its input with one line and touch nothing. */
  async refuse(args: readonly string[], message: RegExp): Promise<void> {
    const before = await this.list();
    const { code, stdout, stderr } = await this.run(...args);
    assertMatch(stderr, /^error: [^\n]+\n$/);
    assertMatch(stderr, message);
    assertEquals(stdout, "");
    assertEquals(code, 2);
    assertEquals(await this.list(), before);
  }

  /** Everything here: paths, and the time and size of files. */
  async list(folder = this.path): Promise<string[]> {
    const found: string[] = [];
    for await (const entry of Deno.readDir(folder)) {
      const path = join(folder, entry.name), { mtime, size } = await Deno.lstat(path);
      if (entry.isDirectory) found.push(path, ...await this.list(path));
      else found.push(`${path} ${mtime?.getTime()} ${size}`);
    }
    return found.sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** A network that trains and samples in no time. */
export const tinyUNet = {
  down_block_types: ["DownBlock2D", "AttnDownBlock2D"],
  up_block_types: ["AttnUpBlock2D", "UpBlock2D"],
  block_out_channels: [8, 16],
  layers_per_block: 1,
  norm_num_groups: 4,
};

/** A model of 8 × 8 images and ten noise levels, with weights that were never trained. */
export function tinyModel(channels = 1): LoadedModel {
  const sizes = { sample_size: 8, in_channels: channels, out_channels: channels };
  const network = parseNetwork({ ...tinyUNet, ...sizes });
  const model = initializeModel(network, { num_train_timesteps: 10 }, 0);
  // Initial weights alone make a network that predicts zeros.
  return { ...model, parameters: model.parameters.map((x, i) => x + 0.1 * Math.sin(i)) };
}

/** The same network with classes of these names, and a "none" if asked for. */
export function classModel(names: readonly string[], hasNone = true): LoadedModel {
  const { network, schedule } = tinyModel(), count = names.length + Number(hasNone);
  const fields = { ...network.config, num_class_embeds: count };
  const model = initializeModel(parseNetwork(fields), { num_train_timesteps: 10 }, 0, names);
  return { ...model, schedule, parameters: model.parameters.map((x, i) => x + 0.1 * Math.sin(i)) };
}

/** A folder with models of classes: `m` knows none too, `all` does not, `plain` has no classes. */
export async function makeClassModels(names: readonly string[]): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", serializeModel(classModel(names)));
  await folder.write("all.safetensors", serializeModel(classModel(names, false)));
  await folder.write("plain.safetensors", tinyModelFile());
  return folder;
}

/** The same as a file. */
export const tinyModelFile = (channels = 1): Uint8Array<ArrayBuffer> =>
  serializeModel(tinyModel(channels));

/** An IDX file of bytes. */
export function encodeIdx(shape: readonly number[], data: Uint8Array): Uint8Array<ArrayBuffer> {
  const file = new Uint8Array(4 + 4 * shape.length + data.length), view = new DataView(file.buffer);
  view.setUint32(0, 0x800 + shape.length);
  shape.forEach((size, i) => view.setUint32(4 + 4 * i, size));
  file.set(data, 4 + 4 * shape.length);
  return file;
}

/** How many images {@linkcode writeImages} writes. */
const COUNT = 12;

/** Training images of 8 × 8, all different, as an IDX file. */
export const imagesFile = (): Uint8Array<ArrayBuffer> =>
  encodeIdx([COUNT, 8, 8], Uint8Array.from({ length: COUNT * 64 }, (_, i) => i * 37));

/** Their labels. */
export const labelsFile = (): Uint8Array<ArrayBuffer> =>
  encodeIdx([COUNT], Uint8Array.from({ length: COUNT }, (_, i) => i % 10));
