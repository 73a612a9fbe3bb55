/**
 * Pictures out of drawings, while they are drawn.
 *
 * @module
 */

import type { Samples } from "../sample/options.ts";
import type { Job } from "./engine.ts";
import { Live } from "./live.ts";
import type { Studio } from "./main.ts";
import { Pad, type Tool } from "./pad.ts";
import { drawSamples } from "./pictures.ts";
import { element } from "./settings.ts";

/** Few steps, so that it keeps up. */
const QUICK = { method: "dpmpp_2m_sde", steps: 10 } as const;

/** Brings the pad to life. */
export function addDrawing({ settings, shape, run, attempt, last, keep }: Studio): Pad {
  const canvas = element<HTMLCanvasElement>("live");
  const strength = element<HTMLInputElement>("strength");
  let shown: { job: Job; samples: Samples } | undefined;
  const show = (job: Job, samples: Samples) => {
    if (!samples.count) return;
    shown = { job, samples };
    drawSamples(canvas, samples);
    // Who measures counts these.
    canvas.dispatchEvent(new Event("update"));
  };
  const live = new Live<Job>(async (job, signal) => {
    const steps = run(job, signal);
    for (;;) {
      const { done, value } = await steps.next();
      if (done) return show(job, value);
      // Where runs are slow, the first guess is better than nothing.
      if (signal.aborted && value.sample) show(job, value.sample);
    }
  });
  const redraw = () =>
    attempt(async () => {
      if (pad.isEmpty) return;
      const sides = await shape(), mask = pad.readMask(sides);
      const { guidance, ...job } = settings.read(1, true);
      await live.ask({
        ...{ ...job, ...QUICK, init: pad.read(sides) },
        ...(guidance ? { guidance: { scale: 1 } } : {}),
        ...(mask ? { mask, strength: 1 } : { strength: Number(strength.value) }),
      });
    });
  const pad = new Pad(element("pad"), redraw);
  strength.addEventListener("input", () => {
    element("strength-text").textContent = Number(strength.value).toFixed(2);
    redraw();
  });
  const on = (id: string, type: string, action: (value: string) => void) =>
    element<HTMLInputElement>(id).addEventListener(type, ({ target }) => {
      action((target as HTMLInputElement).value);
    });
  for (const radio of document.getElementsByName("tool") as NodeListOf<HTMLInputElement>) {
    radio.addEventListener("change", () => pad.tool = radio.value as Tool);
  }
  on("brush", "input", (value) => pad.brush = Number(value));
  on("color", "input", (value) => pad.color = value);
  on("clear", "click", () => pad.clear());
  on("unmask", "click", () => {
    pad.clearMask();
    redraw();
  });
  on("take", "click", () => {
    const picture = last();
    if (!picture) return;
    pad.load(picture);
    redraw();
  });
  on("keep", "click", () => shown && keep(shown.job, shown.samples));
  return pad;
}
