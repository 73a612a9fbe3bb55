/**
 * `deno task page`: bundles the page of `src/page` into one file, `data/page.html`.
 *
 * @module
 */

import { fromFileUrl, join } from "@std/path";
import { software } from "../src/cli/terminal/version.ts";

const root = fromFileUrl(new URL("..", import.meta.url));
/** Where the page is. */
export const PAGE: string = join(root, "data", "page.html");

/** A program of the package as the text of one module. */
export async function bundle(entry: string): Promise<string> {
  const args = ["bundle", "--platform", "browser", "--minify", entry];
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    ...{ args, cwd: root, env: { NO_COLOR: "1" } },
  }).output();
  if (!success) throw new Error(`Cannot bundle ${entry}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout).trim();
}

/** A program within a page: what would end it, or begin a comment, is written otherwise. */
const inline = (text: string) => text.replace(/<(?=\/script|!--)/gi, "\\x3c");

/** The page, all in one. */
export async function buildPage(): Promise<string> {
  const read = (name: string) => Deno.readTextFile(join(root, "src", "page", name));
  const [frame, style, main, worker] = await Promise.all([
    ...[read("index.html"), read("style.css")],
    ...[bundle("src/page/main.ts"), bundle("src/worker/serve.ts")],
  ]);
  const parts: Record<string, string> = {
    SOFTWARE: software,
    STYLE: style,
    MAIN: inline(main),
    WORKER: inline(worker),
  };
  return frame.replace(/\/\* (SOFTWARE|STYLE|MAIN|WORKER) \*\//g, (_, name) => parts[name]);
}

if (import.meta.main) await Deno.writeTextFile(PAGE, await buildPage());
