/**
 * SVG histograms: shares of classes, and of numbers in ranges.
 *
 * @module
 */

import { formatTick } from "../run/chart.ts";
import { escape } from "../media/page.ts";

/** Shares of bars, in a color of the page's style. */
export interface Bars {
  readonly name: string;
  readonly style: string;
  readonly shares: readonly number[];
}

const WIDTH = 640, HEIGHT = 240, LEFT = 48, RIGHT = 8, TOP = 10, BOTTOM = 26;
/** Ranges of numbers, and marks below them. */
const RANGES = 48, MARKS = 6;
/** Classes that have a name below them at the most. */
const NAMED = 20;

/** Bars side by side, those of several series over each other. */
function drawBars(all: readonly Bars[], marks: readonly (readonly [at: number, text: string])[]) {
  const most = Math.max(1e-9, ...all.flatMap(({ shares }) => shares));
  const count = Math.max(...all.map(({ shares }) => shares.length));
  const x = (i: number) => Math.round(10 * (LEFT + i / count * (WIDTH - LEFT - RIGHT))) / 10;
  const y = (share: number) =>
    Math.round(10 * (TOP + (1 - share / most) * (HEIGHT - TOP - BOTTOM))) / 10;
  const bars = all.flatMap(({ shares, style, name }) =>
    shares.map((share, i) =>
      `<rect class="${style}" x="${x(i)}" y="${y(share)}" width="${
        Math.max(1, x(i + 1) - x(i) - 1).toFixed(1)
      }" height="${(y(0) - y(share)).toFixed(1)}"><title>${escape(name)} ${
        (100 * share).toFixed(1)
      } %</title></rect>`
    )
  );
  const lines = [0, most / 2, most].map((share) =>
    `<line class="rule" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(share)}" y2="${y(share)}"/>` +
    `<text x="${LEFT - 6}" y="${y(share) + 4}" text-anchor="end">${
      formatTick(100 * share)
    } %</text>`
  );
  const texts = marks.map(([at, text]) =>
    `<text x="${x(at)}" y="${HEIGHT - 8}" text-anchor="middle">${escape(text)}</text>`
  );
  const legend = all.map(({ name, style }) =>
    `<span class="${style}"><i></i>${escape(name)}</span>`
  );
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}">${[...lines, ...bars, ...texts].join("")}</svg>` +
    (all.length > 1 ? `<p class="legend">${legend.join("")}</p>` : "");
}

/** The share of each class. */
export function drawClasses(shares: readonly number[], names: readonly string[] | undefined) {
  const marks = shares.length > NAMED
    ? []
    : shares.map((_, i) => [i + 0.5, names?.[i] ?? String(i)] as const);
  return drawBars([{ name: "samples", style: "a", shares }], marks);
}

/** How numbers are spread, those of several sets over each other. */
export function drawSpread(
  sets: readonly { readonly name: string; readonly style: string; readonly values: Float64Array }[],
): string {
  const most = sets.reduce((m, { values }) => values.reduce((a, b) => Math.max(a, b), m), 0) || 1;
  const all = sets.map(({ values, ...rest }) => {
    const shares = new Array<number>(RANGES).fill(0);
    for (const value of values) {
      shares[Math.min(RANGES - 1, Math.floor(RANGES * value / most))] += 1 / values.length;
    }
    return { ...rest, shares };
  });
  const marks = Array.from(
    { length: MARKS },
    (_, i) => [i / MARKS * RANGES, formatTick(i / MARKS * most)] as const,
  );
  return drawBars(all, marks);
}
