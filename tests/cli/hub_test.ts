import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { openHub } from "../../src/cli/hub/hub_folder.ts";
import { parseHubPlace } from "../../src/cli/hub/place.ts";
import type { HubSettings } from "../../src/cli/hub/settings.ts";
import { loadFolder } from "../../src/cli/run/model_folder.ts";
import { InputError } from "../../src/errors.ts";
import { readParameter } from "../../src/model/parameters.ts";
import { Folder, tinyModel } from "./cli.ts";
import { COMMIT, cut, etagOf, type Fault, HubServer, WEIGHTS } from "./hub_server.ts";

const PLACE = "hf:google/tiny", REPOSITORY = "cache/models--google--tiny";
/** What is needed of a checkpoint; weights come last. */
const NEEDED = [
  ...["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"],
  WEIGHTS,
];

/** A hub, and a cache for what is fetched from it. */
class Scene implements AsyncDisposable {
  readonly hub = new HubServer();
  /** How long waits between tries were, in milliseconds. */
  readonly waits: number[] = [];
  readonly folder: Folder;

  private constructor(folder: Folder) {
    this.folder = folder;
    Object.assign(folder.env, {
      ...{ HF_ENDPOINT: this.hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" },
      ...{ HF_TOKEN: "", HF_TOKEN_PATH: folder.at("token") },
    });
  }

  static make = async () => new Scene(await Folder.make());

  settings(changes: Partial<HubSettings> = {}): HubSettings {
    const cache = this.folder.at("cache");
    return { endpoint: this.hub.endpoint, cache, isOffline: false, ...changes };
  }

  /** Loads the model, and reads a weight. */
  async load(place = PLACE, changes: Partial<HubSettings> = {}): Promise<number> {
    const wait = (ms: number) => Promise.resolve(this.waits.push(ms));
    const { folder } = await openHub(place, this.settings(changes), wait);
    const { network, parameters } = await loadFolder(folder);
    return readParameter(network.layout, parameters, 0)[0];
  }

  /** The message of an error of loading, which is one line. */
  async fail(changes: Partial<HubSettings> = {}): Promise<string> {
    const { message } = await assertRejects(() => this.load(PLACE, changes), Error);
    assert(!message.includes("\n"), message);
    return message;
  }

  read = (path: string) => Deno.readFile(this.folder.at(`${REPOSITORY}/${path}`));
  readText = (path: string) => Deno.readTextFile(this.folder.at(`${REPOSITORY}/${path}`));

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

const first = (() => {
  const { network, parameters } = tinyModel();
  return readParameter(network.layout, parameters, 0)[0];
})();

/** A fault for what the store is asked. */
const ofStore = (answer: (count: number) => Response | undefined): Fault => {
  let count = 0;
  return ({ host }) => host === "store" ? answer(++count) : undefined;
};
/** A fault for everything. */
const always = (status: number, headers: Record<string, string> = {}): Fault => () =>
  new Response("", { status, headers });

Deno.test("names of the hub have an owner, a name, a revision and a path", () => {
  const cases: Record<string, [string, string, string, string]> = {
    "hf:google/ddpm-cifar10-32": ["google", "ddpm-cifar10-32", "main", ""],
    "hf:a/b@v1.0": ["a", "b", "v1.0", ""],
    "hf:a/b@refs/pr/12/unet": ["a", "b", "refs/pr/12", "unet"],
    "hf:a/b@refs/pr/12": ["a", "b", "refs/pr/12", ""],
    "hf:a/b@my%2Fbranch/x/y.safetensors": ["a", "b", "my/branch", "x/y.safetensors"],
    "hf:a/b/checkpoint-5/": ["a", "b", "main", "checkpoint-5"],
  };
  for (const [text, expected] of Object.entries(cases)) {
    const { owner, name, revision, path } = parseHubPlace(text);
    assertEquals([owner, name, revision, path], expected, text);
  }
  const bad = [
    "hf:",
    "hf:a",
    "hf:/b",
    "hf:../b",
    "hf:a/..",
    "hf:a/b@",
    "hf:a/b@../x",
    "hf:a/b/../c",
  ];
  for (
    const text of [...bad, "hf:a--b/c", "hf:a/b//c", "hf:a/b/C:/x", "hf:a/b/x\\y", "hf:a/b@.."]
  ) {
    let message = "";
    try {
      parseHubPlace(text);
    } catch (error) {
      assert(error instanceof InputError);
      message = error.message;
    }
    assertMatch(message, /^Cannot load the model hf:.*models of the hub are hf:owner\/name/, text);
  }
});

Deno.test("of a model only what is needed is fetched, once, and kept as Python keeps it", async () => {
  await using scene = await Scene.make();
  const { hub } = scene;
  assertEquals(await scene.load(), first);
  assertEquals(hub.fetched, NEEDED, "no pickle, no pictures, and weights last");
  assertEquals(await scene.readText("refs/main"), COMMIT);
  for (const path of NEEDED) {
    const bytes = hub.files.get(path)!, etag = etagOf(path, bytes);
    assertEquals(await scene.read(`snapshots/${COMMIT}/${path}`), bytes);
    const link = await Deno.readLink(scene.folder.at(`${REPOSITORY}/snapshots/${COMMIT}/${path}`));
    assertEquals(link, `${"../".repeat(path.split("/").length + 1)}blobs/${etag}`);
    assertEquals(await scene.read(`blobs/${etag}`), bytes);
  }
  assertEquals(await scene.load(), first);
  assertEquals(await scene.load(`${PLACE}@${COMMIT}`), first);
  assertEquals(await scene.load(`${PLACE}@v1`), first);
  assertEquals(hub.fetched, NEEDED, "what is there is not fetched again");
  assertEquals(await scene.readText("refs/v1").catch(() => "none"), "none");
});

Deno.test("what Python fetched is not fetched again, and the other way round offline", async () => {
  await using scene = await Scene.make();
  const { hub } = scene, snapshot = `${REPOSITORY}/snapshots/${COMMIT}`;
  for (const path of NEEDED) {
    const bytes = hub.files.get(path)!, target = scene.folder.at(`${snapshot}/${path}`);
    const blob = scene.folder.at(`${REPOSITORY}/blobs/${etagOf(path, bytes)}`);
    for (const at of [target, blob]) {
      await Deno.mkdir(at.replace(/[^/]*$/, ""), { recursive: true });
    }
    await Deno.writeFile(blob, bytes);
    await Deno.symlink(`../../../blobs/${etagOf(path, bytes)}`, target);
  }
  await Deno.mkdir(scene.folder.at(`${REPOSITORY}/refs`));
  await scene.folder.write(`${REPOSITORY}/refs/main`, COMMIT);
  assertEquals(await scene.load(PLACE, { isOffline: true }), first);
  assertEquals(hub.asked, [], "nothing is asked offline");
  assertEquals(await scene.load(), first);
  assertEquals([hub.asked.length, hub.fetched], [1, []]);
});

Deno.test("a content that is there under another commit is linked, not fetched", async () => {
  await using scene = await Scene.make();
  await scene.load();
  const next = "f".repeat(40);
  scene.hub.describe = (answer) => ({ ...answer, sha: next });
  assertEquals(await scene.load(), first);
  assertEquals(scene.hub.fetched, NEEDED);
  assertEquals(
    await scene.readText(`snapshots/${next}/unet/config.json`).then(JSON.parse),
    JSON.parse(await scene.readText(`snapshots/${COMMIT}/unet/config.json`)),
  );
});

Deno.test("a folder, a file and a revision of a repository can be named", async () => {
  await using scene = await Scene.make();
  for (const place of [`${PLACE}@refs/pr/1`, `${PLACE}/unet`, `${PLACE}@main/${WEIGHTS}`]) {
    assertEquals(await scene.load(place), first, place);
  }
  await assertRejects(
    () => scene.load(`${PLACE}/vae`),
    InputError,
    "there is no vae in it, but README.md, model_index.json, samples, scheduler, unet",
  );
});

Deno.test("the token goes to the hub and not to the host that it redirects to", async () => {
  await using scene = await Scene.make();
  await scene.load(PLACE, { token: { text: "hf_secret", from: "HF_TOKEN" } });
  const tokens = (host: string) =>
    new Set(scene.hub.asked.filter((asked) => asked.host === host).map(({ token }) => token));
  assertEquals([...tokens("hub")], ["Bearer hf_secret"]);
  assertEquals([...tokens("store")], [null]);
});

Deno.test("a connection that is cut goes on where it was", async () => {
  await using scene = await Scene.make();
  const weights = scene.hub.files.get(WEIGHTS)!, etag = etagOf(WEIGHTS, weights);
  scene.hub.fault = ofStore((count) => count <= 2 ? cut(weights.slice(0, 1000)) : undefined);
  assertEquals(await scene.load(), first);
  assertEquals(await scene.read(`blobs/${etag}`), weights);
  assert(scene.waits.length >= 1);
  // As another process left it.
  await using other = await Scene.make();
  await other.load(`${PLACE}/scheduler`).catch(() => {});
  await Deno.mkdir(other.folder.at(`${REPOSITORY}/blobs`), { recursive: true });
  await other.folder.write(`${REPOSITORY}/blobs/${etag}.incomplete`, weights.slice(0, 5000));
  assertEquals(await other.load(), first);
  const { range } = other.hub.asked.find(({ host }) => host === "store")!;
  assertEquals(range, "bytes=5000-");
});

Deno.test("what is not what was published is refused, and nothing of it is kept", async () => {
  await using scene = await Scene.make();
  const { hub } = scene, weights = hub.files.get(WEIGHTS)!, config = "unet/config.json";
  const damaged = (bytes: Uint8Array<ArrayBuffer>) => bytes.with(100, bytes[100] ^ 1);
  const cases: [string, Uint8Array<ArrayBuffer>, RegExp][] = [
    [config, damaged(hub.files.get(config)!), /its git SHA-1 is [0-9a-f]{40}, but .* tries again$/],
    [WEIGHTS, damaged(weights), /its SHA-256 is [0-9a-f]{64}, but .* tries again$/],
    [WEIGHTS, weights.slice(1), /it has [\d.,]+ .*, but [\d.,]+ .* were published$/],
    [WEIGHTS, new Uint8Array(weights.length + 1), /but .* were published$/],
  ];
  for (const [path, content, message] of cases) {
    hub.content.set(path, content);
    assertMatch(await scene.fail(), message);
    hub.content.clear();
    const blobs = [...Deno.readDirSync(scene.folder.at(`${REPOSITORY}/blobs`))].map((b) => b.name);
    assert(!blobs.some((name) => name.startsWith(etagOf(path, hub.files.get(path)!))), path);
  }
  assertEquals(await scene.load(), first);
});

Deno.test("a file that changes between the answers is refused", async () => {
  await using scene = await Scene.make();
  scene.hub.fault = ({ path }) =>
    path.endsWith("unet/config.json")
      ? new Response("{}", { headers: { etag: `"${"a".repeat(40)}"` } })
      : undefined;
  assertMatch(await scene.fail(), /it changed meanwhile; the same command tries again$/);
});

const token = { text: "hf_secret", from: "HF_TOKEN" };
const refusals: readonly [string, Fault, Partial<HubSettings>, RegExp][] = [
  [
    "404, no such model",
    always(404, { "x-error-code": "RepoNotFound" }),
    {},
    /there is no model google\/tiny at http:.*check its name, or set HF_TOKEN to a token that may/,
  ],
  [
    "401, as the hub answers for private models",
    always(401, { "x-error-code": "RepoNotFound" }),
    { token },
    /or it is private: check its name, and whether the token of HF_TOKEN may read it/,
  ],
  ["401, a bad token", always(401), { token }, /the token of HF_TOKEN is not valid; make a new/],
  [
    "403, gated",
    always(403, { "x-error-code": "GatedRepo" }),
    {},
    /accept conditions: do so at http:.*\/google\/tiny, and set HF_TOKEN to a token$/,
  ],
  [
    "403, gated for this token",
    always(403, { "x-error-code": "GatedRepo" }),
    { token },
    /and check that the token of HF_TOKEN may read it$/,
  ],
  [
    "404, no such revision",
    always(404, { "x-error-code": "RevisionNotFound" }),
    {},
    /it has no branch, tag or commit main; http:.*\/google\/tiny lists them/,
  ],
];

for (const [what, fault, changes, message] of refusals) {
  Deno.test(`an answer that refuses is explained: ${what}`, async () => {
    await using scene = await Scene.make();
    scene.hub.fault = fault;
    const error = await assertRejects(() => scene.load(PLACE, changes), InputError);
    assertMatch(error.message, message);
    assertEquals([scene.hub.asked.length, scene.waits], [1, []], "it is not tried again");
    // The same of a file, when the repository itself is open.
    scene.hub.fault = (asked, count) =>
      asked.path.startsWith("/api") ? undefined : fault(asked, count);
    assertMatch(await scene.fail(changes), message);
  });
}

Deno.test("a hub that is overloaded is asked again when it says, and a broken one later", async () => {
  await using scene = await Scene.make();
  scene.hub.fault = (_, count) =>
    count === 1
      ? new Response("", { status: 429, headers: { "retry-after": "7" } })
      : count === 2
      ? new Response("", { status: 503 })
      : undefined;
  assertEquals(await scene.load(), first);
  assertEquals(scene.waits, [7000, 4000]);
  scene.hub.fault = always(429, { "retry-after": "3600" });
  await using other = await Scene.make();
  other.hub.fault = always(429, { "retry-after": "3600" });
  assertMatch(await other.fail(), /the server answers 429; try again in 3600 s$/);
  assertEquals(other.waits, []);
  other.hub.fault = always(502);
  assertMatch(await other.fail(), /the server answers 502; try again later$/);
  assertEquals(other.waits, [2000, 4000, 8000]);
});

Deno.test("without a network what was fetched before does, and else it is said", async () => {
  await using scene = await Scene.make();
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const away = { endpoint: `http://127.0.0.1:${listener.addr.port}` };
  listener.close();
  assertMatch(
    await scene.fail(away),
    /^Cannot get hf:google\/tiny from .*is the network reachable\?$/,
  );
  assertMatch(
    await scene.fail({ isOffline: true }),
    /HF_HUB_OFFLINE is set, and nothing of main is in .*; fetch it once without HF_HUB_OFFLINE$/,
  );
  await scene.load();
  assertEquals(await scene.load(PLACE, away), first);
  scene.hub.fault = always(500);
  assertEquals(await scene.load(), first);
  // A refusal is none of the network.
  scene.hub.fault = always(404, { "x-error-code": "RevisionNotFound" });
  assertMatch(await scene.fail(), /it has no branch/);
});

Deno.test("answers that lead out of the cache are refused", async () => {
  await using scene = await Scene.make();
  const good = { size: 1, blobId: "a".repeat(40) };
  for (
    const path of ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "C:/x", "a//b", ".", "a/\0"]
  ) {
    scene.hub.describe = (answer) => ({ ...answer, siblings: [{ rfilename: path, ...good }] });
    assertMatch(await scene.fail(), /the path ".*" leads out of its folder$/);
  }
  const answers: [object, RegExp][] = [
    [{ sha: "../../x" }, /: sha: /],
    [{ siblings: [{ rfilename: "x", size: 1, blobId: "../x" }] }, /: siblings.0.blobId: /],
    [{ siblings: [{ rfilename: "x", size: 1 }] }, /does not tell size and checksum of x$/],
    [{ siblings: [{ rfilename: "x", lfs: { sha256: "z", size: 1 } }] }, /siblings.0.lfs.sha256: /],
  ];
  for (const [change, message] of answers) {
    scene.hub.describe = (answer) => ({ ...answer, ...change });
    assertMatch(await scene.fail(), message);
  }
  scene.hub.fault = () => new Response("<html>");
  assertMatch(await scene.fail(), /it is no JSON$/);
  assertEquals(await Deno.stat(scene.folder.at("cache")).catch(() => "nothing"), "nothing");
});

Deno.test("redirects without end, or to what is no web address, are refused", async () => {
  await using scene = await Scene.make();
  const redirect = (location: string): Fault => () =>
    new Response("", { status: 302, headers: { location } });
  scene.hub.fault = redirect("/again");
  assertMatch(await scene.fail(), /redirects more than 10 times$/);
  for (const location of ["file:///etc/passwd", "data:,x"]) {
    scene.hub.fault = redirect(location);
    assertMatch(await scene.fail(), /redirects to (file|data):.*, which is not followed$/);
  }
});

const sample = ["--count", "1", "--steps", "2", "--device", "cpu", "--out", "x.safetensors"];

Deno.test("a model of the hub is described and sampled by its name", async () => {
  await using scene = await Scene.make();
  const { folder, hub } = scene;
  await folder.write("token", "hf_of_the_file\n");
  await folder.succeed("sample", "--model", PLACE, ...sample);
  assertEquals([...new Set(hub.asked.filter((a) => a.host === "hub").map((a) => a.token))], [
    "Bearer hf_of_the_file",
  ]);
  const facts = JSON.parse(await folder.succeed("info", PLACE, "--json", "--device", "cpu"));
  assertEquals(facts.network, "UNet2DModel");
  // By HF_HOME, offline, and in a cascade that is none.
  Object.assign(folder.env, { HF_HUB_OFFLINE: "1", HF_HUB_CACHE: "", HF_HOME: folder.at("home") });
  await Deno.mkdir(folder.at("home"));
  await Deno.rename(folder.at("cache"), folder.at("home/hub"));
  await folder.succeed("sample", "--model", PLACE, ...sample);
  await folder.refuse(
    ["sample", "--model", "hf:google/other", ...sample],
    /HF_HUB_OFFLINE is set, and nothing of main is in \S+home\/hub/,
  );
  await folder.refuse(["sample", "--model", "hf:google", ...sample], /models of the hub are hf:/);
});

Deno.test("two processes that want the same model fetch it once", async () => {
  await using scene = await Scene.make();
  const { folder, hub } = scene, { promise, resolve } = Promise.withResolvers<void>();
  const weights = hub.files.get(WEIGHTS)!;
  // The weights end only when both processes are there.
  let arrived = 0;
  hub.fault = ({ host, path }) => {
    if (path.startsWith("/api") && ++arrived === 2) resolve();
    if (host === "hub") return undefined;
    const parts = [weights.slice(0, 100), weights.slice(100)];
    return new Response(
      new ReadableStream({
        async pull(controller) {
          controller.enqueue(parts.shift()!);
          if (parts.length) await promise;
          else controller.close();
        },
      }),
    );
  };
  const runs = ["a", "b"].map((name) =>
    folder.run("sample", "--model", PLACE, ...sample.slice(0, -1), `${name}.safetensors`)
  );
  for (const { code, stderr } of await Promise.all(runs)) assertEquals(code, 0, stderr);
  assertEquals(hub.asked.filter(({ host }) => host === "store").length, 1);
  const read = (name: string) => Deno.readFile(folder.at(`${name}.safetensors`));
  assertEquals(await read("a"), await read("b"));
});

Deno.test("a download that Ctrl-C ends goes on in the next run", async () => {
  await using scene = await Scene.make();
  const { folder, hub } = scene, weights = hub.files.get(WEIGHTS)!;
  const part = folder.at(`${REPOSITORY}/blobs/${etagOf(WEIGHTS, weights)}.incomplete`);
  const sent = Promise.withResolvers<void>(), ended = Promise.withResolvers<void>();
  hub.fault = ofStore(() =>
    new Response(
      new ReadableStream({
        start: (controller) => controller.enqueue(weights.slice(0, 4000)),
        pull: () => (sent.resolve(), ended.promise),
      }),
    )
  );
  const process = folder.start("sample", "--model", PLACE, ...sample);
  await sent.promise;
  // It is on the disk once it is there.
  while ((await Deno.stat(part).catch(() => undefined))?.size !== 4000) {
    await new Promise((done) => setTimeout(done, 10));
  }
  process.kill("SIGINT");
  const { success } = await process.output();
  ended.resolve();
  assert(!success);
  assertEquals((await Deno.readFile(part)).length, 4000);
  hub.fault = () => undefined;
  await folder.succeed("sample", "--model", PLACE, ...sample);
  const { range } = hub.asked.findLast(({ host }) => host === "store")!;
  assertEquals(range, "bytes=4000-");
});

Deno.test("a cache that cannot be written to does for what is in it", async () => {
  await using scene = await Scene.make();
  const { folder, hub } = scene;
  await scene.load();
  const run = () =>
    folder.runWith(
      ["-A", `--deny-write=${folder.at("cache")}`],
      "sample",
      "--model",
      PLACE,
      ...sample,
    );
  const { code, stderr } = await run();
  assertEquals(code, 0, stderr);
  hub.describe = (answer) => ({ ...answer, sha: "e".repeat(40) });
  const failed = await run();
  assertMatch(
    failed.stderr,
    /^error: Cannot write to the cache of the hub, \S+cache: .*; HF_HUB_CACHE can name another.*\n$/,
  );
  assertEquals(failed.code, 2);
});

Deno.test("where links cannot be made, files are linked hard or copied", async () => {
  await using scene = await Scene.make();
  const { folder, hub } = scene;
  // Deno makes symbolic links for programs only that may read and write everything.
  const { code, stderr } = await folder.runWith(
    ["--allow-net", "--allow-env", "--allow-read", `--allow-write=${folder.path}`],
    ...["sample", "--model", PLACE, ...sample],
  );
  assertEquals(code, 0, stderr);
  const path = folder.at(`${REPOSITORY}/snapshots/${COMMIT}/${WEIGHTS}`);
  assert(!(await Deno.lstat(path)).isSymlink);
  assertEquals(await Deno.readFile(path), hub.files.get(WEIGHTS));
});
