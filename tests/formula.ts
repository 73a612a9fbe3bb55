/**
 * Weights that need no file, since a formula gives them.
 *
 * @module
 */

/** Numbers in [-1, 1): FNV-1a of the name, and the finaliser of murmur3. */
export function hashed(name: string, count: number): Float32Array<ArrayBuffer> {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) hash = Math.imul(hash ^ byte, 0x01000193);
  const values = new Float32Array(count);
  // A loop, since networks have up to a thousand million numbers.
  for (let i = 0; i < count; i++) {
    let x = (hash + Math.imul(i, 0x9e3779b9)) >>> 0;
    x = Math.imul(x ^ x >>> 16, 0x85ebca6b);
    x = Math.imul(x ^ x >>> 13, 0xc2b2ae35);
    x = (x ^ x >>> 16) >>> 0;
    values[i] = (x >>> 8) / 2 ** 23 - 1;
  }
  return values;
}
