/**
 * What a line of a training's log says of the steps since the last one.
 *
 * @module
 */

import type { StepRecord } from "../../train/records.ts";

/** Seven digits are more than a float has. */
export const shorten = (x: number) => Number(x.toPrecision(7));

/** The loss scale and skipped steps, for a line of the log. */
export const scaling = (records: readonly StepRecord[]) => ({
  loss_scale: records[records.length - 1].lossScale,
  skipped_steps: records.filter((r) => r.isSkipped).length,
});

/** Means over steps, for a line of the log. */
export function summarize(all: readonly StepRecord[]) {
  const learnt = all.filter((r) => !r.isSkipped), records = learnt.length ? learnt : all;
  const mean = (values: number[]) => shorten(values.reduce((sum, v) => sum + v, 0) / values.length);
  const quartiles = records[0].quartiles.map((_, q) => {
    const total = (field: "sum" | "count") =>
      records.reduce((all, { quartiles }) => all + quartiles[q][field], 0);
    return total("count") ? shorten(total("sum") / total("count")) : null;
  });
  const accuracies = records[0].quartiles.map((_, q) => rightOf(records, [q]));
  return {
    loss: mean(records.map((r) => r.loss)),
    ...(quartiles.length ? { loss_quartiles: quartiles } : {}),
    ...(records[0].penalty === undefined ? {} : {
      reconstruction: mean(records.map((r) => r.reconstruction!)),
      penalty: mean(records.map((r) => r.penalty!)),
    }),
    ...(records[0].accuracy === undefined
      ? {}
      : { accuracy: mean(records.map((r) => r.accuracy!)) }),
    ...(records[0].quartiles[0]?.correct === undefined ? {} : {
      accuracy: rightOf(records, quartiles.keys().toArray())!,
      accuracy_quartiles: accuracies,
    }),
    grad_norm: mean(records.map((r) => r.gradientNorm)),
  };
}

/** The share of the images of some quarters of the timesteps that a classifier had right. */
function rightOf(records: readonly StepRecord[], quarters: readonly number[]): number | null {
  const all = records.flatMap(({ quartiles }) => quarters.map((q) => quartiles[q]));
  const [right, count] = (["correct", "count"] as const).map((field) =>
    all.reduce((sum, quartile) => sum + (quartile[field] ?? 0), 0)
  );
  return count ? shorten(right / count) : null;
}
