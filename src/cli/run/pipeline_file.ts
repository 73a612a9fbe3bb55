/**
 * Single files of other projects that hold a whole pipeline.
 *
 * @module
 */

import type { Family, TensorMap } from "../../model/families/family.ts";
import { type FamilyPieces, readPipelineFamily } from "../../model/families/pipelines.ts";
import type { FamilyPipeline } from "../../model/families/stable_diffusion.ts";
import type { Network } from "../../model/network.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import {
  findSchedule,
  type ModelFolder,
  readOriginalConfig,
  UnsupportedPipeline,
} from "./model_folder.ts";
import type { Pipeline } from "./pipeline.ts";

/** The networks of a pipeline. */
export type Networks = Omit<TextToImageModel, "tokenizer">;

/** What a file holds. */
interface PipelineFile extends Pick<FamilyPieces, "notes"> {
  readonly networks: Networks;
  /** The networks in words. */
  readonly pieces: Readonly<Record<string, string>>;
  /** The file as a pipeline, of the class of its family. */
  readonly pipeline: Pipeline;
}

/**
 * Reads the networks of a file.
 *
 * @param folder The folder that it is in.
 * @throws {UnsupportedPipeline} If one of them is missing.
 */
export async function readPipelineFile(
  family: Family<FamilyPipeline>,
  tensors: TensorMap,
  path: string,
  folder: ModelFolder,
): Promise<PipelineFile> {
  const found = readPipelineFamily(family, tensors, path, {
    config: await readOriginalConfig(path, folder),
    schedule: (await findSchedule(folder, ["", "scheduler"]))?.schedule,
  });
  const { denoiser, autoencoder, textEncoder, notes, missing } = found;
  const pieces = piecesOf(found, found.dtypes);
  const pipeline = { className: family.name, network: undefined, missing };
  if (denoiser && autoencoder && textEncoder && !missing.length) {
    return { networks: { denoiser, autoencoder, textEncoder }, notes, pieces, pipeline };
  }
  throw new UnsupportedPipeline(
    path,
    pipeline,
    `its tensors have the names of ${family.name}, and this program, which paints texts, does not ` +
      `find, or has not, its ${missing.join(", ")}`,
    pieces,
  );
}

/** The networks in words. */
export const piecesOf = (
  { denoiser, autoencoder, textEncoder, safetyChecker }: Partial<Networks>,
  dtypes: Readonly<Record<string, string>>,
): Record<string, string> =>
  Object.fromEntries(
    Object.entries({
      ...{ unet: denoiser, vae: autoencoder, text_encoder: textEncoder },
      safety_checker: safetyChecker,
    }).flatMap(
      ([name, piece]) => piece ? [[name, describe(piece.network, dtypes[name])]] : [],
    ),
  );

/** A network in words. */
const describe = (
  { className, layout }: Pick<Network, "className" | "layout">,
  dtype: string,
): string => `${className}, ${layout.count} parameters, ${dtype}`;
