/**
 * How well a model of super-resolution enlarges images that it has not learnt from: those of the test
 * set, or those that its training held out. They are reduced to 8 bits as files have them, enlarged,
 * rounded to 8 bits, and compared with the originals, next to bicubic interpolation.
 *
 *     deno run -A bench/super_resolution.ts RUN [--count 256] [--steps 20] [--sampler NAME] [--out x.png]
 *
 * RUN is the folder of a training. It prints a line of JSON: decibels of PSNR, means over the images;
 * and, in units of 1/255, the root mean square of what the result differs from the input where it is
 * reduced again, by means of squares of pixels, and from the original where both are reduced
 * bicubically. `--out` draws input, bicubic, result and original side by side.
 *
 * @module
 */

import { join } from "@std/path";
import { parseArgs } from "@std/cli/parse-args";
import { heldBack, openDataset } from "../src/cli/data/data.ts";
import { drawGrid, encodePng } from "../src/cli/media/picture_files.ts";
import { readRunConfig } from "../src/cli/run/run_config.ts";
import { loadModel } from "../src/cli/run/load_model.ts";
import { Progress } from "../src/cli/terminal/progress.ts";
import { openDevice } from "../src/gpu/open.ts";
import { pictureSize, type Samples } from "../src/sample/options.ts";
import type { MethodName } from "../src/sample/solvers/mod.ts";
import { Upscaler } from "../src/sample/upscaler.ts";
import { sizeOf } from "../src/shape.ts";
import { trainValidationSplit } from "../src/train/step_inputs.ts";

/** Weights of the pixels along an axis that a pixel of the result is made of. */
type Taps = readonly (readonly (readonly [from: number, weight: number])[])[];

/** Pixels of a size as another one, by a kernel that reaches so far in pixels of the coarser grid. */
function taps(size: number, target: number, reach: number, kernel: (x: number) => number): Taps {
  const scale = size / target, wide = Math.max(1, scale);
  return Array.from({ length: target }, (_, i) => {
    const center = (i + 0.5) * scale - 0.5, found: [number, number][] = [];
    for (let x = Math.ceil(center - reach * wide); x <= center + reach * wide; x++) {
      if (x >= 0 && x < size) found.push([x, kernel((x - center) / wide)]);
    }
    const sum = found.reduce((sum, [, weight]) => sum + weight, 0);
    return found.map(([x, weight]) => [x, weight / sum] as const);
  });
}

/** Keys' cubic with a = -½, as Pillow's BICUBIC has it: antialiased where pictures are reduced. */
function cubic(t: number): number {
  const x = Math.abs(t);
  if (x < 1) return 1.5 * x ** 3 - 2.5 * x ** 2 + 1;
  return x < 2 ? -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2 : 0;
}

const box = (x: number) => Math.abs(x) < 0.5 ? 1 : 0;

/** Images in another size, in [-1, 1]. */
function resize(images: Samples, size: readonly [number, number], kernel: typeof cubic): Samples {
  const { height, width, channels } = pictureSize(images), [h, w] = size, { count } = images;
  const reach = kernel === box ? 1 : 2;
  const down = taps(height, h, reach, kernel), across = taps(width, w, reach, kernel);
  const shape = [h, w, channels], data = new Float32Array(count * sizeOf(shape));
  for (let i = 0; i < data.length; i++) {
    const c = i % channels, x = Math.floor(i / channels) % w;
    const y = Math.floor(i / channels / w) % h, n = Math.floor(i / channels / w / h);
    let sum = 0;
    for (const [row, a] of down[y]) {
      for (const [column, b] of across[x]) {
        sum += a * b * images.data[((n * height + row) * width + column) * channels + c];
      }
    }
    data[i] = Math.max(-1, Math.min(1, sum));
  }
  return { count, shape, data };
}

/** The nearest images of 8 bits. */
const round = (images: Samples): Samples => ({
  ...images,
  data: images.data.map((x) => Math.round((Math.max(-1, Math.min(1, x)) + 1) * 127.5) / 127.5 - 1),
});

/** Mean squares of differences, in units of the whole range, of each image. */
function errors(a: Samples, b: Samples): number[] {
  const each = sizeOf(a.shape);
  return Array.from({ length: a.count }, (_, n) => {
    let sum = 0;
    for (let i = n * each; i < (n + 1) * each; i++) sum += ((a.data[i] - b.data[i]) / 2) ** 2;
    return sum / each;
  });
}

const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
const psnr = (a: Samples, b: Samples) => mean(errors(a, b).map((e) => -10 * Math.log10(e)));
const rms = (a: Samples, b: Samples) => 255 * Math.sqrt(mean(errors(a, b)));
const shorten = (x: number) => Number(x.toFixed(3));

if (import.meta.main) {
  const { _: [run], ...flags } = parseArgs(Deno.args, { string: ["sampler", "out", "device"] });
  const config = await readRunConfig(join(String(run), "config.json"));
  const model = await loadModel(String(run)), { data: place, training, images } = config;
  using progress = new Progress();
  const other = await heldBack(place);
  const data = await openDataset(other ?? place, { ...images, flip: false }, progress);
  const all = other ? undefined : trainValidationSplit(data.count, training).heldOut;
  const available = all?.length ?? data.count;
  if (!available) throw new Error(`${run} held no images out`);
  const count = Math.min(Number(flags.count ?? 256), available), each = sizeOf(data.shape);
  const original: Samples = { count, shape: data.shape, data: new Float32Array(count * each) };
  for (let i = 0; i < count; i++) {
    const place = Math.floor(i * available / count);
    await data.read(all?.[place] ?? place, original.data, i * each);
  }
  const { height, width } = pictureSize(original), full = [height, width] as const;
  const factor = Number(model.network.config.factor);
  const small = [height / factor, width / factor] as const;
  const input = round(resize(original, small, box));
  const bicubic = round(resize(input, full, cubic));
  using device = await openDevice(flags.device === "gpu" ? "gpu" : "cpu");
  using upscaler = await Upscaler.create(device, model, {
    ...(flags.sampler ? { method: flags.sampler as MethodName } : {}),
    ...(flags.steps ? { steps: Number(flags.steps) } : {}),
    batchSize: Math.min(count, 32),
  });
  const made = await upscaler.upscale({
    ...{ pictures: input, seed: Number(flags.seed ?? 0) },
    noiseLevel: Number(flags["noise-level"] ?? 0),
    onProgress: (done, total) => progress.update(`step ${done} of ${total}`),
  });
  const result = round(made);
  progress.clear();
  // deno-lint-ignore no-console
  console.log(JSON.stringify({
    ...{ run, data: `${data.name}, ${count} images ${all ? "held out" : ""}`.trim() },
    ...{ from: small.join("x"), to: full.join("x"), steps: upscaler.sampler.steps },
    psnr: { bicubic: shorten(psnr(bicubic, original)), model: shorten(psnr(result, original)) },
    reduced: {
      "result - input": shorten(rms(resize(result, small, box), input)),
      "bicubic result - bicubic original": shorten(
        rms(resize(result, small, cubic), resize(original, small, cubic)),
      ),
      "the same of bicubic": shorten(
        rms(resize(bicubic, small, cubic), resize(original, small, cubic)),
      ),
    },
  }));
  if (flags.out) {
    const shown = 16, rows = [resize(input, full, box), bicubic, result, original];
    const grid = new Float32Array(shown * 4 * each);
    for (let i = 0; i < 4 * shown; i++) {
      const from = rows[i % 4], n = Math.floor(i / 4) % count;
      grid.set(from.data.subarray(n * each, (n + 1) * each), i * each);
    }
    const picture = drawGrid({ count: 4 * shown, shape: original.shape, data: grid });
    await Deno.writeFile(String(flags.out), await encodePng(picture, {}));
  }
}
