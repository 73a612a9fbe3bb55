// deno-lint-ignore-file no-console -- printing is what it does
/**
 * The gallery of the models that come with the package, `data/gallery.md` and its pictures: uncurated
 * images of seed 0, one row of classes for several scales of guidance, and what `eval` says of each:
 *
 *     deno task gallery [--count 2048] [--threads N] [MODEL...]
 *
 * All of it is made by the program's own commands, which the page names.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { fetchModel } from "../src/model/pretrained.ts";
import { type ShippedModel, shippedModels } from "../src/model/shipped.ts";

const flags = parseArgs(Deno.args, { string: ["count", "threads"] });
const count = Number(flags.count ?? 2048);
/** Flags of guidance, and what the page calls them. */
const scales: Readonly<Record<string, readonly string[]>> = {
  default: [],
  ...Object.fromEntries(["1", "2", "4"].map((scale) => [scale, ["--guidance", scale]])),
};
const device: string[] = [
  "--device",
  "cpu",
  ...(flags.threads ? ["--threads", String(flags.threads)] : []),
];
const models = flags._.length ? flags._.map(String) as ShippedModel[] : shippedModels;

/** Runs a command of the program; what it prints. */
async function ddpm(...args: string[]): Promise<string> {
  console.error(`ddpm ${args.join(" ")}`);
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", new URL("../mod.ts", import.meta.url).href, ...args, ...device],
    stderr: "inherit",
  }).output();
  if (code) throw new Error(`ddpm ${args.join(" ")} ended with ${code}`);
  return new TextDecoder().decode(stdout);
}

/** A command as the page names it. */
const shown = (args: readonly string[]) => "`deno run -A mod.ts " + args.join(" ") + "`";

const page = [
  "# Gallery",
  "Images of the models that come with the package, of seed 0, none left out. `deno task gallery` " +
  "makes this page.",
];
/** A model that reads, on names that it never saw: its section of the page. */
async function readerSection(name: ShippedModel): Promise<string[]> {
  const scale = "4", args = ["--model", name, "--guidance", scale];
  const out = await Deno.makeTempDir();
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "bench/emoji.ts", ...args, "--out", out, ...device],
    stderr: "inherit",
  }).output();
  if (code) throw new Error(`bench/emoji.ts ended with ${code}`);
  const pictures = { "held-out": "", neighbours: "-neighbours" };
  for (const [made, suffix] of Object.entries(pictures)) {
    await Deno.copyFile(`${out}/${made}-${scale}.png`, `data/gallery-${name}${suffix}.png`);
  }
  const measure = ["eval", "--model", name, "--data", name, "--split", "test", "--features", name];
  measure.push("--count", "130", "--guidance", scale, "--metric", "class,retrieval,nn");
  measure.push("--neighbors", "pixels");
  const { class: seen, retrieval, nn } = JSON.parse(await ddpm(...measure, "--json"));
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  return [
    `## ${name}`,
    `![64 names that it never saw](gallery-${name}.png)`,
    new TextDecoder().decode(stdout).trim(),
    `Of 130 names that it never saw ${percent(seen.asked)} are of the right category, and ` +
    `${percent(retrieval.recall_at10)} are among the ten nearest, ` +
    `${percent(10 / retrieval.captions)} by chance; ${
      percent(nn.near_copies)
    } are near copies of ` +
    `training images, and ${percent(nn.held_out.near_copies)} of the real pictures:`,
    shown(measure),
    `![The same, each beside the nearest training image](gallery-${name}-neighbours.png)`,
    `\`deno task bench:emoji ${args.join(" ")}\``,
  ];
}

for (const name of models) {
  const { classes, network } = await fetchModel(name), picture = `data/gallery-${name}.png`;
  if (network.kind === "denoiser" && network.tokenize) {
    page.push(...await readerSection(name));
    continue;
  }
  const sample = ["sample", "--model", name, "--seed", "0"];
  const grid = [...sample, "--count", "64", "--out", picture];
  await ddpm(...grid);
  page.push(`## ${name}`, `![64 images of the model ${name}](gallery-${name}.png)`, shown(grid));
  if (!classes) continue;
  const rows = [
    "| guidance | one image a class, seed 0 | class asked for | Fréchet distance | precision | recall |",
    "| -------- | ------------------------- | --------------- | ---------------- | --------- | ------ |",
  ];
  const measure = ["eval", "--model", name, "--data", name, "--features", name];
  measure.push("--count", String(count), "--metric", "fd,prdc,class", "--json");
  for (const [scale, guidance] of Object.entries(scales)) {
    const row = `gallery-${name}-${scale}.png`;
    const all = ["--class", "all", "--count", String(classes.length)];
    await ddpm(...sample, ...all, ...guidance, "--out", `data/${row}`);
    const { fd, prdc, class: seen } = JSON.parse(await ddpm(...measure, ...guidance));
    const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
    rows.push(
      `| ${scale} | ![](${row}) | ${percent(seen.asked)} | ${fd.toFixed(2)} | ` +
        `${percent(prdc.precision)} | ${percent(prdc.recall)} |`,
    );
  }
  page.push(
    rows.join("\n"),
    `Measured on ${count} images by ${shown(measure.slice(0, -1))} and the guidance of the row; ` +
      "distances are to the training images. The default is scale 1.75 between the noise levels 0.3 and 1.6.",
  );
}
await Deno.writeTextFile("data/gallery.md", page.join("\n\n") + "\n");
await new Deno.Command(Deno.execPath(), { args: ["fmt", "data/gallery.md"] }).output();
