/**
 * Clients that misbehave, 24 of them in 5 rounds, or as many as are asked for:
 * `deno test -A tests/cli/serve_abuse_test.ts -- 200 20`.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { Folder, tinyModelFile } from "./cli.ts";
import { slowModelFile } from "./served.ts";

const clients = Number(Deno.args[0] ?? 24);
const ROUNDS = Number(Deno.args[1] ?? 5);
/**
 * How much larger than after the first round a process may be, when it is smallest in the last half:
 * garbage comes and goes. 40 rounds of 60 clients take it from 165 MB to between 210 and 281 MB.
 */
const GROWTH = 96e6;

const encoder = new TextEncoder();
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Resident bytes of a process, where the system tells. */
function residentBytes(pid: number): number {
  try {
    const text = Deno.readTextFileSync(`/proc/${pid}/status`);
    return 1024 * Number(/VmRSS:\s*(\d+)/.exec(text)![1]);
  } catch {
    return 0;
  }
}

/** Writes to a connection, and leaves after a while without reading. */
async function drop(port: number, bytes: Uint8Array, stay = 5): Promise<void> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  try {
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
  } catch { /* It was shown the door. */ }
  await pause(stay);
}

/** A request as text. */
const requestText = (port: number, line: string, body = "", headers = "") =>
  encoder.encode(
    `${line} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\n${headers}` +
      `Content-Length: ${body.length}\r\n\r\n${body}`,
  );

/** Ways to misbehave. */
const ways: ((port: number, session: string) => Promise<unknown>)[] = [
  // Asks, and is gone.
  (port, session) =>
    drop(port, requestText(port, "POST /api/jobs", `{"model":"slow","steps":1000}`, session)),
  (port, session) =>
    drop(port, requestText(port, "POST /sdapi/v1/txt2img", `{"steps":10}`, session), 30),
  // Watches, and is gone.
  async (port, session) => {
    const url = `http://127.0.0.1:${port}/api/jobs`, stop = new AbortController();
    const headers = { "Content-Type": "application/json", Cookie: session.slice(8).trim() };
    const asked = await fetch(url, { method: "POST", headers, body: `{"steps":10,"count":4}` });
    const { id } = await asked.json();
    if (!id) return;
    const events = await fetch(`${url}/${id}/events`, { signal: stop.signal });
    const reader = events.body!.getReader();
    await reader.read();
    stop.abort();
    await reader.read().catch(() => {});
  },
  // Too much, too often.
  async (port) => {
    for (const body of [`{"count":1e9}`, `{"steps":1e9}`, `{"width":99999}`, `{"prompt":"`]) {
      await drop(port, requestText(port, "POST /api/jobs", body), 1);
    }
  },
  // Junk.
  (port) => drop(port, crypto.getRandomValues(new Uint8Array(2000))),
  (port) => drop(port, encoder.encode("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")),
  (port) => drop(port, requestText(port, "GET /" + "a".repeat(5000))),
  (port) => drop(port, requestText(port, "GET /api/health", "", `Large: ${"x".repeat(3e4)}\r\n`)),
  // Pictures that are none.
  (port) => {
    const junk = crypto.getRandomValues(new Uint8Array(20_000)).toBase64();
    const png = `iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAIAAAD9b0jD${junk}`;
    return drop(port, requestText(port, "POST /api/jobs", `{"init":"${png}"}`), 20);
  },
  // A body that never ends, or never comes.
  (port) =>
    drop(
      port,
      encoder.encode(
        `POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\n` +
          "Content-Length: 1000000000\r\n\r\n" + "x".repeat(100_000),
      ),
    ),
  (port) => drop(port, requestText(port, "POST /api/jobs", "x".repeat(2e6))),
  // Stays, and says nothing.
  (port) => drop(port, new Uint8Array(), 300),
  (port) => drop(port, encoder.encode("GET / HT"), 300),
];

Deno.test(`${clients} clients misbehave: the server lives, stays small, and does another's job`, async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  await folder.write("slow.safetensors", slowModelFile());
  const flags = ["--model", "m.safetensors,slow.safetensors", "--device", "cpu", "--threads", "1"];
  await using child = folder.start("serve", ...flags, "--port", "0");
  const stderr = new Response(child.stderr).text(), reader = child.stdout.getReader();
  const { value } = await reader.read();
  const port = Number(/:(\d+)\//.exec(new TextDecoder().decode(value))![1]);
  const url = `http://127.0.0.1:${port}/`;
  const ask = async (path: string, options: RequestInit = {}) =>
    await (await fetch(url + path, options)).json();
  const headers = {
    "Content-Type": "application/json",
    Cookie: `ddpm-${port}=.${crypto.randomUUID()}`,
  };

  /** Asks for a picture as often as it takes, and gets it. */
  async function paint(): Promise<string> {
    const body = `{"model":"slow","steps":100,"seed":9}`;
    let job = await ask("api/jobs", { method: "POST", headers, body });
    while (job.error === "busy") {
      await pause(100);
      job = await ask("api/jobs", { method: "POST", headers, body });
    }
    const events = await fetch(`${url}api/jobs/${job.id}/events`, { headers });
    const text = await events.text();
    assert(/"state":"done"/.test(text), text.slice(-300));
    const picture = await fetch(`${url}api/jobs/${job.id}/images/0`, { headers });
    return new Uint8Array(await picture.arrayBuffer()).toBase64();
  }

  const undisturbed = await paint(), sizes: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const painting = paint();
    const crowd = Array.from({ length: clients }, async (_, i) => {
      // Half of them claim to be ever new ones.
      const session = i % 2
        ? `Cookie: ddpm-${port}=.${crypto.randomUUID()}\r\n`
        : "Cookie: a=b\r\n";
      await ways[(i + round) % ways.length](port, session);
    });
    await Promise.all(crowd);
    assertEquals(await painting, undisturbed);
    const { queued } = await ask("api/health");
    assert(queued <= 16, `${queued} wait`);
    sizes.push(residentBytes(child.pid));
  }
  const told = sizes.map((bytes) => Math.round(bytes / 1e6)).join(", ");
  // deno-lint-ignore no-console
  console.log(`${clients} clients, resident after each round: ${told} MB`);
  assert(Math.min(...sizes.slice(ROUNDS / 2)) - sizes[0] <= GROWTH, told);
  assertEquals((await ask("api/health")).status, "ok");
  child.kill("SIGINT");
  assertEquals((await child.status).code, 0);
  await reader.cancel();
  assertEquals((await stderr).replace(/^interrupted: .*\n/m, ""), "");
});
