import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { parsePromptWeights } from "../../src/text/prompt_weights.ts";

const cases: Readonly<Record<string, readonly (readonly [string, number])[]>> = {
  "": [],
  "normal text": [["normal text", 1]],
  "an (important) word": [["an ", 1], ["important", 1.1], [" word", 1]],
  "((a))": [["a", 1.21]],
  "[a]": [["a", 1 / 1.1]],
  "[[a]] b": [["a", 1 / 1.21], [" b", 1]],
  "(a:1.3) b": [["a", 1.3], [" b", 1]],
  "(a : .5 ) (b:-2) (c:+3.)": [["a ", 0.5], [" ", 1], ["b", -2], [" ", 1], ["c", 3]],
  "(a [b] (c:2):0.5)": [["a ", 0.5], ["b", 0.5 / 1.1], [" ", 0.5], ["c", 1]],
  "([(a)])": [["a", 1.1]],
  "\\(a\\) \\[b\\] \\\\ \\c": [["(a) [b] \\ \\c", 1]],
  "(a\\):1.5)": [["a)", 1.5]],
  "a:b, 16:9": [["a:b, 16:9", 1]],
  // What is not closed reaches to the end, and what closes nothing is text.
  "(unclosed": [["unclosed", 1.1]],
  "a [b": [["a ", 1], ["b", 1 / 1.1]],
  ":) a] b:1.5)": [[":) a] b:1.5)", 1]],
  "[a:1.5)": [["a:1.5)", 1 / 1.1]],
  "(a]": [["a]", 1.1]],
  "(a:1.2.3)": [["a:1.2.3", 1.1]],
  "()a(:2)": [["a", 1]],
  "(a)(b)": [["ab", 1.1]],
};

Deno.test("brackets and numbers are weights", () => {
  for (const [prompt, expected] of Object.entries(cases)) {
    const pieces = parsePromptWeights(prompt);
    assertEquals(pieces.map(({ text }) => text), expected.map(([text]) => text), prompt);
    pieces.forEach(({ weight }, i) => assertAlmostEquals(weight, expected[i][1], 1e-12, prompt));
  }
});

Deno.test("brackets too deep for a number are refused, and a million of them around nothing are not", () => {
  assertThrows(() => parsePromptWeights(`${"(".repeat(1000)}a`), InputError, "Cannot weigh");
  assertThrows(() => parsePromptWeights(`(a:${"9".repeat(50)})`), InputError, "Cannot weigh");
  assertEquals(parsePromptWeights("(".repeat(1_000_000)), []);
  assertAlmostEquals(parsePromptWeights("[".repeat(1_000_000) + "a")[0].weight, 0, 1e-300);
});
