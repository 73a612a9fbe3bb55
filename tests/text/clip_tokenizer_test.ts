import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { ClipTokenizer } from "../../src/text/clip_tokenizer.ts";
import { fetchClipVocabulary, parseClipVocabulary } from "../../src/text/clip_vocabulary.ts";
import golden from "../fixtures/tokenizer/cases.json" with { type: "json" };

const vocabulary = await fetchClipVocabulary();
const START = 49406, END = 49407;

/** It takes longer to make one than to use it. */
const long = new ClipTokenizer(vocabulary, { length: 200 });

/** The ids of a text, without those that start and end it. */
function idsOf(text: string, tokenizer = long): number[] {
  const { ids, cut } = tokenizer.encode(text);
  assertEquals([ids[0], ids.at(-1), cut], [START, END, ""], text);
  return [...ids.slice(1, ids.findLastIndex((id) => id !== END) + 1)];
}

Deno.test("tokens are those of OpenAI's tokenizer without its library for odd characters", () => {
  const tokenizer = new ClipTokenizer(vocabulary);
  assertEquals(golden.cases.length, 78);
  for (const { text, ids, input_ids } of golden.cases) {
    assertEquals(idsOf(text), ids, text);
    if (input_ids) assertEquals([...tokenizer.encode(text).ids], input_ids, text);
  }
  assertEquals([tokenizer.length, tokenizer.vocabulary], [77, golden.vocab_size]);
});

Deno.test("the second time, a word has the same tokens", () => {
  const tokenizer = new ClipTokenizer(vocabulary, { length: 20 });
  const [first, second] = ["Antidisestablishmentarianism", "antidisestablishmentarianism x"].map(
    (text) => [...tokenizer.encode(text).ids],
  );
  const word = first.slice(1, first.indexOf(END));
  assertEquals(second.slice(1, 1 + word.length), word);
});

Deno.test("what has no place is told: the rest of the word that is cut, and all after it", () => {
  const tokenizer = new ClipTokenizer(vocabulary, { length: 6 });
  // "super" fits of the last word, which is what golden numbers begin with.
  const { ids, cut } = tokenizer.encode("A CAT, Supercalifragilistic  Dogs!");
  assertEquals([ids[0], ids[5], ids.length], [START, END, 6]);
  assertEquals([...ids.slice(1, 5)], [320, 2368, 267, 1642]);
  assertEquals(cut, "califragilistic dogs!");
  assertEquals(tokenizer.encode("a cat, x").cut, "");
  assertEquals(tokenizer.encode("a cat, x y").cut, "y");
  assertEquals(tokenizer.encode("日本語のテキスト").cut, "のテキスト");
});

Deno.test("the rest is filled with the end, or with what is given", () => {
  const encode = (padding?: number) =>
    new ClipTokenizer(vocabulary, { length: 6, ...(padding === undefined ? {} : { padding }) })
      .encode("a").ids;
  assertEquals([...encode()], [START, 320, END, END, END, END]);
  assertEquals([...encode(0)], [START, 320, END, 0, 0, 0]);
  assertThrows(() => encode(49408), InputError, "from 0 to 49407");
  assertThrows(() => encode(-1), InputError, "Cannot pad with -1");
  for (const length of [2, 2.5, NaN]) {
    assertThrows(() => new ClipTokenizer(vocabulary, { length }), InputError, "from 3 on");
  }
});

Deno.test("tokens become text again", () => {
  for (const text of ["a photo of a cat", "naïve 日本 😀", "x"]) {
    assertEquals(long.decode(idsOf(text)), text);
  }
  assertEquals(long.decode([START, 320, END]), "<|startoftext|> a <|endoftext|>");
  assertEquals(long.decode([1e9, -1]), "");
});

Deno.test("surrogates without their other half are replaced, and references of HTML resolved", () => {
  assertEquals(idsOf("a\ud800b"), idsOf("a\ufffdb"));
  assertEquals(idsOf("\udc00"), idsOf("\ufffd"));
  assertEquals(idsOf("&#65;&#x42;&quot;&apos;&nbsp;c"), idsOf("AB\"' c"));
  assertEquals(idsOf("&#xD800;&#99999999;"), idsOf("\ufffd\ufffd"));
  assertEquals(idsOf("&unknown; &amp"), idsOf("& unknown ; & amp"));
});

Deno.test("hundreds of thousands of anything end, each letter looked at a few times", () => {
  const tokenizer = new ClipTokenizer(vocabulary), n = 300_000;
  const junk = [
    "a",
    "ab",
    " ",
    "?!.",
    "(",
    "[",
    "&",
    "&#1",
    ":",
    "1",
    "\ud800",
    "\0",
    "😀",
    "'s",
    "語",
  ];
  for (const piece of junk) {
    const text = piece.repeat(n / piece.length), { ids, cut } = tokenizer.encode(text);
    assertEquals([ids[0], ids[76]], [START, END]);
    assertEquals(cut.length > n / 2, piece !== " ", piece);
  }
  assert(tokenizer.encodeWeighted("a " + "(".repeat(n)).cut === "");
  assert(tokenizer.encodeWeighted(`${":".repeat(n)}${"1".repeat(n)})`).cut.length > n);
});

Deno.test("weights go with the tokens of their words", () => {
  const tokenizer = new ClipTokenizer(vocabulary, { length: 9 });
  const { ids, weights, cut } = tokenizer.encodeWeighted("a (photo of:1.5) [a] cat");
  assertEquals([...ids], [START, 320, 1125, 539, 320, 2368, END, END, END]);
  const expected = [1, 1, 1.5, 1.5, Math.fround(1 / 1.1), 1, 1, 1, 1];
  assertEquals([...weights], expected);
  assertEquals(cut, "");
  const small = new ClipTokenizer(vocabulary, { length: 4 });
  const some = small.encodeWeighted("a (photo of:1.5) [a] cat");
  assertEquals([[...some.weights], some.cut], [[1, 1, 1.5, 1], "of a cat"]);
});

Deno.test("a pipeline's own vocabulary gives the same tokens as the one that comes along", () => {
  const ids = JSON.stringify(Object.fromEntries(vocabulary.ids));
  const merges = vocabulary.merges.map((pair) => pair.join(" ")).join("\n");
  const own = new ClipTokenizer(parseClipVocabulary(ids, `#version: 0.2\n${merges}\n`), {
    length: 200,
  });
  for (const { text } of golden.cases) assertEquals(idsOf(text, own), idsOf(text), text);
});

Deno.test("damaged vocabularies are refused", () => {
  const special = '"<|startoftext|>":0,"<|endoftext|>":1';
  const bad: [string, string, string][] = [
    ["{", "", "Cannot read the vocabulary"],
    ["[]", "", "no object"],
    ["null", "", "no object"],
    ['{"a":0}', "", "lacks <|startoftext|>"],
    [`{${special},"a":-1}`, "", 'id of "a" is -1'],
    [`{${special},"a":"x"}`, "", 'id of "a" is x'],
    [`{${special},"a":1e9}`, "", 'id of "a" is 1000000000'],
    [`{${special},"a":2}`, "a b", 'lacks "b"'],
    [`{${special},"a":2,"b":3}`, "a b", 'lacks "ab"'],
    [`{${special}}`, "a b c", "two tokens"],
    [`{${special}}`, "a ", "two tokens"],
  ];
  for (const [ids, merges, message] of bad) {
    assertThrows(() => parseClipVocabulary(ids, merges), InputError, message);
  }
  // Bytes that it lacks are what ends a text, as unknown words are in transformers.
  const tiny = parseClipVocabulary(`{${special},"a":2,"b</w>":3,"ab</w>":4}`, "a b</w>\r\n");
  assertEquals([...new ClipTokenizer(tiny, { length: 6 }).encode("ab zb").ids], [0, 4, 1, 3, 1, 1]);
});

Deno.test("the vocabulary may be unpacked on its way, and must be there", async () => {
  const url = new URL("../../data/bpe_simple_vocab_16e6.txt.gz", import.meta.url);
  const packed = new Blob([await Deno.readFile(url)]).stream();
  const text = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
  const { fetch } = globalThis;
  try {
    globalThis.fetch = () => Promise.resolve(new Response(text));
    assertEquals((await fetchClipVocabulary()).ids, vocabulary.ids);
    globalThis.fetch = () => Promise.resolve(new Response("", { status: 404 }));
    await assertRejects(() => fetchClipVocabulary(), TypeError, "the answer is 404");
  } finally {
    globalThis.fetch = fetch;
  }
});
