// deno-lint-ignore-file no-control-regex -- Terminals are controlled by control characters.
import { assert, assertEquals } from "@std/assert";
import { Preview, protocolOf } from "../../src/cli/media/preview.ts";

const images = (count: number, side = 6) => ({
  ...{ count, shape: [side, side, 1] },
  data: Float32Array.from({ length: count * side * side }, (_, i) => i % 2 ? 1 : -1),
});

/** What is written for two pictures. */
function draw(protocol: "kitty" | "sixel" | "blocks", columns: number, count = 1, side = 6) {
  const written: string[] = [];
  const preview = new Preview(protocol, columns, (text) => void written.push(text));
  preview.draw(images(count, side));
  preview.draw(images(count, side));
  return written;
}

Deno.test("terminals that show pictures are known by name, and others get characters", () => {
  const of = (variables: Record<string, string>) => protocolOf((name) => variables[name]);
  assertEquals(of({ TERM: "xterm-kitty" }), "kitty");
  assertEquals(of({ TERM: "xterm-256color", KITTY_WINDOW_ID: "1" }), "kitty");
  assertEquals(of({ TERM: "xterm-256color", TERM_PROGRAM: "WezTerm" }), "kitty");
  assertEquals(of({ TERM: "foot" }), "sixel");
  assertEquals(of({ TERM: "xterm-256color" }), "blocks");
  assertEquals(of({ TERM: "tmux-256color", KITTY_WINDOW_ID: "1" }), "blocks");
  assertEquals(of({}), "blocks");
});

Deno.test("characters show two rows each, the second picture over the first", () => {
  const [first, second] = draw("blocks", 80);
  const rows = first.split("\r\n");
  assertEquals(rows.length, 4);
  for (const row of rows) assertEquals(row.match(/▀/g)?.length, 8);
  assert(first.includes("38;2;0;0;0;48;2;0;0;0m▀") && first.includes("48;2;255;255;255m▀"));
  assert(first.startsWith("\n\n\n\n\x1b[4A\r") && second.startsWith("\x1b[4A\r"));
  assert(first.endsWith("\x1b[4B\r"));
});

Deno.test("characters never exceed the line, be it by fewer images or fewer pixels", () => {
  for (const [columns, count, side] of [[20, 16, 6], [20, 1, 64], [100, 64, 28], [3, 1, 8]]) {
    const [text] = draw("blocks", columns, count, side), rows = text.split("\r\n");
    assert(rows.length <= 16, `${rows.length} rows`);
    for (const row of rows) assert((row.match(/▀/g)?.length ?? 0) <= columns);
  }
});

Deno.test("kitty is sent all pixels, in pieces that it takes", () => {
  const [text] = draw("kitty", 80, 16, 28);
  const pieces = [...text.matchAll(/\x1b_G([^;]*);([^\x1b]*)\x1b\\/g)];
  assert(pieces.length > 1 && pieces.every(([, , data]) => data.length <= 4096));
  assert(pieces[0][1].includes("f=32,s=117,v=117,c=32,r=16,"));
  assertEquals(
    pieces.map(([, keys]) => keys.endsWith("m=1")),
    pieces.map((_, i) => i < pieces.length - 1),
  );
  const bytes = Uint8Array.fromBase64(pieces.map(([, , data]) => data).join(""));
  assertEquals(bytes.length, 117 * 117 * 4);
});

Deno.test("kitty is told columns and lines of the picture's shape, and never more than there are", () => {
  assert(draw("kitty", 20, 16, 28)[0].includes("s=117,v=117,c=20,r=10,"));
  assert(draw("kitty", 80, 2, 28)[0].includes("s=59,v=30,c=63,r=16,"));
});

Deno.test("sixels show every pixel in its colour", () => {
  const [text] = draw("sixel", 80);
  const [, width, height, body] = text.match(/\x1bP0;1;0q"1;1;(\d+);(\d+)([^]*)\x1b\\/)!;
  const seen = new Int32Array(Number(width) * Number(height)).fill(-1);
  let x = 0, top = 0, colour = 0;
  for (
    const [, code, number, run, sixel] of body.matchAll(
      /([#$-])(\d*)(?:;[\d;]+)?|(?:!(\d+))?([?-~])/g,
    )
  ) {
    if (code === "#") colour = Number(number);
    else if (code === "$") x = 0;
    else if (code === "-") [x, top] = [0, top + 6];
    else {
      for (let k = 0; k < Number(run ?? 1); k++, x++) {
        for (let y = 0; y < 6; y++) {
          if ((sixel.charCodeAt(0) - 63) >> y & 1) seen[(top + y) * Number(width) + x] = colour;
        }
      }
    }
  }
  assert(seen.every((c) => c === 0 || c === 215), "all are set, to black or white");
  const middle = Math.floor(Number(height) * 1.5 / 8) * Number(width);
  const scale = Number(width) / 8;
  assertEquals([1.5, 2.5, 3.5].map((i) => seen[middle + Math.floor(i * scale)]), [0, 215, 0]);
});
