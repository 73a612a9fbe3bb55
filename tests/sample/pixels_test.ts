import { assertEquals, assertThrows } from "@std/assert";
import { makeGrid, makePicture } from "../../src/sample/pixels.ts";
import type { Samples } from "../../src/sample/options.ts";

const imagesOf = (
  count: number,
  height: number,
  width: number,
  channels: number,
  value: (i: number) => number,
): Samples => ({
  ...{ count, shape: [height, width, channels] },
  data: Float32Array.from({ length: count * height * width * channels }, (_, i) => value(i)),
});

/** The red bytes of a picture, row by row. */
const rows = ({ width, height, rgba }: ReturnType<typeof makeGrid>) =>
  Array.from(
    { length: height },
    (_, y) => Array.from({ length: width }, (_, x) => rgba[4 * (y * width + x)]),
  );

Deno.test("makePicture() maps -1 to black and 1 to white, and clamps what is beyond", () => {
  const values = [-1, 1, 0, -0.5, 2, -7, 1.004, NaN];
  const { width, height, rgba } = makePicture(imagesOf(1, 2, 4, 1, (i) => values[i]), 0);
  assertEquals([width, height], [4, 2]);
  assertEquals(rows({ width, height, rgba }), [[0, 255, 128, 64], [255, 0, 255, 0]]);
});

Deno.test("makePicture() makes grey of one channel, opaque", () => {
  const { rgba } = makePicture(imagesOf(2, 1, 1, 1, (i) => [-1, 0.2][i]), 1);
  assertEquals([...rgba], [153, 153, 153, 255]);
});

Deno.test("makePicture() makes colors of three channels", () => {
  const { rgba } = makePicture(imagesOf(1, 1, 2, 3, (i) => [1, 0, -1, -1, 1, 0.2][i]), 0);
  assertEquals([...rgba], [255, 128, 0, 255, 0, 255, 153, 255]);
});

Deno.test("bytes survive the way to [-1, 1] and back", () => {
  const { rgba } = makePicture(imagesOf(1, 16, 16, 1, (i) => Math.fround(i / 127.5 - 1)), 0);
  for (let i = 0; i < 256; i++) assertEquals(rgba[4 * i], i);
});

Deno.test("makeGrid() puts the images side by side, row by row, with gaps around them", () => {
  // Image k is k / 5 of the way from black to white.
  const images = imagesOf(3, 1, 2, 1, (i) => Math.floor(i / 2) * 0.4 - 0.6);
  assertEquals(rows(makeGrid(images)), [
    [0, 0, 0, 0, 0, 0, 0],
    [0, 51, 51, 0, 102, 102, 0],
    [0, 0, 0, 0, 0, 0, 0],
    [0, 153, 153, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0],
  ]);
});

Deno.test("makeGrid() fills its rows before it starts new ones", () => {
  const images = imagesOf(5, 1, 1, 1, (i) => 0.4 * i - 1);
  assertEquals(rows(makeGrid(images, 1, 0)), [[0, 51, 102], [153, 204, 0]]);
});

Deno.test("makeGrid() is as square as can be", () => {
  const size = (count: number) => {
    const { width, height } = makeGrid(imagesOf(count, 1, 1, 1, () => 0), 1, 0);
    return [width, height];
  };
  assertEquals([1, 2, 3, 4, 5, 16, 17].map(size), [[1, 1], [2, 1], [2, 2], [2, 2], [3, 2], [4, 4], [
    5,
    4,
  ]]);
});

Deno.test("makeGrid() makes squares of pixels and widens the gaps alike", () => {
  const images = imagesOf(1, 1, 2, 1, (i) => [-0.6, 0.2][i]);
  assertEquals(rows(makeGrid(images, 2)), [
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 51, 51, 153, 153, 0, 0],
    [0, 0, 51, 51, 153, 153, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0],
  ]);
  assertEquals(rows(makeGrid(images, 3, 0)).length, 3);
});

Deno.test("makeGrid() makes colors, and everything opaque", () => {
  const { rgba, width } = makeGrid(imagesOf(1, 1, 1, 3, (i) => [1, 0.2, -1][i]));
  assertEquals(width, 3);
  assertEquals([...rgba.slice(16, 20)], [255, 153, 0, 255]);
  for (let i = 3; i < rgba.length; i += 4) assertEquals(rgba[i], 255);
});

Deno.test("makeGrid() refuses images that are neither grey nor red, green and blue", () => {
  for (const channels of [2, 4]) {
    const images = imagesOf(1, 2, 2, channels, () => 0);
    assertThrows(() => makeGrid(images), RangeError, `${channels} channels`);
  }
});
