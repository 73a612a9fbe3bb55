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
  #drawn = "";
  #last = 0;

  /** Draws the line, if it is time. */
  update(text: string): void {
    if (!this.#isTerminal || performance.now() - this.#last < INTERVAL_MS) return;
    this.#last = performance.now();
    const line = text.slice(0, terminalColumns() - 1);
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
  try {
    // deno-lint-ignore no-console -- the one place that does
    console.log(harmless(text));
  } catch (error) {
    // So a terminal answers that was closed.
    if ((error as { code?: unknown }).code !== "EIO") throw error;
  }
}

/** Writes what went wrong, to stderr. */
export function printError(text: string): void {
  // deno-lint-ignore no-console
  console.error(harmless(text));
}

/** Without control characters, which texts out of files could use to repaint a terminal. */
const harmless = (text: string) => text.replace(/(?!\n)\p{Cc}/gu, "\ufffd");

const encoder = new TextEncoder();

/** The width of the terminal, be it still there or not. */
function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns || USUAL_COLUMNS;
  } catch {
    return USUAL_COLUMNS;
  }
}

/** Writes to stderr. A terminal that was closed is no reason to end a training. */
export function writeTerminal(text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  } catch { /* Nobody reads any more. */ }
}

/** Whether this can be a time or a speed. */
const isSensible = (x: number) => x >= 0 && x <= Number.MAX_SAFE_INTEGER;

/** A time in words, "1 h 5 min"; "–" for what is none. */
export function formatTime(seconds: number): string {
  if (!isSensible(seconds)) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * What is left of a loop at the pace so far, ", 5 s left"; nothing as long as that cannot be told.
 *
 * @param seconds What the part that is done took.
 */
export function formatLeft(done: number, total: number, seconds: number): string {
  const left = seconds / done * Math.max(total - done, 0);
  return isSensible(left) ? `, ${formatTime(left)} left` : "";
}

/** How many of something a second, "12.3"; "–" as long as that cannot be told. */
export function formatRate(count: number, seconds: number): string {
  const rate = count / seconds;
  return isSensible(rate) ? rate.toFixed(1) : "–";
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
