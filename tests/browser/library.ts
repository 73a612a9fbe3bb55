/**
 * The library in a real browser: `openWorker()` with a bundle as `deno bundle` makes it.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { openDevice } from "../../src/gpu/open.ts";
import { readModel, serializeModel } from "../../src/model/model.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { assertClose } from "../close.ts";
import { bundle } from "../page.ts";
import { Chromium, GPU_FLAGS } from "./chromium.ts";
import { isolated, serve } from "./server.ts";
import { tinyModel } from "./tiny_model.ts";

const files = {
  "empty.html": "<!DOCTYPE html><title>library</title>",
  "library.js": await bundle("src/worker/mod.ts"),
  "serve.js": await bundle("src/worker/serve.ts"),
  "tiny.safetensors": serializeModel(tinyModel()),
};

/** Samples in a Worker of the page. */
const sampleThere = (kind: "cpu" | "gpu", model: string, options: object, run: object) =>
  `(async () => {
    const { openWorker } = await import("/library.js"), notices = [];
    const worker = new Worker("/serve.js", { type: "module" });
    const device = await openWorker("${kind}", { worker, onNotice: (n) => notices.push(n) });
    const model = await device.load(new URL("/${model}.safetensors", location.href));
    const sampler = await model.sampler(${JSON.stringify(options)});
    const { data } = await sampler.sample(${JSON.stringify(run)});
    const { name } = device;
    device[Symbol.dispose]();
    return { name, notices, data: [...data] };
  })()`;

/** What {@linkcode sampleThere} gives. */
interface Made {
  readonly name: string;
  readonly notices: readonly string[];
  readonly data: readonly number[];
}

/** The same in Deno. */
async function sampleHere(file: Uint8Array<ArrayBuffer>, options: object, run: object) {
  using device = await openDevice("cpu");
  using sampler = await Sampler.create(device, readModel(file), options);
  return (await sampler.sample(run)).data;
}

/** A tab of an empty page, in which an expression is run. */
async function runIn<R>(
  headers: Record<string, string>,
  flags: string[],
  work: string,
): Promise<R> {
  await using site = serve({ ...headers, "Cache-Control": "no-store" }, files);
  await using browser = await Chromium.start(flags);
  await using tab = await browser.open();
  await tab.go(`${site.url}/empty.html`);
  await tab.until(`document.title === "library"`);
  return await tab.run(work);
}

Deno.test("seed 7 of mnist in a tab is what it is in Deno", async () => {
  const options = { steps: 20, batchSize: 4 }, run = { count: 4, seed: 7, labels: [3, 1, 4, 1] };
  const { name, notices, data } = await runIn<Made>(
    isolated,
    [],
    sampleThere("cpu", "mnist", options, run),
  );
  assertMatch(name, /^CPU, [2-9]\d* threads/);
  assertEquals(notices, []);
  const file = await Deno.readFile(new URL("../../data/mnist.safetensors", import.meta.url));
  const expected = await sampleHere(file, options, run);
  assert(Math.max(...expected) > 0.9 && Math.min(...expected) < -0.9);
  assertClose(Float32Array.from(data), expected, 1e-3);
});

Deno.test("a GPU in a Worker of a tab makes the pictures of the CPU", async () => {
  const options = { steps: 3, batchSize: 2 }, run = { count: 2, seed: 7 };
  const { name, data } = await runIn<Made>(
    {},
    GPU_FLAGS,
    sampleThere("gpu", "tiny", options, run),
  );
  assertMatch(name, /swiftshader/i);
  const expected = await sampleHere(files["tiny.safetensors"], options, run);
  assertClose(Float32Array.from(data), expected, 1e-3);
});

Deno.test("a policy without worker-src blob: leaves one thread, and that is told", async () => {
  const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'";
  const options = { steps: 1 }, run = { seed: 7 };
  const { name, notices } = await runIn<Made>(
    { ...isolated, "Content-Security-Policy": policy },
    [],
    sampleThere("cpu", "tiny", options, run),
  );
  assertMatch(name, /^CPU, 1 thread /);
  assertMatch(notices.join(), /^one thread instead of \d+: .*must allow worker-src blob:$/);
});

Deno.test("a run in a Worker of a tab answers its signal soon, with threads too", async () => {
  const waits = await runIn<number[]>(
    isolated,
    [],
    `(async () => {
      const { openWorker } = await import("/library.js"), waits = [];
      const worker = new Worker("/serve.js", { type: "module" });
      const device = await openWorker("cpu", { worker });
      const model = await device.load(new URL("/mnist.safetensors", location.href));
      const sampler = await model.sampler({ steps: 200, batchSize: 4 });
      for (let round = 0; round < 5; round++) {
        const stop = new AbortController();
        let began;
        setTimeout(() => { began = performance.now(); stop.abort(); }, 300);
        const labels = [0, 1, 2, 3];
        await sampler.sample({ count: 4, labels }, { signal: stop.signal });
        waits.push(Math.round(performance.now() - began));
      }
      device[Symbol.dispose]();
      return waits;
    })()`,
  );
  // deno-lint-ignore no-console
  console.log(`aborts answered after ${waits.join(", ")} ms`);
  assert(Math.min(...waits) <= 100, `${waits}`);
});
