import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import {
  BertTokenizer,
  fetchBertVocabulary,
  parseBertVocabulary,
} from "../../src/text/bert_tokenizer.ts";
import golden from "../fixtures/tokenizer/bert.json" with { type: "json" };

const vocabulary = await fetchBertVocabulary();
const [PADDING, UNKNOWN, START, END] = [0, 100, 101, 102];

/** It takes longer to make one than to use it. */
const long = new BertTokenizer(vocabulary, { length: 200 });

/** The ids of a text, without those that start and end it, and its padding. */
function idsOf(text: string): number[] {
  const { ids, cut } = long.encode(text), end = ids.lastIndexOf(END);
  assertEquals([ids[0], cut], [START, ""], text);
  assertEquals(ids.slice(end + 1).every((id) => id === PADDING), true, text);
  return [...ids.slice(1, end)];
}

Deno.test("tokens are those of transformers' fast tokenizer", () => {
  assertEquals([golden.cases.length, vocabulary.size], [117, golden.vocab_size]);
  for (const { text, ids } of golden.cases) assertEquals(idsOf(text), ids, text);
});

Deno.test("texts that transformers tests have the pieces that it expects", () => {
  const text =
    "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\nwant\n##want\n##ed\nwa\nun\nrunn\n##ing\n,\nlow\nlowest";
  const tokenizer = new BertTokenizer(parseBertVocabulary(text), { length: 20, padding: 3 });
  const pieces = text.split("\n");
  const read = (text: string) => {
    const { ids } = tokenizer.encode(text);
    return [...ids.slice(1, ids.lastIndexOf(2))].map((id) => pieces[id]);
  };
  assertEquals(read("UNwant\u00e9d,running"), ["un", "##want", "##ed", ",", "runn", "##ing"]);
  assertEquals(read("unwanted running"), ["un", "##want", "##ed", "runn", "##ing"]);
  assertEquals(read("unwantedX running"), ["[UNK]", "runn", "##ing"]);
  assertEquals(["Test", "\xad", ""].map(read), [["[UNK]"], [], []]);
  const sentence = "A, naïve [MASK] AllenNLP sentence.";
  assertEquals(long.decode(idsOf(sentence)), "a , naive [MASK] allennlp sentence .");
});

Deno.test("texts lie between two tokens and are filled up, or cut and told", () => {
  const short = new BertTokenizer(vocabulary, { length: 6 });
  const encode = (text: string) => short.encode(text);
  assertEquals([...encode("A Cat!").ids], [START, 1037, 4937, 999, END, PADDING]);
  assertEquals([...encode("").ids], [START, END, 0, 0, 0, 0]);
  const { ids, cut } = encode("a cat, Antidisestablishmentarianism  DOGS  é");
  assertEquals([ids[0], ids[5]], [START, END]);
  assertEquals(cut, "disestablishmentarianism dogs e");
  assertEquals(encode("a b c d 日本").cut, "日 本");
  assertEquals([encode("a b c d").cut, encode("a b c d e").cut], ["", "e"]);
  assertEquals(encode(`a b c d ${"x".repeat(101)}`).cut, "x".repeat(101));
  const tokenizer = new BertTokenizer(vocabulary);
  assertEquals([tokenizer.length, tokenizer.vocabulary], [77, 30522]);
});

Deno.test("weights go with the pieces of their words", () => {
  const tokenizer = new BertTokenizer(vocabulary, { length: 8 });
  const { ids, weights } = tokenizer.encodeWeighted("a (strawberries:1.5) [a]");
  assertEquals([...ids], [START, 1037, 13137, 20968, 1037, END, PADDING, PADDING]);
  assertEquals([...weights], [1, 1, 1.5, 1.5, Math.fround(1 / 1.1), 1, 1, 1]);
});

Deno.test("names of tokens are those tokens, as they are written", () => {
  assertEquals(idsOf("[SEP]"), [END]);
  assertEquals(idsOf("a[UNK]b"), [1037, UNKNOWN, 1038]);
  assertEquals(idsOf("[sep]"), [1031, 19802, 1033]);
  // Without it in the vocabulary it is not known.
  const few = parseBertVocabulary("[PAD]\n[UNK]\n[CLS]\n[SEP]\n");
  const { ids } = new BertTokenizer(few, { length: 4 }).encode("[MASK]");
  assertEquals([...ids], [2, 1, 3, 0]);
});

Deno.test("hundreds of thousands of anything end", () => {
  const tokenizer = new BertTokenizer(vocabulary), n = 300_000;
  for (const piece of ["a", "a ", "?", "[", "\ud800", "é", "語", "😀", "\0", "[CLS]"]) {
    const { ids } = tokenizer.encode(piece.repeat(n / piece.length));
    assertEquals([ids.length, ids[0]], [77, START]);
  }
});

Deno.test("damaged vocabularies and settings are refused", () => {
  assertThrows(() => parseBertVocabulary("a\nb\n"), InputError, "it lacks [PAD]");
  assertThrows(() => parseBertVocabulary("[PAD]\n[UNK]\n[CLS]"), InputError, "it lacks [SEP]");
  const many = "x\n".repeat(2 ** 20 + 1);
  assertThrows(() => parseBertVocabulary(many), InputError, "1048577 pieces, more than");
  assertThrows(() => new BertTokenizer(vocabulary, { length: 2 }), InputError, "from 3 on");
  const padding = 30522;
  assertThrows(() => new BertTokenizer(vocabulary, { padding }), InputError, "from 0 to 30521");
  // Lines of other systems end otherwise.
  const windows = parseBertVocabulary("[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n");
  assert(windows.has("[PAD]") && windows.size === 4);
});
