/**
 * The report of a training: a single self-contained HTML page.
 *
 * @module
 */

import { drawChart, formatTick, type Point, smooth } from "./chart.ts";
import { escape, renderPage, renderPicture, renderTable } from "../media/page.ts";
import type { History, LogLine } from "./training_log.ts";
import { formatTime } from "../terminal/progress.ts";

/** The content of a report. */
export interface Report {
  readonly title: string;
  /** The last step. */
  readonly last: number;
  /** Whether the training is running; the page then reloads itself. */
  readonly isRunning: boolean;
  readonly history: History;
  /** Sample grids in the order of their steps. */
  readonly samples: readonly { readonly step: number; readonly png: Uint8Array }[];
  /** Command line, machine, and so on. */
  readonly facts: Readonly<Record<string, string>>;
  /** Settings by section of the configuration. */
  readonly settings: Readonly<Record<string, unknown>>;
}

/** Names of the quarters of the timesteps. */
const QUARTERS = ["least noise", "less", "more", "most noise"];

/** The page. */
export function renderReport(report: Report): string {
  const { title, last, isRunning, history, samples, facts, settings } = report;
  const log = history.lines, now = history.last;
  const line = (get: (line: LogLine) => number | null | undefined): Point[] =>
    log.flatMap((l) => {
      const value = get(l);
      return typeof value === "number" ? [[l.step, value] as const] : [];
    });
  const byQuarter = (get: (line: LogLine) => readonly (number | null)[] | undefined) =>
    QUARTERS.map((name, q) => ({
      ...{ name, style: "abcd"[q] },
      points: smooth(line((l) => get(l)?.[q])),
    }));
  const losses = line((l) => l.loss), speeds = line((l) => l.images_per_second);
  const charts = {
    "Loss": drawChart([
      { name: "each line of the log", style: "faint", points: losses },
      { name: "running mean", style: "a", points: smooth(losses) },
      { name: "held out", style: "b", points: line((l) => l.held_out) },
    ], { isLogarithmic: true }),
    ...(!now || now.loss_quartiles
      ? {
        "Loss by quarter of the timesteps": drawChart(
          byQuarter((l) => l.loss_quartiles),
          { isLogarithmic: true },
        ),
      }
      : {}),
    ...(now?.penalty === undefined ? {} : {
      "Difference of what is decoded": drawChart(
        [{ name: "mean", style: "a", points: smooth(line((l) => l.reconstruction)) }],
        { isLogarithmic: true },
      ),
      "Divergence of latents, or loss of the codebook": drawChart(
        [{ name: "mean", style: "a", points: smooth(line((l) => l.penalty)) }],
        { isLogarithmic: true },
      ),
    }),
    ...(now?.accuracy === undefined ? {} : now.accuracy_quartiles
      ? {
        "Right answers by quarter of the timesteps": drawChart(
          byQuarter((l) => l.accuracy_quartiles),
          { hasZero: true },
        ),
      }
      : {
        "Images whose own text is the nearest of a batch": drawChart(
          [{ name: "share", style: "a", points: smooth(line((l) => l.accuracy)) }],
          { hasZero: true },
        ),
      }),
    "Norm of the gradient": drawChart(
      [{ name: "norm", style: "a", points: line((l) => l.grad_norm) }],
      { isLogarithmic: true },
    ),
    "Learning rate": drawChart(
      [{ name: "rate", style: "a", points: line((l) => l.learning_rate) }],
      { hasZero: true },
    ),
    "Images a second": drawChart([{ name: "speed", style: "a", points: speeds }], {
      hasZero: true,
    }),
    "Memory of the process, MB": drawChart(
      [{ name: "memory", style: "a", points: line((l) => l.rss_mb) }],
      { hasZero: true },
    ),
  };
  const mean = smooth(losses).at(-1)?.[1], heldOut = line((l) => l.held_out).at(-1)?.[1];
  const tiles = {
    "step": `${now?.step ?? 0} <small>of ${last}</small>`,
    "loss": mean === undefined ? "–" : formatTick(mean),
    ...(heldOut === undefined ? {} : { "held out": formatTick(heldOut) }),
    "images a second": now ? formatTick(now.images_per_second) : "–",
    "time": now ? formatTime(now.seconds) : "–",
  };
  return renderPage({
    ...{ title, isRunning, state: isRunning ? "training" : "ended", tiles, charts },
    rest: `${
      samples.length
        ? `<h2>Samples</h2>\n<section class="samples">\n${
          samples.toReversed().map(({ step, png }) =>
            renderPicture(`samples after step ${step}`, `step ${step}`, png)
          ).join("\n")
        }\n</section>\n`
        : ""
    }<h2>Settings</h2>
${renderTable(facts)}
${
      Object.entries(settings).map(([name, section]) =>
        `<details><summary>${escape(name)}</summary>${renderTable(section)}</details>`
      ).join("\n")
    }`,
  });
}
