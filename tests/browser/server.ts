/**
 * A site of the folder `data`, with headers of one's choice.
 *
 * @module
 */

import { extname, fromFileUrl, join } from "@std/path";

const folder = fromFileUrl(new URL("../../data", import.meta.url));
const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
};

/** Headers that isolate a page from other origins, so that its threads may share memory. */
export const isolated: Readonly<Record<string, string>> = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** Serves until it is disposed of; further files by their names. */
export function serve(
  headers: Readonly<Record<string, string>>,
  files: Readonly<Record<string, Uint8Array<ArrayBuffer> | string>> = {},
): AsyncDisposable & { readonly url: string } {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const name = decodeURIComponent(new URL(request.url).pathname).slice(1);
    const type = types[extname(name)] ?? "application/octet-stream";
    const options = { headers: { ...headers, "Content-Type": type } };
    if (Object.hasOwn(files, name)) return new Response(files[name], options);
    if (!/^[\w.-]+$/.test(name)) return new Response("no such file", { status: 404 });
    try {
      return new Response(await Deno.readFile(join(folder, name)), options);
    } catch {
      return new Response("no such file", { status: 404 });
    }
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  return { url, [Symbol.asyncDispose]: () => server.shutdown() };
}
