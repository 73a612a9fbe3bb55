/**
 * What was made in this session.
 *
 * @module
 */

import type { Samples } from "../sample/options.ts";
import type { Job } from "./engine.ts";
import { drawSamples } from "./pictures.ts";
import { columnsOf } from "./player.ts";
import { element } from "./settings.ts";

/** Runs that are kept, at most. */
const KEPT = 40;

/** Pictures to go back to. */
export class Gallery {
  readonly #list = element<HTMLUListElement>("gallery");
  readonly #onPick: (job: Job, samples: Samples) => void;

  constructor(onPick: (job: Job, samples: Samples) => void) {
    this.#onPick = onPick;
  }

  add(job: Job, samples: Samples): void {
    const canvas = document.createElement("canvas"), button = document.createElement("button");
    drawSamples(canvas, samples, columnsOf(samples.count));
    button.append(canvas);
    button.title = `${job.model}, seed ${job.seed}, ${job.method}, ${job.steps} steps`;
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => this.#onPick(job, samples));
    const item = document.createElement("li");
    item.append(button);
    this.#list.prepend(item);
    while (this.#list.children.length > KEPT) this.#list.lastElementChild!.remove();
  }
}
