/**
 * Fixtures copied to folders of tests.
 *
 * @module
 */

import { join } from "@std/path";

/** Copies the files of a fixture, and of folders in it, to a folder that is made. */
export async function copyFixture(name: string, to: string): Promise<void> {
  const from = new URL(`./fixtures/${name}/`, import.meta.url);
  await Deno.mkdir(to, { recursive: true });
  for await (const entry of Deno.readDir(from)) {
    const path = join(to, entry.name);
    if (entry.isDirectory) await copyFixture(`${name}/${entry.name}`, path);
    else await Deno.copyFile(new URL(entry.name, from), path);
  }
}
