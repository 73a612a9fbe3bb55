/**
 * The log of a training, downsampled to bounded memory for the report.
 *
 * @module
 */

/** A line of the log: means over the steps since the previous line. */
export interface LogLine {
  readonly step: number;
  readonly loss: number;
  /** Loss by quarter of the timesteps, if there are any; `null` where no image fell into it. */
  readonly loss_quartiles?: readonly (number | null)[];
  /** Of autoencoders: both terms of the loss, before they are weighted. */
  readonly reconstruction?: number;
  readonly penalty?: number;
  /** Validation loss of the EMA weights, where it was measured. */
  readonly held_out?: number;
  /** The share of images whose class, or text, was found; of classifiers also by quarter. */
  readonly accuracy?: number;
  readonly accuracy_quartiles?: readonly (number | null)[];
  readonly grad_norm: number;
  /** With f16: the loss scale, and the number of steps skipped because gradients overflowed. */
  readonly loss_scale?: number;
  readonly skipped_steps?: number;
  readonly learning_rate: number;
  readonly images_per_second: number;
  /** Training time in total, without the time between stopping and resuming. */
  readonly seconds: number;
  /** Resident memory of the process in MB. */
  readonly rss_mb: number;
}

/** The most lines that are kept; charts have fewer points. */
const MOST = 1024;

/** The lines of a log. When there are too many, neighbouring lines are merged to their mean. */
export class History {
  #first: LogLine | undefined;
  #last: LogLine | undefined;
  #kept: LogLine[] = [];
  /** Lines per kept line, and those that wait to be merged. */
  #each = 1;
  #waiting: LogLine[] = [];

  /** The first line ever logged. */
  get first(): LogLine | undefined {
    return this.#first;
  }

  /** The last line ever logged. */
  get last(): LogLine | undefined {
    return this.#last;
  }

  /** All lines, or means of neighbours; the last may cover fewer. */
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

/** The mean of some lines, at the step of the last one. */
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
    ...(last.loss_quartiles
      ? {
        loss_quartiles: last.loss_quartiles.map((_, q) =>
          mean((l) => l.loss_quartiles?.[q]) ?? null
        ),
      }
      : {}),
    ...(last.penalty === undefined ? {} : {
      reconstruction: mean((l) => l.reconstruction)!,
      penalty: mean((l) => l.penalty)!,
    }),
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
