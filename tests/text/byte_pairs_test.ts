import { assertEquals } from "@std/assert";
import { BytePairs, type Merge } from "../../src/text/byte_pairs.ts";
import { Random } from "../random.ts";

/** As the paper has it: the best pair of all, wherever it stands, again and again. */
function encodePlainly(merges: readonly Merge[], letters: readonly number[]): number[] {
  let tokens = [...letters];
  for (;;) {
    const best = merges.find(({ left, right }) =>
      tokens.some((token, i) => token === left && tokens[i + 1] === right)
    );
    if (!best) return tokens;
    const merged: number[] = [];
    for (let i = 0; i < tokens.length; i++) {
      const isPair = tokens[i] === best.left && tokens[i + 1] === best.right;
      merged.push(isPair ? best.joined : tokens[i]);
      if (isPair) i++;
    }
    tokens = merged;
  }
}

Deno.test("words are merged as by looking at all pairs again and again", () => {
  const random = new Random("merges"), pick = (n: number) => Math.floor(random.between(0, n));
  for (let round = 0; round < 200; round++) {
    const letters = 1 + pick(4), merges: Merge[] = [], known = new Set<string>();
    for (let joined = letters; joined < letters + 12; joined++) {
      const left = pick(joined), right = pick(joined), key = `${left} ${right}`;
      if (!known.has(key)) merges.push({ left, right, joined });
      known.add(key);
    }
    const word = Array.from({ length: pick(40) }, () => pick(letters));
    const pairs = new BytePairs(merges);
    assertEquals(pairs.encode(Int32Array.from(word)), encodePlainly(merges, word));
  }
});
