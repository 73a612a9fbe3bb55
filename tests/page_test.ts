import { assert, assertEquals } from "@std/assert";
import { buildPage, PAGE } from "./page.ts";

Deno.test("the page is what its sources make", async () => {
  const [built, kept] = [await buildPage(), await Deno.readTextFile(PAGE)];
  assert(built === kept, "data/page.html is of other sources: run deno task page");
});

Deno.test("the page is one file of at most 400 kB compressed, and has no address outside itself", async () => {
  const page = await Deno.readTextFile(PAGE);
  const packed = new Blob([page]).stream().pipeThrough(new CompressionStream("gzip"));
  const { byteLength } = await new Response(packed).arrayBuffer();
  assert(byteLength <= 400_000, `${byteLength} bytes`);
  const [frame] = page.split("<script");
  assertEquals(frame.match(/(?:src|href)="(?!data:)[^"]*"|url\(|@import/g), null);
  assertEquals(page.match(/\bfetch\(\s*["'`]https?:|import\(\s*["'`]https?:/g), null);
});
