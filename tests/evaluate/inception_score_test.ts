import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { inceptionScore } from "../../src/evaluate/inception_score.ts";
import { recognize } from "../../src/evaluate/recognition.ts";
import { golden, rowsOf } from "./fixture.ts";

const { logits, whole, three_splits_in_order: parts, mean, std } = golden.inception_score;

Deno.test("the score of a whole set and of its parts is torch-fidelity's", () => {
  const rows = rowsOf(logits);
  assertAlmostEquals(inceptionScore(rows, 1).mean, whole, 1e-12);
  parts.forEach((score, k) => {
    assertAlmostEquals(
      inceptionScore(rowsOf(logits.slice(10 * k, 10 * k + 10)), 1).mean,
      score,
      1e-12,
    );
  });
  const found = inceptionScore(rows, 3);
  assertAlmostEquals(found.mean, mean, 1e-12);
  assertAlmostEquals(found.std, std, 1e-12);
});

Deno.test("the score is 1 where nothing is told apart, and the number of classes at the most", () => {
  const same = rowsOf(Array.from({ length: 20 }, () => [3, 1, 2]));
  assertAlmostEquals(inceptionScore(same, 2).mean, 1, 1e-12);
  const sure = rowsOf(
    Array.from({ length: 30 }, (_, i) => [0, 1, 2].map((c) => c === i % 3 ? 900 : -900)),
  );
  assertAlmostEquals(inceptionScore(sure, 10).mean, 3, 1e-12);
  assertThrows(() => inceptionScore(same, 21), InputError, "20 images in 21 parts");
});

Deno.test("images are recognised above a probability, and counted by class", () => {
  // Probabilities of 0.95, 0.85 and 1/3.
  const sure = (p: number) => Math.log(2 * p / (1 - p));
  const rows = rowsOf([[sure(0.95), 0, 0], [0, sure(0.85), 0], [0, 0, 0], [0, sure(0.95), 0]]);
  const found = recognize(rows, [0, 0, 0, 1]);
  assertEquals(found, {
    ...{ recognised: 0.5, confidence: 0.9, classes: [0.5, 0.5, 0], asked: 0.75 },
  });
  assertEquals(recognize(rows, undefined, 0.8).recognised, 0.75);
  assertEquals("asked" in recognize(rows), false);
  assertThrows(
    () => recognize(rows, [0, 3, 0, 0]),
    InputError,
    "class 3: the classifier has classes 0 to 2",
  );
});
