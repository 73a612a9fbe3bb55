/**
 * The latents of a training's pictures: computed once, and kept in its folder.
 *
 * `latents.safetensors` there holds means and logarithms of variances, and tells by hashes of which
 * pictures and by which autoencoder they are.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { join } from "@std/path";
import { openBatches } from "../../data/batches.ts";
import type { Dataset } from "../../data/dataset.ts";
import { latentDataset, type Latents, latentScaling } from "../../data/latents.ts";
import { InputError } from "../../errors.ts";
import { isAllFinite } from "../../formats/elements.ts";
import { readSafetensors, toFloat32 } from "../../formats/safetensors.ts";
import type { Device } from "../../gpu/device.ts";
import {
  type AutoencoderNetwork,
  autoencoderNetwork,
  formatNetwork,
  parseNetwork,
} from "../../model/network.ts";
import { readParameter } from "../../model/parameters.ts";
import type { Weighted } from "../../model/weights.ts";
import { Autoencoder } from "../../sample/autoencoder.ts";
import { fittingBatch } from "../../sample/fitting_batch.ts";
import { type Shape, sizeOf } from "../../shape.ts";
import type { ImageOptions } from "../../data/image_options.ts";
import type { Fingerprint } from "../data/fingerprint.ts";
import { FileBytes, kindOf } from "../terminal/files.ts";
import type { Progress } from "../terminal/progress.ts";
import { isIntact, writeSealed } from "./state_file.ts";

/** The name of the file. */
export const LATENTS = "latents.safetensors";

/** Pictures that are encoded together. */
const BATCH = 16;

/** What latents are made of. */
export interface LatentSource {
  /** What the autoencoder is called. */
  readonly place: string;
  readonly autoencoder: Weighted<AutoencoderNetwork>;
  readonly data: Dataset;
  readonly fingerprint: Fingerprint;
  readonly images: ImageOptions;
}

/** Latents to train on. */
export interface PreparedLatents {
  readonly data: Dataset;
  /** The autoencoder, with the scale that was measured. */
  readonly autoencoder: Weighted<AutoencoderNetwork>;
  /** Writes them to the folder of the training, unless they are from there. */
  save(folder: string): Promise<void>;
}

/**
 * The shape of the latents of pictures.
 *
 * @throws {InputError} If the autoencoder does not take them, or they vary.
 */
export function latentShape(
  { place, autoencoder: { network }, data, images }: Omit<LatentSource, "fingerprint">,
): Shape {
  const [height, width, channels] = data.shape, { factor, latentChannels, itemShape } = network;
  const refuse = (why: string) => new InputError(`Cannot train on latents of ${data.name}: ${why}`);
  const wanted = itemShape.at(-1);
  if (channels !== wanted) {
    throw refuse(
      `its images have ${channels} channels, and those of the autoencoder ${place} ${wanted}` +
        ([1, 3].includes(wanted!) ? `; --channels ${wanted} makes them fit` : ""),
    );
  }
  if (height % factor || width % factor) {
    const [h, w] = [height, width].map((n) => Math.ceil(n / factor) * factor);
    throw refuse(
      `its images are ${width}x${height}, and sides must be multiples of ${factor} for ${place}; ` +
        `--size ${h === w ? w : `${w}x${h}`} makes them fit`,
    );
  }
  const varied = images.flip ? "flip" : images.shift ? "shift" : images.crop === "random" && "crop";
  if (varied) {
    throw refuse(`they are computed once, so that images cannot vary: leave out --${varied}`);
  }
  return [height / factor, width / factor, latentChannels];
}

/**
 * The latents of pictures, from the folder of the training if they are there.
 *
 * @param folder Of a training that goes on.
 * @param open Opens the device, if they are to be computed.
 * @throws {InputError} If the training was begun with another autoencoder.
 */
export async function prepareLatents(
  source: LatentSource,
  folder: string | undefined,
  open: () => Promise<Device>,
  progress: Progress,
): Promise<PreparedLatents> {
  const { autoencoder, data, fingerprint, place } = source, shape = latentShape(source);
  const { classes: _c, captions: _t, ...images } = source.images;
  const hash = (text: string) => createHash("sha256").update(text).digest("hex");
  const pictures = hash(JSON.stringify([fingerprint.pictures, fingerprint.count, images, shape]));
  progress.update(`looking at the autoencoder ${place}`);
  const network = hashAutoencoder(autoencoder);
  const kept = folder === undefined ? undefined : await readKept(join(folder, LATENTS), shape);
  if (kept && kept.metadata.autoencoder !== network) {
    throw new InputError(
      `Cannot resume: ${place} is not the autoencoder that ${folder} was begun with; put that one ` +
        "back, or start a new training with another --out",
    );
  }
  const isKept = kept?.metadata.pictures === pictures;
  const latents = isKept ? kept.latents : await computeLatents(source, shape, open, progress);
  // Pictures may have changed; what the network has learnt of latents has not.
  const scaling_factor = kept ? Number(kept.metadata.scaling_factor) : latentScaling(latents);
  if (!Number.isFinite(scaling_factor)) {
    throw new InputError(`Cannot train on latents: those that ${place} makes are all the same`);
  }
  const fields = { ...formatNetwork(autoencoder.network), scaling_factor };
  const scaled = autoencoderNetwork(parseNetwork(fields));
  progress.say(
    `latents     ${data.count} by ${place}, ${isKept ? "kept in the folder" : "computed once"}, ` +
      `scale ${scaling_factor.toPrecision(4)}`,
  );
  return {
    data: latentDataset(data, latents, scaled),
    autoencoder: { ...autoencoder, network: scaled },
    async save(folder) {
      if (isKept) return;
      const arrays = { mean: latents.mean, log_variance: latents.logVariance };
      const buffers = Object.entries(arrays).flatMap(([name, values]) =>
        values ? [[name, bufferOf(values)] as const] : []
      );
      const metadata = { pictures, autoencoder: network, scaling_factor: String(scaling_factor) };
      await writeSealed(join(folder, LATENTS), Object.fromEntries(buffers), metadata);
    },
  };
}

/** An array, as buffers of a device are read. */
const bufferOf = (values: Float32Array<ArrayBuffer>) => ({
  length: values.length,
  read: (offset = 0, length = values.length) =>
    Promise.resolve(values.subarray(offset, offset + length)),
});

/** What is in the file; nothing if there is none, or it is damaged: then it is made anew. */
async function readKept(path: string, shape: Shape) {
  if (await kindOf(path) !== "file") return undefined;
  using file = new FileBytes(path);
  if (!isIntact(file)) return undefined;
  const { tensors, metadata } = readSafetensors(file, path);
  const [mean, logVariance] = ["mean", "log_variance"].map((name) => tensors.get(name))
    .map((tensor) => tensor && toFloat32(tensor).slice());
  if (!mean) return undefined;
  return { latents: { shape, mean, ...(logVariance ? { logVariance } : {}) }, metadata };
}

/** What an autoencoder is, by its configuration and all its weights. */
function hashAutoencoder({ network, parameters }: Weighted<AutoencoderNetwork>): string {
  const { scaling_factor: _s, sample_size: _i, ...fields } = formatNetwork(network);
  const hash = createHash("sha256").update(JSON.stringify(fields));
  network.layout.specs.forEach((_, i) => {
    hash.update(new Uint8Array(readParameter(network.layout, parameters, i).slice().buffer));
  });
  return hash.digest("hex");
}

/** Encodes all pictures, in their order. */
async function computeLatents(
  { autoencoder, data }: LatentSource,
  shape: Shape,
  open: () => Promise<Device>,
  progress: Progress,
): Promise<Latents> {
  const { count } = data, each = sizeOf(shape), [height, width] = data.shape;
  const mean = new Float32Array(count * each);
  let logVariance: Float32Array<ArrayBuffer> | undefined;
  using device = await open();
  using encoder = await fittingBatch(
    Math.min(BATCH, count),
    (batchSize) =>
      Autoencoder.create(device, autoencoder, {
        ...{ size: [height, width], batchSize, only: "encode" },
      }),
  );
  using batches = openBatches(data, { size: BATCH, seed: 0, imageAt: (place) => place % count });
  for (let at = 0; at < count; at += BATCH) {
    const n = Math.min(BATCH, count - at), { images } = await batches.at(at);
    const part = images.subarray(0, n * sizeOf(data.shape));
    const found = await encoder.latents({ count: n, shape: data.shape, data: part });
    mean.set(found.mean, at * each);
    if (found.logVariance) {
      logVariance ??= new Float32Array(count * each);
      logVariance.set(found.logVariance, at * each);
    }
    progress.update(`latents of ${at + n} of ${count} images`);
  }
  if (isAllFinite(mean)) return { shape, mean, ...(logVariance ? { logVariance } : {}) };
  throw new InputError(
    "Cannot train on latents: the autoencoder gives numbers that are not finite",
  );
}
