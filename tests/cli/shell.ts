/**
 * Runs one command line after the other in one process, as starting it takes longer than most
 * commands: reads a line of JSON each from standard input, the folder and the arguments, and ends what
 * a command prints, on both streams, with a line that tells its exit code.
 *
 * @module
 */

// Of the program, this comes first.
import "../../mod.ts";
import { main } from "../../src/cli.ts";

/** What ends the output of a command, before its exit code. */
const END = "\u0000end ";

/** How a run went. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A process that runs commands, and ends when the one does that started it. */
export class Shell {
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #outputs: readonly ReadableStreamDefaultReader<string>[];
  /** The command that runs. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param env Further variables of the environment. */
  constructor(env: Readonly<Record<string, string>>) {
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", "-A", "--no-check", import.meta.url],
      ...{ env, stdin: "piped", stdout: "piped", stderr: "piped" },
    }).spawn();
    this.#input = process.stdin.getWriter();
    this.#outputs = [process.stdout, process.stderr].map((stream) =>
      stream.pipeThrough(new TextDecoderStream()).getReader()
    );
  }

  /** Runs a command in a folder, after those before. */
  async run(folder: string, args: readonly string[]): Promise<Outcome> {
    const run = this.#last.then(() => this.#run(folder, args));
    this.#last = run.catch(() => {});
    return await run;
  }

  async #run(folder: string, args: readonly string[]): Promise<Outcome> {
    await this.#input.write(new TextEncoder().encode(JSON.stringify({ folder, args }) + "\n"));
    const [stdout, stderr] = await Promise.all(this.#outputs.map(readToEnd));
    return { code: stdout.code, stdout: stdout.text, stderr: stderr.text };
  }
}

/** What a command printed to a stream, and its exit code. */
async function readToEnd(output: ReadableStreamDefaultReader<string>) {
  let text = "";
  while (!text.endsWith("\n") || !text.includes(END)) {
    const { value, done } = await output.read();
    if (done) throw new Error(`The process ended: ${text}`);
    text += value;
  }
  const [printed, code] = text.split(END);
  return { text: printed, code: Number(code) };
}

async function serve(): Promise<void> {
  const lines = Deno.stdin.readable.pipeThrough(new TextDecoderStream());
  let rest = "";
  for await (const piece of lines) {
    rest += piece;
    for (let at; (at = rest.indexOf("\n")) >= 0; rest = rest.slice(at + 1)) {
      const { folder, args } = JSON.parse(rest.slice(0, at));
      Deno.chdir(folder);
      const end = new TextEncoder().encode(`${END}${await main(args)}\n`);
      // The folder can be removed.
      Deno.chdir(import.meta.dirname!);
      for (const stream of [Deno.stdout, Deno.stderr]) stream.writeSync(end);
    }
  }
}

if (import.meta.main) await serve();
