import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { obtain, type Published } from "../../src/cli/data/download.ts";
import { Progress } from "../../src/cli/terminal/progress.ts";
import { Folder } from "./cli.ts";

/** Waits for nothing. */
const noWait = () => Promise.resolve();

class Quiet extends Progress {
  readonly said: string[] = [];
  override say(text: string): void {
    this.said.push(text);
  }
}

const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >> 7);
const sha256 = [...new Uint8Array(await crypto.subtle.digest("SHA-256", content))]
  .map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** How a server behaves. */
interface Behaviour {
  /** Bytes after which a connection is cut, for the first so many requests. */
  readonly cutAfter?: number;
  readonly cuts?: number;
  readonly ignoresRange?: boolean;
  readonly status?: number;
  readonly body?: Uint8Array<ArrayBuffer>;
  /** Whether it does not say how long its answers are. */
  readonly isChunked?: boolean;
  /** Sends another part than it was asked for. */
  readonly shift?: number;
}

/** A server on this machine, and the ranges it was asked for. Every connection is one answer. */
class Server implements AsyncDisposable {
  readonly asked: (string | null)[] = [];
  readonly #listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  readonly #behaviour: Behaviour;
  readonly #done: Promise<void>;

  constructor(behaviour: Behaviour) {
    this.#behaviour = behaviour;
    this.#done = this.#serve();
  }

  async #serve(): Promise<void> {
    for await (const connection of this.#listener) {
      using _ = connection;
      const writer = connection.writable.getWriter();
      // Who had enough hangs up.
      for (const part of this.#answer(await readHead(connection))) {
        await writer.write(part).catch(() => {});
      }
      // What was sent arrives before the end of the connection, wherever in an answer that is.
      await connection.closeWrite().catch(() => {});
    }
  }

  #answer(head: string): Uint8Array<ArrayBuffer>[] {
    const { cutAfter = Infinity, cuts = Infinity, ignoresRange, status, isChunked, shift = 0 } =
      this.#behaviour;
    const body = this.#behaviour.body ?? content;
    const range = head.match(/^range: (.*)$/im)?.[1].trim() ?? null;
    this.asked.push(range);
    const from = ignoresRange || !range ? 0 : Number(range.match(/^bytes=(\d+)-$/)![1]);
    const rest = body.slice(from), isCut = this.asked.length <= cuts && rest.length > cutAfter;
    const sent = isCut ? rest.subarray(0, cutAfter) : rest;
    const lines = [
      `HTTP/1.1 ${status ?? (from ? 206 : 200)} .`,
      "connection: close",
      isChunked ? "transfer-encoding: chunked" : `content-length: ${status ? 0 : rest.length}`,
      ...(from ? [`content-range: bytes ${from + shift}-${body.length - 1}/${body.length}`] : []),
    ];
    const text = (...lines: string[]) => new TextEncoder().encode(lines.join("\r\n"));
    const start = text(...lines, "", "");
    if (status) return [start];
    if (!isChunked) return [start, sent];
    const chunk = sent.length ? [text(sent.length.toString(16), ""), sent, text("", "")] : [];
    return [start, ...chunk, ...isCut ? [] : [text("0", "", "")]];
  }

  file(changes: Partial<Published> = {}): Published {
    const base = `http://127.0.0.1:${this.#listener.addr.port}/`;
    return { base, file: "set.bin", bytes: content.length, sha256, ...changes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#done;
  }
}

/** The head of a request. */
async function readHead(connection: Deno.Conn): Promise<string> {
  const decoder = new TextDecoder(), buffer = new Uint8Array(4096);
  let head = "";
  while (!head.includes("\r\n\r\n")) {
    const n = await connection.read(buffer);
    if (n === null) break;
    head += decoder.decode(buffer.subarray(0, n), { stream: true });
  }
  return head;
}

/** Downloads from a server that behaves so; the part that was left from before has so many bytes. */
async function download(behaviour: Behaviour, had = 0, changes: Partial<Published> = {}) {
  await using folder = await Folder.make();
  await using server = new Server(behaviour);
  const quiet = new Quiet();
  await Deno.mkdir(folder.at("cache"));
  if (had) await folder.write("cache/set.bin.part", content.slice(0, had));
  const get = () => obtain(server.file(changes), folder.at("cache"), quiet, noWait);
  try {
    const path = await get(), bytes = await Deno.readFile(path);
    const asked = [...server.asked];
    assertEquals(await get(), path);
    assertEquals(server.asked, asked, "what is there is not fetched again");
    return { bytes, asked, said: quiet.said };
  } catch (error) {
    const left = await Deno.stat(folder.at("cache/set.bin.part")).catch(() => ({ size: 0 }));
    return { error: error as Error, asked: server.asked, left: left.size, said: quiet.said };
  }
}

Deno.test("a download is what was published, and tells its size before it starts", async () => {
  for (const isChunked of [false, true]) {
    const { bytes, asked, said } = await download({ isChunked });
    assertEquals(bytes, content);
    assertEquals(asked, [null]);
    assertMatch(said[0], /^downloading http:\/\/127\.0\.0\.1:\d+\/set\.bin, 300 kB, to \//);
  }
});

Deno.test("a download that is cut off goes on where it was", async () => {
  const { bytes, asked } = await download({ cutAfter: 100_000, cuts: 2 });
  assertEquals(bytes, content);
  assertEquals(asked, [null, "bytes=100000-", "bytes=200000-"]);
});

Deno.test("a download goes on in another run", async () => {
  const { bytes, asked, said } = await download({}, 123_456);
  assertEquals(bytes, content);
  assertEquals(asked, ["bytes=123456-"]);
  assertMatch(said[0], /300 kB \(123 kB done\)/);
});

Deno.test("servers that know no ranges send everything anew", async () => {
  const { bytes, asked } = await download({ ignoresRange: true, cutAfter: 100_000, cuts: 1 }, 5000);
  assertEquals(bytes, content);
  assertEquals(asked, ["bytes=5000-", "bytes=100000-"]);
});

Deno.test("all that is missing may be the check, and too much is dropped", async () => {
  const whole = await download({}, content.length);
  assertEquals([whole.bytes, whole.asked], [content, []]);
  await using folder = await Folder.make();
  await using server = new Server({});
  await folder.write("set.bin.part", new Uint8Array(content.length + 1));
  await folder.write("set.bin", new Uint8Array(7));
  const path = await obtain(server.file(), folder.path, new Quiet(), noWait);
  assertEquals(await Deno.readFile(path), content);
});

Deno.test("a connection that breaks again and again is an error, and what came is kept", async () => {
  const { error, asked, left } = await download({ cutAfter: 50_000, isChunked: true });
  assert(error === undefined, "every byte that comes is progress");
  assertEquals([asked.length, left], [6, undefined]);
  const none = await download({ cutAfter: 0, isChunked: true }, 5000);
  assertMatch(
    none.error!.message,
    /^Cannot download http.*; the same command resumes after 5\.00 kB$/,
  );
  assertEquals([none.asked.length, none.left], [4, 5000]);
});

const refusals: readonly [string, Behaviour, Partial<Published>, RegExp, number][] = [
  ["404", { status: 404 }, {}, /^Cannot download http.*set\.bin: the server answers 404$/, 1],
  ["500", { status: 500 }, {}, /: the server answers 500; the same command resumes after/, 4],
  [
    "a wrong size",
    { body: content.slice(1) },
    {},
    /it has 299,999 bytes, but 300,000 bytes were publ/,
    1,
  ],
  [
    "a wrong size, unannounced",
    { body: new Uint8Array(400_000), isChunked: true },
    {},
    /it has more than the 300 kB published/,
    1,
  ],
  ["wrong bytes", { body: content.with(9, 1) }, {}, /SHA-256 is [0-9a-f]{64}, but .* was pub/, 1],
];

for (const [what, behaviour, changes, message, requests] of refusals) {
  Deno.test(`${what} is an error, and nothing of it is used`, async () => {
    const { error, asked, left } = await download(behaviour, 0, changes);
    assertMatch(error!.message, message);
    assertEquals([asked.length, left], [requests, 0]);
  });
}

Deno.test("a server that sends another part than it was asked for is an error", async () => {
  const { error, left } = await download({ shift: 10 }, 5000);
  assertMatch(error!.message, /the server sends another range than requested/);
  assertEquals(left, 5000);
});

Deno.test("where nobody listens, there is an error and no wait without end", async () => {
  await using folder = await Folder.make();
  const file = { base: "http://127.0.0.1:1/", file: "set.bin", bytes: 10, sha256 };
  await assertRejects(
    () => obtain(file, folder.path, new Quiet(), noWait),
    Error,
    "Cannot download",
  );
});
