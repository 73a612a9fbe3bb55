/**
 * The curve of a training's loss.
 *
 * @module
 */

/** Points of the curve, at most. */
const MOST = 400;
/** Sides of the chart, which is stretched over its place. */
const WIDTH = 400, HEIGHT = 160, MARGIN = 6;

/** A chart of losses over steps, on a logarithmic axis. */
export class LossChart {
  readonly #chart: SVGSVGElement;
  #points: (readonly [step: number, loss: number])[] = [];
  /** Steps a point is the mean of, and those of the next one. */
  #each = 1;
  #waiting: number[] = [];

  constructor(chart: SVGSVGElement) {
    this.#chart = chart;
    chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.clear();
  }

  clear(): void {
    this.#points = [];
    this.#waiting = [];
    this.#each = 1;
    this.#draw();
  }

  /** Adds the loss of a step. */
  add(step: number, loss: number): void {
    // A training that went on from an earlier copy.
    while (this.#points.length && this.#points.at(-1)![0] >= step) this.#points.pop();
    this.#waiting.push(loss);
    if (this.#waiting.length < this.#each) return;
    this.#points.push([step, mean(this.#waiting)]);
    this.#waiting = [];
    if (this.#points.length <= MOST) return;
    this.#points = Array.from({ length: MOST / 2 }, (_, i) => {
      const [a, b] = this.#points.slice(2 * i);
      return [b[0], mean([a[1], b[1]])];
    });
    this.#each *= 2;
  }

  /** Shows what was added; returns the mean loss of the last fortieth. */
  show(): number {
    this.#draw();
    return this.#smooth().at(-1) ?? NaN;
  }

  /** Running means over a fortieth of the curve. */
  #smooth(): number[] {
    const span = Math.ceil(this.#points.length / 40);
    return this.#points.map((_, i) =>
      mean(this.#points.slice(Math.max(0, i + 1 - span), i + 1).map(([, loss]) => loss))
    );
  }

  #draw(): void {
    const [raw, smooth] = this.#chart.querySelectorAll("polyline");
    const points = this.#points, means = this.#smooth();
    const logs = points.map(([, loss]) => Math.log(loss)), last = points.at(-1)?.[0] ?? 1;
    const low = Math.min(...logs), high = Math.max(...logs), range = high - low || 1;
    const place = (step: number, log: number) => {
      const y = MARGIN + (high - log) / range * (HEIGHT - 2 * MARGIN);
      return `${(step / last * WIDTH).toFixed(1)},${y.toFixed(1)}`;
    };
    const line = (values: readonly number[]) =>
      values.map((log, i) => place(points[i][0], log)).join(" ");
    raw.setAttribute("points", line(logs));
    smooth.setAttribute("points", line(means.map(Math.log)));
    const told = points.length
      ? `Loss: ${means[0].toPrecision(3)} at first, ${means.at(-1)!.toPrecision(3)} at step ${last}`
      : "Loss: nothing yet";
    this.#chart.setAttribute("aria-label", told);
  }
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
