/**
 * Damage to files, for tests of what reads them.
 *
 * @module
 */

import type { Random } from "./random.ts";

/** The bytes with one to four things wrong: bytes changed, dropped, repeated, or an end cut off. */
export function mutate(bytes: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  let list = [...bytes];
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.below(list.length), length = 1 + random.below(8);
    switch (random.below(6)) {
      case 0:
        list[at] = random.below(256);
        break;
      case 1:
        list[at] ^= 1 << random.below(8);
        break;
      case 2: // What parsers of text care about.
        list[at] = '0123456789-.eE"{}[],: '.charCodeAt(random.below(22));
        break;
      case 3:
        list.splice(at, length);
        break;
      case 4:
        list.splice(at, 0, ...list.slice(at, at + length));
        break;
      case 5:
        list = list.slice(0, at + 1);
        break;
    }
  }
  return new Uint8Array(list);
}
