/**
 * How a training went, line by line of its log, in as much memory for a million lines as for a
 * thousand.
 *
 * @module
 */

/** A line of the log: means over the steps since the line before. */
export interface LogLine {
  readonly step: number;
  readonly loss: number;
  /** Of images with timesteps in each quarter, `null` where there were none. */
  readonly loss_quartiles: readonly (number | null)[];
  /** Of images that are not learnt from, by the averaged weights, where it was measured. */
  readonly held_out?: number;
  /** Of a classifier: the share of images whose class it found, in all and by quarter. */
  readonly accuracy?: number;
  readonly accuracy_quartiles?: readonly (number | null)[];
  readonly grad_norm: number;
  /** With f16: what the loss was multiplied by last, and steps whose gradients overflowed. */
  readonly loss_scale?: number;
  readonly skipped_steps?: number;
  readonly learning_rate: number;
  readonly images_per_second: number;
  /** Since the training was started, without the time between being ended and resumed. */
  readonly seconds: number;
  /** Memory of the process in millions of bytes. */
  readonly rss_mb: number;
}

/** Lines that are kept at most; charts have fewer points. */
const MOST = 1024;

/** The lines of a log. Where there are many, each that is kept stands for as many neighbours. */
export class History {
  #first: LogLine | undefined;
  #last: LogLine | undefined;
  #kept: LogLine[] = [];
  /** Lines that each of the kept ones stands for, and those that wait to be as many. */
  #each = 1;
  #waiting: LogLine[] = [];

  /** The first line of all. */
  get first(): LogLine | undefined {
    return this.#first;
  }

  /** The last line of all. */
  get last(): LogLine | undefined {
    return this.#last;
  }

  /** All lines, or means of neighbours, of which the last one may stand for fewer. */
  get lines(): readonly LogLine[] {
    return this.#waiting.length ? [...this.#kept, merge(this.#waiting)] : this.#kept;
  }

  add(line: LogLine): void {
    this.#first ??= line;
    this.#last = line;
    this.#waiting.push(line);
    if (this.#waiting.length < this.#each) return;
    this.#kept.push(merge(this.#waiting));
    this.#waiting = [];
    if (this.#kept.length < MOST) return;
    this.#kept = Array.from(
      { length: MOST / 2 },
      (_, i) => merge(this.#kept.slice(2 * i, 2 * i + 2)),
    );
    this.#each *= 2;
  }
}

/** The means of what was measured, in place of the last of some lines. */
function merge(lines: readonly LogLine[]): LogLine {
  if (lines.length === 1) return lines[0];
  const mean = (get: (line: LogLine) => number | null | undefined) => {
    const found = lines.map(get).filter((value) => typeof value === "number");
    return found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : undefined;
  };
  const last = lines[lines.length - 1], heldOut = mean((line) => line.held_out);
  const accuracy = mean((line) => line.accuracy);
  return {
    ...last,
    loss: mean((line) => line.loss)!,
    loss_quartiles: last.loss_quartiles.map((_, q) => mean((l) => l.loss_quartiles[q]) ?? null),
    ...(accuracy === undefined ? {} : { accuracy }),
    ...(last.accuracy_quartiles
      ? {
        accuracy_quartiles: last.accuracy_quartiles.map((_, q) =>
          mean((l) => l.accuracy_quartiles?.[q]) ?? null
        ),
      }
      : {}),
    ...(heldOut === undefined ? {} : { held_out: heldOut }),
    grad_norm: mean((line) => line.grad_norm)!,
    images_per_second: mean((line) => line.images_per_second)!,
  };
}
