import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { commands } from "../../src/cli.ts";
import { parseFlags } from "../../src/cli/terminal/flags.ts";
import { describeCommand, describeProgram } from "../../src/cli/terminal/help.ts";
import { makePage, page } from "../flags.ts";

Deno.test("data/flags.md is what deno task flags writes", async () => {
  const [written, made] = [await Deno.readTextFile(page), await makePage()];
  assertEquals(written, made, "run deno task flags");
  for (const [name, { flags }] of Object.entries(commands)) {
    assertMatch(made, new RegExp(`^## ${name}$`, "m"));
    for (const flag of Object.keys(flags)) assert(made.includes(`\`--${flag}`), flag);
  }
});

Deno.test("help names every command and flag, and keeps to the width of the terminal", () => {
  const all = describeProgram(commands);
  for (const [name, command] of Object.entries(commands)) {
    assertMatch(all, new RegExp(`^  ${name} `, "m"));
    for (const width of [80, 100, 200]) {
      const help = describeCommand(command, width);
      const [, flags] = help.split(/^Usage: .*$/m);
      for (const line of flags.split("\n")) assert(line.length <= width, line);
      for (const flag of Object.keys(command.flags)) {
        assertMatch(help, new RegExp(`^ {2}--${flag}( |$)`, "m"));
      }
    }
  }
});

Deno.test("the examples of the help have flags that exist, and values that are allowed", () => {
  for (const [name, { flags, examples }] of Object.entries(commands)) {
    for (const line of Object.keys(examples)) {
      const [first, ...args] = line.replace(/ \|.*/, "").split(" ");
      assertEquals(first, name);
      parseFlags(args, flags);
    }
  }
});

Deno.test("a default that is a number or a choice is one that the flag allows", () => {
  for (const { flags } of Object.values(commands)) {
    for (const [name, flag] of Object.entries(flags)) {
      if (typeof flag.default !== "number" && !flag.choices) continue;
      if (flag.default !== undefined) parseFlags([`--${name}`, String(flag.default)], flags);
    }
  }
});

Deno.test("a flag is given once, and only texts that may be empty are", () => {
  const table = {
    prompt: { kind: "text", mayBeEmpty: true, help: "" },
    out: { kind: "text", help: "" },
    steps: { kind: "integer", help: "" },
    json: { kind: "switch", help: "" },
  } as const;
  for (
    const args of [["--prompt", ""], ["--prompt="], ["--json", "--prompt", "", "--steps", "2"]]
  ) {
    assertEquals(parseFlags(args, table).flags.prompt, "", args.join(" "));
  }
  const refused: [string[], RegExp][] = [
    [["--prompt"], /--prompt needs a value/],
    [["--prompt", "--steps", "2"], /--prompt needs a value/],
    [["--out", ""], /--out needs a value/],
    [["--steps", "2", "--steps", "3"], /--steps was given twice/],
    [["--steps=2", "--json", "--steps", "2"], /--steps was given twice/],
    [["--json", "--json"], /--json was given twice/],
  ];
  for (const [args, message] of refused) {
    assertMatch(assertThrows(() => parseFlags(args, table), InputError).message, message);
  }
  // What is behind -- is no flag, and neither is the value of one.
  assertEquals(parseFlags(["--steps=2", "--", "--steps"], table).rest, ["--steps"]);
  assertEquals(parseFlags(["--prompt=--steps=3", "--steps=2"], table).flags.steps, 2);
});
