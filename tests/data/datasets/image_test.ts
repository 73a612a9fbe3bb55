import { crc32 } from "node:zlib";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { decodeImage, readByBmp } from "../../../src/cli/data/decode.ts";
import { InputError } from "../../../src/errors.ts";
import { turn } from "../../../src/data/datasets/orientation.ts";
import { readImageHeader } from "../../../src/data/datasets/image.ts";
import type { Raster } from "../../../src/data/raster.ts";
import {
  type Expected,
  join,
  makeBmp,
  pictureFile,
  pictureJson,
  withProfile,
} from "../../pictures.ts";

const expected = await pictureJson<Record<string, Expected>>("decoded.json");

/** The picture with as many channels as are expected: decoders may give alpha where there is none. */
function assertSame(raster: Raster, { shape, data, tolerance }: Expected): void {
  assertEquals([raster.height, raster.width], shape.slice(0, 2));
  const { channels } = raster, [, , wanted] = shape;
  const hasAlpha = channels % 2 === 0, isGrey = channels < 3;
  for (let i = 0; i < raster.height * raster.width; i++) {
    const alpha = hasAlpha ? raster.data[i * channels + channels - 1] : 255;
    for (let c = 0; c < wanted; c++) {
      const isAlpha = wanted % 2 === 0 && c === wanted - 1;
      const value = isAlpha ? alpha : raster.data[i * channels + (isGrey ? 0 : c)];
      // What is fully transparent has any color.
      const off = isAlpha || alpha ? Math.abs(value - data[i * wanted + c]) : 0;
      assert(off <= tolerance, `pixel ${i}, channel ${c}: ${value}, not ${data[i * wanted + c]}`);
    }
  }
}

for (const [name, pixels] of Object.entries(expected)) {
  Deno.test(`${name} decodes to the pixels that Pillow reads`, async () => {
    const file = await pictureFile(name), raster = await decodeImage(file, name);
    assertSame(raster, pixels);
    const header = readImageHeader(file, name), sides = [header.width, header.height];
    assertEquals(sides.sort(), [raster.width, raster.height].sort());
    if (header.isGrey) assert(raster.channels < 3);
  });
}

/** EXIF data with nothing but an orientation, in either order of bytes. */
function exif(orientation: number, isLittle = false): Uint8Array {
  const view = new DataView(new ArrayBuffer(26));
  view.setUint16(0, isLittle ? 0x4949 : 0x4d4d);
  [[2, 42], [8, 1], [10, 0x112], [12, 3], [18, orientation]].forEach(([at, value]) =>
    view.setUint16(at, value, isLittle)
  );
  view.setUint32(4, 8, isLittle);
  view.setUint32(14, 1, isLittle);
  return new Uint8Array(view.buffer);
}

const text = (text: string) => new TextEncoder().encode(text);
const word = (value: number, isLittle = false) => {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value, isLittle);
  return new Uint8Array(view.buffer);
};

/** A PNG with a further chunk, after its header or before its end. */
async function withChunk(name: string, data: Uint8Array, isLate = false) {
  const file = await pictureFile(name), at = isLate ? file.length - 12 : 33;
  const body = join(text("eXIf"), data);
  const chunk = join(word(data.length), body, word(crc32(body)));
  return join(file.subarray(0, at), chunk, file.subarray(at));
}

/** A lossless WebP with EXIF data, which Deno turns by itself. */
async function webpWith(data: Uint8Array, width: number, height: number) {
  const sizes = new Uint8Array(10).with(0, 8).with(4, width - 1).with(7, height - 1);
  const body = join(
    ...[text("WEBPVP8X"), word(10, true), sizes, (await pictureFile("lossless.webp")).subarray(12)],
    ...[text("EXIF"), word(data.length, true), data],
  );
  return join(text("RIFF"), word(body.length, true), body);
}

for (let orientation = 1; orientation <= 8; orientation++) {
  Deno.test(`a PNG of EXIF orientation ${orientation} is turned like a WebP`, async () => {
    const plain = await decodeImage(await pictureFile("lossless.webp"), "x");
    const webp = await decodeImage(await webpWith(exif(orientation), 13, 9), "x");
    assertEquals(turn(plain, orientation), webp);
    const colors = await decodeImage(await pictureFile("rgb.png"), "x");
    for (const isLittle of [false, true]) {
      const png = await withChunk("rgb.png", exif(orientation, isLittle), isLittle);
      assertEquals(await decodeImage(png, "x"), turn(colors, orientation));
    }
    const marked = await withChunk("grey.png", join(text("Exif\0\0"), exif(orientation)));
    const grey = await decodeImage(await pictureFile("grey.png"), "x");
    assertEquals(await decodeImage(marked, "x"), turn(grey, orientation));
  });
}

Deno.test("EXIF data that are damaged, or say nothing, turn nothing", async () => {
  const plain = await decodeImage(await pictureFile("rgb.png"), "x");
  const six = exif(6);
  const cases = [
    ...[six.slice(0, 0), six.slice(0, 7), six.slice(0, 9), six.slice(0, 15), exif(9), exif(0)],
    ...[six.with(3, 43), six.with(7, 200), six.with(11, 0x13), six.with(13, 4)],
  ];
  for (const data of cases) {
    assertEquals(await decodeImage(await withChunk("rgb.png", data), "x"), plain);
  }
});

Deno.test("a Deno without its own way to pixels reads them by BMP", async () => {
  for (const name of ["rgb.png", "rgba.png", "grey.png", "rgb.jpg", "lossy.webp", "rgb.gif"]) {
    const bitmap = await createImageBitmap(new Blob([await pictureFile(name)]));
    assertSame(await readByBmp(bitmap), expected[name]);
  }
});

Deno.test("what is no image is refused by name", async () => {
  const cases: [Uint8Array<ArrayBuffer>, string][] = [
    [new Uint8Array(), "Cannot read x.png: it is empty"],
    [new TextEncoder().encode("<html>not found</html>"), "it is no PNG, JPEG, GIF, WebP or BMP"],
    [
      (await pictureFile("rgb.png")).slice(0, 20),
      "Cannot read x.png as PNG: its header is damaged",
    ],
    [(await pictureFile("rgb.png")).slice(0, 60), "Cannot read x.png as PNG: its data are damaged"],
    [(await pictureFile("rgb.jpg")).slice(0, 100), "Cannot read x.png as JPEG: its header is dama"],
    [(await pictureFile("lossy.webp")).slice(0, 60), "as WebP: its data are damaged"],
    [(await pictureFile("rgb.gif")).slice(0, 250), "as GIF: its data are damaged"],
    [(await pictureFile("rgb.bmp")).slice(0, 80), "as BMP: its data are damaged"],
  ];
  for (const [bytes, message] of cases) {
    await assertRejects(() => decodeImage(bytes, "x.png"), InputError, message);
  }
});

Deno.test("an image that says it is huge is refused before it is decoded", async () => {
  const huge = async (name: string, ...changes: [number, number[]][]) => {
    const bytes = await pictureFile(name);
    for (const [at, values] of changes) bytes.set(values, at);
    return bytes;
  };
  const jpeg = await pictureFile("rgb.jpg");
  const frame = jpeg.findIndex((b, i) => b === 0xff && jpeg[i + 1] === 0xc0);
  const gif = await pictureFile("rgb.gif");
  const first = gif.findIndex((b, i) => b === 0x2c && gif[i + 5] === 13 && gif[i + 7] === 9);
  const files = [
    await huge("rgb.gif", [first + 5, [0xff, 0xff, 0xff, 0xff]]),
    await huge("rgb.png", [16, [0, 1, 0, 0]], [20, [0, 1, 0, 0]]),
    await huge("rgb.jpg", [frame + 5, [0xff, 0xff, 0xff, 0xff]]),
    await huge("rgb.gif", [6, [0xff, 0xff, 0xff, 0xff]]),
    await huge("alpha.webp", [21, [0xff, 0xff, 0xff, 0x0f]]),
    makeBmp(1, 1, [1, 2, 3]).with(20, 1).with(24, 1),
  ];
  for (const file of files) {
    assertThrows(() => readImageHeader(file, "x"), InputError, "are more than 100 million pixels");
  }
});

/** Whether a file is of grey, or of grey and alpha. */
const isGrey = (name: string) => expected[name].shape[2] < 3;

Deno.test("a color profile that does not fit a picture is ignored", async () => {
  const srgb = await pictureFile("srgb.icc"), grey = await pictureFile("grey.icc");
  const profiles = { srgb, grey, half: srgb.slice(0, 300), noise: srgb.map((x, i) => x ^ i) };
  for (const name of Object.keys(expected).filter((name) => /\.(png|jpg)$/.test(name))) {
    const file = await pictureFile(name), plain = await decodeImage(file, name);
    for (const [kind, profile] of Object.entries(profiles)) {
      if (kind === "srgb" && !isGrey(name)) continue;
      const raster = await decodeImage(await withProfile(file, profile), name);
      assertEquals(raster, plain, `${name} with the profile ${kind}`);
    }
  }
});

Deno.test("the color profile of a picture in color is heeded", async () => {
  const srgb = await pictureFile("srgb.icc"),
    mean = ({ data }: Raster, from: number) =>
      data.reduce((sum, x, i) => i % 3 === from ? sum + x : sum, 0) / (data.length / 3);
  // A profile of whose primaries the red one is called blue, and the blue one red.
  const swapped = srgb.slice(), text = new TextDecoder("latin1").decode(srgb);
  for (const [from, to] of ["rb", "br"]) swapped[text.indexOf(`${from}XYZ`)] = to.charCodeAt(0);
  for (const name of ["rgb.png", "rgb.jpg", "progressive.jpg"]) {
    const file = await pictureFile(name), plain = await decodeImage(file, name);
    const same = await decodeImage(await withProfile(file, srgb), name);
    same.data.forEach((x, i) => assert(Math.abs(x - plain.data[i]) <= 2));
    const other = await decodeImage(await withProfile(file, swapped), name);
    for (const [a, b] of [[0, 2], [2, 0]]) {
      assert(Math.abs(mean(other, a) - mean(plain, b)) < 3, `${name}, channel ${a}`);
    }
  }
});

Deno.test("a file that is cut off anywhere is refused, unless no pixel is missing", async () => {
  for (const name of Object.keys(expected)) {
    const file = await pictureFile(name), { data } = await decodeImage(file, name);
    let refused = 0;
    for (let length = 20; length < file.length; length++) {
      const raster = await decodeImage(file.slice(0, length), name).catch((error) => error);
      if (raster instanceof InputError) refused++;
      else assertEquals(raster.data, data, `${name}, the first ${length} of ${file.length} bytes`);
    }
    assert(refused > (file.length - 20) / 3, `${name}: ${refused} of ${file.length}`);
    // With the bytes of another file behind it, it is whole.
    const more = new Uint8Array([...file, ...await pictureFile("grey.jpg")]);
    assertEquals((await decodeImage(more, name)).data, data, `${name} with bytes behind it`);
  }
});

Deno.test("a thumbnail's end is not the end of a JPEG file", async () => {
  const [file, thumbnail] = [await pictureFile("rgb.jpg"), await pictureFile("grey.jpg")];
  const length = 2 + thumbnail.length, head = [0xff, 0xe1, length >> 8, length & 255];
  const whole = new Uint8Array([...file.slice(0, 2), ...head, ...thumbnail, ...file.slice(2)]);
  assertEquals((await decodeImage(whole, "x")).width, 13);
  await assertRejects(
    () => decodeImage(whole.slice(0, -30), "x"),
    InputError,
    "Cannot read x as JPEG: its data are damaged (the file is cut off before its end)",
  );
});
