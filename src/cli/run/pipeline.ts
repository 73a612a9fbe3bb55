/**
 * What the pieces of a pipeline of diffusers are, as its `model_index.json` says, and which of them
 * this program has.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import { networkClasses } from "../../model/network.ts";
import { readJson } from "../terminal/files.ts";
import type { ModelFolder } from "./model_folder.ts";

/** A piece: its folder, and its class. */
export interface Piece {
  readonly name: string;
  readonly className: string;
}

/** A pipeline. */
export interface Pipeline {
  readonly className: string;
  /** The network that paints, if it is of a class that is known. */
  readonly network: Piece | undefined;
  /** The class of its scheduler, whatever that one's own file says. */
  readonly scheduler?: string | undefined;
  /** What it paints texts with, if its network reads them: `undefined` where it is left out. */
  readonly text?: {
    readonly encoder: Piece | undefined;
    readonly autoencoder: Piece | undefined;
    readonly tokenizer: Piece | undefined;
  };
  /** What looks at what was painted, and prepares pictures for that: `undefined` where it is left out. */
  readonly safety?: { readonly checker: Piece; readonly processor: Piece | undefined } | undefined;
  /**
   * Pieces that cannot be run here, and without which it would paint something else: name and class.
   */
  readonly missing: readonly string[];
}

/** The file that tells, and the piece that is no network. */
const INDEX = "model_index.json", SCHEDULER = "scheduler";

const indexSchema = z.record(z.string(), z.unknown());
const pieceSchema = z.tuple([z.string().nullable(), z.string().nullable()]);

/** Networks that paint nothing by themselves, and those that read texts. */
const autoencoders = ["AutoencoderKL", "VQModel"], readers = ["UNet2DConditionModel"];
/** What reads texts for them, and makes tokens of these. */
const textEncoders = ["CLIPTextModel", "LDMBertModel"];
const tokenizers = ["CLIPTokenizer", "BertTokenizer"].flatMap((name) => [name, `${name}Fast`]);
const helpers = [...autoencoders, ...textEncoders, "BERTEmbedder"];
const painters = () => networkClasses().filter((name) => !helpers.includes(name));

/** Pieces that look at what was painted. */
const CHECKER = "safety_checker", EXTRACTOR = "feature_extractor";

/**
 * Reads what a folder says of its pieces; `undefined` if it says nothing.
 *
 * @throws {InputError} If that is damaged.
 */
export async function readPipeline(folder: ModelFolder): Promise<Pipeline | undefined> {
  const path = await folder.find(INDEX);
  if (path === undefined) return undefined;
  const json = parseWith(indexSchema, await readJson(path), path), pieces: Piece[] = [];
  for (const [name, value] of Object.entries(json)) {
    const piece = pieceSchema.safeParse(value).data;
    // Others are settings, or pieces that were left out.
    if (name.startsWith("_") || !piece?.[1]) continue;
    if (!/^\w+$/.test(name)) {
      throw new InputError(`Cannot use ${path}: ${JSON.stringify(name)} is no name of a folder`);
    }
    pieces.push({ name, className: piece[1] });
  }
  const own = pieces.filter(({ className }) => painters().includes(className));
  const network = own.find(({ name }) => name === "unet") ?? own[0];
  const first = (classes: readonly string[]) =>
    pieces.find(({ className }) => classes.includes(className));
  const text = network && readers.includes(network.className)
    ? {
      encoder: first(textEncoders),
      ...{ autoencoder: first(autoencoders), tokenizer: first(tokenizers) },
    }
    : undefined;
  const named = (name: string) => pieces.find((piece) => piece.name === name);
  const checker = named(CHECKER), processor = named(EXTRACTOR);
  const used = [network, named(SCHEDULER), checker, processor, ...Object.values(text ?? {})];
  return {
    ...{ className: String(json._class_name ?? "pipeline"), network },
    scheduler: named(SCHEDULER)?.className,
    ...(text ? { text } : {}),
    ...(checker ? { safety: { checker, processor } } : {}),
    missing: pieces.filter((piece) => !used.includes(piece)).map(nameOf),
  };
}

/** A piece in words. */
export const nameOf = ({ name, className }: Piece): string => `${name} (${className})`;

/** Why a pipeline cannot be run; `undefined` if it can. */
export function explainMissing(
  { className, network, missing, text }: Pipeline,
): string | undefined {
  const lost = lackOf(text);
  if (network && !missing.length && !lost.length) return undefined;
  const unknown = `and this program does not paint with ${missing.join(", ")}; its networks are ` +
    painters().join(", ");
  return `it is a ${className}, ` +
    (missing.length
      ? unknown
      : lost.length
      ? `and lacks ${lost.join(" and ")}`
      : "which names no network");
}

/** The pieces that one which paints texts lacks, in words; vocabularies come along. */
export const lackOf = (text: Pipeline["text"]): string[] =>
  text
    ? [
      ...(text.encoder ? [] : [`a text_encoder (${textEncoders.join(" or ")})`]),
      ...(text.autoencoder ? [] : [`a vae (${autoencoders.join(" or ")})`]),
    ]
    : [];
