/**
 * Writes data/flags.md, the reference of all commands and flags, from their tables: `deno task flags`.
 *
 * @module
 */

import { fromFileUrl } from "@std/path";
import { commands } from "../src/cli.ts";
import { renderReference } from "../src/cli/terminal/help.ts";

/** Where the page is. */
export const page = fromFileUrl(new URL("../data/flags.md", import.meta.url));

/** The page as it should be, formatted like all Markdown here. */
export async function makePage(): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext", "md", "--line-width", "100", "-"],
    ...{ stdin: "piped", stdout: "piped", stderr: "inherit" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(renderReference(commands)));
  await writer.close();
  const { success, stdout } = await child.output();
  if (!success) throw new Error("deno fmt failed");
  return new TextDecoder().decode(stdout);
}

if (import.meta.main) await Deno.writeTextFile(page, await makePage());
