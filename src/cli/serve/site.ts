/**
 * The page and what it loads, with the headers that let it use threads and nothing else.
 *
 * @module
 */

import { shippedModels } from "../../model/shipped.ts";
import { explain } from "../terminal/files.ts";
import { HttpError } from "./http.ts";
import { type Route, route } from "./routes.ts";

/** Where the package's data are. */
const place = (name: string) => new URL(`../../../data/${name}`, import.meta.url);

/** For all answers. */
export const usualHeaders: Readonly<Record<string, string>> = {
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-store",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
};

/** A file of the package. */
async function open(name: string): Promise<Response> {
  try {
    const response = await fetch(place(name));
    if (response.ok) return response;
    throw new Error(`the answer is ${response.status}`);
  } catch (error) {
    throw new HttpError(503, `${name} of the package cannot be read: ${explain(error)}`);
  }
}

/** The page, which is told of the server, and the policy that it can live with. */
export interface Site {
  readonly html: string;
  readonly policy: string;
}

/**
 * Prepares the page.
 *
 * @throws {HttpError} If it cannot be read.
 */
export async function openSite(models: readonly string[]): Promise<Site> {
  const page = await (await open("page.html")).text();
  const names = JSON.stringify(models).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const html = page.replace(
    '<meta charset="utf-8">',
    (meta) => `${meta}\n  <meta name="ddpm-server" content="${names}">`,
  );
  const [scripts, styles] = await Promise.all([
    hashesOf(html, /<script type="module">(.*?)<\/script>/gs),
    hashesOf(html, /<style>(.*?)<\/style>/gs),
  ]);
  return {
    html,
    policy: [
      ...["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
      `script-src ${scripts} 'wasm-unsafe-eval'`,
      `style-src ${styles}`,
      ...["worker-src blob:", "connect-src 'self'", "img-src 'self' data: blob:"],
    ].join("; "),
  };
}

/** What a policy calls the parts of a page that a pattern finds. */
async function hashesOf(html: string, pattern: RegExp): Promise<string> {
  const hashes = await Promise.all([...html.matchAll(pattern)].map(async ([, text]) => {
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    return `'sha256-${new Uint8Array(digest).toBase64()}'`;
  }));
  return hashes.join(" ");
}

/** The routes of the page and of models for the tab's own device. */
export const siteRoutes = ({ html, policy }: Site): Route[] => [
  route({
    ...{ method: "GET", path: "/", summary: "The page", type: "text/html" },
    handle: ({ client }) =>
      new Response(html, {
        headers: {
          "Content-Type": "text/html; charset=utf-8",
          "Content-Security-Policy": policy,
          "Set-Cookie": client.cookie,
        },
      }),
  }),
  ...shippedModels.map((name) =>
    route({
      ...{ method: "GET", path: `/${name}.safetensors`, type: "application/octet-stream" },
      summary: `The model ${name}, for the device of a page`,
      handle: async () =>
        new Response((await open(`${name}.safetensors`)).body, {
          headers: { "Content-Type": "application/octet-stream" },
        }),
    })
  ),
];
