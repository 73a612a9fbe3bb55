/**
 * `deno task browser`: the page as `ddpm serve` serves it.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { ComputeThread } from "../../src/cli/serve/compute_thread.ts";
import { openModels } from "../../src/cli/serve/models.ts";
import { type ServerOptions, startServer } from "../../src/cli/serve/server.ts";
import { Folder } from "../cli/cli.ts";
import { readChecker, withParameters } from "../safety_checker.ts";
import { tinyTextToImage, writePipeline } from "../text_to_image.ts";
import { Chromium } from "./chromium.ts";

const byId = (id: string) => `document.getElementById("${id}")`;
const status = `${byId("status")}.textContent`;
const isDone = `/pictures? in/.test(${status})`;
const isOver = `${isDone} || ${byId("status")}.className`;
/** Notes what a policy forbids, to the Worker too. */
const OBSERVER = `globalThis.violations = [];
  addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
  const Own = Worker, make = URL.createObjectURL;
  globalThis.Worker = class extends Own {
    constructor(...settings) {
      super(...settings);
      this.addEventListener("message", ({ data }) => data.violated && violations.push(data.violated));
    }
  };
  URL.createObjectURL = (blob) => make.call(URL, /javascript/.test(blob.type)
    ? new Blob([\`addEventListener("securitypolicyviolation", ({ violatedDirective }) =>
        postMessage({ violated: violatedDirective }));\`, blob], { type: blob.type })
    : blob);`;

/** Models, and what computes with them. */
async function serving(
  places: readonly string[],
): Promise<Pick<ServerOptions, "models" | "start">> {
  const models = await openModels(places), flags = { device: "cpu", threads: 1 };
  return { models, start: () => ComputeThread.start({ places, flags, models }) };
}

Deno.test("the served page computes on the server, and in the tab too, under a strict policy", async () => {
  await using server = await startServer({
    ...{ host: "127.0.0.1", port: 0, token: "0123456789abcdef", queue: 8 },
    ...await serving(["mnist", "fashion-mnist"]),
    limits: { images: 16, steps: 100 },
  });
  await using browser = await Chromium.start();
  await using tab = await browser.open({ before: OBSERVER });
  await tab.go(`${server.url}?token=0123456789abcdef&count=4&steps=4&class=3`);
  await tab.until(`document.readyState === "complete" && (${isOver})`);
  assert(await tab.run(isDone), await tab.run<string>(status));
  assertMatch(await tab.run(`${byId("device")}.textContent`), /^CPU, 1 thread.*of this server/);
  assertEquals(await tab.run(`[...${byId("model")}.options].map((o) => o.value)`), [
    ...["mnist", "fashion-mnist"],
  ]);
  const pixels = `[...${byId("grid")}.getContext("2d").getImageData(0, 0, 59, 59).data]`;
  const there = await tab.run<number[]>(pixels);
  assert(new Set(there).size > 50);

  // Its x_t are shown too, which the last of them are not the pictures of.
  await tab.run(`document.querySelector("[value=noisy]").click(); ${byId("scrub")}.value = 1;
    ${byId("scrub")}.dispatchEvent(new Event("input", { bubbles: true }))`);
  assertNotEquals(await tab.run<number[]>(pixels), there);
  assert(await tab.run(`!document.querySelector("[value=noisy]").disabled`));
  await tab.run(`document.querySelector("[value=sample]").click()`);

  // Painting on the server.
  await tab.run(`${byId("take")}.click()`);
  const live = `[...${byId("live")}.getContext("2d").getImageData(0, 0, 30, 30).data]`;
  await tab.until(`new Set(${live}).size > 20`);

  await tab.run(
    `{ ${status} = ""; ${byId("kind")}.value = "cpu";
       ${byId("kind")}.dispatchEvent(new Event("change", { bubbles: true })); }`,
  );
  await tab.until(`/^CPU, (?!.*of this server)/.test(${byId("device")}.textContent)`);
  await tab.run(`${byId("go")}.click()`);
  await tab.until(isOver);
  assert(await tab.run(isDone), await tab.run<string>(status));
  const here = await tab.run<number[]>(pixels);
  const furthest = Math.max(...here.map((value, i) => Math.abs(value - there[i])));
  assert(furthest <= 1, `pictures differ by ${furthest} of 255`);
  // A model of one's own computes in the tab, which is said.
  await tab.run(
    `{ ${byId("kind")}.value = "server";
       ${byId("kind")}.dispatchEvent(new Event("change", { bubbles: true })); }`,
  );
  await tab.until(`/of this server/.test(${byId("device")}.textContent)`);
  await tab.run(`(async () => {
    const data = new DataTransfer(), model = await (await fetch("mnist.safetensors")).blob();
    data.items.add(new File([model], "mine.safetensors"));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
  })()`);
  await tab.until(`/mine.safetensors is ready and computes in this tab/.test(${status})`);
  assertEquals(await tab.run(`${byId("kind")}.value`), "auto");
  assertEquals(await tab.run("[violations.length, crossOriginIsolated]"), [0, true]);
  assertEquals(await tab.run('location.search.includes("token")'), false);
  assertEquals(tab.errors, []);
});

Deno.test("who leaves the page gives its job up, and one that the server gives up is told", async () => {
  await using server = await startServer({
    ...{ host: "127.0.0.1", port: 0, queue: 8, ...await serving(["mnist"]) },
    limits: { images: 16, steps: 1000 },
    patience: { left: 600_000, asked: 600_000 },
  });
  await using browser = await Chromium.start();
  await using tab = await browser.open({
    before: `const Own = EventSource; globalThis.watched = [];
      globalThis.EventSource = class extends Own { constructor(url) { super(url); watched.push(url); } };`,
  });
  const isRunning = `/^\\d+ of 1000$/.test(${byId("step-text")}.textContent)`;
  await tab.go(`${server.url}?count=1&steps=1000`);
  await tab.until(`document.readyState === "complete" && ${isRunning}`);
  const job = server.url + await tab.run<string>(`watched.at(-1).replace("/events", "")`);
  const state = async () => (await (await fetch(job)).json()).state;
  assertEquals(await state(), "running");
  await tab.go("about:blank");
  while (await state() === "running") await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(await state(), "cancelled");

  await tab.go(`${server.url}?count=1&steps=1000`);
  await tab.until(`document.readyState === "complete" && ${isRunning}`);
  await tab.run(`fetch(watched.at(-1).replace("/events", ""), { method: "DELETE" })`);
  await tab.until(`${byId("status")}.className`);
  assertEquals(await tab.run(status), "The server gave this up.");
  // Firefox ends what it says with a stop.
  await tab.run(`globalThis.fetch = () => Promise.reject(new TypeError("Refused."));
    ${byId("go")}.click()`);
  await tab.until(`/answer/.test(${status})`);
  assertEquals(await tab.run(status), "The server does not answer: Refused.");
  assertEquals(tab.errors, []);
});

Deno.test("what a safety checker withholds is told in words, and is grey", async () => {
  await using folder = await Folder.make();
  const safetyChecker = withParameters(
    await readChecker(),
    (name, values) => /_weights$/.test(name) ? values.fill(-2) : values,
  );
  await writePipeline(folder, "sd", {
    ...tinyTextToImage({ channels: 4, vocabulary: 49408 }),
    safetyChecker,
  });
  await using server = await startServer({
    ...{ host: "127.0.0.1", port: 0, queue: 8, ...await serving([folder.at("sd")]) },
    limits: { images: 16, steps: 100 },
  });
  await using browser = await Chromium.start();
  await using tab = await browser.open();
  await tab.go(`${server.url}?count=2&steps=2&prompt=heart`);
  await tab.until(`document.readyState === "complete" && (${isOver})`);
  assertMatch(
    await tab.run(status),
    /^2 pictures in .* s\. Pictures 1, 2 are withheld by the model's safety checker: it sees/,
  );
  // All but the lines of the grid.
  const shades = `new Set(${byId("grid")}.getContext("2d").getImageData(0, 0, 20, 10).data)`;
  assertEquals(await tab.run(`[...${shades}].includes(128)`), true);
  assertEquals(tab.errors, []);
});

Deno.test("a page of another site gets nothing from the server", async () => {
  await using server = await startServer({
    ...{ host: "127.0.0.1", port: 0, queue: 8, ...await serving(["mnist"]) },
    limits: { images: 16, steps: 100 },
  });
  const page = () =>
    new Response("<!DOCTYPE html><p>other", { headers: { "Content-Type": "text/html" } });
  await using other = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, page);
  await using browser = await Chromium.start();
  await using tab = await browser.open();
  await tab.go(`http://127.0.0.1:${other.addr.port}/`);
  await tab.until(`document.readyState === "complete" && document.querySelector("p")`);
  const tries = [
    `fetch("${server.url}api/jobs", { method: "POST", body: "{}", mode: "no-cors" })`,
    `fetch("${server.url}api/health")`,
    `new Promise((resolve, reject) => Object.assign(new Image(), { onload: resolve,
       onerror: () => reject(), src: "${server.url}mnist.safetensors" }))`,
    `new Promise((resolve, reject) => Object.assign(new EventSource("${server.url}api/health"),
       { onopen: resolve, onerror: () => reject() }))`,
  ];
  for (const attempt of tries.slice(1)) {
    assertEquals(await tab.run(`${attempt}.then(() => "there", () => "refused")`), "refused");
  }
  await tab.run(`${tries[0]}.catch(() => {})`);
  const health = await (await fetch(`${server.url}api/health`)).json();
  assertEquals([health.running, health.queued], [0, 0]);
});
