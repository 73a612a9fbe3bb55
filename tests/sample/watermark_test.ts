import { assert, assertEquals, assertThrows } from "@std/assert";
import { decode, Image } from "imagescript";
import { InputError } from "../../src/errors.ts";
import type { Picture } from "../../src/sample/pixels.ts";
import { embedWatermark, readWatermark } from "../../src/sample/watermark.ts";
import { Random } from "../random.ts";

/** A picture of smooth colors with an edge and grain. */
function draw(width: number, height: number, name = "picture"): Picture {
  const random = new Random(name), rgba = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < rgba.length; i++) {
    const x = (i >> 2) % width, y = Math.floor((i >> 2) / width), c = i % 4;
    const smooth = 110 + 60 * Math.sin(x / 30 + c) + 50 * Math.cos(y / 22 - c);
    const edge = (x - 90) ** 2 + (y - 120) ** 2 < 3000 ? 60 : 0;
    rgba[i] = c === 3 ? 255 : smooth - edge + random.between(-12, 12);
  }
  return { width, height, rgba };
}

async function throughJpeg({ width, height, rgba }: Picture, quality: 75 | 90): Promise<Picture> {
  const image = new Image(width, height);
  image.bitmap.set(rgba);
  const back = await decode(await image.encodeJPEG(quality)) as Image;
  return { width, height, rgba: new Uint8ClampedArray(back.bitmap) };
}

const decibels = (a: Picture, b: Picture) => {
  const sum = a.rgba.reduce((sum, x, i) => sum + (x - b.rgba[i]) ** 2, 0);
  return 10 * Math.log10(255 ** 2 / (sum / (0.75 * a.rgba.length)));
};

Deno.test("a watermark is read back, after JPEG and noise too, and hardly changes the picture", async () => {
  for (const [width, height] of [[256, 256], [299, 241]]) {
    const picture = draw(width, height), marked = embedWatermark(picture, "grüße, ddpm 0.2")!;
    assertEquals(readWatermark(marked), "grüße, ddpm 0.2");
    assert(decibels(picture, marked) > 43, `${decibels(picture, marked)} dB`);
    for (const quality of [90, 75] as const) {
      assertEquals(readWatermark(await throughJpeg(marked, quality)), "grüße, ddpm 0.2");
    }
    const random = new Random("noise");
    const rgba = marked.rgba.map((x, i) => i % 4 === 3 ? x : x + random.between(-8, 8));
    assertEquals(readWatermark({ width, height, rgba }), "grüße, ddpm 0.2");
  }
});

Deno.test("no watermark is read where there is none, or where pixels have moved", () => {
  const picture = draw(264, 256);
  assertEquals(readWatermark(picture), undefined);
  for (const grey of [0, 128, 255]) {
    assertEquals(readWatermark({ ...picture, rgba: picture.rgba.slice().fill(grey) }), undefined);
  }
  const { rgba } = embedWatermark(picture, "ddpm")!;
  const moved = rgba.slice();
  moved.copyWithin(0, 4);
  assertEquals(readWatermark({ ...picture, rgba: moved }), undefined);
  assertEquals(readWatermark({ width: 8, height: 8, rgba: new Uint8ClampedArray(256) }), undefined);
});

Deno.test("what cannot carry a watermark is told", () => {
  const all = (value: number): Picture => {
    const rgba = new Uint8ClampedArray(4 * 256 * 256).fill(value);
    return { width: 256, height: 256, rgba };
  };
  // It could be read back, but not after JPEG.
  assert(!embedWatermark(all(90), "x"));
  const message = (width: number, text: string) =>
    assertThrows(() => embedWatermark(draw(width, 256), text), InputError).message;
  assert(message(255, "x").includes("as many pixels as 256x256 have"));
  for (const text of ["", "a\0b", "ü".repeat(11)]) {
    assert(message(256, text).includes("1 to 20 bytes"));
  }
  assertEquals(readWatermark(embedWatermark(draw(256, 256), "ü".repeat(10))!), "ü".repeat(10));
});
