import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { encodeIdx, Folder, imagesFile, tinyModelFile } from "./cli.ts";

const tinyImages = (count: number) =>
  encodeIdx([count, 8, 8], Uint8Array.from({ length: count * 64 }, (_, i) => i * 37));

Deno.test("eval measures bits per dimension on images that are held back", async () => {
  await using folder = await Folder.make();
  await folder.write("tiny.safetensors", tinyModelFile());
  await Deno.mkdir(folder.at("data"));
  await folder.write("data/train-images-idx3-ubyte", imagesFile());
  const flags = ["--metric", "bpd", "--model", "tiny.safetensors", "--data", "data"];
  const run = async (...more: string[]) =>
    await folder.succeed("eval", ...flags, "--device", "cpu", "--threads", "1", ...more);
  const all = JSON.parse(await run("--json", "--steps", "3"));
  assertEquals([all.data, all.count], ["data", 12]);

  await folder.write("data/t10k-images-idx3-ubyte", tinyImages(5));
  const { data, count, vlb, ode } = JSON.parse(await run("--json", "--count", "3", "--steps", "4"));
  assertEquals([data, count, ode.steps], [join("data", "t10k-images-idx3-ubyte"), 3, 4]);
  assertEquals([vlb.terms.length, vlb.images.length, ode.images.length], [10, 3, 3]);
  assertEquals(vlb.decoder, vlb.terms[0]);
  const sum = (values: number[]) => values.reduce((a, b) => a + b);
  assertAlmostEquals(vlb.total, sum(vlb.terms) + vlb.prior, 1e-9);
  for (const { total, images } of [vlb, ode]) assertAlmostEquals(total, sum(images) / 3, 1e-5);

  const text = await run("--count", "3", "--steps", "4");
  assertMatch(text, /data +.*t10k-images-idx3-ubyte, 3 of 5 images/);
  const told = /variational bound +([\d.]+) bits\/dim ± /.exec(text);
  assert(told, text);
  assertAlmostEquals(Number(told[1]), vlb.total, 1e-3);
  assertMatch(text, /probability-flow ODE +[\d.]+ bits\/dim ± /);
  assertMatch(text, /t = 9 +[\d.]+\n[^]*t = 0 \(decoder\)/);
});

Deno.test("eval refuses what it cannot measure", async () => {
  await using folder = await Folder.make();
  await folder.write("tiny.safetensors", tinyModelFile(3));
  await Deno.mkdir(folder.at("data"));
  await folder.write("data/t10k-images-idx3-ubyte", tinyImages(5));
  const model = ["--model", "tiny.safetensors"], data = ["--data", "data"];
  const cases: readonly [string[], RegExp][] = [
    [[], /needs --data/],
    [["--metric", "fid"], /--metric must be some of fd, .*, bpd, with commas between, not fid/],
    [["--data", "nowhere"], /no such file or folder/],
    [["--by", "vlb", "--steps", "3", ...data], /--steps is for the ODE/],
    [
      [...model, ...data, "--count", "6"],
      /--count is 6, but .*t10k-images-idx3-ubyte has 5 images/,
    ],
    [["extra"], /takes flags only/],
  ];
  for (const [flags, message] of cases) await folder.refuse(["eval", ...flags], message);
});
