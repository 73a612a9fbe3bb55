import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { placementAt, type Preparation } from "../../src/data/pictures.ts";
import { convert, fit, type Raster, resize, writeImage } from "../../src/data/raster.ts";
import { pictureJson } from "../pictures.ts";

const fixture = await pictureJson<{
  height: number;
  width: number;
  source: number[];
  grey: number[];
  fitted: { height: number; width: number; data: number[] }[];
}>("fitted.json");
const source: Raster = {
  ...{ height: fixture.height, width: fixture.width, channels: 3 },
  data: new Uint8Array(fixture.source),
};
const background = [255, 255, 255] as const;

for (const { height, width, data } of fixture.fitted) {
  Deno.test(`fit() to ${width}x${height} agrees with Pillow's ImageOps.fit`, () => {
    const fitted = fit(source, { height, width, channels: 3, background }, "center");
    assertEquals([fitted.width, fitted.height, fitted.channels], [width, height, 3]);
    const off = data.map((value, i) => Math.abs(value - fitted.data[i]));
    // Pillow rounds after each of its two passes, and its weights to 22 bits.
    assert(Math.max(...off) <= 1, `${Math.max(...off)} levels off`);
    assert(off.filter((d) => d > 0).length < 0.3 * off.length);
  });
}

Deno.test("reducing is a mean of everything beneath, not of some of it", () => {
  const size = 64, stripes = Uint8Array.from({ length: size * size }, (_, i) => i % 2 ? 255 : 0);
  const raster = { width: size, height: size, channels: 1, data: stripes };
  const { data } = resize(raster, 8, 8, { left: 0, top: 0, width: size, height: size });
  assert(data.every((value) => Math.abs(value - 127.5) < 5), `${data}`);
});

Deno.test("a picture of one color stays so, whatever becomes of it", () => {
  for (const [width, height] of [[1, 1], [3, 50], [200, 7]]) {
    const raster = { width, height, channels: 1, data: new Uint8Array(width * height).fill(201) };
    for (const [w, h] of [[1, 1], [5, 4], [16, 2]]) {
      const format = { width: w, height: h, channels: 1, background };
      assert(fit(raster, format, "center").data.every((value) => value === 201));
    }
  }
});

Deno.test("convert() to grey agrees with Pillow", () => {
  const { data } = convert(source, 1, background);
  assert(data.every((value, i) => Math.abs(value - fixture.grey[i]) <= 1));
});

Deno.test("convert() lays transparency over the background, in color and grey", () => {
  const one = (channels: number, ...data: number[]): Raster => ({
    ...{ width: 1, height: 1, channels },
    data: new Uint8Array(data),
  });
  const green = [0, 255, 0] as const;
  const cases: [Raster, number, number[]][] = [
    [one(4, 200, 100, 50, 255), 3, [200, 100, 50]],
    [one(4, 200, 100, 50, 0), 3, [0, 255, 0]],
    [one(4, 200, 100, 50, 51), 3, [40, 224, 10]],
    [one(2, 100, 51), 3, [20, 224, 20]],
    [one(2, 100, 0), 1, [150]],
    [one(4, 255, 0, 0, 255), 1, [76]],
    [one(1, 9), 3, [9, 9, 9]],
    [one(3, 9, 9, 9), 1, [9]],
  ];
  for (const [raster, channels, expected] of cases) {
    assertEquals([...convert(raster, channels, green).data], expected);
  }
});

/** A row of pixels 0, 1, 2... */
const ramp = (width: number, height = 1): Raster => ({
  ...{ width, height, channels: 1 },
  data: Uint8Array.from({ length: width * height }, (_, i) => i % width),
});

const write = (raster: Raster, width: number, left: number, isFlipped: boolean) => {
  const out = new Float32Array(width * raster.height + 1).fill(9);
  const format = { width, height: raster.height, channels: 1, background };
  writeImage(raster, format, { left, top: 0, isFlipped }, out, 1);
  assertEquals(out[0], 9);
  return [...out.subarray(1)].map((x) => Math.round((x + 1) * 127.5));
};

Deno.test("writeImage() cuts, flips, moves, and repeats edges", () => {
  assertEquals(write(ramp(5), 5, 0, false), [0, 1, 2, 3, 4]);
  assertEquals(write(ramp(5), 5, 0, true), [4, 3, 2, 1, 0]);
  assertEquals(write(ramp(9), 5, 3, false), [3, 4, 5, 6, 7]);
  assertEquals(write(ramp(9), 5, 3, true), [7, 6, 5, 4, 3]);
  assertEquals(write(ramp(5), 5, 2, false), [2, 3, 4, 4, 4]);
  assertEquals(write(ramp(5), 5, -2, false), [0, 0, 0, 1, 2]);
  assertEquals(write(ramp(5), 5, -2, true), [2, 1, 0, 0, 0]);
});

const preparation = (changes: Partial<Preparation>): Preparation => ({
  ...{ height: 4, width: 4, channels: 1, background, crop: "center", flip: false, shift: 0 },
  ...changes,
});
const places = Array.from({ length: 4000 }, (_, i) => i);
const placements = (raster: Raster, changes: Partial<Preparation>, seed = 1) =>
  places.map((place) => placementAt(raster, preparation(changes), seed, place));

Deno.test("variations are a pure function of seed and place, and differ between both", () => {
  const wild = { flip: true, shift: 3, crop: "random" } as const, raster = ramp(9, 4);
  const one = placements(raster, wild);
  assertEquals(placements(raster, wild), one);
  assertEquals(placementAt(raster, preparation(wild), 1, 17), one[17]);
  const other = placements(raster, wild, 2);
  assert(other.filter((p, i) => p.left === one[i].left).length < 0.3 * places.length);
  const far = placementAt(raster, preparation(wild), 1, 2 ** 40);
  assertEquals(placementAt(raster, preparation(wild), 1, 2 ** 40), far);
});

Deno.test("every variation that is allowed comes about as often as any other", () => {
  const count = (values: readonly number[]) => {
    const counts = new Map<number, number>();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return counts;
  };
  const check = (values: readonly number[], expected: readonly number[]) => {
    const counts = count(values);
    assertEquals([...counts.keys()].sort((a, b) => a - b), expected);
    for (const n of counts.values()) {
      assert(Math.abs(n * expected.length / places.length - 1) < 0.2);
    }
  };
  const square = ramp(4, 4);
  check(placements(square, { shift: 2 }).map((p) => p.left), [-2, -1, 0, 1, 2]);
  check(placements(square, { shift: 2 }).map((p) => p.top), [-2, -1, 0, 1, 2]);
  check(placements(square, { flip: true }).map((p) => Number(p.isFlipped)), [0, 1]);
  check(placements(ramp(9, 4), { crop: "random" }).map((p) => p.left), [0, 1, 2, 3, 4, 5]);
  check(placements(ramp(4, 6), { crop: "random" }).map((p) => p.top), [0, 1, 2]);
  check(placements(ramp(9, 4), {}).map((p) => p.left), [2]);
  check(placements(square, {}).map((p) => p.left + p.top + Number(p.isFlipped)), [0]);
});

Deno.test("random crops come out of a picture whose shorter side fits", () => {
  const fitted = fit(ramp(200, 50), preparation({}), "random");
  assertEquals([fitted.width, fitted.height], [16, 4]);
  assertThrows(() => fit(ramp(5000, 2), preparation({}), "random"), InputError, "too long a strip");
});
