import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { createSampler } from "../../src/cli/commands/samplers.ts";
import { LimitError } from "../../src/gpu/device.ts";
import { Sampler } from "../../src/sample/sampler.ts";
import { openGpu } from "../device.ts";
import { Folder, imagesFile, tinyModel, tinyUNet } from "./cli.ts";

Deno.test("sample computes fewer images together where all of them do not fit", async () => {
  using device = await openGpu();
  const options = { steps: 2, batchSize: 20 } as const, model = tinyModel();
  // Parameters, 15,000 of them, are bound one by one; 16 channels of 8 x 8 are not.
  Object.assign(device.target, { maxBindingElements: 16 * 8 * 8 * 10 });
  await assertRejects(() => Sampler.create(device, model, options), LimitError, "takes");
  using sampler = await createSampler(device, model, options);
  using other = await Sampler.create(device, model, { ...options, batchSize: 1 });
  const images = await sampler.sample({ count: 3, seed: 1 });
  assertEquals(images.count, 3);
  assertEquals(images.data, (await other.sample({ count: 3, seed: 1 })).data);
  Object.assign(device.target, { maxBindingElements: 2000 });
  await assertRejects(
    () => createSampler(device, model, options),
    LimitError,
    "allows 8.00 kB in a binding",
  );
});

Deno.test("a training that does not fit says what takes the memory, and which flags would help", async () => {
  await using folder = await Folder.make();
  await folder.write("train-images-idx3-ubyte", imagesFile());
  await folder.write("c.json", { unet: { ...tinyUNet, sample_size: null } });
  const train = ["train", "--data", ".", "--config", "c.json", "--device", "cpu"];
  const { code, stderr } = await folder.run(
    ...[...train, "--out", "a", "--size", "2048", "--batch-size", "64"],
  );
  assertEquals(code, 1);
  assertMatch(
    stderr,
    /it takes [\d.]+ [TP]B, of which [\d.]+ TB for the result of \w+ \[64, /,
  );
  assertMatch(stderr, /allows 4\.29 GB of WebAssembly memory; not even a single image fits; with /);
  const [, size] = stderr.match(/with --size (\d+) it would fit\n$/)!;
  assert(Number(size) >= 64, stderr);

  const large = await folder.run(
    ...[...train, "--out", "b", "--size", "128", "--batch-size", "60", "--micro-batch", "30"],
  );
  const [, part] = large.stderr.match(
    /the largest batch that fits is \d+; with --micro-batch (\d+) or --size 64 it would fit\n$/,
  )!;
  assert(Number(part) >= 1 && 60 % Number(part) === 0, large.stderr);
});
