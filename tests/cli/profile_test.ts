import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import { formatProfile, formatProgram } from "../../src/cli/run/profile.ts";
import { Folder, imagesFile, tinyModelFile, tinyUNet } from "./cli.ts";

async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await Deno.mkdir(folder.at("data"));
  await folder.write("data/train-images-idx3-ubyte", imagesFile());
  await folder.write("tiny.json", { data: "data", unet: tinyUNet, training: { batch_size: 3 } });
  return folder;
}

for (const device of ["gpu", "cpu"]) {
  Deno.test(`train --profile tells where time goes and writes nothing, on the ${device}`, async () => {
    await using folder = await makeFolder();
    const before = await folder.list();
    const command = ["train", "--config", "tiny.json", "--profile", "2", "--device", device];
    const text = await folder.succeed(...command);
    assertMatch(text, /^a step takes [\d.]+ ms; kernel by kernel, [\d.]+ ms\n/);
    const [byOp, byShape] = text.trimEnd().split("\n\n").slice(1).map((table) =>
      table.split("\n").slice(1)
    );
    assert(byOp.some((row) => /^conv2d_weight_grad +[\d.]+ +[\d.]+ % +\d+ +[\d.e+-]+ /.test(row)));
    assert(byShape.every((row) => /^\w+ \[[\d,]+\] |^and \d+ more$/.test(row)));
    const shares = byOp.map((row) => Number(/([\d.]+) %/.exec(row)?.[1] ?? 0));
    assertEquals(shares, shares.toSorted((a, b) => b - a));
    assertAlmostEquals(shares.reduce((sum, share) => sum + share), 100, 1);
    assertEquals(await folder.list(), before);
  });
}

Deno.test("train --profile refuses flags of what it does not do", async () => {
  await using folder = await makeFolder();
  const command = ["train", "--config", "tiny.json", "--profile", "2"];
  await folder.refuse([...command, "--out", "run"], /--profile writes nothing: leave out --out/);
  await folder.refuse([...command, "--steps", "9"], /leave out --steps/);
});

Deno.test("DDPM_DEBUG describes programs, with their WGSL if it is 2", async () => {
  await using folder = await makeFolder();
  await folder.write("m.safetensors", tinyModelFile());
  const sample = async (level: string) => {
    const flags = ["--model", "m.safetensors", "--steps", "1", "--device", "gpu", "--out", "x.png"];
    folder.env.DDPM_DEBUG = level;
    const { code, stderr } = await folder.run("sample", ...flags);
    assertEquals(code, 0, stderr);
    return stderr;
  };
  const brief = await sample("1");
  assertMatch(brief, /^a sampling step: \d+ stages, \d+ kernels, [\d.]+ [kM]FLOP$/m);
  assertMatch(brief, /^memory: [\d.]+ [kM]B, of which/m);
  assertMatch(brief, /^conv2d +\[16,8,8,8\] +[\d.]+ MFLOP +conv2d/m);
  assert(!brief.includes("@compute"));
  assertMatch(await sample("2"), /@compute @workgroup_size|@compute\n?@workgroup_size/);
});

Deno.test("a model that does not fit a training says so, and how many images would", async () => {
  await using folder = await makeFolder();
  const unet = { ...tinyUNet, block_out_channels: [64, 64] };
  await folder.write("large.json", { data: "data", unet });
  const command = ["train", "--config", "large.json", "--batch-size", "65536", "--device", "cpu"];
  const { code, stderr } = await folder.run(...command, "--out", "run");
  assertEquals(code, 1);
  assertMatch(
    stderr,
    /^error: .*a training step: it takes [\d.]+ GB, .* allows [\d.]+ GB .*; the largest batch that fits is \d+; with --batch-size \d+ or --micro-batch \d+ it would fit\n$/m,
  );
});

Deno.test("profiles add up by operation and by shape", () => {
  const kernel = { label: "k", bytes: 2e6, groups: 1 };
  const stages = [
    { op: "map", shape: [2], flops: 0, fused: { add: 2 }, kernels: [kernel] },
    { op: "conv2d", shape: [2, 2], flops: 3e6, fused: {}, kernels: [kernel, kernel] },
    { op: "map", shape: [3], flops: 0, fused: {}, kernels: [kernel] },
  ];
  assertEquals(formatProfile(stages, [1, 2, 4, 3], 9).split("\n"), [
    "a step takes 9.0 ms; kernel by kernel, 10.0 ms",
    "",
    "operation    ms   share  kernels  GFLOP/s   GB/s",
    "conv2d     6.00  60.0 %        2    0.500  0.667",
    "map        4.00  40.0 %        2            1.00",
    "",
    "operation and shape    ms   share  kernels  GFLOP/s   GB/s",
    "conv2d [2,2]         6.00  60.0 %        2    0.500  0.667",
    "map [3]              3.00  30.0 %        1           0.667",
    "map [2]              1.00  10.0 %        1            2.00",
  ]);
  const memory = { bytes: 5000, temporary: 1000, unshared: 9000 };
  assertEquals(
    formatProgram({ label: "a test", stages: stages.slice(0, 1), memory }, true),
    `\
a test: 1 stages, 1 kernels, 0 FLOP
memory: 5.00 kB, of which 1.00 kB are shared by intermediate tensors of 9.00 kB
stage  shape  FLOP  kernel  reaches  groups  elementwise
map    [2]               k  2.00 MB       1  2 add`,
  );
});
