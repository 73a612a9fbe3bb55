/**
 * The way between two seeds, by a slider.
 *
 * @module
 */

import type { Job } from "./engine.ts";
import { Live } from "./live.ts";
import type { Studio } from "./main.ts";
import { drawSamples } from "./pictures.ts";
import { element } from "./settings.ts";

/** A sampler that adds no noise of its own, in few steps. */
const QUICK = { method: "ddim", steps: 8 } as const;

/** Brings the slider to life. */
export function addWalk({ settings, run, attempt }: Studio): void {
  const canvas = element<HTMLCanvasElement>("walk-canvas");
  const live = new Live<Job>(async (job, signal) => {
    const steps = run(job, signal);
    for (;;) {
      const { done, value } = await steps.next();
      if (!done) continue;
      if (value.count) drawSamples(canvas, value);
      return;
    }
  });
  const number = (id: string) => Number(element<HTMLInputElement>(id).value);
  for (const id of ["from", "to", "share"]) {
    element(id).addEventListener("input", () => {
      const walk = { seed: number("to"), share: number("share") };
      attempt(() => live.ask({ ...settings.read(1), ...QUICK, seed: number("from"), walk }));
    });
  }
}
