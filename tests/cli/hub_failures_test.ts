import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import type { HubSettings } from "../../src/cli/hub/settings.ts";
import { InputError } from "../../src/errors.ts";
import { always, first, HubScene, ofStore, PLACE, REPOSITORY } from "./hub_scene.ts";
import { cut, etagOf, type Fault, WEIGHTS } from "./hub_server.ts";

Deno.test("a connection that is cut goes on where it was", async () => {
  await using scene = await HubScene.make();
  const weights = scene.hub.files.get(WEIGHTS)!, etag = etagOf(WEIGHTS, weights);
  scene.hub.fault = ofStore((count) => count <= 2 ? cut(weights.slice(0, 1000)) : undefined);
  assertEquals(await scene.load(), first);
  assertEquals(await scene.read(`blobs/${etag}`), weights);
  assert(scene.waits.length >= 1);
  // As another process left it.
  await using other = await HubScene.make();
  await other.load(`${PLACE}/scheduler`).catch(() => {});
  await Deno.mkdir(other.folder.at(`${REPOSITORY}/blobs`), { recursive: true });
  await other.folder.write(`${REPOSITORY}/blobs/${etag}.incomplete`, weights.slice(0, 5000));
  assertEquals(await other.load(), first);
  const { range } = other.hub.asked.find(({ host }) => host === "store")!;
  assertEquals(range, "bytes=5000-");
});

Deno.test("an address of a store that holds no longer is asked for again, not explained", async () => {
  await using scene = await HubScene.make();
  scene.hub.fault = ofStore((count) => count === 1 ? new Response("", { status: 403 }) : undefined);
  assertEquals(await scene.load(), first);
  assertEquals(scene.waits, [2000]);
  await using other = await HubScene.make();
  other.hub.fault = ofStore(() => new Response("", { status: 403 }));
  assertMatch(
    await other.fail(),
    /127\.0\.0\.1:\d+ answers 403; the same command resumes after 0 bytes$/,
  );
});

Deno.test("what is not what was published is refused, and nothing of it is kept", async () => {
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
    await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
  scene.hub.fault = (_, count) =>
    count === 1
      ? new Response("", { status: 429, headers: { "retry-after": "7" } })
      : count === 2
      ? new Response("", { status: 503 })
      : undefined;
  assertEquals(await scene.load(), first);
  assertEquals(scene.waits, [7000, 4000]);
  scene.hub.fault = always(429, { "retry-after": "3600" });
  await using other = await HubScene.make();
  other.hub.fault = always(429, { "retry-after": "3600" });
  assertMatch(await other.fail(), /the server answers 429; try again in 3600 s$/);
  assertEquals(other.waits, []);
  other.hub.fault = always(502);
  assertMatch(await other.fail(), /the server answers 502; try again later$/);
  assertEquals(other.waits, [2000, 4000, 8000]);
});

Deno.test("an answer that nobody expects is told, and not asked for again", async () => {
  await using scene = await HubScene.make();
  scene.hub.fault = always(418);
  assertMatch(
    await scene.fail(),
    /^Cannot get hf:google\/tiny from http:\S+: the server answers 418$/,
  );
  scene.hub.fault = (asked) =>
    asked.path.startsWith("/api") ? undefined : new Response("", { status: 418 });
  assertMatch(await scene.fail(), /^Cannot download http:\S+: the server answers 418$/);
  assertEquals(scene.waits, []);
});

Deno.test("without a network what was fetched before does, and else it is said", async () => {
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
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
  await using scene = await HubScene.make();
  const redirect = (location: string): Fault => () =>
    new Response("", { status: 302, headers: { location } });
  scene.hub.fault = redirect("/again");
  assertMatch(await scene.fail(), /redirects more than 10 times$/);
  for (const location of ["file:///etc/passwd", "data:,x"]) {
    scene.hub.fault = redirect(location);
    assertMatch(await scene.fail(), /redirects to (file|data):.*, which is not followed$/);
  }
});
