/**
 * WordPiece (Wu et al. 2016) as BERT applies it to single words: the longest piece that is known, from
 * the left, again and again.
 *
 * @module
 */

/** Words of more characters have no pieces. */
const LONGEST = 100;
/** Begins pieces that are not the first of a word. */
const CONTINUES = "##";

/** Pieces that words are made of. */
export class WordPieces {
  readonly #ids: ReadonlyMap<string, number>;
  readonly #unknown: number;

  /**
   * @param ids By pieces; those within a word begin with `##`.
   * @param unknown What stands for words that pieces do not make up.
   */
  constructor(ids: ReadonlyMap<string, number>, unknown: number) {
    [this.#ids, this.#unknown] = [ids, unknown];
  }

  /** The tokens of a word. */
  encode(word: string): number[] {
    // A character is one code unit or two.
    const letters = word.length > 2 * LONGEST ? undefined : [...word], tokens: number[] = [];
    if (!letters || letters.length > LONGEST) return [this.#unknown];
    for (let at = 0; at < letters.length;) {
      let end = letters.length, id: number | undefined;
      for (; end > at; end--) {
        id = this.#ids.get((at ? CONTINUES : "") + letters.slice(at, end).join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.#unknown];
      tokens.push(id);
      at = end;
    }
    return tokens;
  }
}

/** Pieces as a text, with a space between words. */
export function joinPieces(pieces: readonly string[]): string {
  const parts = pieces.map((piece) =>
    piece.startsWith(CONTINUES) && piece !== CONTINUES ? piece.slice(CONTINUES.length) : ` ${piece}`
  );
  return parts.join("").trim();
}
