import { assert, assertEquals, assertMatch } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { SUPER_RESOLUTION } from "../../src/model/super_resolution.ts";
import { Folder, imagesFile, tinyModelFile, tinyUNet } from "./cli.ts";
import { checkpoint, HubServer } from "./hub_server.ts";

const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));

/** The flags of README's table, by its first column. */
const table = new Map(
  readme.split(/^## Permissions$/m)[1].split(/^## /m)[0].split("\n")
    .filter((line) => line.startsWith("|")).slice(2)
    .map((line) => line.split("|").map((cell) => cell.trim()))
    .map(([, command, flags]) => [command, flags.match(/`([^`]*)`/)![1].split(" ")]),
);

const short = ["--steps", "2", "--device", "cpu"];
const sample = ["sample", "--model", "MODEL", "--count", "1", ...short, "--out", "OUT"];

/** Commands for the rows of the table; words in capitals become paths. */
const commands: Readonly<Record<string, readonly (readonly [args: string[], out: string])[]>> = {
  "`sample`, `interpolate`": [
    [sample, "x.safetensors"],
    [sample, "x.png"],
    [sample, "x.apng"],
    [
      [
        "interpolate",
        "--model",
        "MODEL",
        "--seeds",
        "1,2",
        "--count",
        "2",
        ...short,
        "--out",
        "OUT",
      ],
      "x.png",
    ],
  ],
  "the same to a `.gif`": [[sample, "x.gif"]],
  "the same to a folder": [[sample, "pictures"]],
  "`restore`, `upscale`, `--init`": [
    [[...sample, "--init", "IMAGE"], "x.png"],
    [
      ["restore", "IMAGE", "--task", "colorize", "--model", "MODEL", ...short, "--out", "OUT"],
      "x.png",
    ],
    [["upscale", "IMAGE", "--model", "MODEL", ...short, "--out", "OUT"], "x.png"],
  ],
  "`train`": [[
    [
      "train",
      "--data",
      "DATA",
      "--config",
      "tiny",
      "--steps",
      "1",
      "--out",
      "OUT",
      "--device",
      "cpu",
    ],
    "run",
  ]],
  "`eval`": [[["eval", "--model", "MODEL", "--data", "DATA", "--count", "1", ...short], ""]],
  "`export`": [[["export", "MODEL", "--out", "ABOVE/OUT"], "made"]],
  "`info MODEL`": [[["info", "MODEL", "--device", "cpu"], ""]],
};

/** A folder with a model as a file and as a folder, a picture, and data. */
async function makeScene(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile(3));
  await folder.write("d.idx", imagesFile());
  const sizes = { sample_size: 16, in_channels: 3, out_channels: 3, factor: 2 };
  const upscaler = parseNetwork({ _class_name: SUPER_RESOLUTION, ...tinyUNet, ...sizes });
  await folder.write("up.safetensors", serializeModel(initializeModel(upscaler, {}, 0)));
  for (const [path, content] of checkpoint()) {
    await Deno.mkdir(folder.at(`pipe/${path}`).replace(/[^/]*$/, ""), { recursive: true });
    await folder.write(`pipe/${path}`, content);
  }
  const paint = ["sample", "--model", "m.safetensors", "--count", "1", ...short, "--out", "i"];
  await folder.succeed(...paint);
  return folder;
}

/** Words in capitals replaced by paths. */
const place = (words: readonly string[], paths: Readonly<Record<string, string>>) =>
  words.map((word) => word.replace(/\b[A-Z]{3,}\b/g, (name) => paths[name] ?? name));

Deno.test("every command works with the permissions that README's table gives for it, and no more", async () => {
  const others = ["with `hf:owner/name`", "`serve`"];
  assertEquals([...Object.keys(commands), ...others].sort(), [...table.keys()].sort());
  for (const [row, runs] of Object.entries(commands)) {
    for (const [args, out] of runs) {
      await using folder = await makeScene();
      const isGrey = args.includes("DATA");
      const model = args[0] === "upscale"
        ? "up.safetensors"
        : isGrey || args.includes("IMAGE")
        ? "m.safetensors"
        : "pipe";
      if (isGrey) await folder.write("m.safetensors", tinyModelFile());
      const paths = { MODEL: model, OUT: out, DATA: "d.idx", IMAGE: "i/0000.png", ABOVE: "." };
      const flags = place(table.get(row)!, paths), line = place(args, paths);
      const { code, stderr } = await folder.runWith(flags, ...line);
      assertEquals(code, 0, `${flags.join(" ")} ${line.join(" ")}: ${stderr}`);
      assert(!stderr.includes("Uncaught"), stderr);
      if (out) assert((await Deno.stat(folder.at(out))).size > 0, `${line}`);
      // With one of them less, it says what it may not do.
      for (const flag of flags) {
        if (out) await Deno.remove(folder.at(out), { recursive: true }).catch(() => {});
        const less = await folder.runWith(flags.filter((other) => other !== flag), ...line);
        assertMatch(`${less.code} ${less.stderr}`, /^[12] [^]*(permission|Requires|give Deno)/);
      }
    }
  }
});

Deno.test("a picture is the same with few permissions as with all, and so is one that is replaced", async () => {
  await using folder = await makeScene();
  const args = ["sample", "--model", "m.safetensors", "--count", "1", ...short, "--out", "x.png"];
  await folder.succeed(...args);
  const all = await Deno.readFile(folder.at("x.png"));
  await folder.write("x.png", "something longer than nothing");
  const few = ["--allow-read=m.safetensors", "--allow-write=x.png"];
  const { code, stderr } = await folder.runWith(few, ...args);
  assertEquals(code, 0, stderr);
  assertEquals(await Deno.readFile(folder.at("x.png")), all);
});

Deno.test("a model of the hub needs the network, the environment and its cache", async () => {
  await using folder = await makeScene();
  await using hub = new HubServer();
  const cache = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" };
  Object.assign(folder.env, cache);
  const paths = { CACHE: "cache", OUT: "x.safetensors" };
  const flags = [
    ...place(table.get("with `hf:owner/name`")!, paths),
    "--allow-write=x.safetensors",
  ];
  const line = place([...sample], { ...paths, MODEL: "hf:google/tiny" });
  const { code, stderr } = await folder.runWith(flags, ...line);
  assertEquals(code, 0, stderr);
  const without = async (flag: string, message: RegExp) => {
    const left = flags.filter((other) => !other.startsWith(flag));
    assert(left.length < flags.length);
    const { code, stderr } = await folder.runWith(left, ...line);
    assertMatch(stderr, message);
    return code;
  };
  assertEquals(await without("--allow-env", /nothing tells where its cache is; set HF_HUB_C/), 2);
  // It was fetched before.
  assertEquals(
    await without("--allow-net", /^taking what was .* give it --allow-net, at least/m),
    0,
  );
  assertEquals(await without("--allow-read", /Deno was not given permission/), 2);
});

Deno.test("a server needs its address, its models and the page, and says what it lacks", async () => {
  await using folder = await makeScene();
  const page = fromFileUrl(new URL("../../data/page.html", import.meta.url));
  const port = freePort(), paths = { MODEL: "m.safetensors", PAGE: page };
  const flags = place(table.get("`serve`")!, { ...paths, HOST: `127.0.0.1:${port}` });
  const line = ["serve", "--model", "m.safetensors", "--device", "cpu", "--port", `${port}`];
  await using child = folder.startUnder([], line, flags);
  const stderr = new Response(child.stderr).text(), reader = child.stdout.getReader();
  const { value } = await reader.read();
  assert(value);
  const url = `http://127.0.0.1:${port}/`;
  assertMatch(await (await fetch(url)).text(), /^<!DOCTYPE html>/);
  const body = JSON.stringify({ steps: 2, count: 2 }),
    headers = { "Content-Type": "application/json" };
  const { id } = await (await fetch(`${url}api/jobs`, { method: "POST", body, headers })).json();
  assertMatch(await (await fetch(`${url}api/jobs/${id}/events`)).text(), /"state":"done"/);
  const picture = await fetch(`${url}api/jobs/${id}/images/1`);
  assertEquals((await picture.blob()).type, "image/png");
  child.kill("SIGINT");
  assertEquals((await child.status).code, 0);
  await reader.cancel();
  assertMatch(await stderr, /^note: requests wait while a network is evaluated/);
  for (
    const less of [flags.slice(1), flags.slice(0, 1), [flags[0], "--allow-read=m.safetensors"]]
  ) {
    const { code, stderr } = await folder.runWith(less, ...line);
    assertMatch(`${code} ${stderr}`, /^[12] (note: [^\n]*\n)?error: [^\n]*permission[^\n]*\n$/);
  }
});

/** A port that nobody uses just now. */
function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  return port;
}

Deno.test("threads need no permission", async () => {
  await using folder = await makeScene();
  const line = ["sample", "--model", "m.safetensors", "--count", "1", ...short, "--out", "x.png"];
  const few = ["--allow-read=m.safetensors", "--allow-write=x.png"];
  // Fewer threads than are wanted would be told.
  const { code, stderr } = await folder.runWith(few, ...line, "--threads", "3");
  assertEquals([code, stderr], [0, ""]);
});
