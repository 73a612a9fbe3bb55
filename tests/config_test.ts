import { assertEquals, assertThrows } from "@std/assert";
import { givenFields, parsePythonJson } from "../src/config.ts";

Deno.test("JSON of Python is read, with the numbers that JSON does not have", () => {
  const text = '{"a": -Infinity, "b": [Infinity,NaN, -1.5e3], "c": {"d":NaN}, "e": null}';
  assertEquals(parsePythonJson(text), {
    ...{ a: -Infinity, b: [Infinity, NaN, -1500], c: { d: NaN }, e: null },
  });
  for (const [text, value] of [["NaN", NaN], [" -Infinity\n", -Infinity], ["[]", []]] as const) {
    assertEquals(parsePythonJson(text), value);
  }
});

Deno.test("strings and keys are left alone, whatever they say", () => {
  const text = String.raw`{"NaN": "Infinity", "NaN_": "NaN", "q\"": "\\", "-Infinity": "a \"NaN",
    "x": NaN}`;
  assertEquals(parsePythonJson(text), {
    ...{ "NaN": "Infinity", "NaN_": "NaN", 'q"': "\\", "-Infinity": 'a "NaN' },
    x: NaN,
  });
});

Deno.test("what is no JSON in Python either is refused", () => {
  for (
    const text of [
      ...["", "{", "nan", "infinity", "+Infinity", "- Infinity", "-NaN", "NaNa", "Infinityx"],
      ...["{NaN: 1}", "[NaN Infinity]", "NaN1", "1NaN", '"NaN', "--Infinity", "inf"],
    ]
  ) {
    assertThrows(() => parsePythonJson(text), SyntaxError, undefined, text);
  }
});

Deno.test("fields that are null, or notes, say nothing", () => {
  const fields = { a: 0, b: null, _c: 1, d: false, e: "", _f: null };
  assertEquals(givenFields(fields), { a: 0, d: false, e: "" });
});
