import { assertEquals } from "@std/assert";
import { InputError } from "../src/errors.ts";

Deno.test("the message of an InputError is one line without control characters", () => {
  const error = new InputError("two\r\nlines and \x1b[31mred", { cause: 5 });
  assertEquals(error.message, "two lines and  [31mred");
  assertEquals(error.cause, 5);
  assertEquals(String(error), "InputError: two lines and  [31mred");
});
