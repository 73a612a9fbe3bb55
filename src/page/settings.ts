/**
 * The form: what is to be made.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { defaultMethod, type MethodName, methods } from "../sample/solvers/mod.ts";
import { nameClasses, type Provenance } from "../sample/provenance.ts";
import type { ModelFacts } from "../worker/protocol.ts";
import { type Job, provenanceOf } from "./engine.ts";

/** An element by its id. */
export function element<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

const input = (id: string) => element<HTMLInputElement>(id);
const select = (id: string) => element<HTMLSelectElement>(id);

/** The choice of no class in particular, and of all in turns. */
const NONE = "none", ALL = "all";

/** What files say of pictures that is no setting, or of which the model's name is another one. */
const FREE = ["model", "count", "image", "withheld", "watermark"];

/** Fills a list of choices. */
export function fill(list: HTMLSelectElement, names: readonly string[], chosen?: string): void {
  list.replaceChildren(...names.map((name) => new Option(name, name)));
  if (chosen !== undefined) choose(list, chosen);
}

/** Chooses what is in a list; whether it is. */
function choose(list: HTMLSelectElement, value: string): boolean {
  const isThere = [...list.options].some((option) => option.value === value);
  if (isThere) list.value = value;
  return isThere;
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

  /**
   * Chooses the model of a picture, by its name or its path.
   *
   * @throws {InputError} If there is no such model.
   */
  set model(name: string) {
    if ([name, name.split(/[/\\]/).at(-1)!].some((name) => choose(select("model"), name))) return;
    throw new InputError(
      `The picture is of the model ${name}, which is not in the list: drop its file first`,
    );
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

  /**
   * The job of the form, of so many pictures.
   *
   * @param isBegun Whether they begin with something, which classes in turns would contradict.
   */
  read(count: number = Number(input("count").value), isBegun = false): Job {
    const { reads, none, guidance } = this.#facts ?? {}, { value } = select("class");
    const chosen = isBegun && value === ALL && none !== undefined ? NONE : value;
    const prompt = reads ? input("prompt").value.trim() : "", labels = this.#labels(count, chosen);
    const isLed = prompt || none !== undefined && labels?.some((label) => label !== none);
    const scale = Number(input("guidance").value || this.#guidance);
    return {
      ...{ model: this.model, method: select("method").value as MethodName, count },
      ...{ steps: Number(input("steps").value), seed: Number(input("seed").value) },
      ...(guidance && isLed ? { guidance: { ...guidance, scale } } : {}),
      ...(labels ? { labels, classes: this.#names(labels) } : {}),
      ...(prompt ? { prompt } : {}),
    };
  }

  /** The classes of so many images. */
  #labels(count: number, chosen: string): number[] | undefined {
    const { classes, none } = this.#facts ?? {};
    if (!classes) return undefined;
    const label = chosen === NONE ? none! : classes.indexOf(chosen);
    return Array.from({ length: count }, (_, i) => label < 0 ? i % classes.length : label);
  }

  #names(labels: readonly number[]): string[] {
    const { classes, none } = this.#facts!;
    return labels.map((label) => label === none ? NONE : classes![label]);
  }

  /**
   * Takes the settings of a picture, after those of its model are shown.
   *
   * @returns What of them has no place here, or is otherwise here.
   */
  restore(about: Provenance): string[] {
    const { sampler, prompt = "", guidance = this.#guidance } = about;
    choose(select("method"), String(sampler));
    input("prompt").value = String(prompt);
    input("guidance").value = String(guidance);
    for (const id of ["seed", "steps", "count"]) {
      if (about[id] !== undefined) input(id).value = String(about[id]);
    }
    // Whatever choice comes to these classes.
    const list = select("class"), count = Number(input("count").value);
    const same = [...list.options].map(({ value }) => value).filter((choice) => {
      const labels = this.#labels(count, choice);
      return labels && nameClasses(this.#names(labels)) === String(about.class);
    });
    if (same.length) list.value = same.find((choice) => choice === about.class) ?? same[0];
    const now = provenanceOf(this.read());
    return Object.keys({ ...now, ...about }).filter((name) =>
      !FREE.includes(name) && String(now[name]) !== String(about[name])
    );
  }
}
