import { assert, assertEquals } from "@std/assert";
import { buildPage, PAGE } from "./page.ts";

/** The page without the program of its Worker, which changes with every file of the library. */
const withoutProgram = (page: string) =>
  page.replace(/(<script type="text\/plain" id="program">).*?(<\/script>)/s, "$1$2");

Deno.test("the page is what its sources make", async () => {
  const built = await buildPage(), kept = await Deno.readTextFile(PAGE);
  const [now, then] = [built, kept].map(withoutProgram);
  assert(now.length < built.length / 2, "the program was not found");
  assert(now === then, "data/page.html is of other sources: run deno task page");
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
