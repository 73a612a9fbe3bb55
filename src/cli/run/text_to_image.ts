/**
 * Loading what paints texts: pipelines of diffusers, and single files of latent diffusion and
 * Stable Diffusion.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { parseClipImageProcessor } from "../../model/clip_image_processor.ts";
import { denoisingNetwork } from "../../model/denoiser.ts";
import { dtypesOf, findPipelineFamily } from "../../model/families/pipelines.ts";
import { readTensorFile } from "../../formats/torch.ts";
import { assembleModel, holdsNetwork } from "../../model/model.ts";
import { autoencoderNetwork, parseNetwork } from "../../model/network.ts";
import { parseSafetyChecker, SAFETY_CHECKER } from "../../model/safety_checker.ts";
import { parseTextEncoder } from "../../model/text_encoder.ts";
import type { TextToImageModel } from "../../model/text_to_image.ts";
import { assembleNetwork } from "../../model/weights.ts";
import { checkChecker } from "../../sample/safety_check.ts";
import { FileBytes, readJson } from "../terminal/files.ts";
import { printError } from "../terminal/progress.ts";
import { locate, type Located } from "./load_model.ts";
import { loadTokenizer, tokenizerKindOf } from "./load_tokenizer.ts";
import { type ModelFolder, readSchedule, UnsupportedPipeline } from "./model_folder.ts";
import { type Networks, piecesOf, readPipelineFile } from "./pipeline_file.ts";
import { findPiece, findWeights, inFolder, readWeights, tellVariant } from "./piece_weights.ts";
import { explainMissing, nameOf, type Piece, type Pipeline, readPipeline } from "./pipeline.ts";
import { TEXT_STEM } from "./weight_files.ts";

/** A model that paints texts, and what is known of its files. */
export interface LoadedTextToImage {
  readonly model: TextToImageModel;
  /** Whose names its tensors have, and which pipeline it is. */
  readonly family: string;
  readonly pipeline?: string;
  /** Its networks in words, by the pieces of the pipeline. */
  readonly pieces: Readonly<Record<string, string>>;
  /** Its files of weights. */
  readonly paths: readonly string[];
}

/**
 * Loads a model that paints texts: one of the hub, the folder of a pipeline of diffusers, or a single
 * file of latent diffusion or Stable Diffusion. Weights are read when they are needed: files stay open.
 *
 * @returns `undefined` if what is there is no pipeline that paints texts, but another model.
 * @throws {InputError} If there is nothing, it is damaged, or pieces are missing.
 */
export const loadTextToImage = async (place: string): Promise<TextToImageModel | undefined> =>
  (await openTextToImage(await locate(place)))?.model;

/**
 * Loads what was found.
 *
 * @param isUnchecked Whether its safety checker is left out.
 */
export async function openTextToImage(
  located: Located,
  isUnchecked = false,
): Promise<LoadedTextToImage | undefined> {
  if (located.kind === "file") return await openFile(located.path, located.folder);
  if (located.kind === "shipped" || located.file !== undefined) return undefined;
  const pipeline = await readPipeline(located.folder);
  const seen = isUnchecked && pipeline ? { ...pipeline, safety: undefined } : pipeline;
  return seen?.text && await openPipeline(located.folder, seen, seen.text);
}

/** A pipeline of diffusers: each network in a folder of its own. */
async function openPipeline(
  folder: ModelFolder,
  pipeline: Pipeline,
  text: NonNullable<Pipeline["text"]>,
): Promise<LoadedTextToImage> {
  const { place } = folder, why = explainMissing(pipeline);
  if (why) throw new UnsupportedPipeline(place, pipeline, why);
  const unet = await openPiece(folder, pipeline.network!);
  const vae = await openPiece(folder, text.autoencoder!);
  const encoder = await openPiece(folder, text.encoder!, TEXT_STEM);
  const checker = pipeline.safety && await openChecker(folder, pipeline.safety);
  const { schedule, scheduler, note } = await readSchedule(folder, pipeline.scheduler);
  const network = parseNetwork(unet.config), textEncoder = parseTextEncoder(encoder.config);
  const networks = {
    denoiser: assembleModel(network, schedule, unet.tensors, unet.what, { scheduler }),
    autoencoder: assembleNetwork(
      autoencoderNetwork(parseNetwork(vae.config)),
      vae.tensors,
      vae.what,
    ),
    textEncoder: assembleNetwork(textEncoder, encoder.tensors, encoder.what),
    ...(checker ? { safetyChecker: checker.model } : {}),
  };
  const pieces = piecesOf(networks, {
    ...{ unet: dtypesOf(unet.tensors), vae: dtypesOf(vae.tensors) },
    text_encoder: dtypesOf(encoder.tensors),
    ...(checker ? { safety_checker: dtypesOf(checker.tensors) } : {}),
  });
  const model = await complete(place, folder, networks, pipeline, pieces);
  if (note) printError(note);
  return {
    ...{ model, family: "diffusers", pipeline: pipeline.className },
    pieces,
    paths: [unet, vae, encoder, ...(checker ? [checker] : [])].flatMap(({ paths }) => paths),
  };
}

/** What prepares pictures for CLIP, by the names that it has had. */
const processors = ["CLIPImageProcessor", "CLIPFeatureExtractor", "CLIPImageProcessorFast"];

/** What looks at what was painted; `undefined`, which is said, if it is of a class that is not known. */
async function openChecker(
  folder: ModelFolder,
  { checker, processor }: NonNullable<Pipeline["safety"]>,
) {
  const { place } = folder, leave = "; sample --no-safety-checker does without";
  if (checker.className !== SAFETY_CHECKER) {
    printError(
      `${place}: passing over ${
        nameOf(checker)
      }, since only a ${SAFETY_CHECKER} is known: nothing ` +
        "looks at what is painted",
    );
    return undefined;
  }
  const bad = (why: string) => new InputError(`Cannot load ${place}: ${why}${leave}`);
  if (!processor || !processors.includes(processor.className)) {
    throw bad(
      `its ${nameOf(checker)} needs a feature_extractor of class ${processors[0]}` +
        (processor ? `, not ${processor.className}` : ""),
    );
  }
  const settings = await folder.find(inFolder(processor.name, "preprocessor_config.json"));
  if (!settings) throw bad(`there is no preprocessor_config.json in its ${processor.name}`);
  const fields = parseWith(z.record(z.string(), z.unknown()), await readJson(settings), settings);
  try {
    const piece = await openPiece(folder, checker, TEXT_STEM);
    const network = parseSafetyChecker(piece.config);
    const weighted = assembleNetwork(network, piece.tensors, piece.what);
    const model = { ...weighted, processor: parseClipImageProcessor(fields) };
    checkChecker(model);
    return { ...piece, model };
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${error.message}${leave}`);
    throw error;
  }
}

/** Adds a tokenizer to networks, which must be made for each other. */
async function complete(
  place: string,
  folder: ModelFolder,
  networks: Networks,
  pipeline: Pipeline,
  pieces: Readonly<Record<string, string>>,
): Promise<TextToImageModel> {
  const name = pipeline.text?.tokenizer?.name ?? "tokenizer", { network } = networks.textEncoder;
  const tokenizer = await loadTokenizer(folder, name, network);
  if (tokenizer) return checkFits(place, { ...networks, tokenizer });
  const missing = [`${name} (of ${network.vocabulary} tokens)`], kind = tokenizerKindOf(network);
  throw new UnsupportedPipeline(
    place,
    { ...pipeline, missing },
    `its text encoder knows ${network.vocabulary} tokens, which is not the vocabulary of ${kind.name} that ` +
      `comes along, and there is no ${name} with ${kind.files.join(" and ")} beside it`,
    pieces,
  );
}

/** The configuration and the tensors of a piece. */
async function openPiece(folder: ModelFolder, { name }: Piece, stem?: string) {
  const what = `${folder.place}/${name}`, path = await folder.find(inFolder(name, "config.json"));
  if (!path) throw new InputError(`Cannot load ${what}: there is no config.json in it`);
  const weights = await findPiece({ ...folder, place: what }, name, { ...(stem ? { stem } : {}) });
  const { tensors } = await readWeights(folder, weights);
  tellVariant(weights);
  const paths = [...(await findWeights(folder, weights)).values()];
  return { what, config: await readJson(path), tensors, paths };
}

/** A single file; `undefined` if it is of something else. */
async function openFile(path: string, folder: ModelFolder): Promise<LoadedTextToImage | undefined> {
  const { tensors, metadata } = await readTensorFile(new FileBytes(path), path);
  const family = holdsNetwork(metadata) ? undefined : findPipelineFamily(tensors);
  if (!family) return undefined;
  const found = await readPipelineFile(family, tensors, path, folder);
  const { networks, pieces, notes, pipeline } = found;
  const model = await complete(path, folder, networks, pipeline, pieces);
  for (const note of notes) printError(`${path}: ${note}`);
  return { model, family: family.name, pieces, paths: [path] };
}

/** @throws {InputError} If networks are not made for each other. */
function checkFits(place: string, model: TextToImageModel): TextToImageModel {
  const { autoencoder, textEncoder } = model, network = denoisingNetwork(model.denoiser);
  const { latentChannels } = autoencoder.network, { itemShape, multiple = 1 } = network;
  const bad = (why: string) => new InputError(`Cannot load ${place}: ${why}`);
  if (itemShape.at(-1) !== latentChannels) {
    throw bad(
      `its UNet denoises ${itemShape.at(-1)} channels, but its autoencoder makes latents of ` +
        `${latentChannels}`,
    );
  }
  const { encoder_hidden_states: text } = network.conditions(itemShape.map((n) => n ?? multiple));
  const width = text?.shape.at(-1);
  if (width === textEncoder.network.width) return model;
  throw bad(
    `its UNet reads ${width} numbers a token, but its text encoder says ` +
      `${textEncoder.network.width} of each`,
  );
}
