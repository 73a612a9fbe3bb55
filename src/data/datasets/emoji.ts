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
  short_names: z.array(z.string()).optional(),
  unified: z.string().regex(/^[0-9A-F]{2,5}(-[0-9A-F]{2,5})*$/).optional(),
  category: z.string(),
  subcategory: z.string().optional(),
  sheet_x: cell,
  sheet_y: cell,
}));

const keywordsSchema = z.record(z.string(), z.array(z.string()));

/** Parts of other emoji, five of them, that are nothing by themselves. */
const COMPONENT = "Component";

/** Of so many names, one is held out for testing. */
const HELD_OUT = 16;

/** So many keywords of an emoji, the first, are a caption. */
const KEYWORDS = 4;

/** Which emoji of a table. */
export interface EmojiOptions {
  /** Pixels on a side of an emoji; a border of one pixel is around each. @default {32} */
  readonly size?: number;
  /**
   * Those to learn from, or those that are held out for testing: one name in 16, in every style.
   * @default {"all"}
   */
  readonly split?: "train" | "test" | "all";
  /**
   * What emoji are called today and words that go with them, by their characters, as in npm's emojilib:
   * the table alone has the names of Unicode, where a red heart is a heavy black one.
   */
  readonly keywords?: unknown;
}

/**
 * The emoji of some sheets, without variants of skin tone, their categories as classes, and as captions
 * their names, keywords, category and subcategory. Of several sheets, names are also there with the
 * style: "red heart, google".
 *
 * @param table The package's `emoji.json`, parsed; those of all packages of a version agree.
 * @param sheets The decoded sheet of each style, by its name.
 * @throws {InputError} If table and sheets do not fit each other, or table or keywords are wrong.
 *
 * @example
 * ```ts
 * import { emojiPictures } from "@x/ddpm/data";
 *
 * const table = [{ short_name: "cat", category: "Animals & Nature", sheet_x: 0, sheet_y: 0 }];
 * const sheet = { width: 34, height: 34, channels: 4, data: new Uint8Array(34 * 34 * 4) };
 * console.log(emojiPictures("emoji", table, { google: sheet }).captions); // [["cat", "animals & nature"]]
 * ```
 */
export function emojiPictures(
  name: string,
  table: unknown,
  sheets: Readonly<Record<string, Raster>>,
  { size = 32, split = "all", keywords = {} }: EmojiOptions = {},
): Pictures {
  const all = parseWith(schema, table, `${name} table`);
  const known = new Map(
    Object.entries(parseWith(keywordsSchema, keywords, `${name} keywords`))
      .map(([character, said]) => [character.replaceAll(VARIATION, ""), said.map(plain)]),
  );
  const named = all.filter(({ category }) => category !== COMPONENT).map((emoji) => {
    const { name, short_name, short_names = [short_name], unified, category, subcategory } = emoji;
    const [today, ...words] = known.get(unified ? characterOf(unified) : "") ?? [];
    return {
      ...emoji,
      names: distinct([plain(name ?? short_name), today, ...short_names.map(plain)]),
      kinds: distinct([
        words.slice(0, KEYWORDS).join(", "),
        ...[category, subcategory ?? category].map(plain),
      ]),
    };
  });
  const classes = [...new Set(named.map(({ category }) => category))].sort();
  const chosen = named.filter(({ names: [name] }) =>
    split === "all" || isHeldOut(name) === (split === "test")
  );
  const styles = Object.keys(sheets), [{ channels }] = Object.values(sheets);
  const count = styles.length * chosen.length, row = size * channels;
  const bytes = new Uint8Array(count * size * row);
  Object.values(sheets).forEach((sheet, k) => {
    const far = chosen.find(({ sheet_x: x, sheet_y: y }) =>
      (x + 1) * (size + 2) > sheet.width || (y + 1) * (size + 2) > sheet.height
    );
    if (far) {
      throw new InputError(
        `Cannot use ${name}: ${far.short_name} is at ${far.sheet_x}, ${far.sheet_y}, beyond a sheet ` +
          `of ${sheet.width}x${sheet.height}`,
      );
    }
    if (sheet.channels !== channels) {
      throw new InputError(
        `Cannot use ${name}: sheets have ${channels} and ${sheet.channels} channels`,
      );
    }
    chosen.forEach(({ sheet_x: x, sheet_y: y }, i) => {
      const left = x * (size + 2) + 1, top = y * (size + 2) + 1, to = k * chosen.length + i;
      for (let line = 0; line < size; line++) {
        const from = ((top + line) * sheet.width + left) * channels;
        bytes.set(sheet.data.subarray(from, from + row), (to * size + line) * row);
      }
    });
  });
  const layout = { count, height: size, width: size, channels };
  const labels = chosen.map(({ category }) => classes.indexOf(category));
  const inStyle = (style: string, names: readonly string[]) =>
    styles.length > 1 ? [...names, ...names.map((name) => `${name}, ${style}`)] : names;
  return {
    ...arrayPictures(name, layout, bytes, { labels: styles.flatMap(() => labels), classes }),
    names: styles.flatMap(() => chosen.map(({ names: [name] }) => name)),
    captions: styles.flatMap((style) =>
      chosen.map(({ names, kinds }) => [...inStyle(style, names), ...kinds])
    ),
  };
}

/** `CROSSED_FINGERS` and `crossed-fingers` as words. */
const plain = (name: string) => name.toLowerCase().replaceAll(/[_-]+/g, " ").trim();

/** What there is of some texts, each once. */
const distinct = (texts: readonly (string | undefined)[]): string[] => [
  ...new Set(texts.flatMap((text) => text || [])),
];

/** U+FE0F after a character asks for it in color; some tables have it where others do not. */
const VARIATION = "\ufe0f";

/** The emoji of `2764-FE0F`, without variation selectors. */
const characterOf = (unified: string) =>
  String.fromCodePoint(...unified.split("-").map((point) => parseInt(point, 16)))
    .replaceAll(VARIATION, "");

/** Whether a name is one of those for testing, by its hash: FNV-1a. */
function isHeldOut(name: string): boolean {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 8) % HELD_OUT === 0;
}
