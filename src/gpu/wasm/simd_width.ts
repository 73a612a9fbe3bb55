/**
 * Whether V8 makes 256-bit instructions of vectors that are emitted in pairs. It does if it was
 * started with `--experimental-wasm-revectorize` and `--no-wasm-bounds-checks`, and then kernels run
 * twice as fast. Nothing tells but the time: without the flags a tile of paired vectors spills.
 *
 * @module
 */

import { Module } from "./assembler.ts";
import { emitTile, panelWidth, TILE_ROWS, tileRegisters } from "./gemm.ts";
import type { WasmTarget } from "./kernel.ts";

/** Inner dimension of the products that are timed: their operands fit into the first cache. */
const K = 256;
/** Products of one call, and calls of which the fastest counts: the first ones are not optimised. */
const REPEAT = 200, ROUNDS = 40;

/** Measured: 0.5 to 0.75 in pairs, 1.2 to 4 without. */
const LIMIT = 0.95;

let known: WasmTarget["pair"] | undefined;

/**
 * How many vectors kernels are to emit side by side. Takes some 20 ms the first time: a tile is timed
 * against one of twice its width, which needs half the time for a multiplication, or more if it
 * spills.
 */
export function detectPair(): WasmTarget["pair"] {
  // A disturbance that makes slow kernels look fast would have to come twice.
  return known ??= timePairs() < LIMIT && timePairs() < LIMIT ? 2 : 1;
}

/** Time of a multiplication in the wide tile, relative to the narrow one. */
function timePairs(): number {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const module = new Module();
  const pairs = [1, 2] as const;
  for (const pair of pairs) {
    const vectors = 2 * pair, width = panelWidth(pair);
    module.define(`pair${pair}`, [], (f) => {
      const registers = tileRegisters(f, TILE_ROWS, vectors);
      const c = 4 * K * (TILE_ROWS + width);
      f.repeat(REPEAT, () =>
        emitTile(
          f,
          { rows: TILE_ROWS, vectors, aRow: 4 * K, aK: 4, bK: 4 * width, cRow: 4 * width },
          registers,
          { a: 0, b: 4 * K * TILE_ROWS, c, k: K },
        ));
    });
  }
  const code = new WebAssembly.Module(module.encode({ maxPages: 1, isShared: false }));
  const { exports } = new WebAssembly.Instance(code, { env: { memory } });
  const best = pairs.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round++) {
    pairs.forEach((pair, i) => {
      const start = performance.now();
      (exports[`pair${pair}`] as () => void)();
      best[i] = Math.min(best[i], (performance.now() - start) / pair);
    });
  }
  return best[1] / best[0];
}
