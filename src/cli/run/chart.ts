/**
 * SVG charts of values over training steps.
 *
 * @module
 */

/** A line, or dots, of a chart. */
export interface Series {
  readonly name: string;
  /** A class of the page's style that gives the color. */
  readonly style: string;
  readonly points: readonly Point[];
}

/** A step and a number. */
export type Point = readonly [step: number, value: number];

/** Options of a chart. */
export interface ChartOptions {
  /** Whether the axis is logarithmic. */
  readonly isLogarithmic?: boolean;
  /** Whether the axis includes zero. */
  readonly hasZero?: boolean;
}

const WIDTH = 640, HEIGHT = 260, LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 28;
/** The most points of a line. */
const MOST = 400;

/** A chart with axes and a legend; values that it cannot show are left out. */
export function drawChart(all: readonly Series[], options: ChartOptions = {}): string {
  const { isLogarithmic = false, hasZero = false } = options;
  const series = all.map(({ points, ...rest }) => ({
    ...rest,
    points: thin(points.filter(([, y]) => Number.isFinite(y) && (!isLogarithmic || y > 0))),
  })).filter(({ points }) => points.length);
  const values = series.flatMap(({ points }) => points.map(([, y]) => y));
  if (!values.length) return `<p class="none">nothing yet</p>`;
  const scale = isLogarithmic ? Math.log10 : (y: number) => y;
  const least = scale(Math.min(...values, ...(hasZero ? [0] : [])));
  const most = scale(Math.max(...values));
  const margin = (most - least) * 0.04 || Math.abs(most) * 0.1 || 0.1;
  const low = hasZero ? least : least - margin, high = most + margin;
  const last = Math.max(1, ...series.flatMap(({ points }) => points.map(([x]) => x)));
  const x = (step: number) => round(LEFT + step / last * (WIDTH - LEFT - RIGHT));
  const y = (value: number) =>
    round(TOP + (high - scale(value)) / (high - low) * (HEIGHT - TOP - BOTTOM));

  const rows = (isLogarithmic ? logarithmicTicks(low, high) : linearTicks(low, high)).map((tick) =>
    `<line class="rule" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(tick)}" y2="${y(tick)}"/>` +
    `<text x="${LEFT - 8}" y="${y(tick) + 4}" text-anchor="end">${formatTick(tick)}</text>`
  );
  const columns = linearTicks(0, last).map((tick) =>
    `<text x="${x(tick)}" y="${HEIGHT - 8}" text-anchor="middle">${formatTick(tick)}</text>`
  );
  const lines = series.map(({ style, points, name }) => {
    const path = points.map(([step, value]) => `${x(step)},${y(value)}`).join(" ");
    const dots = points.length > 60
      ? ""
      : points.map(([step, value]) =>
        `<circle class="${style}" cx="${x(step)}" cy="${y(value)}" r="2.5">` +
        `<title>${name} ${formatTick(value)} at step ${step}</title></circle>`
      ).join("");
    return `<polyline class="${style}" points="${path}"/>${style === "faint" ? "" : dots}`;
  });
  const legend = series.length < 2
    ? ""
    : `<p class="legend">${
      series.map(({ name, style }) => `<span class="${style}"><i></i>${name}</span>`).join("")
    }</p>`;
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}">${[...rows, ...columns, ...lines].join("")}</svg>` +
    legend;
}

/** Averages neighbours so that at most {@linkcode MOST} points remain. */
function thin(points: readonly Point[]): readonly Point[] {
  const each = Math.ceil(points.length / MOST);
  if (each <= 1) return points;
  return Array.from({ length: Math.ceil(points.length / each) }, (_, i) => {
    const some = points.slice(i * each, (i + 1) * each);
    return [some.at(-1)![0], some.reduce((sum, [, y]) => sum + y, 0) / some.length];
  });
}

/** The running mean of a line over a fortieth of it. */
export function smooth(points: readonly Point[]): Point[] {
  const span = Math.max(1, Math.round(points.length / 40));
  let sum = 0;
  return points.map(([step, value], i) => {
    sum += value - (i >= span ? points[i - span][1] : 0);
    return [step, sum / Math.min(span, i + 1)];
  });
}

const round = (x: number) => Math.round(x * 10) / 10;

/** About five round numbers in a range. */
function linearTicks(low: number, high: number): number[] {
  const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough)!;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

/** Round numbers between two powers of ten. */
function logarithmicTicks(low: number, high: number): number[] {
  const steps = high - low > 3 ? [1] : high - low > 1 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 7];
  const decades = Array.from({ length: Math.ceil(high - low) + 2 }, (_, i) => Math.floor(low) + i);
  const ticks = decades.flatMap((d) => steps.map((s) => s * 10 ** d))
    .filter((t) => Math.log10(t) >= low && Math.log10(t) <= high);
  return ticks.length > 1 ? ticks : linearTicks(10 ** low, 10 ** high).filter((t) => t > 0);
}

/** A short text for a number. */
export function formatTick(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size > 0 && size < 1e-3) return value.toExponential(1).replace(".0e", "e");
  return String(Number(value.toPrecision(4)));
}
