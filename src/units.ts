/**
 * Sizes as people read them.
 *
 * @module
 */

const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

/** A number of bytes as text, "12.3 MB": decimal units, three digits. */
export function formatBytes(bytes: number): string {
  if (bytes === 1) return "1 byte";
  // What rounds to 1000 belongs to the next unit.
  const power = bytes < 1000 ? 0 : Math.floor(Math.log10(Number(bytes.toPrecision(3))) / 3);
  const i = Math.min(power, UNITS.length - 1), value = bytes / 1000 ** i;
  return `${i ? value.toPrecision(Math.max(3, String(Math.round(value)).length)) : bytes} ${
    UNITS[i]
  }`;
}

/** Two different numbers of bytes as texts that differ: exact ones where rounded ones would not. */
export function formatBytePair(a: number, b: number): [string, string] {
  const rounded = [a, b].map(formatBytes);
  const exact = (n: number) => `${n.toLocaleString("en")} bytes`;
  return rounded[0] === rounded[1] && a !== b ? [exact(a), exact(b)] : [rounded[0], rounded[1]];
}
