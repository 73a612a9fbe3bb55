/**
 * The sheets of the npm packages emoji-datasource-*: one large picture with all emoji in cells, and
 * a table that tells where each is, what it is called, and in which category.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { InputError } from "../../errors.ts";
import type { Pictures } from "../pictures.ts";
import type { Raster } from "../raster.ts";
import { arrayPictures } from "./array.ts";

const cell = z.int().min(0).max(4096);
const schema = z.array(z.looseObject({
  name: z.string().nullish(),
  short_name: z.string(),
  category: z.string(),
  sheet_x: cell,
  sheet_y: cell,
}));

/** Parts of other emoji, five of them, that are nothing by themselves. */
const COMPONENT = "Component";

/**
 * The emoji of a sheet, without variants of skin tone, and their categories as classes.
 *
 * @param table The package's `emoji.json`, parsed.
 * @param sheet The sheet, decoded.
 * @param size Pixels on a side of an emoji; a border of one pixel is around each.
 * @throws {InputError} If table and sheet do not fit each other.
 *
 * @example
 * ```ts
 * import { emojiPictures } from "@x/ddpm/data";
 *
 * const table = [{ short_name: "cat", category: "Animals & Nature", sheet_x: 0, sheet_y: 0 }];
 * const sheet = { width: 34, height: 34, channels: 4, data: new Uint8Array(34 * 34 * 4) };
 * console.log(emojiPictures("emoji", table, sheet).names); // ["cat"]
 * ```
 */
export function emojiPictures(name: string, table: unknown, sheet: Raster, size = 32): Pictures {
  const all = parseWith(schema, table, `${name} table`);
  const emoji = all.filter(({ category }) => category !== COMPONENT);
  const classes = [...new Set(emoji.map(({ category }) => category))].sort();
  const far = emoji.find(({ sheet_x: x, sheet_y: y }) =>
    (x + 1) * (size + 2) > sheet.width || (y + 1) * (size + 2) > sheet.height
  );
  if (far) {
    throw new InputError(
      `Cannot use ${name}: ${far.short_name} is at ${far.sheet_x}, ${far.sheet_y}, beyond a sheet ` +
        `of ${sheet.width}x${sheet.height}`,
    );
  }
  const names = emoji.map((e) => (e.name ?? e.short_name.replaceAll("_", " ")).toLowerCase());
  const { channels } = sheet, row = size * channels;
  const bytes = new Uint8Array(emoji.length * size * row);
  emoji.forEach(({ sheet_x: x, sheet_y: y }, i) => {
    const left = x * (size + 2) + 1, top = y * (size + 2) + 1;
    for (let k = 0; k < size; k++) {
      const from = ((top + k) * sheet.width + left) * channels;
      bytes.set(sheet.data.subarray(from, from + row), (i * size + k) * row);
    }
  });
  const layout = { count: emoji.length, height: size, width: size, channels };
  const labels = emoji.map(({ category }) => classes.indexOf(category));
  return { ...arrayPictures(name, layout, bytes, { labels, classes }), names };
}
