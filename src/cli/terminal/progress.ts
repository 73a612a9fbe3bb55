/**
 * A line on stderr that tells how far things are. It is drawn by the loop that does the work: timers
 * do not run while Deno waits for a GPU.
 *
 * @module
 */

/** How often the line is drawn anew. */
const INTERVAL_MS = 100;

/** The width of terminals that do not tell theirs. */
const USUAL_COLUMNS = 80;

/**
 * A status line on a terminal; elsewhere only what is said with {@linkcode Progress.say}. Disposing
 * of it takes the line away, so that an error does not end up behind it.
 */
export class Progress implements Disposable {
  readonly #isTerminal = Deno.stderr.isTerminal();
  /** What the line starts with. */
  prefix = "";
  #drawn = "";
  #last = 0;

  /** Draws the line, if it is time. */
  update(text: string): void {
    if (!this.#isTerminal || performance.now() - this.#last < INTERVAL_MS) return;
    this.#last = performance.now();
    const line = `${this.prefix}${text}`.slice(
      0,
      (Deno.consoleSize().columns || USUAL_COLUMNS) - 1,
    );
    writeTerminal(`\r${line.padEnd(this.#drawn.length)}`);
    this.#drawn = line;
  }

  /** Writes a line that stays. */
  say(text: string): void {
    this.clear();
    writeTerminal(`${text}\n`);
  }

  /** Takes the status line away. */
  clear(): void {
    if (this.#drawn) writeTerminal(`\r${" ".repeat(this.#drawn.length)}\r`);
    this.#drawn = "";
  }

  [Symbol.dispose](): void {
    this.clear();
  }
}

/** Writes a result, to stdout. */
export function print(text: string): void {
  // deno-lint-ignore no-console -- the one place that does
  console.log(harmless(text));
}

/** Writes what went wrong, to stderr. */
export function printError(text: string): void {
  // deno-lint-ignore no-console
  console.error(harmless(text));
}

/** Without control characters, which texts out of files could use to repaint a terminal. */
const harmless = (text: string) => text.replace(/(?!\n)\p{Cc}/gu, "\ufffd");

const encoder = new TextEncoder();

/** Writes to stderr. A terminal that was closed is no reason to end a training. */
export function writeTerminal(text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  } catch { /* Nobody reads any more. */ }
}

/** A time in words, "1 h 5 min". */
export function formatTime(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Bytes in words, "12.3 MB". */
export function formatBytes(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; bytes >= 1000 && i < units.length - 1; i++) bytes /= 1000;
  return `${i ? bytes.toPrecision(3) : bytes} ${units[i]}`;
}

/** Rows as lines, their cells aligned: texts to the left, from column `texts` on to the right. */
export function columns(rows: readonly (readonly string[])[], texts: number): string[] {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => row[i].length)));
  return rows.map((row) =>
    row.map((cell, i) =>
      i < texts || i === row.length - 1 && texts > 1
        ? cell.padEnd(widths[i])
        : cell.padStart(widths[i])
    ).join("  ").trimEnd()
  );
}
