/**
 * `deno task browser`: training in the tab, in a real browser.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { encodePng } from "../../src/cli/media/picture_files.ts";
import { readTexts } from "../../src/formats/png_texts.ts";
import { makePicture } from "../../src/sample/pixels.ts";
import { provenanceIn } from "../../src/sample/provenance.ts";
import { parseModel } from "../../src/model/model.ts";
import { readTraining } from "../../src/train/training_file.ts";
import { openWorker } from "../../src/worker/mod.ts";
import { Folder } from "../cli/cli.ts";
import { Chromium, type Tab } from "./chromium.ts";
import { isolated, serve } from "./server.ts";

const byId = (id: string) => `document.getElementById("${id}")`;
const text = (id: string) => `${byId(id)}.textContent`;
const click = (id: string) => `${byId(id)}.click();`;
const choose = (id: string, value: number) =>
  `${byId(id)}.value = "${value}"; ${byId(id)}.dispatchEvent(new Event("change"));`;
/** The step that the page tells. */
const step = `Number(${text("train-text")}.match(/^Step (\\d+)/)?.[1] ?? 0)`;

/** Notes Workers, and files that are offered. */
const OBSERVER = `
  const Own = Worker, make = URL.createObjectURL;
  globalThis.workers = [];
  globalThis.Worker = class extends Own { constructor(...a) { super(...a); workers.push(this); } };
  globalThis.blobs = [];
  URL.createObjectURL = (blob) => { blobs.push(blob); return make.call(URL, blob); };`;

/** Drops files that an expression makes, on the part that trains. */
const drop = (files: string) =>
  `{ const data = new DataTransfer();
     for (const file of ${files}) data.items.add(file);
     ${
    byId("train")
  }.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true })); }`;

/** The file that was offered last. */
async function takeOffered(tab: Tab): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await tab.run<string>(`blobs.at(-1).bytes().then((bytes) => bytes.toBase64())`);
  return Uint8Array.fromBase64(bytes);
}

/** A page that has made a picture by a model, and can be trained in. */
async function visit(tab: Tab, url: string): Promise<void> {
  await tab.go(`${url}/page.html?count=1&steps=1&threads=1`);
  await tab.until(
    `document.readyState === "complete" && /pictures? in/.test(${text("status")})`,
  );
}

/** Stops the training. */
async function stop(tab: Tab): Promise<number> {
  await tab.run(click("train-stop"));
  await tab.until(`/^Stopped after step/.test(${text("status")})`);
  return await tab.run<number>(step);
}

Deno.test("ten drawings are learnt in the tab, and the training goes on in Deno", async () => {
  await using site = serve(isolated);
  await using browser = await Chromium.start();
  await using tab = await browser.open({ before: OBSERVER });
  await visit(tab, site.url);
  assert(await tab.run(`${byId("train-go")}.disabled`), "there is nothing to learn from");
  await tab.run(choose("side", 16) + choose("channels", 8));
  // By keys: the brush moves on with shift.
  for (let i = 0; i < 10; i++) {
    await tab.run(`
      ${byId("pad")}.focus();
      for (let k = 0; k < ${3 + i}; k++) {
        const key = ["ArrowLeft", "ArrowUp"][k % 2], shiftKey = k > ${i % 4};
        ${byId("pad")}.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey }));
      }
      ${click("example")}`);
    await tab.until(
      `${text("examples-text")} === "${i === 0 ? "1 picture" : `${i + 1} pictures`} of 16x16"`,
    );
  }
  const longest = await tab.busiest(async () => {
    await tab.run(click("train-go"));
    await tab.until(
      `${step} >= 45 && /Samples after/.test(${byId("train-samples")}.ariaLabel)`,
    );
  });
  // deno-lint-ignore no-console
  console.log(`longest task while training: ${longest} ms`);
  assert(longest > 0 && longest <= 50, `${longest} ms`);
  const done = await stop(tab);
  // How far each step is below the top of the chart, where the largest loss is.
  const curve = await tab.run<number[]>(
    `document.querySelector("#loss polyline").getAttribute("points").split(" ")
      .map((point) => Number(point.split(",")[1]))`,
  );
  const third = Math.floor(curve.length / 3);
  const [first, last] = [curve.slice(0, third), curve.slice(-third)]
    .map((part) => part.reduce((a, b) => a + b) / third);
  assert(last > first + 20, `losses are ${first} below the top at first, ${last} at last`);

  await tab.run(`blobs.length = 0; ${click("save-model")}`);
  await tab.until("blobs.length");
  assertEquals(parseModel(await takeOffered(tab)).network.itemShape, [16, 16, 1]);
  await tab.run(`blobs.length = 0; ${click("save-training")}`);
  await tab.until("blobs.length");
  assertMatch(
    await tab.run(text("status")),
    /ddpm train --resume --data training-\d+\.safetensors/,
  );
  const file = await takeOffered(tab), saved = await readTraining(file, "the training");
  assertEquals([saved.state.step, saved.pictures.count], [done, 10]);
  using device = await openWorker("cpu");
  using trainer = await device.resume(new File([file], "training.safetensors"));
  assertEquals(await trainer.run({ steps: 1 }), done + 1);

  // What is drawn by the model that was learnt.
  await tab.run(click("use-model"));
  await tab.until(`/^trained-${done}.safetensors is ready/.test(${text("status")})`);
  await tab.run(`${byId("go")}.click()`);
  await tab.until(`/pictures? in/.test(${text("status")})`);
  assertEquals(tab.errors, []);
});

Deno.test("folders in a folder are classes, which the model that was learnt can be asked for", async () => {
  await using folder = await Folder.make();
  const shades = { cat: -1, dog: 1 };
  for (const [name, shade] of Object.entries(shades)) {
    await Deno.mkdir(folder.at(`pets/${name}`), { recursive: true });
    for (let i = 0; i < 3; i++) {
      const data = Float32Array.from({ length: 400 }, (_, k) => shade * (k % 20 > 4 + i ? 1 : 0.5));
      const png = await encodePng(makePicture({ count: 1, shape: [20, 20, 1], data }, 0), {});
      await folder.write(`pets/${name}/${i}.png`, new Uint8Array(png));
    }
  }
  await using site = serve(isolated);
  await using browser = await Chromium.start();
  await using tab = await browser.open({ before: OBSERVER });
  await visit(tab, site.url);
  await tab.run(choose("side", 16) + choose("channels", 8));
  const told = "6 pictures of 16x16, 2 classes: cat, dog";
  await tab.pick(byId("folder"), folder.at("pets"));
  await tab.until(`${text("examples-text")} === "${told}"`);
  await tab.run(click("train-go"));
  await tab.until(`${step} >= 2`);
  const done = await stop(tab);
  await tab.run(`blobs.length = 0; ${click("save-training")}`);
  await tab.until("blobs.length");
  const file = await takeOffered(tab), { config, pictures } = await readTraining(file, "it");
  assertEquals([pictures.classes, Array.from(pictures.labels!)], [["cat", "dog"], [
    0,
    0,
    0,
    1,
    1,
    1,
  ]]);
  assertEquals(config.training.labelDropout, 0.1);

  await tab.run(click("use-model"));
  await tab.until(`/^trained-${done}.safetensors is ready/.test(${text("status")})`);
  assertEquals(await tab.run(`[...${byId("class")}.options].map(({ value }) => value)`), [
    ...["all", "cat", "dog", "none"],
  ]);
  await tab.run(`${byId("class")}.value = "dog"; ${byId("go")}.click()`);
  await tab.until(`/pictures? in/.test(${text("status")})`);
  await tab.run(`blobs.length = 0; ${click("save")}`);
  await tab.until("blobs.length");
  assertEquals(provenanceIn(await readTexts(await takeOffered(tab)))?.class, "dog");

  // One more that is of no class.
  await tab.run(`${byId("pad")}.focus(); ${byId("pad")}.dispatchEvent(
    new KeyboardEvent("keydown", { key: " " })); ${click("example")}`);
  await tab.until(
    `/^7 pictures.*in no folder: 1, so that no classes/.test(${text("status")})`,
  );
  assertEquals(await tab.run(text("examples-text")), "7 pictures of 16x16");
  // A training brings its classes along.
  const bytes = `Uint8Array.fromBase64(${JSON.stringify(file.toBase64())})`;
  await tab.run(drop(`[new File([${bytes}], "mine.safetensors")]`));
  await tab.until(`${text("examples-text")} === "${told}"`);
  assertEquals(tab.errors, []);
});

/** Pictures of a size in color, as files. */
const makeFiles = (count: number) => `
  await Promise.all(Array.from({ length: ${count} }, async (_, i) => {
    const canvas = new OffscreenCanvas(90, 60), context = canvas.getContext("2d");
    context.fillStyle = "hsl(" + 36 * i + " 80% 50%)";
    context.fillRect(20, 10, 40, 40);
    return new File([await canvas.convertToBlob()], i + ".png", { type: "image/png" });
  }))`;

Deno.test("pictures are dropped, junk is named, and a training goes on after its device is lost", async () => {
  await using site = serve(isolated);
  await using browser = await Chromium.start();
  await using tab = await browser.open({ before: OBSERVER });
  await visit(tab, site.url);
  await tab.run(choose("side", 16) + choose("channels", 8));
  const junk = `new File(["junk"], "bad.png", { type: "image/png" })`;
  await tab.run(
    `(async () => { const files = ${makeFiles(12)}; files.push(${junk}); ${drop("files")} })()`,
  );
  await tab.until(
    `/^12 pictures to learn from.*cannot read: bad.png/.test(${text("status")})`,
  );
  assertEquals(await tab.run(text("examples-text")), "12 pictures of 16x16");
  await tab.run(click("train-go"));
  await tab.until(`${step} >= 2`);
  const kept = await stop(tab);
  await tab.run(click("train-go"));
  await tab.until(`${step} > ${kept}`);
  const count = await tab.run<number>("workers.length");
  await tab.run(
    `workers.at(-1).dispatchEvent(new ErrorEvent("error", { message: "out of memory" }))`,
  );
  await tab.until(
    `/out of memory.*smaller pictures.*Train goes on after/.test(${text("status")})`,
  );
  assertMatch(await tab.run(text("status")), new RegExp(`goes on after step ${kept}\\.$`));
  await tab.run(`${text("train-text")} = ""; ${click("train-go")}`);
  await tab.until(`${step} > ${kept}`);
  assertEquals(await tab.run("workers.length"), count + 1);
  await stop(tab);

  // The file of it is dropped on a page that has forgotten everything.
  await tab.run(`blobs.length = 0; ${click("save-training")}`);
  await tab.until("blobs.length");
  const file = await takeOffered(tab), { state } = await readTraining(file, "the training");
  await visit(tab, site.url);
  const bytes = `Uint8Array.fromBase64(${JSON.stringify(file.toBase64())})`;
  await tab.run(drop(`[new File([${bytes}], "mine.safetensors")]`));
  await tab.until(
    `/^mine.safetensors goes on after step ${state.step}/.test(${text("status")})`,
  );
  assertEquals(await tab.run(text("examples-text")), "12 pictures of 16x16");
  await tab.run(click("train-go"));
  await tab.until(`${step} > ${state.step}`);
  await stop(tab);
  // Another size is another training.
  await tab.run(choose("side", 28));
  await tab.until(`${text("examples-text")} === "12 pictures of 28x28"`);
  assert(await tab.run(`${byId("save-training")}.disabled`));
  assertEquals(tab.errors, []);
});
