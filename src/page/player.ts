/**
 * The last run, step by step.
 *
 * @module
 */

import { withTexts } from "../formats/png_texts.ts";
import type { Samples } from "../sample/options.ts";
import { textsOf } from "../sample/provenance.ts";
import { download } from "./download.ts";
import { type Job, type Made, provenanceOf, type Step } from "./engine.ts";
import { drawSamples, pick } from "./pictures.ts";
import { element } from "./settings.ts";
import { tellPictures } from "./status.ts";

/** Numbers that are kept of a run, at most. */
const MOST = 2 ** 25;
/** What writes files, with its version. */
const SOFTWARE = document.querySelector<HTMLMetaElement>("meta[name=generator]")!.content;
/** Pixels of a saved picture's side, about. */
const SAVED_SIDE = 512;

/** Shows a run, and keeps its steps. */
export class Player {
  readonly #grid = element<HTMLCanvasElement>("grid");
  readonly #scrub = element<HTMLInputElement>("scrub");
  #steps: Step[] = [];
  #job: Job | undefined;
  #last: Made | undefined;

  constructor() {
    this.#scrub.addEventListener("input", () => this.#show());
    for (const radio of document.getElementsByName("shown")) {
      radio.addEventListener("change", () => this.#show());
    }
  }

  /** The first picture of what was made last. */
  get first(): Samples | undefined {
    return this.#last && pick(this.#last, 0);
  }

  begin(job: Job): void {
    this.#steps = [];
    this.#job = job;
    this.#scrub.disabled = true;
    this.#scrub.max = this.#scrub.value = "1";
    element("step-text").textContent = "";
    element<HTMLButtonElement>("save").disabled = true;
  }

  add(step: Step): void {
    if (!step.sample) return;
    const size = 2 * step.sample.data.length;
    if ((this.#steps.length + 1) * size > MOST) this.#steps.shift();
    // Several batches come one after the other; steps of the last one are kept.
    if (step.step === 1) this.#steps = [];
    this.#steps.push(step);
    this.#scrub.max = this.#scrub.value = String(this.#steps.length);
    this.#show();
  }

  end(made: Made): void {
    this.show(this.#steps, made, this.#job!);
  }

  /** Shows what was made. */
  show(steps: Step[], made: Made, job: Job): void {
    this.#steps = steps;
    this.#job = job;
    this.#last = made;
    this.#scrub.max = this.#scrub.value = String(Math.max(1, steps.length));
    this.#scrub.disabled = steps.length < 2;
    element<HTMLButtonElement>("save").disabled = false;
    this.#show();
    const { model, seed, count } = job;
    this.#grid.setAttribute("aria-label", `${tellPictures(count)} by ${model}, seed ${seed}`);
  }

  #show(): void {
    const at = Number(this.#scrub.value), step = this.#steps[at - 1];
    const noisy = element<HTMLFormElement>("stage").querySelector<HTMLInputElement>(
      "[value=noisy]",
    )!;
    noisy.disabled = step !== undefined && !step.noisy;
    const isLast = at >= this.#steps.length && this.#last && !this.#scrub.disabled;
    const shown = isLast || !step
      ? this.#last
      : noisy.checked
      ? step.noisy ?? step.sample
      : step.sample;
    element("step-text").textContent = step ? `${step.step} of ${step.steps}` : "";
    if (shown) drawSamples(this.#grid, shown, columnsOf(shown.count));
  }

  /** Saves what is shown, with its settings. */
  async save(): Promise<void> {
    const canvas = document.createElement("canvas"), { width, height } = this.#grid;
    const scale = Math.max(1, Math.floor(SAVED_SIDE / Math.max(width, height)));
    Object.assign(canvas, { width: width * scale, height: height * scale });
    const context = canvas.getContext("2d")!;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.#grid, 0, 0, canvas.width, canvas.height);
    const drawn = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve));
    const png = new Uint8Array(await drawn!.arrayBuffer()), job = this.#job!;
    const about = textsOf(provenanceOf(job, this.#last), SOFTWARE);
    const file = new Blob([withTexts(png, about)], { type: "image/png" });
    download(file, `${job.model}-${job.seed}.png`);
  }
}

/** Rows are longer than columns. */
export const columnsOf = (count: number): number =>
  Math.min(count, Math.ceil(Math.sqrt(2 * count)));
