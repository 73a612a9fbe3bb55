/**
 * Help on the terminal and the reference page, both generated from the table of commands.
 *
 * @module
 */

import type { Flag } from "./flags.ts";
import { packageName, version } from "./version.ts";

/** A command of the program. */
export interface Command {
  /** Its arguments, `sample [flags]`. */
  readonly usage: string;
  /** What it does, in a line. */
  readonly help: string;
  readonly flags: Readonly<Record<string, Flag>>;
  /** Command lines to start from, and what each does. */
  readonly examples: Readonly<Record<string, string>>;
  /** Returns the exit code; 0 if it returns nothing. */
  readonly run: (args: readonly string[]) => Promise<number | void>;
}

/** The table of commands. */
export type Commands = Readonly<Record<string, Command>>;

const PROGRAM = `deno run -A jsr:${packageName}`;
/** Longer lists of choices are left to the reference page. */
const MAX_CHOICES = 6;

/** The help of the program. */
export function describeProgram(commands: Commands): string {
  const lines = Object.entries(commands).map(([name, c]) => `  ${name.padEnd(13)}${c.help}`);
  return [
    `${packageName} ${version}: diffusion models on WebGPU and on CPUs`,
    "",
    `Usage: ${PROGRAM} COMMAND [flags]`,
    "",
    ...lines,
    "",
    "COMMAND --help lists its flags.",
  ].join("\n");
}

/** The help of a command, wrapped to a width. */
export function describeCommand({ help, usage, flags, examples }: Command, width: number): string {
  const left = Object.entries(flags).map(([name, flag]) => `  ${spell(name, flag)}  `);
  const indent = Math.max(...left.map((text) => text.length));
  const lines = Object.values(flags).flatMap((flag, i) =>
    wrap(explainFlag(flag), Math.max(30, width - indent)).map((text, line) =>
      (line ? "" : left[i]).padEnd(indent) + text
    )
  );
  const shown = Object.entries(examples).flatMap(([args, what]) => [`  # ${what}`, `  ${args}`]);
  return [
    `${help[0].toUpperCase()}${help.slice(1)}.`,
    "",
    `Usage: ${PROGRAM} ${usage}`,
    "",
    ...lines,
    ...(shown.length ? ["", "Examples:", ...shown] : []),
  ].join("\n");
}

/** The reference page of all commands and flags, in Markdown. */
export function renderReference(commands: Commands): string {
  const sections = Object.entries(commands).map(([name, { help, usage, flags, examples }]) => {
    const rows = Object.entries(flags).map(([flag, table]) => {
      const cells = [
        `\`${spell(flag, table)}\``,
        describeValue(table),
        String(table.default ?? ""),
      ];
      return `| ${[...cells, table.help].map(escape).join(" | ")} |`;
    });
    const shown = Object.entries(examples).map(([args, what]) => `${PROGRAM} ${args}  # ${what}`);
    return [
      `## ${name}`,
      `${help[0].toUpperCase()}${help.slice(1)}.`,
      ["```sh", `${PROGRAM} ${usage}`, "```"].join("\n"),
      ["| Flag | Value | Default | Meaning |", "| --- | --- | --- | --- |", ...rows].join("\n"),
      ...(shown.length ? [["```sh", ...shown, "```"].join("\n")] : []),
    ].join("\n\n");
  });
  return [
    "# Commands and flags",
    "Generated from the tables that the program reads: `deno task flags` writes this page.",
    ...sections,
  ].join("\n\n") + "\n";
}

const escape = (text: string) => text.replaceAll("|", "\\|");

const spell = (name: string, { kind, value }: Flag) =>
  kind === "switch" ? `--${name}` : `--${name} ${value ?? "N"}`;

/** What a value may be, for the reference page. */
function describeValue({ kind, min, max, choices }: Flag): string {
  if (choices) return choices.join(", ");
  if (kind === "switch" || kind === "text") return "";
  const text = (n: number) => n.toLocaleString("en");
  const range = max !== undefined && max < Number.MAX_SAFE_INTEGER
    ? ` from ${text(min ?? 0)} to ${text(max)}`
    : min === undefined
    ? ""
    : ` from ${text(min)}`;
  return `${kind}${range}`;
}

/** The help of a flag with its choices and its default. */
function explainFlag({ help, choices, default: standard }: Flag): string {
  const isListed = choices && choices.length <= MAX_CHOICES &&
    !choices.every((c) => help.includes(c));
  return help + (isListed ? `: ${choices.join(", ")}` : "") +
    (standard === undefined ? "" : ` (default ${standard})`);
}

/** Breaks a text into lines. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.length - 1;
    if (last >= 0 && lines[last].length + word.length < width) lines[last] += ` ${word}`;
    else lines.push(word);
  }
  return lines;
}
