import { assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { ByteTokenizer } from "../../src/text/byte_tokenizer.ts";

Deno.test("bytes are tokens, the rest is padding, and no text is nothing but padding", () => {
  const tokenizer = new ByteTokenizer({ length: 5 });
  assertEquals([...tokenizer.encode("aé").ids], [97, 195, 169, 256, 256]);
  assertEquals([...tokenizer.encode("").ids], [256, 256, 256, 256, 256]);
  assertEquals([...tokenizer.encode("\0").ids], [0, 256, 256, 256, 256]);
  assertEquals([new ByteTokenizer().length, tokenizer.vocabulary], [48, 257]);
});

Deno.test("texts are cut between characters, and what is cut is told", () => {
  const tokenizer = new ByteTokenizer({ length: 5 });
  assertEquals(tokenizer.encode("abcdefg").cut, "fg");
  assertEquals(tokenizer.encode("abcde").cut, "");
  assertEquals([[...tokenizer.encode("ab😀c").ids], tokenizer.encode("ab😀c").cut], [
    [97, 98, 256, 256, 256],
    "😀c",
  ]);
  assertEquals(tokenizer.encode("\ud800").ids, tokenizer.encode("\ufffd").ids);
  assertEquals(tokenizer.encode("x".repeat(1_000_000)).cut.length, 999_995);
  assertThrows(() => new ByteTokenizer({ length: 0 }), InputError, "from 1 on");
});
