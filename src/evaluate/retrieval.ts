/**
 * Whether pictures show what they were asked for: whether the caption is found again by the picture.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { pickRows } from "./kernel_distance.ts";
import { forEachTile, type Rows, TILE, type Work } from "./rows.ts";

/** How often the caption of a picture is among the first of all captions. */
export interface Retrieval {
  /** The share of the samples whose own caption is the first; 1 / captions by chance. */
  readonly recallAt1: number;
  /** The share of the samples whose own caption is among the ten first; 10 / captions by chance. */
  readonly recallAt10: number;
  /** How many different captions there are. */
  readonly captions: number;
}

/** Pictures and what is said of them. */
export interface Captioned {
  /** Features of each picture. */
  readonly rows: Rows;
  /** The caption of each. */
  readonly captions: readonly string[];
}

/**
 * Looks for the captions of samples among those of real images. Captions are in the order of their
 * nearest real images in the features; a caption may have several. As R-precision of generated pictures
 * (Xu et al. 2018), with real images in place of an encoder of texts.
 *
 * @throws {InputError} If a sample has a caption that no real image has.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { retrieve } from "@x/ddpm/evaluate";
 *
 * const rows = (...data: number[]) => ({ count: data.length, width: 1, data: new Float32Array(data) });
 * const samples = { rows: rows(0.1, 0.2), captions: ["a", "b"] };
 * const real = { rows: rows(0, 1), captions: ["a", "b"] };
 * console.log((await retrieve(samples, real)).recallAt1); // 0.5
 * ```
 */
export async function retrieve(
  samples: Captioned,
  real: Captioned,
  work: Work = {},
): Promise<Retrieval> {
  const numbers = new Map([...new Set(real.captions)].map((caption, i) => [caption, i]));
  const [asked, known] = [samples, real].map(({ captions }) =>
    captions.map((caption) => numbers.get(caption) ?? -1)
  );
  const unknown = asked.indexOf(-1);
  if (unknown >= 0) {
    throw new InputError(
      `Cannot look for the caption ${samples.captions[unknown]}: no real image has it`,
    );
  }
  const captions = numbers.size, near = new Float64Array(TILE * captions), { count } = real.rows;
  let first = 0, ten = 0;
  const options = { ...work, kind: "distance" } as const;
  await forEachTile(samples.rows, real.rows, options, ({ rows, columns, values }) => {
    if (!columns[0]) near.fill(Infinity);
    for (let i = rows[0]; i < rows[1]; i++) {
      const own = near.subarray((i - rows[0]) * captions, (i - rows[0] + 1) * captions);
      const from = (i - rows[0]) * TILE - columns[0];
      for (let j = columns[0]; j < columns[1]; j++) {
        own[known[j]] = Math.min(own[known[j]], values[from + j]);
      }
      if (columns[1] < count) continue;
      const square = own[asked[i]], before = own.reduce((n, x) => n + (x < square ? 1 : 0), 0);
      if (before < 1) first++;
      if (before < 10) ten++;
    }
  });
  const total = samples.rows.count;
  return { recallAt1: first / total, recallAt10: ten / total, captions };
}

/** How often pictures and texts find each other, in features that they have in common. */
export interface TextRetrieval {
  /** For each picture, its own text among all texts. */
  readonly imageToText: Retrieval;
  /** For each text that a picture has, a picture of it among all pictures. */
  readonly textToImage: Retrieval;
}

/**
 * Looks for the texts of pictures among texts, and for pictures of these texts among the pictures, by an
 * encoder of both, as CLIP is tested on pictures with captions (Radford et al. 2021).
 *
 * @param pictures Features of pictures, and the text of each.
 * @param texts Features of texts, each of which is there once.
 * @throws {InputError} If a picture has a text that is not among them.
 * @throws The signal's reason, if it is aborted.
 *
 * @example
 * ```ts
 * import { retrieveTexts } from "@x/ddpm/evaluate";
 *
 * const rows = (...data: number[]) => ({ count: data.length, width: 1, data: new Float32Array(data) });
 * const pictures = { rows: rows(0.1, 0.2), captions: ["a", "b"] };
 * const texts = { rows: rows(0, 1), captions: ["a", "b"] };
 * const { imageToText, textToImage } = await retrieveTexts(pictures, texts);
 * console.log(imageToText.recallAt1, textToImage.recallAt1); // 0.5, 1
 * ```
 */
export async function retrieveTexts(
  pictures: Captioned,
  texts: Captioned,
  work: Work = {},
): Promise<TextRetrieval> {
  const shown = new Set(pictures.captions);
  const places = texts.captions.flatMap((text, i) => shown.has(text) ? [i] : []);
  const asked = {
    rows: pickRows(texts.rows, places),
    captions: places.map((i) => texts.captions[i]),
  };
  return {
    imageToText: await retrieve(pictures, texts, work),
    textToImage: await retrieve(asked, pictures, work),
  };
}
