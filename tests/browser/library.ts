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
import { Chromium, GPU_FLAGS, type Tab } from "./chromium.ts";
import { isolated, serve } from "./server.ts";
import { tinyModel } from "./tiny_model.ts";

const files = {
  "empty.html": "<!DOCTYPE html><title>library</title>",
  "library.js": await bundle("src/worker/mod.ts"),
  "serve.js": await bundle("src/worker/serve.ts"),
  "broken.js": "let = 5 +;",
  "throws.js": "nothing.at.all();",
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

/** Does something with a tab of an empty page. */
async function withTab<R>(
  headers: Record<string, string>,
  flags: string[],
  work: (tab: Tab) => Promise<R>,
): Promise<R> {
  await using site = serve({ ...headers, "Cache-Control": "no-store" }, files);
  await using browser = await Chromium.start(flags);
  await using tab = await browser.open();
  await tab.go(`${site.url}/empty.html`);
  await tab.until(`document.title === "library"`);
  return await work(tab);
}

/** The value of an expression in such a tab. */
const runIn = <R>(headers: Record<string, string>, flags: string[], expression: string) =>
  withTab(headers, flags, (tab) => tab.run<R>(expression));

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

Deno.test("a Worker that does not start is told with what the browser tells, or with all causes", async () => {
  const start = (program: string) =>
    `(async () => {
      const { openWorker } = await import("/library.js");
      const worker = new Worker(${program}, { type: "module" });
      return await openWorker("cpu", { worker }).catch(({ name, message }) => name + ": " + message);
    })()`;
  const blob = 'URL.createObjectURL(new Blob([""], { type: "text/javascript" }))';
  const policy = { "Content-Security-Policy": "default-src 'self'" };
  for (const [headers, program] of [[{}, '"/broken.js"'], [{}, '"/none.js"'], [policy, blob]]) {
    const told = await runIn<string>(headers as typeof policy, [], start(program as string));
    assertMatch(told, /^DeviceError: The Worker failed: .*worker-src blob:.* or .*unknown here$/);
  }
  const told = await runIn<string>({}, [], start('"/throws.js"'));
  assertMatch(told, /^DeviceError: .*nothing is not defined \(http:.*\/throws\.js\)$/);
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

/** A Worker whose WebGPU devices end when it is sent `{ destroy: true }`. */
const MORTAL = `const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...settings) {
    const device = await request.apply(this, settings);
    addEventListener("message", ({ data }) => data.destroy && device.destroy());
    return device;
  };`;

Deno.test("a GPU that a Worker loses in a run is told, and another Worker goes on", async () => {
  await withTab({}, GPU_FLAGS, async (tab) => {
    await tab.run(`globalThis.open = async (steps) => {
      const { openWorker } = await import("/library.js");
      const program = await (await fetch("/serve.js")).text();
      const blob = new Blob([${JSON.stringify(MORTAL)}, program], { type: "text/javascript" });
      const worker = new Worker(URL.createObjectURL(blob), { type: "module" });
      const device = await openWorker("gpu", { worker });
      const model = await device.load(new URL("/tiny.safetensors", location.href));
      return { worker, device, sampler: await model.sampler({ steps }) };
    }`);
    await tab.run("open(20).then((opened) => { globalThis.first = opened; })");
    const isLost = `(async () => {
      for await (const { step } of first.sampler.stream()) {
        if (step === 1) first.worker.postMessage({ destroy: true });
      }
    })().catch(({ constructor: { name }, message }) => name + ": " + message)`;
    const lost = await tab.run<string>(isLost);
    assertMatch(lost, /lost \(destroyed\)/);
    assertEquals(await tab.run(isLost), lost);
    await tab.run("first.device[Symbol.dispose]()");
    await tab.run("open(1).then((opened) => { globalThis.second = opened; })");
    assertEquals(await tab.run("second.sampler.sample().then(({ count }) => count)"), 1);
  });
});

Deno.test("what has no room in a Worker says what would have, and the next run works", async () => {
  for (const [kind, flags] of [["cpu", []], ["gpu", GPU_FLAGS]] as const) {
    const told = await runIn<{ errors: [string, number, number][]; count: number }>(
      isolated,
      [...flags],
      `(async () => {
        const { openWorker } = await import("/library.js");
        const device = await openWorker("${kind}", {
          worker: new Worker("/serve.js", { type: "module" }),
        });
        const model = await device.load(new URL("/tiny.safetensors", location.href));
        const errors = [];
        for (const batchSize of [2 ** 17, 2 ** 22]) {
          await model.sampler({ steps: 2, batchSize })
            .catch(({ message, wanted, limit }) => errors.push([message, wanted, limit]));
        }
        const { count } = await (await model.sampler({ steps: 2 })).sample();
        device[Symbol.dispose]();
        return { errors, count };
      })()`,
    );
    assertEquals([told.errors.length, told.count], [2, 1], kind);
    for (const [message, wanted, limit] of told.errors) {
      assert(wanted > limit && limit > 0, message);
      assertMatch(message, /\d.*(allows|gives) .*\d/);
    }
  }
});
