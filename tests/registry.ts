/**
 * A package registry on loopback that does what jsr.io does: it takes what `deno publish` sends, and
 * serves it to `jsr:` imports.
 *
 * @module
 */

import { join } from "@std/path";

type Bytes = Uint8Array<ArrayBuffer>;

/** The part of a package's deno.json that a registry reads. */
interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly exports: string | Record<string, string>;
}

interface Package extends Manifest {
  /** Contents by path, which starts with a slash. */
  readonly files: ReadonlyMap<string, Bytes>;
}

/** Serves packages until it is disposed of. */
export class Registry implements AsyncDisposable {
  readonly #packages: Package[] = [];
  readonly #server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    (request) => this.#answer(request),
  );

  /** The value of `JSR_URL`. */
  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/`;
  }

  /** Paths of the files of a package. */
  filesOf(name: string): string[] {
    return [...this.#packages.find((p) => p.name === name)?.files.keys() ?? []];
  }

  /** Adds a folder as it is. */
  async addFolder(folder: string): Promise<void> {
    const files = new Map<string, Bytes>();
    for await (const { name } of Deno.readDir(folder)) {
      files.set(`/${name}`, await Deno.readFile(join(folder, name)));
    }
    this.#add(files);
  }

  #add(files: ReadonlyMap<string, Bytes>): void {
    const manifest: Manifest = JSON.parse(new TextDecoder().decode(files.get("/deno.json")));
    this.#packages.push({ ...manifest, files });
  }

  async #answer(request: Request): Promise<Response> {
    const path = decodeURIComponent(new URL(request.url).pathname);
    if (request.method === "POST") {
      this.#add(await unpack(request.body!));
      return Response.json({ id: "1", status: "success", error: null });
    }
    if (/^\/api\/scopes\/[^/]+\/packages\/[^/]+$/.test(path)) return Response.json({});
    for (const { name, version, exports, files } of this.#packages) {
      if (path === `/${name}/meta.json`) return Response.json({ versions: { [version]: {} } });
      if (path === `/${name}/${version}_meta.json`) {
        const manifest = Object.fromEntries(
          await Promise.all([...files].map(async ([path, bytes]) => [path, await describe(bytes)])),
        );
        const all = typeof exports === "string" ? { ".": exports } : exports;
        return Response.json({ manifest, exports: all });
      }
      const start = `/${name}/${version}`;
      const file = path.startsWith(start) && files.get(path.slice(start.length));
      if (file) return new Response(file, { headers: { "content-type": typeOf(path) } });
    }
    return Response.json({}, { status: 404 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }
}

async function describe(bytes: Bytes): Promise<{ size: number; checksum: string }> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return { size: bytes.length, checksum: `sha256-${digest.toHex()}` };
}

const typeOf = (path: string) =>
  path.endsWith(".ts")
    ? "text/typescript"
    : path.endsWith(".json")
    ? "application/json"
    : "application/octet-stream";

/** The files of a gzipped tar archive. */
async function unpack(body: ReadableStream<Bytes>): Promise<Map<string, Bytes>> {
  const stream = body.pipeThrough(new DecompressionStream("gzip"));
  const archive = new Uint8Array(await new Response(stream).arrayBuffer());
  const files = new Map<string, Bytes>(), decoder = new TextDecoder();
  for (let at = 0; archive[at];) {
    const field = (offset: number, length: number) =>
      decoder.decode(archive.subarray(at + offset, at + offset + length)).replace(/\0.*/s, "");
    const size = parseInt(field(124, 12), 8), name = [field(345, 155), field(0, 100)];
    const path = name.filter(Boolean).join("/").replace(/^(\.?\/)?/, "/");
    files.set(path, archive.slice(at + 512, at + 512 + size));
    at += 512 * (1 + Math.ceil(size / 512));
  }
  return files;
}
