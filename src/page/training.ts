/**
 * Training in the tab: pictures, a network that learns them, and what it has come to.
 *
 * @module
 */

import { classesOfFolders } from "../data/datasets/folders.ts";
import { InputError } from "../errors.ts";
import { LimitError } from "../gpu/device.ts";
import type { WorkerSampler } from "../worker/worker_sampler.ts";
import type { WorkerTrainer } from "../worker/worker_trainer.ts";
import { download } from "./download.ts";
import { Examples, type ExampleSource } from "./examples.ts";
import { chosenFiles, type FoundFile } from "./files.ts";
import { LossChart } from "./loss_chart.ts";
import { drawSamples } from "./pictures.ts";
import { element } from "./settings.ts";
import { explain, say, tellPictures, warn } from "./status.ts";
import { trainingOptions } from "./training_options.ts";
import type { WorkerEngine } from "./worker_engine.ts";

/** Samples that are shown, and their steps. */
const SHOWN = 8, STEPS = 10;
/** Milliseconds from samples to samples, at least, and how many times as long as they take. */
const PATIENCE = 3000, SHARE = 5;
/** Milliseconds from one copy of the training that the page keeps to the next. */
const KEEP = 20_000;
const TOO_LARGE = "take smaller pictures, or fewer channels";

/** What training needs of the page. */
export interface TrainingStudio {
  /** What computes in the tab. */
  engine(): WorkerEngine;
  /** Takes a model into the list. */
  takeModel(file: File): Promise<void>;
  /** Whether the pad has something on it, and what; it is empty afterwards. */
  takeDrawing(): Promise<ImageBitmap> | undefined;
}

/** The part of the page that trains. */
export class Training {
  readonly #studio: TrainingStudio;
  readonly #examples: Examples;
  readonly #chart = new LossChart(document.querySelector<SVGSVGElement>("#loss")!);
  readonly #shown = element("train-shown");
  readonly #samples = element<HTMLCanvasElement>("train-samples");
  readonly #side = element<HTMLSelectElement>("side");
  readonly #channels = element<HTMLSelectElement>("channels");
  #trainer: WorkerTrainer | undefined;
  /** What it computes on: the page may compute on another one since. */
  #engine: WorkerEngine | undefined;
  #sampler: Promise<WorkerSampler> | undefined;
  /** A copy of the training, for when its device is lost. */
  #kept: { readonly file: File; readonly step: number } | undefined;
  #stop: AbortController | undefined;
  #isReading = false;
  #isDrawing = false;
  /** When there are samples again, and a copy. */
  #due = { samples: 0, copy: 0 };

  constructor(studio: TrainingStudio) {
    this.#studio = studio;
    this.#examples = new Examples(element("examples"), Number(this.#side.value));
    const on = (id: string, action: () => void) => element(id).addEventListener("click", action);
    on("train-go", () => this.#train());
    on("train-stop", () => this.#stop?.abort());
    on("save-model", () => this.#give("model"));
    on("save-training", () => this.#give("training"));
    on("use-model", () => this.#give("use"));
    on("forget", () => {
      this.#examples.clear();
      this.#begin();
    });
    on("example", async () => {
      const drawing = this.#studio.takeDrawing();
      if (drawing) await this.#take([{ source: await drawing }]);
    });
    for (const id of ["pictures", "folder"]) {
      const input = element<HTMLInputElement>(id);
      input.addEventListener("change", () => {
        this.takeFiles(chosenFiles(input));
        input.value = "";
      });
    }
    this.#side.addEventListener("change", () =>
      this.#read(async () => {
        await this.#examples.resize(Number(this.#side.value));
        this.#begin();
      }));
    this.#channels.addEventListener("change", () => this.#begin());
    this.#update();
  }

  /** Adds those of files that are pictures, of the classes that their folders are called. */
  async takeFiles(files: readonly FoundFile[]): Promise<void> {
    const pictures = files.filter(({ file }) => file.type.startsWith("image/"));
    const classes = classesOfFolders(pictures.map(({ path }) => path), true);
    const sources = pictures.map(({ file }, i) => ({ source: file, of: classes[i] }));
    if (files.length) await this.#take(sources, files.length - pictures.length);
  }

  /** Adds pictures, among files that are none. */
  async #take(pictures: readonly ExampleSource[], others = 0): Promise<void> {
    await this.#read(async () => {
      const before = this.#examples.count, isTrained = this.#trainer || this.#kept;
      const bad = await this.#examples.add(pictures, (done) => {
        say(`Reading pictures: ${done} of ${pictures.length} …`);
      });
      const isMore = this.#examples.count > before;
      if (isMore) this.#begin();
      const { count, ofClasses } = this.#examples;
      const notes = [
        ...(ofClasses && ofClasses < count
          ? [`Pictures in no folder: ${count - ofClasses}, so that no classes are learnt.`]
          : []),
        ...(isMore && isTrained ? ["The training begins anew."] : []),
        ...(others ? [`Passed over ${others} that are no pictures.`] : []),
        ...(bad.length
          ? [
            `Left out what this browser cannot read: ${bad.slice(0, 5).join(", ")}${
              bad.length > 5 ? ` and ${bad.length - 5} more` : ""
            }.`,
          ]
          : []),
      ];
      say([`${tellPictures(this.#examples.count)} to learn from.`, ...notes].join(" "));
    });
  }

  /** Goes on with a training that was saved. */
  async takeTraining(file: File): Promise<void> {
    await this.#read(async () => {
      say(`Reading ${file.name} …`);
      const trainer = await this.#choose().resume(file);
      const { pictures, step } = trainer;
      this.#begin();
      this.#trainer = trainer;
      this.#kept = { file, step };
      this.#examples.load(pictures);
      const sides = [...this.#side.options].map(({ value }) => value), side = `${pictures.height}`;
      if (!sides.includes(side)) this.#side.add(new Option(side));
      this.#side.value = side;
      say(`${file.name} goes on after step ${step}.`);
    });
  }

  /** The training in the Worker is of no use any more, or gone; it goes on from the copy. */
  lose(): void {
    this.#sampler?.then((sampler) => sampler[Symbol.dispose](), () => {});
    this.#trainer?.[Symbol.dispose]();
    this.#trainer = this.#sampler = undefined;
    this.#update();
  }

  /** Whatever was learnt is of other pictures. */
  #begin(): void {
    this.#kept = undefined;
    this.#shown.hidden = true;
    this.#chart.clear();
    this.#samples.getContext("2d")!.clearRect(0, 0, 1e4, 1e4);
    this.lose();
  }

  /** Does something during which nothing else can be begun. */
  async #read(work: () => Promise<void>): Promise<void> {
    if (this.#isReading || this.#stop) return say("One thing at a time: stop the training first.");
    this.#isReading = true;
    this.#update();
    try {
      await work();
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#isReading = false;
      this.#update();
    }
  }

  async #train(): Promise<void> {
    const { signal } = this.#stop = new AbortController();
    this.#shown.hidden = false;
    this.#update();
    this.#due = { samples: 0, copy: performance.now() + KEEP };
    try {
      say("Getting the network ready …");
      const trainer = this.#trainer ??= await this.#open();
      say("Training …");
      let at = performance.now(), rate = 0;
      await trainer.run({
        signal,
        onSteps: (records) => {
          for (const { step, loss } of records) this.#chart.add(step, loss);
          const now = performance.now(), each = 1000 * records.length / (now - at);
          rate = rate ? 0.9 * rate + 0.1 * each : each;
          at = now;
          this.#tell(trainer, this.#chart.show(), rate);
          if (now > this.#due.samples) this.#draw(trainer);
          if (now > this.#due.copy) this.#keep(trainer);
        },
      });
      await this.#draw(trainer);
      await this.#keep(trainer);
      say(`Stopped after step ${trainer.step}.`);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#stop = undefined;
      this.#update();
    }
  }

  #choose(): WorkerEngine {
    return this.#engine = this.#studio.engine();
  }

  async #open(): Promise<WorkerTrainer> {
    const engine = this.#choose(), { count, side } = this.#examples;
    if (this.#kept) return await engine.resume(this.#kept.file);
    const pictures = await this.#examples.pictures(), { classes } = pictures;
    const channels = Number(this.#channels.value);
    return await engine.train(pictures, trainingOptions(channels, side, count, classes?.length));
  }

  /** Shows samples; while the training runs, they take turns. */
  async #draw(trainer: WorkerTrainer): Promise<void> {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    const began = performance.now();
    try {
      const sampler = await (this.#sampler ??= trainer.sampler({ steps: STEPS, batchSize: SHOWN }));
      const { length } = trainer.pictures.classes ?? [];
      const labels = length ? Array.from({ length: SHOWN }, (_, i) => i % length) : undefined;
      const samples = await sampler.sample({
        ...{ count: SHOWN, seed: 1 },
        ...(labels ? { labels } : {}),
      });
      if (this.#trainer !== trainer) return;
      drawSamples(this.#samples, samples, SHOWN / 2);
      this.#samples.setAttribute("aria-label", `Samples after step ${trainer.step}`);
      const now = performance.now();
      this.#due.samples = now + Math.max(PATIENCE, SHARE * (now - began));
    } catch (error) {
      this.#due.samples = Infinity;
      // Of a device that is lost the training tells.
      if (error instanceof LimitError) say(`No samples: ${explain(error, TOO_LARGE).text}`);
    } finally {
      this.#isDrawing = false;
    }
  }

  /** Keeps a copy. */
  async #keep(trainer: WorkerTrainer): Promise<void> {
    this.#due.copy = performance.now() + KEEP;
    try {
      const { step } = trainer;
      this.#kept = { file: new File([await trainer.save()], "the training"), step };
    } catch {
      // The one before is as good as it gets.
    }
  }

  #tell({ step, parameters, pictures }: WorkerTrainer, loss: number, rate: number): void {
    element("train-text").textContent = `Step ${step}, loss ${loss.toPrecision(3)}, ` +
      `${rate.toPrecision(2)} steps a second; ${parameters.toLocaleString("en")} parameters, ` +
      `${tellPictures(pictures.count)} of ${pictures.width}x${pictures.height}`;
  }

  /** Gives the model or all of the training away, or the model to the page. */
  async #give(what: "model" | "training" | "use"): Promise<void> {
    const trainer = this.#trainer;
    if (!trainer) return;
    try {
      const bytes = await (what === "training" ? trainer.save() : trainer.model());
      const name = `${what === "training" ? "training" : "trained"}-${trainer.step}.safetensors`;
      const file = new File([bytes], name);
      if (what === "use") return await this.#studio.takeModel(file);
      download(file, name);
      say(
        what === "model"
          ? `${name} is a model for every command, and for this page.`
          : `${name} goes on here when it is dropped, and in Deno by ` +
            `ddpm train --resume --data ${name} --out FOLDER.`,
      );
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Says what went wrong; where the device is gone, what is kept. */
  #fail(error: unknown): void {
    const { text, outcome } = explain(error, TOO_LARGE), { step } = this.#kept ?? {};
    const isLost = outcome === "reset" || this.#trainer !== undefined && isDiverged(error);
    if (outcome === "reset") this.#engine?.reset();
    if (isLost) this.lose();
    const rest = step === undefined ? "Train begins anew." : `Train goes on after step ${step}.`;
    warn({ text: isLost ? `${text} ${rest}` : text, outcome });
  }

  #update(): void {
    const isBusy = this.#stop !== undefined || this.#isReading, { count, side } = this.#examples;
    const disable = (ids: readonly string[], is: boolean) => {
      for (const id of ids) element<HTMLButtonElement>(id).disabled = is;
    };
    disable(["train-go"], isBusy || !count);
    disable(["train-stop"], !this.#stop);
    disable(["side", "channels", "pictures", "folder", "example"], isBusy);
    disable(["forget"], isBusy || !count);
    disable(["save-model", "save-training", "use-model"], !this.#trainer);
    const { classes } = this.#examples.labels, told = classes && tellClasses(classes);
    element("examples-text").textContent = count
      ? `${tellPictures(count)} of ${side}x${side}${told ? `, ${told}` : ""}`
      : "No pictures yet";
  }
}

/** Classes that are named, at most. */
const NAMED = 8;

const tellClasses = (classes: readonly string[]) =>
  `${classes.length} classes: ${classes.slice(0, NAMED).join(", ")}${
    classes.length > NAMED ? ", …" : ""
  }`;

const isDiverged = (error: unknown) =>
  error instanceof InputError && /try a lower learning_rate/.test(error.message);
