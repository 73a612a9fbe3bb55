import { assert, assertEquals, assertMatch } from "@std/assert";
import { dirname, fromFileUrl, join, relative, resolve } from "@std/path";
import * as library from "../mod.ts";
import manifest from "../deno.json" with { type: "json" };
import { Registry } from "./registry.ts";

const root = fromFileUrl(new URL("..", import.meta.url));

/** Runs Deno, which must succeed; returns what it printed. */
async function deno(
  args: readonly string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args: [...args], cwd: options.cwd ?? root, stdin: "null" },
    env: { NO_COLOR: "1", ...options.env },
  }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(code, 0, `deno ${args.join(" ")} failed: ${out}${err}`);
  return out;
}

/** A folder that is gone after the test. */
async function temporaryFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await Deno.makeTempDir({ prefix: "ddpm-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** The source files below a folder, by their paths from the root. */
async function readSources(folder: string): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  for await (const { name, isDirectory } of Deno.readDir(join(root, folder))) {
    const path = `${folder}/${name}`;
    if (isDirectory) { for (const entry of await readSources(path)) sources.set(...entry); }
    else if (name.endsWith(".ts")) sources.set(path, await Deno.readTextFile(join(root, path)));
  }
  return sources;
}

const withoutComments = (source: string) => source.replace(/\/\*[^]*?\*\/|^\s*\/\/.*$/gm, "");

/** What a source file imports. */
const importsOf = (source: string): string[] =>
  [...withoutComments(source).matchAll(/\b(?:from|import)\s*\(?\s*"([^",]+)"/g)].map((m) => m[1]);

/** The part of the house that a file of `src` belongs to. */
function partOf(path: string): string {
  const [, part] = path.split("/");
  return part === "cli.ts" ? "cli" : part.endsWith(".ts") ? "ground" : part;
}

/** What each part may import, beside itself. The ground is errors, shapes and the
 * reading of settings. */
const below: Record<string, readonly string[]> = {
  ground: [],
  text: ["ground"],
  formats: ["ground"],
  gpu: ["ground"],
  data: ["ground", "formats", "gpu"],
  diffusion: ["ground", "gpu"],
  model: ["ground", "text", "formats", "gpu", "diffusion"],
  sample: ["ground", "text", "formats", "gpu", "data", "diffusion", "model"],
  train: ["ground", "text", "formats", "gpu", "data", "diffusion", "model"],
  worker: ["ground", "text", "formats", "gpu", "data", "diffusion", "model", "sample", "train"],
  page: ["ground", "formats", "gpu", "data", "model", "sample", "worker"],
  evaluate: ["ground", "formats", "gpu", "data", "diffusion", "model", "sample"],
  cli: [
    ...["ground", "text", "formats", "gpu", "data", "diffusion", "model", "sample", "train"],
    ...["worker", "evaluate"],
  ],
};

Deno.test("imports go one way: text, formats, gpu, data, diffusion, model, train and sample, worker, evaluate, cli", async () => {
  for (const [path, source] of await readSources("src")) {
    const part = partOf(path);
    assert(below[part], `${path} is in no known folder`);
    for (const specifier of importsOf(source)) {
      if (specifier.startsWith(".")) {
        const target = relative(root, resolve(root, dirname(path), specifier));
        if (!target.startsWith("src")) continue;
        const other = partOf(target.replaceAll("\\", "/"));
        assert(other === part || below[part].includes(other), `${path} imports ${specifier}`);
      } else if (part !== "cli") {
        assertEquals(specifier, "zod", `${path} imports ${specifier}`);
      }
    }
  }
});

/** What knows both targets: where devices are opened, and the types of what an operation has for each. */
const joints = ["src/gpu/open.ts", "src/gpu/op.ts"];

Deno.test("what is the same for all targets imports nothing of WebGPU's or WebAssembly's", async () => {
  for (const [path, source] of await readSources("src/gpu")) {
    // An operation's file is where its kernels for each target are named.
    if (/^src\/gpu\/(wgsl|wasm|ops)\//.test(path) || joints.includes(path)) continue;
    const own = importsOf(source).filter((specifier) => /\/(wgsl|wasm)\//.test(specifier));
    assertEquals(own, [], path);
  }
  const contract = await Deno.readTextFile(join(root, "src/gpu/op.ts"));
  const values = withoutComments(contract).replace(/^import type .*$/gm, "");
  assertEquals(importsOf(values), [], "the contract of operations imports types only");
});

Deno.test("targets know nothing of each other", async () => {
  for (const [target, other] of [["wgsl", "wasm"], ["wasm", "wgsl"]]) {
    for (const [path, source] of await readSources(`src/gpu/${target}`)) {
      const foreign = importsOf(source).filter((specifier) => specifier.includes(`/${other}/`));
      assertEquals(foreign, [], path);
    }
  }
});

Deno.test("the check of imports sees imports of every kind", () => {
  const source = `
    import { a } from "./a.ts";
    import type { B } from "./b.ts";
    import "./c.ts";
    export * from "./d.ts";
    const e = await import("./e.ts");
    import {
      f,
    } from "./f.ts";
    // import "./g.ts";
    /** import { h } from "./h.ts"; */
  `;
  assertEquals(importsOf(source), ["a", "b", "c", "d", "e", "f"].map((name) => `./${name}.ts`));
});

Deno.test("the library calls nothing of Deno's, and no source has a type any", async () => {
  for (const [path, source] of await readSources("src")) {
    if (partOf(path) !== "cli") assert(!/\bDeno\.\w/.test(source), `${path} mentions Deno`);
    const any = withoutComments(source).match(/.*(?::|<|\bas|[|&,(=]|=>)\s*any\b.*/);
    assert(!any, `${path} has a type any: ${any?.[0]}`);
  }
});

Deno.test("the library is one file for the browser, and needs nothing that Node 20 lacks", async () => {
  await using folder = await temporaryFolder();
  const entry = join(folder.path, "library.ts"), bundle = join(folder.path, "library.js");
  await Deno.writeTextFile(entry, `export * from "${new URL("../mod.ts", import.meta.url)}";`);
  const config = ["--config", join(root, "deno.json")];
  await deno(["bundle", ...config, "--platform", "browser", "--minify", "-o", bundle, entry]);

  const text = await Deno.readTextFile(bundle);
  assertEquals(text.match(/.{0,80}\bDeno\..{0,80}/)?.[0], undefined);
  await Deno.writeTextFile(
    join(folder.path, "page.js"),
    `delete globalThis.Deno;
    for (const name of ["Float16Array", "DisposableStack", "AsyncDisposableStack"]) {
      delete globalThis[name];
    }
    for (const group of [Map, Object]) delete group.groupBy;
    for (const name of ["withResolvers", "try"]) delete Promise[name];
    for (const name of ["toBase64", "toHex"]) delete Uint8Array.prototype[name];
    delete Array.fromAsync;
    const helpers = Object.getOwnPropertyNames(Iterator.prototype);
    for (const name of helpers) if (name !== "constructor") delete Iterator.prototype[name];
    const library = await import("./library.js");
    const { initializeModel, makeGrid, openDevice, parseModel, parseNetwork, Sampler } = library;
    const network = parseNetwork({ sample_size: 8, block_out_channels: [8], norm_num_groups: 4,
      down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] });
    const notices = [], onNotice = (notice) => notices.push(notice);
    const device = await openDevice("cpu", { threads: 2, onNotice });
    const file = library.serializeModel(initializeModel(network, {}, 0), "F16");
    const options = { steps: 1, weightDType: "f16" };
    const sampler = await Sampler.create(device, parseModel(file), options);
    const { width } = makeGrid(await sampler.sample({ count: 1 }));
    const names = Object.keys(library), { name } = device;
    device[Symbol.dispose]();
    console.log(JSON.stringify({ width, names, notices, name }));`,
  );
  const { width, names, notices, name } = JSON.parse(
    await deno(["run", "-A", join(folder.path, "page.js")]),
  );
  assertEquals(width, 10);
  // Threads need no file of their own, and minifying leaves their program whole.
  assertEquals([name, notices], ["CPU, 2 threads (WebAssembly)", []]);
  assertEquals(names.sort(), Object.keys(library).sort());
});

Deno.test("the package works from a registry, as a program and as a library", async () => {
  await using folder = await temporaryFolder();
  await using registry = await new Registry();
  for (const name of ["assert", "cli", "path"]) {
    await registry.addFolder(join(root, "tests", "std", name));
  }
  const publish = ["publish", "--token", "any", "--allow-dirty", "--no-check"];
  await deno(publish, { env: { JSR_URL: registry.url } });
  const files = registry.filesOf(manifest.name);
  assert(files.includes("/mod.ts") && files.includes("/data/mnist.safetensors"));
  for (const path of files) {
    assertMatch(path, /^\/((src|data)\/.*|(README|CHANGELOG)\.md|LICENSE|deno\.json|mod\.ts)$/);
  }

  // Nothing is known yet of jsr: packages; those of npm are where they always are.
  const { npmCache } = JSON.parse(await deno(["info", "--json"]));
  const cache = join(folder.path, "cache");
  await Deno.mkdir(cache);
  await Deno.symlink(npmCache, join(cache, "npm"));
  const options = { cwd: folder.path, env: { JSR_URL: registry.url, DENO_DIR: cache } };
  const flags = ["--count", "1", "--steps", "2", "--out", "x.png"];
  const told = await deno(["run", "-A", `jsr:${manifest.name}`, "sample", ...flags], options);
  assertMatch(told, /^x\.png: 1 image in /);
  assertEquals((await Deno.readFile(join(folder.path, "x.png"))).subarray(1, 4), ascii("PNG"));

  // Its threads are modules of their own.
  const info = ["info", "--device", "cpu", "--json"];
  assertEquals(
    await deno(["run", "-A", `jsr:${manifest.name}`, ...info], options),
    await deno(["run", "-A", "mod.ts", ...info]),
  );

  await Deno.writeTextFile(
    join(folder.path, "program.ts"),
    `import { fetchModel, type Model, parseNetwork } from "jsr:${manifest.name}";
    const model: Model = await fetchModel("mnist");
    console.log(parseNetwork({}).itemShape, model.network.itemShape);`,
  );
  assertEquals(
    await deno(["run", "-A", "--check", "program.ts"], options),
    "[ null, null, 3 ] [ 28, 28, 1 ]\n",
  );
});

const ascii = (text: string) => new TextEncoder().encode(text);

Deno.test("the change log tells of this version", async () => {
  const log = await Deno.readTextFile(join(root, "CHANGELOG.md"));
  assertEquals(log.match(/^## (\S+)/m)?.[1], manifest.version);
});
