import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Guard } from "../../src/cli/serve/guard.ts";
import { HttpError } from "../../src/cli/serve/http.ts";
import { InputError } from "../../src/errors.ts";
import { Folder, tinyModelFile } from "./cli.ts";
import { Served } from "./served.ts";

/** The status with which a guard refuses a request, or 200. */
async function statusOf(
  guard: Guard,
  headers: Record<string, string>,
  { isVisit = false, url = "http://x/api/jobs", address = "127.0.0.1" } = {},
): Promise<number> {
  try {
    await guard.check(new Request(url, { headers }), address, isVisit);
    return 200;
  } catch (error) {
    assert(error instanceof HttpError);
    return error.status;
  }
}

Deno.test("only the server's own names are answered", async () => {
  const own = new Guard("127.0.0.1", 8080, undefined);
  for (const host of ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:8080", "[::1]:8080"]) {
    assertEquals(await statusOf(own, { host }), 200, host);
  }
  const foreign = ["evil.example:8080", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:8080"];
  for (
    const host of [...foreign, "", "192.168.1.2:8080", "127.0.0.1:8080.evil", "a@localhost:8080"]
  ) {
    assertEquals(await statusOf(own, { host }), 421, host);
  }
  const named = new Guard("box.local", 80, undefined);
  assertEquals(await statusOf(named, { host: "box.local" }), 200);
  assertEquals(await statusOf(named, { host: "localhost" }), 421);
  const all = new Guard("0.0.0.0", 8080, undefined);
  for (const host of ["192.168.1.2:8080", "localhost:8080", "[fe80::1]:8080"]) {
    assertEquals(await statusOf(all, { host }), 200, host);
  }
  // A name can be made to point here.
  assertEquals(await statusOf(all, { host: "evil.example:8080" }), 421);
});

Deno.test("what other origins send is refused, whatever it is", async () => {
  const guard = new Guard("127.0.0.1", 8080, undefined), host = "127.0.0.1:8080";
  const cases: [headers: Record<string, string>, status: number][] = [
    [{ origin: "http://127.0.0.1:8080" }, 200],
    [{ origin: "http://127.0.0.1:8080", "sec-fetch-site": "same-origin" }, 200],
    [{ origin: "http://evil.example" }, 403],
    [{ origin: "http://localhost:8080" }, 403],
    [{ origin: "http://127.0.0.1:9090" }, 403],
    [{ origin: "https://127.0.0.1:8080" }, 403],
    [{ origin: "null" }, 403],
    [{ "sec-fetch-site": "cross-site" }, 403],
    [{ "sec-fetch-site": "same-site" }, 403],
    [{ "sec-fetch-site": "none" }, 200],
  ];
  for (const [headers, status] of cases) {
    assertEquals(await statusOf(guard, { host, ...headers }), status, JSON.stringify(headers));
  }
  const link = { host, "sec-fetch-site": "cross-site" };
  assertEquals(await statusOf(guard, link, { isVisit: true }), 200);
});

Deno.test("clients of this machine are told apart by session, others by address", async () => {
  const guard = new Guard("0.0.0.0", 8080, undefined);
  const idOf = async (address: string, session: string) => {
    const headers = { host: "localhost:8080", cookie: `other=1; ddpm-8080=.${session}` };
    return (await guard.check(new Request("http://x/", { headers }), address, true)).id;
  };
  const [a, b] = [crypto.randomUUID(), crypto.randomUUID()];
  assert(await idOf("127.0.0.1", a) !== await idOf("127.0.0.1", b));
  assertEquals(await idOf("127.0.0.1", a), await idOf("127.0.0.1", a));
  assertEquals(await idOf("10.0.0.1", a), await idOf("10.0.0.1", b));
  assertEquals(await idOf("127.0.0.1", "short"), "127.0.0.1");
});

Deno.test("a token lets in, as a header, with the page's address, and as a cookie from then on", async () => {
  const token = "correct-horse-battery";
  await using served = await Served.start({ token });
  const as = (headers: Record<string, string>) => ({ headers });
  for (const path of ["", "api/health", "api/models", "openapi.json", "mnist.safetensors"]) {
    const { status, body, headers } = await served.ask(path);
    assertEquals([status, body.error], [401, "unauthorized"], path);
    assertEquals(headers.get("set-cookie"), null);
  }
  assertEquals((await served.post("api/jobs", { model: "m" })).status, 401);
  for (const wrong of ["Bearer wrong", `Basic ${token}`, "Bearer", `Bearer ${token}x`]) {
    assertEquals((await served.ask("api/health", as({ Authorization: wrong }))).status, 401, wrong);
  }
  const right = as({ Authorization: `Bearer ${token}` });
  assertEquals((await served.ask("api/health", right)).status, 200);
  // Addresses land in histories: that of the page has it once, others never.
  assertEquals((await served.ask(`api/health?token=${token}`)).status, 401);
  const page = await served.ask(`?token=${token}`), cookie = page.headers.get("set-cookie")!;
  assertEquals(page.status, 200);
  assertMatch(cookie, /^ddpm-\d+=[\w-]{32}\.[\w-]{36}; Path=\/; HttpOnly; SameSite=Strict$/);
  assert(!cookie.includes(token));
  const [pair] = cookie.split(";");
  assertEquals((await served.ask("api/health", as({ Cookie: pair }))).status, 200);
  const forged = pair.replace(/=.*\./, `=${token}.`);
  assertEquals((await served.ask("api/health", as({ Cookie: forged }))).status, 401);
});

Deno.test("tokens that can be guessed are refused", () => {
  for (const token of ["", "short", "with space in between", "fifteen-chars-x"]) {
    assertThrows(() => new Guard("127.0.0.1", 8080, token), InputError, "16 characters");
  }
});

Deno.test("every answer has the headers that keep it to its origin, and no other may read it", async () => {
  await using served = await Served.start();
  for (const path of ["", "api/health", "nothing", "mnist.safetensors"]) {
    const { headers } = await served.ask(path);
    assertEquals(headers.get("cross-origin-resource-policy"), "same-origin", path);
    assertEquals(headers.get("cross-origin-opener-policy"), "same-origin", path);
    assertEquals(headers.get("cross-origin-embedder-policy"), "require-corp", path);
    assertEquals(headers.get("x-content-type-options"), "nosniff", path);
    assertMatch(headers.get("content-security-policy")!, /^default-src 'none'/);
    const policy = headers.get("content-security-policy")!.replaceAll("'wasm-unsafe-eval'", "");
    assert(!policy.includes("unsafe"), policy);
    assertEquals([...headers.keys()].filter((name) => name.startsWith("access-control")), []);
  }
  const { status } = await served.ask("api/jobs", { method: "OPTIONS" });
  assertEquals(status, 405);
});

/** The first line that a program prints, and the rest of what it does. */
async function firstLine(child: Deno.ChildProcess): Promise<string> {
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("\n")) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
  }
  await reader.cancel();
  return text.trim();
}

Deno.test("serve runs until Ctrl-C, ends what it computes, and a port in use is told", async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  const flags = ["--model", "m.safetensors", "--device", "cpu", "--threads", "1"];
  await using child = folder.start("serve", ...flags, "--port", "0");
  const stderr = new Response(child.stderr).text(), line = await firstLine(child);
  const [, url] = /^(http:\/\/127\.0\.0\.1:\d+\/) serves m on CPU, 1 thread/.exec(line)!;
  const options = { method: "POST", headers: { "Content-Type": "application/json" } };
  const answer = await fetch(`${url}api/jobs`, { ...options, body: `{"steps": 10, "count": 16}` });
  const { id } = await answer.json();
  const events = await fetch(`${url}api/jobs/${id}/events`);

  const { port } = new URL(url);
  await folder.refuse(["serve", ...flags, "--port", port], /port is in use; give another one by/);
  child.kill("SIGINT");
  await events.text();
  assertEquals((await child.status).code, 0);
  assertMatch(await stderr, /^interrupted: [^\n]+\n$/);
});

Deno.test("elsewhere than on this machine a token is needed, which is made and printed once", async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  const flags = ["serve", "--model", "m.safetensors", "--device", "cpu", "--threads", "1"];
  await using child = folder.start(...flags, "--port", "0", "--host", "0.0.0.0");
  const stderr = new Response(child.stderr).text(), line = await firstLine(child);
  const [, port, token] = /^http:\/\/0\.0\.0\.0:(\d+)\/\?token=([\w-]{32}) serves m/.exec(line)!;
  const url = `http://127.0.0.1:${port}/api/health`;
  const asked = await fetch(url);
  assertEquals(asked.status, 401);
  await asked.body?.cancel();
  const known = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
  assertEquals((await known.json()).status, "ok");
  child.kill("SIGINT");
  assertEquals((await child.status).code, 0);
  assert(!(await stderr).includes(token));
  await folder.refuse([...flags, "--token", "short"], /16 characters/);
  await folder.refuse([...flags, "--model", "m.safetensors,./m.safetensors"], /model m already/);
  await folder.refuse(["serve", "here"], /serve takes flags only, not here/);
});
