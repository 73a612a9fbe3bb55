/**
 * The page: a form, pictures that come out of noise, and what one can do with them.
 *
 * @module
 */

import type { DeviceKind } from "../gpu/open.ts";
import { shippedModels } from "../model/shipped.ts";
import type { Provenance } from "../sample/provenance.ts";
import { type Engine, type Job, provenanceOf } from "./engine.ts";
import { Gallery } from "./gallery.ts";
import { listenForFiles } from "./files.ts";
import { Player } from "./player.ts";
import { addDrawing } from "./drawing.ts";
import { addWalk } from "./walk.ts";
import { element, fill, Settings } from "./settings.ts";
import { ServerEngine, serverModels } from "./server_engine.ts";
import { explain, say, tellPictures, tellWithheld, warn } from "./status.ts";
import { Training } from "./training.ts";
import { WorkerEngine } from "./worker_engine.ts";

const asked = new URLSearchParams(location.search);
const kind = element<HTMLSelectElement>("kind"), list = element<HTMLSelectElement>("model");
const cancel = element<HTMLButtonElement>("cancel"),
  progress = element<HTMLProgressElement>("progress");
if (asked.has("token")) {
  // A cookie stands for it from now on: it need not be seen, or kept in the history.
  asked.delete("token");
  history.replaceState(null, "", asked.size ? `?${asked}` : location.pathname);
}
const served = serverModels();
if (served) kind.prepend(new Option("this server", "server", true, true));
for (const id of ["model", "prompt", "seed", "count", "steps", "method", "guidance", "kind"]) {
  const value = asked.get(id);
  if (value !== null) element<HTMLInputElement>(id).value = value;
}

const notices: string[] = [];
const makeEngine = (): Engine =>
  kind.value === "server" ? new ServerEngine(served!) : makeWorkerEngine(kind.value as DeviceKind);
function makeWorkerEngine(device: DeviceKind): WorkerEngine {
  return new WorkerEngine({
    ...{ device, threads: Number(asked.get("threads") ?? 0) },
    program: element("program").textContent!,
    models: Object.fromEntries(
      shippedModels.map((name) => [name, new URL(`${name}.safetensors`, location.href)]),
    ),
    // What computes instead is told anyway.
    onNotice: (notice) => notices.push(notice.split("; computing")[0]),
  });
}
let engine = makeEngine();
const settings = new Settings(), player = new Player();
fill(list, engine.models, asked.get("model") ?? undefined);

/** Does something with the engine; what goes wrong is told, and the next try begins anew. */
async function attempt(work: () => Promise<void>): Promise<void> {
  const used = engine;
  try {
    await work();
    const notes = notices.length ? ` (${notices.join("; ")})` : "";
    element("device").textContent = `${await engine.about()}${notes}`;
  } catch (error) {
    if (warn(explain(error)) !== "reset") return;
    used.reset();
    if (used !== engine) return;
    if (used instanceof WorkerEngine) training.lose();
    forgetDevice();
  }
}
/** Says nothing of a device that is no more. */
function forgetDevice(): void {
  notices.length = 0;
  element("device").textContent = "\u00a0";
}

let stop: AbortController | undefined;
const gallery = new Gallery((job, made) => {
  player.show([], made, job);
  attempt(async () => void await restore(provenanceOf(job)));
});

/** Takes the settings of a picture; returns what of them has no place here. */
async function restore(about: Provenance): Promise<string[]> {
  if (about.model !== undefined) settings.model = String(about.model);
  await open();
  return settings.restore(about);
}

/** Gets the chosen model ready. */
async function open(): Promise<void> {
  const facts = settings.facts = await engine.open(settings.model);
  pad.suit(facts.shape.at(-1)!);
  element<HTMLInputElement>("color").value = pad.color;
}

async function generate(notes: readonly string[] = []): Promise<void> {
  if (!settings.check()) return;
  stop?.abort();
  const own = stop = new AbortController();
  cancel.disabled = false;
  await attempt(async () => {
    say("Getting the model ready …");
    await open();
    const job = settings.read(), began = performance.now();
    say("Generating …");
    player.begin(job);
    const run = engine.run(job, own.signal);
    for (;;) {
      const { done, value } = await run.next();
      if (own !== stop) return;
      if (done) {
        if (own.signal.aborted) return say("Cancelled.");
        player.end(value);
        gallery.add(job, value);
        const seconds = ((performance.now() - began) / 1000).toFixed(1);
        return say(
          [`${tellPictures(value.count)} in ${seconds} s.`, ...tellWithheld(value), ...notes].join(
            " ",
          ),
        );
      }
      player.add(value);
      progress.value = value.step / value.steps;
    }
  });
  if (own !== stop) return;
  cancel.disabled = true;
  progress.value = 0;
}

element("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
element("again").addEventListener("click", () => {
  element<HTMLInputElement>("seed").value = String(Math.floor(Math.random() * 1e6));
  generate();
});
cancel.addEventListener("click", () => stop?.abort());
list.addEventListener("change", () => attempt(open));
/** Takes the engine that is chosen. */
function changeEngine(): void {
  engine.reset();
  // Where a server computes, trainings have an engine of their own.
  if (engine instanceof WorkerEngine) training.lose();
  engine = makeEngine();
  forgetDevice();
  fill(list, engine.models, list.value);
}
kind.addEventListener("change", () => {
  const { files } = engine;
  changeEngine();
  attempt(async () => {
    if (kind.value !== "server") {
      for (const [name, file] of files) {
        await engine.add(file);
        fill(list, engine.models, name);
      }
    }
    await open();
  });
});

/** What drawing and walking need of the page. */
const studio = {
  settings,
  /** The last picture. */
  last: () => player.first,
  shape: async () => {
    const { shape } = await engine.open(settings.model);
    return shape.map((n) => n ?? 32);
  },
  async *run(job: Job, signal: AbortSignal) {
    const made = yield* engine.run(job, signal);
    if (made.withheld) say(tellWithheld(made).join(" "));
    return made;
  },
  attempt,
  keep: gallery.add.bind(gallery),
};
/** What drawing and walking need of the page. */
export type Studio = typeof studio;
addWalk(studio);
const pad = addDrawing(studio);
element("save").addEventListener("click", () => attempt(() => player.save()));
async function takeModel(files: readonly File[]): Promise<void> {
  const isMoved = kind.value === "server";
  if (isMoved) {
    kind.value = "auto";
    changeEngine();
  }
  await attempt(async () => {
    say(`Reading ${files.map(({ name }) => name).join(", ")} …`);
    const name = await engine.add(files);
    fill(list, engine.models, name);
    await open();
    const { notes } = await engine.open(name);
    const where = isMoved ? " and computes in this tab, not on the server" : "";
    say([`${name} is ready${where}.`, ...notes].join(" "));
  });
}

/** What trains where the engine is a server. */
let trainingEngine: WorkerEngine | undefined;
const training = new Training({
  engine: () =>
    engine instanceof WorkerEngine ? engine : trainingEngine ??= makeWorkerEngine("auto"),
  takeModel: (file) => takeModel([file]),
  takeDrawing() {
    if (pad.isEmpty) return say("Draw something first.") as undefined;
    const drawing = pad.copy();
    pad.clear();
    return drawing;
  },
});
listenForFiles({
  takeModel,
  takeTraining: (file) => training.takeTraining(file),
  takeExamples: (files) => training.takeFiles(files),
  takeSettings: (about) =>
    attempt(async () => {
      const others = await restore(about);
      generate(others.length ? [`Not as the file says: ${others.join(", ")}.`] : []);
    }),
  takePicture: (picture) => pad.load(picture),
});
generate();
