import { assertEquals } from "@std/assert";
import { InputError } from "../src/errors.ts";

Deno.test("the message of an InputError is one line without control characters", () => {
  const error = new InputError("two\r\nlines and \x1b[31mred", { cause: 5 });
  assertEquals(error.message, "two lines and  [31mred");
  assertEquals(error.cause, 5);
  assertEquals(String(error), "InputError: two lines and  [31mred");
});

Deno.test("of a message with a value that fills pages, the beginning and the end are left", () => {
  const { message } = new InputError(`Bad field: ${"x".repeat(1e6)} is not 5`);
  assertEquals([message.length, message.slice(0, 12)], [1403, "Bad field: x"]);
  assertEquals(message.slice(-10), "x is not 5");
  const long = "y".repeat(1400);
  assertEquals(new InputError(long).message, long);
});
