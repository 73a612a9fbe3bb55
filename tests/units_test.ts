import { assert, assertEquals } from "@std/assert";
import { formatBytePair, formatBytes } from "../src/units.ts";

Deno.test("bytes are told in decimal units with three digits", () => {
  const cases: [number, string][] = [
    [0, "0 bytes"],
    [1, "1 byte"],
    [999, "999 bytes"],
    [1000, "1.00 kB"],
    [12_345_678, "12.3 MB"],
    [999_499, "999 kB"],
    [999_999, "1.00 MB"],
    [4_294_901_760, "4.29 GB"],
    [53_023_614_741_944, "53.0 TB"],
    [2e18, "2000 PB"],
  ];
  for (const [bytes, text] of cases) assertEquals(formatBytes(bytes), text);
});

Deno.test("two numbers of bytes that differ have texts that differ", () => {
  assertEquals(formatBytePair(4096, 12), ["4.10 kB", "12 bytes"]);
  assertEquals(formatBytePair(4_000_001, 4_000_000), ["4,000,001 bytes", "4,000,000 bytes"]);
  assertEquals(formatBytePair(5000, 5000), ["5.00 kB", "5.00 kB"]);
});

/** All texts of a source that name bytes behind a number that is put in as it is. */
async function* rawBytes(folder: URL): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) yield* rawBytes(new URL(`${name}/`, folder));
    else if (name.endsWith(".ts")) {
      const source = await Deno.readTextFile(new URL(name, folder));
      for (const [found] of source.matchAll(/.*\$\{(?!.*toLocaleString)[^{}]*\} bytes.*/g)) {
        yield `${name}: ${found.trim()}`;
      }
    }
  }
}

Deno.test("no message prints a number of bytes as it is", async () => {
  const found = await Array.fromAsync(rawBytes(new URL("../src/", import.meta.url)));
  assert(!found.length, found.join("\n"));
});
