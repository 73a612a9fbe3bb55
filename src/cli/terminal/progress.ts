/**
 * A progress line on stderr, and other output. The loop that does the work draws the line: timers do
 * not run while Deno waits for a GPU.
 *
 * @module
 */

/** The least time between two updates. */
const INTERVAL_MS = 100;

/** The width of a terminal that does not report one. */
const DEFAULT_COLUMNS = 80;
/** The width of text that goes to a file or a pipe. */
const FILE_COLUMNS = 100;

/** Columns of a terminal, or of what stands in its place. */
export function terminalWidth(stream: { isTerminal(): boolean }): number {
  if (!stream.isTerminal()) return FILE_COLUMNS;
  try {
    return Deno.consoleSize().columns || DEFAULT_COLUMNS;
  } catch {
    // It was closed.
    return DEFAULT_COLUMNS;
  }
}

/**
 * A status line on a terminal; without one, only lines of {@linkcode Progress.say} are written.
 * Disposing of it clears the line, so that an error message starts on an empty one.
 */
export class Progress implements Disposable {
  readonly #isTerminal = Deno.stderr.isTerminal();
  /** What the line starts with. */
  prefix = "";
  #drawn = "";
  #last = 0;

  /** Draws the line, if the last one is old enough. */
  update(text: string): void {
    if (!this.#isTerminal || performance.now() - this.#last < INTERVAL_MS) return;
    this.#last = performance.now();
    const line = `${this.prefix}${text}`.slice(0, terminalWidth(Deno.stderr) - 1);
    writeTerminal(`\r${line.padEnd(this.#drawn.length)}`);
    this.#drawn = line;
  }

  /** Writes a permanent line. */
  say(text: string): void {
    this.clear();
    writeTerminal(`${text}\n`);
  }

  /** Clears the status line. */
  clear(): void {
    if (this.#drawn) writeTerminal(`\r${" ".repeat(this.#drawn.length)}\r`);
    this.#drawn = "";
  }

  [Symbol.dispose](): void {
    this.clear();
  }
}

/** Writes a result to stdout. */
export function print(text: string): void {
  try {
    // deno-lint-ignore no-console -- the one place that does
    console.log(harmless(text));
  } catch (error) {
    // A closed terminal.
    if ((error as { code?: unknown }).code !== "EIO") throw error;
  }
}

let isSilent = false;

/** Lets {@linkcode printError} write nothing any more, in a thread that repeats what another one does. */
export function silence(): void {
  isSilent = true;
}

/** Writes an error to stderr. */
export function printError(text: string): void {
  if (isSilent) return;
  // deno-lint-ignore no-console
  console.error(harmless(text));
}

/** Replaces control characters, with which text from files could manipulate the terminal. */
const harmless = (text: string) => text.replace(/(?!\n)\p{Cc}/gu, "\ufffd");

const encoder = new TextEncoder();

/** Writes to stderr. A closed terminal does not end a training. */
export function writeTerminal(text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  } catch { /* Nobody is reading. */ }
}

/** Whether this can be a time or a speed. */
const isSensible = (x: number) => x >= 0 && x <= Number.MAX_SAFE_INTEGER;

/** A duration as text, "1 h 5 min"; "–" if it is not a valid one. */
export function formatTime(seconds: number): string {
  if (!isSensible(seconds)) return "–";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * The time that a loop has left at its pace so far, ", 5 s left"; nothing while it is unknown.
 *
 * @param seconds The time of the part that is done.
 */
export function formatLeft(done: number, total: number, seconds: number): string {
  const left = seconds / done * Math.max(total - done, 0);
  return isSensible(left) ? `, ${formatTime(left)} left` : "";
}

/** A rate per second, "12.3"; "–" while it is unknown. */
export function formatRate(count: number, seconds: number): string {
  const rate = count / seconds;
  return isSensible(rate) ? rate.toFixed(1) : "–";
}

/** A table as lines: columns before `texts` are aligned left, the others right. */
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
