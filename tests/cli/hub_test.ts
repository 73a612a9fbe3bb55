import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { parseHubPlace } from "../../src/cli/hub/place.ts";
import { InputError } from "../../src/errors.ts";
import { first, HubScene, NEEDED, ofStore, PLACE, REPOSITORY } from "./hub_scene.ts";
import { COMMIT, etagOf, WEIGHTS } from "./hub_server.ts";

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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
  await scene.load(PLACE, { token: { text: "hf_secret", from: "HF_TOKEN" } });
  const tokens = (host: string) =>
    new Set(scene.hub.asked.filter((asked) => asked.host === host).map(({ token }) => token));
  assertEquals([...tokens("hub")], ["Bearer hf_secret"]);
  assertEquals([...tokens("store")], [null]);
});

const sample = ["--count", "1", "--steps", "2", "--device", "cpu", "--out", "x.safetensors"];

Deno.test("a model of the hub is described and sampled by its name", async () => {
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
