import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { drawChart, formatTick, smooth } from "../../src/cli/run/chart.ts";
import { History, type LogLine } from "../../src/cli/run/training_log.ts";
import { renderReport, type Report } from "../../src/cli/run/report.ts";
import { encodeIdx, tinyUNet } from "./cli.ts";
import { makeFolder, readLog, train } from "./training.ts";

Deno.test("the report of a training is one page with its curves, samples and making", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 8, "--device", "cpu", "--held-out", "0.25"));
  const page = await Deno.readTextFile(folder.at("a/report.html"));
  assertMatch(page, /^<!DOCTYPE html>[^]*<\/html>\n$/);
  // Nothing is fetched from elsewhere.
  assertEquals(page.match(/(src|href)="(?!data:)|url\(|@import/g), null);
  for (const name of ["Loss", "Norm of the gradient", "Learning rate", "Images a second"]) {
    assertStringIncludes(page, `<figcaption>${name}</figcaption><svg`);
  }
  assertEquals(page.match(/<img alt="samples after step \d+"/g)?.length, 2);
  assertStringIncludes(page, "ddpm train --config tiny.json --out a --steps 8 ");
  assertStringIncludes(page, "<th>device</th><td>CPU, ");
  assertStringIncludes(page, "<th>held_out</th><td>0.25</td>");
  assertStringIncludes(page, ">held out</dt>");
  assert(!page.includes("http-equiv"), "a training that ended does not change");

  const log = await readLog(folder, "a") as unknown as Record<string, unknown>[];
  assertEquals(log.map((line) => "held_out" in line), [false, true, false, true]);
  assert(log.every(({ loss_quartiles }) => (loss_quartiles as unknown[]).length === 4));
  assertEquals(log.map((line) => line.learning_rate), [0.002, 0.002, 0.002, 0.002]);
});

Deno.test("classes are learnt and drawn, and some images shown without", async () => {
  await using folder = await makeFolder();
  const labels = ["--label-dropout", "0.3", "--device", "cpu"];
  await folder.succeed(...train("a", 4, ...labels));
  const { network, training } = JSON.parse(await Deno.readTextFile(folder.at("a/config.json")));
  assertEquals([network.num_class_embeds, training.label_dropout], [11, 0.3]);
  assert((await Deno.stat(folder.at("a/samples/step-0000004.png"))).isFile);
  await folder.succeed(...train("a", 6, ...labels, "--resume"));
  await folder.write("plain.json", { unet: { ...tinyUNet, num_class_embeds: 10 } });
  await folder.refuse(
    [...train("b", 4, ...labels), "--config", "plain.json", "--data", "data"],
    /has the label 9, but the network has classes 0 to 8, and one more for label_dropout/,
  );
  await Deno.mkdir(folder.at("bare"));
  const images = encodeIdx([4, 8, 8], new Uint8Array(256).fill(200));
  await folder.write("bare/train-images-idx3-ubyte", images);
  await folder.refuse(
    train("b", 4, ...labels, "--data", "bare"),
    /--label-dropout needs classes, but bare has no labels/,
  );
});

const empty: Report = {
  ...{ title: "a<b", last: 5, isRunning: true, history: new History(), samples: [] },
  ...{ facts: { command: "<script>" }, settings: { training: { seed: 0 } } },
};

Deno.test("a report can be written before there is anything to tell, and quotes what is given", () => {
  const page = renderReport(empty);
  assertStringIncludes(page, 'http-equiv="refresh"');
  assertEquals(page.match(/nothing yet/g)?.length, 6);
  assert(!page.includes("a<b") && !page.includes("<script>"));
});

Deno.test("a chart of a long training is short, and leaves out what is no number", () => {
  const points = Array.from({ length: 50_000 }, (_, i) => [i + 1, 1 / (i + 1)] as const);
  const svg = drawChart([{ name: "x", style: "a", points }], { isLogarithmic: true });
  assert(svg.length < 20_000, `${svg.length}`);
  assert(!svg.includes("NaN"));
  const odd = drawChart([{ name: "x", style: "a", points: [[1, NaN], [2, 0], [3, 1], [4, 1]] }], {
    isLogarithmic: true,
  });
  assertEquals(odd.match(/<circle/g)?.length, 2);
  assert(!odd.includes("NaN"));
  const flat = drawChart([{ name: "x", style: "a", points: [[1, 0], [2, 0]] }], { hasZero: true });
  assert(!flat.includes("NaN"), flat);
});

Deno.test("numbers on axes are short", () => {
  assertEquals([0, 0.5, 2e-4, 12_345, 800_000, 2.5e6].map(formatTick), [
    ...["0", "0.5", "2e-4", "12.3k", "800k", "2.5M"],
  ]);
});

Deno.test("a running mean has the mean of its window", () => {
  const points = Array.from({ length: 80 }, (_, i) => [i, i % 2] as const);
  const means = smooth(points).map(([, y]) => y);
  assertEquals(means.slice(2, 5), [0.5, 0.5, 0.5]);
  assertEquals(smooth([[1, 3]]), [[1, 3]]);
});

Deno.test("what is kept of a log is bounded, and its means are those of the log", () => {
  const line = (step: number): LogLine => ({
    ...{ step, loss: step, loss_quartiles: [step, null, step % 2 ? step : null, 0] },
    ...(step % 10 ? {} : { held_out: 2 * step }),
    ...{ grad_norm: 1, learning_rate: 1 / step, images_per_second: 5, seconds: step, rss_mb: 100 },
  });
  const history = new History(), sizes = new Set<number>();
  for (let step = 1; step <= 50_000; step++) {
    history.add(line(step));
    sizes.add(history.lines.length);
    if (step === 1000) assertEquals(history.lines[998], line(999));
  }
  assertEquals([Math.min(...sizes), Math.max(...sizes)], [1, 1024]);
  assertEquals([history.first, history.last], [line(1), line(50_000)]);
  const { lines } = history, each = lines[0].step;
  assertEquals(each, 64);
  lines.forEach(({ step, loss, loss_quartiles, held_out, learning_rate }, i) => {
    assertEquals(step, Math.min((i + 1) * each, 50_000));
    const mean = (i * each + 1 + step) / 2;
    assertAlmostEquals(loss, mean);
    assertEquals(loss_quartiles!.slice(0, 2), [loss, null]);
    assertAlmostEquals(loss_quartiles![2]!, mean, 1);
    assertAlmostEquals(held_out!, 2 * mean, 20);
    assertEquals(learning_rate, 1 / step);
  });
});
