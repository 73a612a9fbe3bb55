/**
 * The command line, with a log that tells what is left of the heap after a collection in place of
 * the process's memory: `deno run -A --v8-flags=--expose-gc tests/cli/heap.ts train ...`.
 *
 * @module
 */

const { gc } = globalThis as unknown as { gc(): void }, usage = Deno.memoryUsage;

Deno.memoryUsage = () => {
  gc();
  const used = usage();
  return { ...used, rss: used.heapUsed + used.external };
};

const { main } = await import("../../src/cli.ts");
Deno.exit(await main(Deno.args));
