/**
 * A tiny training through the command line, and what it leaves.
 *
 * @module
 */

import { assert } from "@std/assert";
import { listFolder } from "../../src/cli/terminal/files.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { Folder, imagesFile, labelsFile, tinyUNet } from "./cli.ts";

/** Names of the files of its data. */
export const IMAGES = "train-images-idx3-ubyte", LABELS = "train-labels-idx1-ubyte";

/** A folder with data and a configuration of a tiny training. */
export async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await Deno.mkdir(folder.at("data"));
  await folder.write(`data/${IMAGES}`, imagesFile());
  await folder.write(`data/${LABELS}`, labelsFile());
  await folder.write("tiny.json", {
    data: "data",
    unet: tinyUNet,
    scheduler: { num_train_timesteps: 10 },
    training: { batch_size: 5, learning_rate: 0.002, warmup_steps: 2 },
  });
  return folder;
}

/** The arguments of a training to a step. */
export const train = (out: string, steps: number, ...more: string[]): string[] => [
  ...["train", "--config", "tiny.json", "--out", out, "--steps", `${steps}`],
  ...["--log-every", "2", "--save-every", "4", ...more],
];

/** The arrays that a training goes on from, as bytes, and the step. */
export async function readState(
  folder: Folder,
  run: string,
): Promise<{ step: number; arrays: Record<string, Uint8Array> }> {
  const file = await Deno.readFile(folder.at(`${run}/state.safetensors`));
  const { tensors, metadata } = readSafetensors(file, run);
  return {
    step: Number(metadata.step),
    arrays: Object.fromEntries([...tensors].map(([name, tensor]) => [name, tensor.bytes])),
  };
}

/** All files of a training but those that tell of its time and its process. */
export async function readFiles(folder: Folder, run: string): Promise<Record<string, Uint8Array>> {
  const paths = await Promise.all(
    ["", "samples/"].map(async (part) =>
      (await listFolder(folder.at(`${run}/${part}`))).map((name) => part + name)
    ),
  );
  const told = ["samples", "log.jsonl", "report.html", ".lock"];
  const files = paths.flat().filter((path) => !told.includes(path)).map(async (path) =>
    [path, await Deno.readFile(folder.at(`${run}/${path}`))] as const
  );
  return Object.fromEntries(await Promise.all(files));
}

/** The log without what depends on the clock and the machine. */
export async function readLog(folder: Folder, run: string): Promise<Record<string, number>[]> {
  const text = await Deno.readTextFile(folder.at(`${run}/log.jsonl`));
  return text.trimEnd().split("\n").map((line) => {
    const { images_per_second, seconds, rss_mb, ...rest } = JSON.parse(line);
    assert(images_per_second > 0 && seconds > 0 && rss_mb > 10);
    return rest as Record<string, number>;
  });
}
