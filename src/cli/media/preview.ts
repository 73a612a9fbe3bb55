/**
 * Images in a terminal, each replacing the last: by kitty's graphics protocol, as sixels, or with half
 * blocks (two pixels per character) in all others.
 *
 * @module
 */

import { makeGrid, type Picture } from "../../sample/pixels.ts";
import { pictureSize, type Samples } from "../../sample/options.ts";

/** How a terminal displays images. */
export type Protocol = "kitty" | "sixel" | "blocks";

/**
 * Detects the protocol from environment variables. Querying the terminal would mean waiting for an
 * answer that may never come, so terminals that do not identify themselves get half blocks.
 */
export function protocolOf(variable: (name: string) => string | undefined): Protocol {
  const term = variable("TERM") ?? "", program = variable("TERM_PROGRAM") ?? "";
  // Multiplexers swallow images.
  if (variable("TMUX") || /^(screen|tmux)/.test(term)) return "blocks";
  const isKitty = variable("KITTY_WINDOW_ID") || /kitty|ghostty/.test(term);
  if (isKitty || /^(ghostty|WezTerm)$/.test(program)) return "kitty";
  if (/sixel|^(foot|mlterm|contour|yaft)/.test(term)) return "sixel";
  return "blocks";
}

/** The most lines of text that a preview takes. */
const LINES = 16;
/** Pixel rows per line of text, in most terminals at least. */
const LINE_HEIGHT = 16;

/** Base64 in chunks, as kitty's protocol requires. */
function* piecesOf(bytes: Uint8Array<ArrayBuffer>): Generator<string> {
  const text = bytes.toBase64(), most = 4096;
  for (let at = 0; at < text.length; at += most) yield text.slice(at, at + most);
}

/**
 * Raw pixels by kitty's graphics protocol, replacing the last image. Given rows alone, kitty 0.26
 * distorts images; characters are about twice as high as wide.
 *
 * @param most Characters in a line.
 */
function drawKitty({ width, height, rgba }: Picture, most: number): string {
  const pieces = [...piecesOf(new Uint8Array(rgba.buffer))], shape = 2 * width / height;
  const columns = Math.min(most, Math.round(shape * LINES));
  const lines = Math.max(1, Math.min(LINES, Math.round(columns / shape)));
  const size = `s=${width},v=${height},c=${columns},r=${lines}`;
  const head = `a=T,f=32,${size},i=7747,p=1,q=2,C=1,`;
  return pieces.map((piece, i) =>
    `\x1b_G${i ? "" : head}m=${Number(i < pieces.length - 1)};${piece}\x1b\\`
  ).join("");
}

/** Quantisation levels of red, green and blue in sixels. */
const LEVELS = 6;

/** Sixels: bands of six rows, one pass per colour. */
function drawSixel({ width, height, rgba }: Picture): string {
  const level = (byte: number) => Math.round(byte / 255 * (LEVELS - 1));
  const colours = new Map<number, string>(), index = new Uint8Array(width * height);
  for (let i = 0; i < index.length; i++) {
    const [r, g, b] = [0, 1, 2].map((c) => level(rgba[4 * i + c]));
    index[i] = (r * LEVELS + g) * LEVELS + b;
    if (!colours.has(index[i])) {
      const shares = [r, g, b].map((l) => Math.round(l * 100 / (LEVELS - 1)));
      colours.set(index[i], `#${index[i]};2;${shares.join(";")}`);
    }
  }
  let out = `\x1bP0;1;0q"1;1;${width};${height}${[...colours.values()].join("")}`;
  for (let top = 0; top < height; top += 6) {
    const rows = Math.min(6, height - top);
    for (const colour of colours.keys()) {
      let line = "", isUsed = false;
      for (let x = 0; x < width; x++) {
        let bits = 0;
        for (let y = 0; y < rows; y++) bits |= Number(index[(top + y) * width + x] === colour) << y;
        if (bits) isUsed = true;
        line += String.fromCharCode(63 + bits);
      }
      if (isUsed) {
        out += `#${colour}${line.replace(/(.)\1{3,}/g, (run, c) => `!${run.length}${c}`)}$`;
      }
    }
    out += "-";
  }
  return `${out}\x1b\\`;
}

/** Half blocks: the upper pixel in the foreground, the lower one behind it. */
function drawBlocks({ width, height, rgba }: Picture): string {
  const colour = (x: number, y: number) =>
    [0, 1, 2].map((c) => y < height ? rgba[4 * (y * width + x) + c] : 0).join(";");
  const lines: string[] = [];
  for (let y = 0; y < height; y += 2) {
    let line = "";
    for (let x = 0; x < width; x++) line += `\x1b[38;2;${colour(x, y)};48;2;${colour(x, y + 1)}m▀`;
    lines.push(`${line}\x1b[0m`);
  }
  return lines.join("\r\n");
}

/** Images in a terminal, each drawn over the previous one. */
export class Preview {
  readonly #protocol: Protocol;
  readonly #columns: number;
  readonly #write: (text: string) => void;
  #drawn = 0;

  /**
   * @param columns Characters in a line.
   * @param write Writes to the terminal.
   */
  constructor(protocol: Protocol, columns: number, write: (text: string) => void) {
    this.#protocol = protocol;
    this.#columns = columns;
    this.#write = write;
  }

  /** Draws as many of the images as fit. */
  draw(images: Samples): void {
    const { height, width } = pictureSize(images),
      { data } = images,
      isText = this.#protocol === "blocks";
    const [wide, high] = isText ? [this.#columns, 2 * LINES] : [640, LINES * LINE_HEIGHT];
    const fits = (n: number) => {
      const columns = Math.ceil(Math.sqrt(n)), rows = Math.ceil(n / columns);
      return columns * (width + 1) + 1 <= wide && rows * (height + 1) + 1 <= high;
    };
    let count = images.count;
    while (count > 1 && !fits(count)) count--;
    const part = {
      ...{ count, shape: images.shape },
      data: data.slice(0, count * data.length / images.count),
    };
    let picture = makeGrid(part, 1, 1);
    // Kitty scales images itself.
    const isSmall = this.#protocol === "sixel";
    const scale = isSmall ? Math.max(1, Math.floor(high / picture.height)) : 1;
    if (scale > 1) picture = makeGrid(part, scale, 1);
    picture = shrink(picture, wide, high);
    const lines = isText ? Math.ceil(picture.height / 2) : LINES;
    const up = this.#drawn ? `\x1b[${this.#drawn}A` : "\n".repeat(lines) + `\x1b[${lines}A`;
    const drawing = { kitty: drawKitty, sixel: drawSixel, blocks: drawBlocks }[this.#protocol];
    // Moves to the place of the image and below it again, wherever the terminal leaves its cursor.
    this.#write(`${up}\r\x1b7${drawing(picture, this.#columns)}\x1b8\x1b[${lines}B\r`);
    this.#drawn = lines;
  }
}

/** Downsamples a picture to fit. */
function shrink(picture: Picture, wide: number, high: number): Picture {
  const step = Math.ceil(Math.max(picture.width / wide, picture.height / high));
  if (step <= 1) return picture;
  const width = Math.floor(picture.width / step), height = Math.floor(picture.height / step);
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) {
    const at = 4 * (Math.floor(i / width) * step * picture.width + i % width * step);
    rgba.set(picture.rgba.subarray(at, at + 4), 4 * i);
  }
  return { width, height, rgba };
}
