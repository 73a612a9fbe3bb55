/**
 * The form: what is to be made, and the same as texts of a PNG.
 *
 * @module
 */

import { defaultMethod, type MethodName, methods } from "../sample/solvers/mod.ts";
import type { ModelFacts } from "../worker/protocol.ts";
import type { Job } from "./engine.ts";

/** An element by its id. */
export function element<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

const input = (id: string) => element<HTMLInputElement>(id);
const select = (id: string) => element<HTMLSelectElement>(id);

/** The choice of no class in particular, and of all in turns. */
const NONE = "none", ALL = "all";

/** Fills a list of choices. */
export function fill(list: HTMLSelectElement, names: readonly string[], chosen?: string): void {
  list.replaceChildren(...names.map((name) => new Option(name, name)));
  if (chosen !== undefined && names.includes(chosen)) list.value = chosen;
}

/** The form. */
export class Settings {
  #facts: ModelFacts | undefined;
  /** The scale of guidance where nobody says. */
  #guidance = "";

  constructor() {
    const names = Object.values(methods).filter((m) => !m.isInverse).map(({ name }) => name);
    fill(select("method"), names, defaultMethod);
  }

  get model(): string {
    return select("model").value;
  }

  /** Shows what a model knows. */
  set facts(facts: ModelFacts) {
    const { classes, none } = this.#facts = facts, before = select("class").value;
    element("class-label").hidden = !classes;
    element("prompt-label").hidden = !facts.reads;
    element("guidance-label").hidden = !facts.guidance;
    // Each model has its own, until somebody chooses.
    const usual = String(facts.guidance?.scale ?? 1), { value } = input("guidance");
    if (value === "" || value === this.#guidance) input("guidance").value = usual;
    this.#guidance = usual;
    if (classes) {
      fill(select("class"), [ALL, ...classes, ...none === undefined ? [] : [NONE]], before || ALL);
    }
  }

  /** Fields that hold no numbers are marked; whether there are none. */
  check(): boolean {
    return element<HTMLFormElement>("settings").reportValidity();
  }

  /** The job of the form. */
  read(): Job {
    const count = Number(input("count").value), labels = this.labels(count);
    const prompt = this.#facts?.reads ? input("prompt").value.trim() : "";
    return {
      ...{ model: this.model, method: select("method").value as MethodName, count },
      ...{ steps: Number(input("steps").value), seed: Number(input("seed").value) },
      guidance: Number(input("guidance").value),
      ...(labels ? { labels } : {}),
      ...(prompt ? { prompt } : {}),
    };
  }

  /** The classes of so many images. */
  labels(count: number): number[] | undefined {
    const { classes, none } = this.#facts ?? {}, chosen = select("class").value;
    if (!classes) return undefined;
    const label = chosen === NONE ? none! : classes.indexOf(chosen);
    return Array.from({ length: count }, (_, i) => label < 0 ? i % classes.length : label);
  }

  /** What a file says of a picture, by the names that `ddpm sample` writes. */
  describe(job: Job): Record<string, string> {
    const { model, seed, steps, method: sampler, count, guidance } = job;
    const about: Record<string, string | number> = { model, seed, steps, sampler, count };
    if (job.prompt) Object.assign(about, { prompt: job.prompt, guidance });
    if (job.labels) Object.assign(about, { class: select("class").value, guidance });
    const description = Object.entries(about).map(([name, value]) => `${name} ${value}`).join(", ");
    const comment = JSON.stringify({ software: "@x/ddpm", ...about });
    return { Software: "@x/ddpm", Description: description, Comment: comment };
  }

  /** Takes the settings of a picture's texts; whether it has any. */
  restore({ Comment: comment = "" }: Readonly<Record<string, string>>): boolean {
    let about: Record<string, unknown>;
    try {
      about = Object(JSON.parse(comment));
    } catch {
      return false;
    }
    if (about.seed === undefined) return false;
    const lists = { model: about.model, method: about.sampler, class: about.class };
    for (const [id, value] of Object.entries(lists)) {
      const list = select(id), text = String(value);
      if ([...list.options].some((option) => option.value === text)) list.value = text;
    }
    input("prompt").value = String(about.prompt ?? "");
    for (const id of ["seed", "steps", "count", "guidance"]) {
      if (Number.isFinite(Number(about[id] ?? NaN))) input(id).value = String(about[id]);
    }
    return true;
  }
}
