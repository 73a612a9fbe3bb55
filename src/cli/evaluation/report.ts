/**
 * The report of an evaluation: a single self-contained HTML page.
 *
 * @module
 */

import type { Samples } from "../../sample/options.ts";
import { escape, renderPage, renderTable } from "../media/page.ts";
import { drawGrid, encodePng } from "../media/picture_files.ts";
import { tell } from "./describe.ts";
import type { Bits } from "./bits.ts";
import type { Evaluated, Pairs } from "./evaluate.ts";
import { drawClasses, drawSpread } from "./histogram.ts";

/** The content of a report. */
export interface EvaluationReport {
  readonly title: string;
  readonly found: Evaluated;
  readonly bits: Bits | undefined;
  /** Whether features are Inception's. */
  readonly isInception: boolean;
  /** What classes are called. */
  readonly classes: readonly string[] | undefined;
  /** What the numbers are of, by name. */
  readonly facts: Readonly<Record<string, unknown>>;
}

/** The page. */
export async function renderEvaluation(report: EvaluationReport): Promise<string> {
  const { title, found, bits, isInception, classes, facts } = report;
  const { measures: { class: seen }, neighbors, shown, pairs } = found;
  const sheets: string[] = [];
  if (shown) sheets.push(await sheet(`The first ${shown.count} images, as they come`, shown));
  if (pairs) {
    const above = "above, and the nearest training images below";
    sheets.push(await pairSheet(`The first images ${above}`, pairs.first));
    sheets.push(
      await pairSheet(`Images that are nearest to one they learnt from ${above}`, pairs.nearest),
    );
  }
  const charts = {
    ...(seen ? { "Classes": drawClasses(seen.classes, classes) } : {}),
    ...(neighbors
      ? {
        [`Distance to the nearest training image, in ${neighbors.space}`]: drawSpread([
          { name: "samples", style: "a", values: neighbors.samples.distances },
          ...(neighbors.heldOut
            ? [{ name: "images held out", style: "b", values: neighbors.heldOut.distances }]
            : []),
        ]),
      }
      : {}),
  };
  const tiles = tell({ ...found, bits }, isInception)
    .map(([name, value]) => [escape(name), escape(value)] as const);
  return renderPage({
    ...{ title, state: "evaluation", tiles: Object.fromEntries(tiles), charts },
    rest: `${sheets.join("\n")}\n<h2>Of what</h2>\n${renderTable(facts)}`,
  });
}

/** Pictures in a grid. */
async function sheet(caption: string, images: Samples, columns?: number): Promise<string> {
  const png = await encodePng(drawGrid(images, columns), {});
  return `<figure class="sheet"><figcaption>${escape(caption)}</figcaption><img alt="${
    escape(caption)
  }" src="data:image/png;base64,${png.toBase64()}"></figure>`;
}

/** Two rows: samples, and what is nearest to each. */
async function pairSheet(caption: string, { samples, real }: Pairs): Promise<string> {
  const { count, shape } = samples, data = new Float32Array(2 * samples.data.length);
  data.set(samples.data);
  data.set(real.data, samples.data.length);
  return await sheet(caption, { count: 2 * count, shape, data }, count);
}
