/**
 * What was made in this session.
 *
 * @module
 */

import type { Job, Made } from "./engine.ts";
import { drawSamples } from "./pictures.ts";
import { columnsOf } from "./player.ts";
import { element } from "./settings.ts";

/** Runs that are kept, at most. */
const KEPT = 40;

/** Pictures to go back to. */
export class Gallery {
  readonly #list = element<HTMLUListElement>("gallery");
  readonly #onPick: (job: Job, made: Made) => void;

  constructor(onPick: (job: Job, made: Made) => void) {
    this.#onPick = onPick;
  }

  add(job: Job, made: Made): void {
    const canvas = document.createElement("canvas"), button = document.createElement("button");
    drawSamples(canvas, made, columnsOf(made.count));
    button.append(canvas);
    button.title = `${job.model}, seed ${job.seed}, ${job.method}, ${job.steps} steps`;
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => this.#onPick(job, made));
    const item = document.createElement("li");
    item.append(button);
    this.#list.prepend(item);
    while (this.#list.children.length > KEPT) this.#list.lastElementChild!.remove();
  }
}
