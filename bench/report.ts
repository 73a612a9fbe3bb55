// deno-lint-ignore-file no-console -- printing is what it does
/**
 * A report: every workload in every peer, in turns; the fastest variants of the probes are the
 * ceilings that rates are compared with. What failed is named, not left out.
 *
 * @module
 */

import { dirname } from "@std/path";
import { defaultPeers, type Line, type Peer, peers, run } from "./peers.ts";
import { suites } from "./workloads.ts";

/** What to report on. */
export interface ReportOptions {
  /** Names of workloads; a default choice if empty. */
  readonly workloads: readonly string[];
  /** Names of peers; by default those that are installed. */
  readonly only: readonly string[] | undefined;
  readonly rounds: number;
  /** Where the files go, without their extensions. */
  readonly out: string;
}

/** What the rounds of a workload in a peer gave. */
interface Row {
  readonly op: string;
  readonly peer: string;
  readonly variant?: string;
  /** Milliseconds of all samples. */
  readonly ms: readonly number[];
  readonly best?: number;
  readonly median?: number;
  readonly first?: number;
  readonly rss_mb?: number;
  /** GFLOP/s, or GB/s where nothing is computed to speak of. */
  readonly rate?: number;
  readonly unit?: "GFLOP/s" | "GB/s";
  /** Of what the adapter can do at the most, 0 to 1. */
  readonly share?: number;
  readonly error?: string;
}

/** The most that a peer's adapter did: GFLOP/s and GB/s. */
type Ceiling = Partial<Record<"GFLOP/s" | "GB/s", number>>;

/** What is measured in turns: a peer, perhaps with a variant that it is told to take. */
interface Entrant {
  readonly name: string;
  readonly peer: Peer;
  readonly variant?: string;
}

/** Measures, and writes the files. */
export async function report({ workloads, only, rounds, out }: ReportOptions): Promise<void> {
  await Deno.mkdir(dirname(out), { recursive: true });
  const unknown = only?.find((name) => !peers[name]);
  if (unknown) throw new RangeError(`Unknown peer ${unknown}: ${Object.keys(peers).join(", ")}`);
  const names: string[] = [];
  for (const name of only ?? defaultPeers) {
    if (await peers[name].isInstalled?.() ?? true) names.push(name);
    else console.error(`${name} is not installed`);
  }
  // What keeps a GPU busy takes a CPU hours, be it one that poses as a GPU.
  const look = names.includes("gpu") ? await run(peers.gpu, suites.software.probes[0]) : {};
  const isOnGpu = look.software === false, suite = isOnGpu ? suites.gpu : suites.software;
  const present = names.map((name): Entrant => ({ name, peer: peers[name] }))
    .filter(({ peer }) => only || !isOnGpu || !peer.isCpu);
  const own = present.filter(({ peer }) => peer.isOwn), adapters: Record<string, string> = {};
  const rows: Row[] = [], ceilings: Record<string, Ceiling> = {};
  for (const op of suite.probes) {
    for (const row of await compare(op, own, rounds, adapters, {})) {
      rows.push(row);
      const { peer, unit, rate = 0 } = row, ceiling = ceilings[peer] ??= {};
      if (unit) ceiling[unit] = Math.max(ceiling[unit] ?? 0, rate);
    }
  }
  for (const op of workloads.length ? workloads : [...suite.ladder, ...suite.steps]) {
    rows.push(...await compare(op, present, rounds, adapters, ceilings));
  }
  const facts = {
    command: ["deno task bench", ...Deno.args].join(" "),
    deno: Deno.version.deno,
    processor: processor(),
    rounds,
    ...{ adapters, ceilings },
  };
  await Deno.writeTextFile(`${out}.json`, JSON.stringify({ ...facts, rows }, null, 1) + "\n");
  const markdown = format(facts, rows);
  await Deno.writeTextFile(`${out}.md`, markdown);
  console.log(markdown);
}

const isStep = (op: string) => /^(train|sample)_/.test(op);

/** One workload, in turns; all variants of those who have several. */
async function compare(
  op: string,
  entrants: readonly Entrant[],
  rounds: number,
  adapters: Record<string, string>,
  ceilings: Readonly<Record<string, Ceiling>>,
): Promise<Row[]> {
  let waiting = entrants.filter(({ peer }) => peer.command(op));
  const lines = new Map<Entrant, Line[]>();
  for (let round = 0; round < rounds; round++) {
    for (const entrant of [...waiting]) {
      const { name, peer, variant } = entrant;
      const line = await run(peer, op, variant === undefined ? [] : ["--variant", variant]);
      lines.set(entrant, [...lines.get(entrant) ?? [], line]);
      if (line.device && peer.isOwn) adapters[name] = line.device;
      const said = line.error ?? line.ms?.map((ms) => ms.toPrecision(3)).join(" ");
      console.error(`${op}, ${name}${variant === undefined ? "" : `, ${variant}`}: ${said}`);
      if (round || isStep(op) || (line.variants?.length ?? 0) < 2) continue;
      // The rest of its variants join in, beginning with this round.
      const [, ...others] = line.variants!;
      const more = others.map((variant): Entrant => ({ name, peer, variant }));
      for (const other of more) {
        lines.set(other, [await run(peer, op, ["--variant", other.variant!])]);
      }
      waiting = [...waiting, ...more];
    }
  }
  return [...lines].map(([{ name, variant }, all]) => summarize(op, name, variant, all, ceilings));
}

function summarize(
  op: string,
  peer: string,
  variant: string | undefined,
  lines: readonly Line[],
  ceilings: Readonly<Record<string, Ceiling>>,
): Row {
  const good = lines.filter((line) => line.ms?.length), ms = good.flatMap((line) => line.ms!);
  const chosen = variant ?? good[0]?.variants?.[0];
  const row = { op, peer, ...(chosen === undefined ? {} : { variant: chosen }), ms };
  if (!ms.length) return { ...row, error: lines[0].error ?? "failed" };
  const sorted = ms.toSorted((a, b) => a - b), [best] = sorted;
  const { flops = 0, bytes = 0 } = good[0], unit = flops ? "GFLOP/s" : "GB/s";
  const rate = (flops || bytes) / best / 1e6, ceiling = ceilings[peer]?.[unit];
  const most = (key: "first" | "rss_mb") => Math.max(...good.map((line) => line[key] ?? 0));
  return {
    ...{ ...row, best, median: sorted[Math.floor(sorted.length / 2)] },
    ...{ first: most("first"), rss_mb: most("rss_mb") },
    ...(rate ? { rate, unit } : {}),
    ...(rate && ceiling ? { share: rate / ceiling } : {}),
  };
}

function processor(): string {
  try {
    const info = Deno.readTextFileSync("/proc/cpuinfo");
    const [, model] = /model name\s*: (.*)/.exec(info) ?? [];
    return `${model ?? Deno.build.arch}, ${navigator.hardwareConcurrency} cores`;
  } catch {
    return `${Deno.build.arch}, ${navigator.hardwareConcurrency} cores`;
  }
}

interface Facts {
  readonly command: string;
  readonly deno: string;
  readonly processor: string;
  readonly rounds: number;
  readonly adapters: Readonly<Record<string, string>>;
  readonly ceilings: Readonly<Record<string, Ceiling>>;
}

function format(facts: Facts, rows: readonly Row[]): string {
  const number = (x: number) => x < 1000 ? x.toPrecision(3) : Math.round(x).toLocaleString("en");
  const adapters = Object.entries(facts.adapters).map(([peer, name]) => {
    const ceiling = facts.ceilings[peer] ?? {};
    const rates = Object.entries(ceiling).map(([unit, rate]) => `${number(rate)} ${unit}`);
    return `- ${peer}: ${name}; at the most ${rates.join(" and ")}`;
  });
  const ladder = rows.filter((row) => !isStep(row.op)).map((row) => [
    ...[row.op, row.peer, row.variant ?? ""],
    ...(row.error ? [row.error, "", "", ""] : [
      ...[number(row.best!), number(row.median!)],
      row.rate ? `${number(row.rate)} ${row.unit}` : "",
      row.share ? `${Math.round(100 * row.share)} %` : "",
    ]),
  ]);
  const steps = rows.filter(({ op }) => isStep(op));
  const columns = [...new Set(steps.map(({ peer }) => peer))];
  const ops = [...new Set(steps.map(({ op }) => op))];
  const cell = (op: string, peer: string) => {
    const row = steps.find((r) => r.op === op && r.peer === peer);
    if (!row) return "";
    return row.error ? "failed" : `${number(row.best!)} (${number(row.median!)})`;
  };
  const failed = steps.filter((row) => row.error).map(({ op, peer, error }) =>
    `- ${op}, ${peer}: ${error}`
  );
  return [
    `\`${facts.command}\` with Deno ${facts.deno} on ${facts.processor}; best (median) of ${facts.rounds} rounds in turns.`,
    "",
    ...adapters,
    ...(steps.length
      ? [
        "",
        "Milliseconds a step:",
        "",
        table(
          ["step", ...columns],
          ops.map((op) => [op, ...columns.map((peer) => cell(op, peer))]),
        ),
      ]
      : []),
    ...(failed.length ? ["", ...failed] : []),
    ...(ladder.length
      ? [
        "",
        "Single operations:",
        "",
        table(["operation", "by", "variant", "best ms", "median", "rate", "of ceiling"], ladder),
      ]
      : []),
    "",
  ].join("\n");
}

/** A table in Markdown, its columns aligned. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((row) => row[i].length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`;
  return [line(head), line(widths.map((n) => "-".repeat(n))), ...rows.map(line)].join("\n");
}
