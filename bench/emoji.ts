// deno-lint-ignore-file no-console -- printing is what it does
/**
 * Draws what a text-to-image model of emoji makes of the first 64 names that it never saw, and beside
 * each the nearest training image, in pixels. `ddpm eval --data emoji --split test` measures it:
 *
 *     deno task bench:emoji --model MODEL [--guidance 4] [--steps 20] [--out DIR]
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { join } from "@std/path";
import { parseImages } from "../src/data/image_options.ts";
import { openDataset } from "../src/cli/data/data.ts";
import { drawGrid, encodePng } from "../src/cli/media/picture_files.ts";
import { createSampler } from "../src/cli/commands/samplers.ts";
import { openAnyModel } from "../src/cli/run/open_model.ts";
import { firstItems, inTurns, itemsAt } from "../src/cli/run/shown_samples.ts";
import { Progress } from "../src/cli/terminal/progress.ts";
import { findNeighbors } from "../src/evaluate/near_copies.ts";
import { type DeviceKind, openDevice } from "../src/gpu/open.ts";
import { denoisingNetwork } from "../src/model/denoiser.ts";
import { guided } from "../src/sample/guidance/guided.ts";
import { paintedShape } from "../src/sample/latent_sampler.ts";
import type { Samples } from "../src/sample/options.ts";
import { sizeOf } from "../src/shape.ts";
import { tokensInTurns } from "../src/text/tokenizer.ts";

/** Pictures that are drawn. */
const COUNT = 64;

const flags = parseArgs(Deno.args, {
  string: ["model", "guidance", "device", "threads", "steps", "out"],
});
const scale = Number(flags.guidance ?? 4),
  folder = String(flags.out ?? "."),
  progress = new Progress();
const model = await openAnyModel(String(flags.model ?? "emoji")),
  { tokenize, itemShape } = denoisingNetwork(model);
const [side] = paintedShape(model, itemShape);
const data = side === 64 ? "emoji-64" : "emoji";
const [training, test] = await Promise.all(
  [data, `${data}-test`].map((name) => openDataset(name, parseImages({}), progress)),
);
if (!tokenize) throw new Error("The model does not read");
const names = [...new Set(test.names!)].slice(0, COUNT);
using device = await openDevice((flags.device ?? "cpu") as DeviceKind, {
  ...(flags.threads ? { threads: Number(flags.threads) } : {}),
});
using sampler = await createSampler(device, model, {
  ...{ steps: Number(flags.steps ?? 20), batchSize: 32 },
  wrap: scale === 1 ? [] : [guided({ scale })],
});
const images = await sampler.sample({
  ...{ count: COUNT, seed: 0 },
  conditions: { tokens: tokensInTurns(tokenize, names, COUNT) },
});
const pixels = ({ count, shape, data }: Samples) => ({ count, width: sizeOf(shape), data });
const learnt = await firstItems(training, training.count);
const { indices } = await findNeighbors(pixels(images), pixels(learnt));

const draw = async (name: string, pictures: Samples) =>
  await Deno.writeFile(join(folder, name), await encodePng(drawGrid(pictures), {}));
await Deno.mkdir(folder, { recursive: true });
await draw(`held-out-${scale}.png`, images);
const nearest = await itemsAt(training, [...indices]);
await draw(`neighbours-${scale}.png`, inTurns(images, nearest));
console.log(`Names of the pictures, row by row: ${names.join("; ")}`);
