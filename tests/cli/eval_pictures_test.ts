import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { isReducible, reduceSource } from "../../src/cli/evaluation/image_source.ts";
import { frechetDistance } from "../../src/evaluate/frechet_distance.ts";
import { classifierFeatures } from "../../src/evaluate/classifier_features.ts";
import { encodeStatistics, readStatistics } from "../../src/evaluate/statistics_file.ts";
import { concat, inMemory } from "../../src/formats/bytes.ts";
import { encodeZip } from "../../src/formats/write_zip.ts";
import { extract, readZip } from "../../src/formats/zip.ts";
import { openDevice } from "../../src/gpu/open.ts";
import { serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { between, gaussianOf, mixedRows } from "../evaluate/fixture.ts";
import { randomModel } from "../networks.ts";
import { pictureFile } from "../pictures.ts";
import { classModel, encodeIdx, Folder, tinyModelFile } from "./cli.ts";

/** A classifier that has learnt nothing, which is enough to have features. */
const featureFile = (fields: Record<string, unknown> = {}, classes?: string[]) =>
  serializeModel({
    ...randomModel(parseNetwork({
      ...{ _class_name: "FeatureClassifier", sample_size: 8, num_classes: 3 },
      ...{ block_out_channels: [4, 6], feature_size: 5, ...fields },
    })),
    ...(classes ? { classes } : {}),
  });

/** Images that are all different, with more of them in a test split. */
const images = (count: number, from: number) =>
  encodeIdx(
    [count, 8, 8],
    Uint8Array.from({ length: count * 64 }, (_, i) => (from + i) ** 2 % 251),
  );

/** A folder with a model `m`, features `f`, and data of 40 and 12 images. */
async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  await folder.write("f.safetensors", featureFile());
  await Deno.mkdir(folder.at("data"));
  await folder.write("data/train-images-idx3-ubyte", images(40, 0));
  await folder.write("data/t10k-images-idx3-ubyte", images(12, 7000));
  await folder.write(
    "data/train-labels-idx1-ubyte",
    encodeIdx([40], Uint8Array.from({ length: 40 }, (_, i) => i % 3)),
  );
  return folder;
}

const device = ["--device", "cpu", "--threads", "1"], features = ["--features", "f.safetensors"];
const all = ["--metric", "fd,kid,prdc,is,class,nn"], data = ["--data", "data"];
const model = ["--model", "m.safetensors", "--steps", "2", "--seed", "3"];

/** Runs `eval`, which must succeed, and reads what it printed. */
const evaluate = async (folder: Folder, ...args: string[]) =>
  JSON.parse(await folder.succeed("eval", ...device, ...features, "--json", ...args));

Deno.test("eval measures the pictures of a model as those that sample writes", async () => {
  await using folder = await makeFolder();
  const found = await evaluate(folder, ...model, ...data, ...all, "--count", "30");
  const sampled = ["--count", "30", "--out", "x.safetensors"];
  await folder.succeed("sample", ...device, ...model, ...sampled);
  const again = await evaluate(folder, "--samples", "x.safetensors", ...data, ...all);
  for (const name of ["fd", "kid", "prdc", "is", "class", "nn", "features", "data_hash"]) {
    assertEquals(again[name], found[name], name);
  }
  assertEquals([again.samples, again.count, again.model], ["x.safetensors", 30, undefined]);
  const { model: place, sampler, steps, seed, first, count, split, data_count } = found;
  assertEquals([place, sampler, steps, seed], ["m.safetensors", "dpmpp_2m_sde", 2, 3]);
  assertEquals([first, count, split, data_count, found.data], [0, 30, "train", 40, "data"]);
  for (const name of ["model_hash", "features_hash", "data_hash"]) {
    assertMatch(found[name], /^[0-9a-f]{64}$/);
  }
  assertMatch(found.version, /^@x\/ddpm [\d.]+$/);
  assertEquals([found.kid.subset_size, found.prdc.samples, found.prdc.real], [15, 30, 30]);
  assertEquals(found.class.classes.length, 3);
  assertEquals("asked" in found.class, false);
  assertEquals([found.nn.distances.length, found.nn.held_out.count], [30, 12]);
});

Deno.test("the distance is that of the library, to the images of either split", async () => {
  await using folder = await makeFolder();
  using cpu = await openDevice("cpu", { threads: 1 });
  using extractor = await classifierFeatures(
    cpu,
    randomModel(parseNetwork({
      ...{ _class_name: "FeatureClassifier", sample_size: 8, num_classes: 3 },
      ...{ block_out_channels: [4, 6], feature_size: 5 },
    })),
  );
  const gaussian = async (bytes: Uint8Array) => {
    const data = Float32Array.from(bytes.subarray(16), (x) => x / 127.5 - 1);
    const count = data.length / 64;
    const { features } = await extractor.extract({ count, shape: [8, 8, 1], data });
    return gaussianOf({ count, width: 5, data: features });
  };
  const train = await gaussian(images(40, 0)), test = await gaussian(images(12, 7000));
  const samples = ["--samples", "data/t10k-images-idx3-ubyte"];
  const found = await evaluate(folder, ...samples, ...data);
  assertAlmostEquals(found.fd, await frechetDistance(test, train), 1e-9 * found.fd);
  assert(found.fd > 1e-3);
  const same = await evaluate(folder, ...samples, ...data, "--split", "test");
  assertAlmostEquals(same.fd, 0, 1e-9);
  assertEquals(same.split, "test");
});

Deno.test("parts that processes made of a model by number are put together as the whole", async () => {
  await using folder = await makeFolder();
  const whole = await evaluate(folder, ...model, ...data, ...all, "--count", "24");
  // In another order, and of other sizes than the batches.
  for (const [first, count, out] of [["11", "13", "b.npz"], ["0", "11", "a.npz"]]) {
    const part = ["--first", first, "--count", count, "--out", out, "--batch", "4"];
    const told = await evaluate(folder, ...model, ...all, ...part);
    assertEquals([told.first, told.count, told.fd], [Number(first), Number(count), undefined]);
  }
  const { stderr } = await folder.run(
    ...["eval", ...device, ...features, ...model, ...all, "--count", "12", "--out", "c.npz"],
  );
  assertMatch(stderr, /^fd, kid, prdc, nn: not measured, there is no --data or --reference/m);
  const real = ["--samples", "data", "--metric", "kid", "--out", "d.npz"];
  await folder.succeed("eval", ...device, ...features, ...real);
  const { seed, sampler, model_hash, count } = whole;
  for (const against of [data, ["--reference", "d.npz"]]) {
    const found = await evaluate(folder, "--samples", "b.npz,a.npz", ...against, ...all);
    assertEquals(
      [found.seed, found.sampler, found.model_hash, found.count],
      [seed, sampler, model_hash, count],
    );
    // Of other batches, up to rounding.
    assertAlmostEquals(found.fd, whole.fd, 1e-4 * whole.fd);
    assertAlmostEquals(found.kid.mean, whole.kid.mean, 1e-4 * whole.kid.std);
    assertEquals(found.prdc, whole.prdc);
    assertAlmostEquals(found.is.mean, whole.is.mean, 1e-5);
    assertEquals([found.class, found.nn.indices], [whole.class, whole.nn.indices]);
  }
});

Deno.test("statistics of pictures in several places are put together, and pictures too", async () => {
  await using folder = await makeFolder();
  await folder.write("a-idx3-ubyte", images(11, 0));
  await folder.write("b-idx3-ubyte", images(9, 11 * 64));
  await folder.write("all-idx3-ubyte", images(20, 0));
  for (const name of ["a", "b"]) {
    await evaluate(
      folder,
      "--samples",
      `${name}-idx3-ubyte`,
      "--metric",
      "kid",
      "--out",
      `${name}.npz`,
    );
  }
  const fd = async (samples: string) =>
    (await evaluate(folder, "--samples", samples, ...data, "--metric", "fd,kid")).fd;
  const whole = await fd("all-idx3-ubyte");
  assert(whole > 0);
  for (const parts of ["a.npz,b.npz", "b.npz,a.npz", "a-idx3-ubyte,b-idx3-ubyte"]) {
    assertAlmostEquals(await fd(parts), whole, 1e-6 * whole);
  }
});

Deno.test("statistics are of samples, or of the data where there is no model", async () => {
  await using folder = await makeFolder();
  const said = await folder.succeed(
    ...["eval", ...device, ...features, ...data, "--out", "data.npz", "--count", "11"],
  );
  assertEquals(said, "data.npz: statistics of 11 images of data\n");
  const bytes = await Deno.readFile(folder.at("data.npz"));
  const { count, features: rows, gaussian, about } = await readStatistics(bytes, "data.npz");
  assertEquals([count, rows, gaussian.mean.length], [11, undefined, 5]);
  assertEquals([about!.data, about!.first, about!.count], ["data", 0, 11]);
  const line = await folder.succeed(
    ...["eval", ...device, ...features, ...model, "--count", "9", ...data],
    ...["--metric", "fd,prdc", "--out", "m.npz"],
  );
  assertMatch(
    line,
    /^m\.npz: statistics of 9 images of m\.safetensors\nm\.safetensors, 9 images against data, features f\.safetensors: Fréchet distance [\d.e+]+, precision [\d.]+ %, recall [\d.]+ %, density [\d.]+, coverage [\d.]+ %\n$/,
  );
  const made = await readStatistics(await Deno.readFile(folder.at("m.npz")), "m.npz");
  assertEquals([made.count, made.features?.count, made.logits], [9, 9, undefined]);
});

Deno.test("published statistics, which tell nothing else, are compared with", async () => {
  await using folder = await makeFolder();
  const rows = mixedRows("published", 30, 5), gaussian = gaussianOf(rows);
  await folder.write("p.npz", concat([...encodeStatistics({ gaussian })]));
  await folder.write(
    "q.npz",
    concat([...encodeStatistics({ gaussian: gaussianOf(between(rows, 0, 9)) })]),
  );
  // No device, and no features.
  const found = JSON.parse(
    await folder.succeed("eval", "--samples", "q.npz", "--reference", "p.npz", "--json"),
  );
  const expected = await frechetDistance(gaussianOf(between(rows, 0, 9)), gaussian);
  assertAlmostEquals(found.fd, expected, 1e-12);
  assertEquals([found.features, found.count, found.reference], [undefined, undefined, "p.npz"]);
});

Deno.test("arrays as OpenAI publishes them are judged, with the classes beside them", async () => {
  await using folder = await makeFolder();
  await folder.write("openai.npz", await pictureFile("openai.npz"));
  const fields = { sample_size: [4, 6], in_channels: 3, num_classes: 10 };
  await folder.write("f.safetensors", featureFile(fields));
  const found = await evaluate(folder, "--samples", "openai.npz", "--metric", "class");
  assertEquals(found.count, 5);
  assert(found.class.asked >= 0 && found.class.asked <= 1);
  assertAlmostEquals(found.class.classes.reduce((a: number, b: number) => a + b), 1, 1e-12);

  // With statistics beside them, as guided-diffusion has them, they are either.
  const file = inMemory(await pictureFile("openai.npz")),
    gaussian = gaussianOf(mixedRows("x", 9, 5));
  const entries = [
    ...(await readZip(file, "openai.npz")).map((entry) => ({ entry, file })),
    ...await (async () => {
      const file = inMemory(concat([...encodeStatistics({ gaussian })]));
      return (await readZip(file, "x.npz")).map((entry) => ({ entry, file }));
    })(),
  ];
  const both = await Promise.all(entries.map(async ({ entry, file }) => ({
    name: entry.name,
    bytes: await extract(file, entry, "x.npz"),
  })));
  await folder.write("both.npz", concat([...encodeZip(both)]));
  const again = await evaluate(folder, "--samples", "both.npz", "--reference", "both.npz");
  assertEquals([again.count, again.fd > 0], [5, true]);
});

Deno.test("the classes that are asked for go by the number of the image", async () => {
  await using folder = await makeFolder();
  await folder.write("c.safetensors", serializeModel(classModel(["a", "b", "c"])));
  await folder.write("f.safetensors", featureFile({}, ["a", "b", "c"]));
  const paint = ["--model", "c.safetensors", "--steps", "2", "--class", "c,a", "--guidance", "2"];
  const metric = ["--metric", "class"];
  const whole = await evaluate(folder, ...paint, ...metric, "--count", "7");
  assertEquals([whole.class.asked >= 0, whole.guidance], [true, 2]);
  const part = await evaluate(
    folder,
    ...paint,
    ...metric,
    "--first",
    "3",
    "--count",
    "4",
    "--out",
    "x.npz",
  );
  const { labels } = await readStatistics(await Deno.readFile(folder.at("x.npz")), "x.npz");
  assertEquals([part.count, [...labels!]], [4, [0, 2, 0, 2]]);
});

Deno.test("pictures that are larger than features want are averaged", async () => {
  // Two pictures of 4x2 with two channels.
  const data = Float32Array.from({ length: 32 }, (_, i) => i), shape = [4, 2, 2];
  const all = { count: 2, shape, data };
  const source = {
    ...{ name: "x", count: 2, shape },
    async *batches() {
      yield all;
    },
    pick: () => Promise.resolve(all),
  };
  const wanted = [2, 1, 2], reduced = reduceSource(source, wanted);
  const expected = [0, 1, 8, 9, 16, 17, 24, 25].map((first) => first + 3);
  for await (const { data } of reduced.batches({})) assertEquals([...data], expected);
  assertEquals([...(await reduced.pick([0, 1])).data], expected);
  assertEquals([reduced.shape, isReducible(shape, wanted)], [wanted, true]);
  for (const other of [[4, 1, 2], [3, 2, 2], [2, 1, 3], [8, 4, 2]]) {
    assert(!isReducible(shape, other), `${other}`);
  }
});

Deno.test("copies of training images are found, in features and in pixels", async () => {
  await using folder = await makeFolder();
  // Images 5 to 9 of the training, and noise.
  const copies = images(40, 0).slice(16 + 5 * 64, 16 + 10 * 64);
  const noise = Uint8Array.from({ length: 320 }, (_, i) => (7 * i * i + 13 * i) % 253);
  await folder.write("c-idx3-ubyte", encodeIdx([10, 8, 8], new Uint8Array([...copies, ...noise])));
  for (const space of ["features", "pixels"]) {
    const { nn } = await evaluate(
      folder,
      ...["--samples", "c-idx3-ubyte", "--metric", "nn", "--neighbors", space, ...data],
    );
    assertEquals(nn.space, space);
    assertEquals(nn.indices.slice(0, 5), [5, 6, 7, 8, 9]);
    for (const distance of nn.distances.slice(0, 5)) assertAlmostEquals(distance, 0, 1e-5);
    assert(nn.distances.slice(5).every((distance: number) => distance > 1e-3));
    assert(nn.near_copies >= 0.5, JSON.stringify(nn));
    assertEquals([nn.count, nn.held_out.count], [10, 10]);
    // What a model learnt from are the training images, whatever distances are measured to.
    const test = await evaluate(
      folder,
      ...["--samples", "c-idx3-ubyte", "--metric", "fd,nn", "--neighbors", space, ...data],
      ...["--split", "test", "--report", "r.html"],
    );
    assertEquals([test.split, test.data_count], ["test", 12]);
    const { count, ...heldOut } = test.nn.held_out;
    assertEquals([test.nn.indices, test.nn.near_copies], [nn.indices, nn.near_copies]);
    assertEquals([count, heldOut], [10, (({ count: _, ...rest }) => rest)(nn.held_out)]);
    const page = await Deno.readTextFile(folder.at("r.html"));
    assertStringIncludes(page, "the nearest training images below");
  }
});

Deno.test("the report is one page with pictures, histograms and what it is of", async () => {
  await using folder = await makeFolder();
  const args = [...model, ...data, ...all, "--count", "20", "--report", "r.html"];
  const told = await folder.succeed("eval", ...device, ...features, ...args);
  assertMatch(told, /^r\.html: the report\nm\.safetensors, 20 images/);
  const page = await Deno.readTextFile(folder.at("r.html"));
  assertMatch(page, /^<!DOCTYPE html>[^]*<\/html>\n$/);
  assertEquals(page.match(/(src|href)="(?!data:)|url\(|@import/g), null);
  assertEquals(page.match(/<img alt="/g)?.length, 3);
  for (const name of ["Classes", "Distance to the nearest training image, in features"]) {
    assertStringIncludes(page, `<figcaption>${name}</figcaption><svg`);
  }
  for (const text of ["Fréchet distance", "near copies", "dpmpp_2m_sde", "<th>model_hash</th>"]) {
    assertStringIncludes(page, text);
  }
  assert(!page.includes("NaN") && !page.includes("Infinity"));
});

Deno.test("bits per dimension are measured in company too, on images held back", async () => {
  await using folder = await makeFolder();
  const found = await evaluate(
    folder,
    ...model,
    ...data,
    "--count",
    "6",
    "--metric",
    "fd,bpd",
    "--by",
    "vlb",
  );
  assertEquals([found.bpd.count, found.bpd.vlb.images.length, found.bpd.ode], [12, 12, undefined]);
  assert(found.fd > 0);
});

Deno.test("an evaluation that is interrupted ends, and writes nothing", async () => {
  await using folder = await makeFolder();
  const many = ["--count", "100000", "--steps", "10", "--metric", "fd,kid", "--out", "x.npz"];
  const args = ["eval", ...device, ...features, "--model", "m.safetensors", ...data, ...many];
  const child = folder.start(...args), decoder = new TextDecoder();
  const stdout = new Response(child.stdout).text();
  let told = "", isKilled = false;
  for await (const chunk of child.stderr) {
    told += decoder.decode(chunk, { stream: true });
    if (!isKilled && told.includes("sampling 100000 images")) {
      child.kill("SIGINT");
      isKilled = true;
    }
  }
  assertEquals((await child.status).code, 130, told);
  assertMatch(told, /^interrupted: stopping; press Ctrl-C again to exit at once$/m);
  assertEquals(await stdout, "");
  assert((await folder.list()).every((path) => !path.includes(".npz")));
});

Deno.test("eval refuses what it cannot compare", async () => {
  await using folder = await makeFolder();
  await Deno.mkdir(folder.at("plain"));
  await folder.write("plain/train-images-idx3-ubyte", images(6, 0));
  await folder.write("c.safetensors", serializeModel(classModel(["a", "b", "c"])));
  await folder.write("named.safetensors", featureFile({}, ["x", "y", "z"]));
  await Deno.mkdir(folder.at("few"));
  await folder.write("few/train-images-idx3-ubyte", images(5, 0));
  await folder.write("large.safetensors", featureFile({ sample_size: 16 }));
  await folder.write("other.safetensors", featureFile({ feature_size: 4 }));
  const rows = mixedRows("x", 9, 5), gaussian = gaussianOf(rows);
  const file = (about?: Record<string, unknown>) =>
    concat([...encodeStatistics({ gaussian, count: 9, ...(about ? { about } : {}) })]);
  await folder.write("bare.npz", file());
  await folder.write(
    "wide.npz",
    concat([
      ...encodeStatistics({ gaussian: gaussianOf(mixedRows("x", 9, 6)), count: 9 }),
    ]),
  );
  await folder.write("foreign.npz", file({ features: "inception", features_hash: "12" }));
  await folder.write("a.npz", file({ model: "a", first: 0 }));
  await folder.write("a2.npz", file({ model: "a", first: 8 }));
  await folder.write("b.npz", file({ model: "b", first: 9 }));
  const m = ["--model", "m.safetensors"], fd = ["--metric", "fd"];
  const bare = ["--samples", "bare.npz"], reference = ["--reference", "bare.npz"];
  const cases: readonly [string[], RegExp][] = [
    [
      ["--metric", "fid", ...data],
      /must be some of fd, kid, .* not fid; fd is the Fréchet distance/,
    ],
    [["--metric", "fd,ki", ...data], /not ki; did you mean kid\?/],
    [[...m, ...fd], /eval needs --data: mnist, a folder or a file; or a --reference/],
    [[...m, ...fd, ...data, ...reference], /Give --data or --reference/],
    [[...m, ...bare, ...data], /Give --model or --samples/],
    [[...bare, ...data, "--metric", "bpd"], /bpd is a measure of a model/],
    [
      [...bare, ...data, "--sampler", "ddim"],
      /--sampler is for pictures of a model: those of --samp/,
    ],
    [
      [...data, "--out", "x.npz", "--seed", "1"],
      /--seed is for pictures of a model: give a --model/,
    ],
    [[...m, ...fd, ...data, "--neighbors", "pixels"], /--neighbors is for --metric nn/],
    [[...m, ...fd, ...data, "--by", "vlb"], /--by is for --metric bpd/],
    [[...m, ...fd, ...reference, "--split", "test"], /--split is for --data/],
    [[...m, ...fd, "--data", "plain", "--split", "test"], /There is no test split of plain/],
    [[...m, ...fd, ...data, "--count", "1"], /--count must be 2 at the least/],
    [[...m, ...fd, ...data, "--out", "x.npy"], /--out must end in \.npz, not x\.npy/],
    [[...m, ...fd, ...data, "--report", "x.htm"], /--report must end in \.html, not x\.htm/],
    [
      [...m, ...fd, ...data, "--out", "no/x.npz"],
      /Cannot write no\/x\.npz: the folder no does not/,
    ],
    [
      [...m, ...fd, ...data, "--features", "large.safetensors"],
      /large\.safetensors are for pictures of \[16, 16, 1\], and those of m\.safetensors are of \[8, 8, 1\]/,
    ],
    [[...m, ...fd, ...data, "--features", "m.safetensors"], /tells no classes apart/],
    [
      [...bare, ...reference, "--metric", "kid"],
      /kid needs the features .* bare\.npz has none: eval --metric kid --out/,
    ],
    [[...bare, ...reference, "--metric", "nn"], /nn needs the features of each image/],
    [[...bare, "--metric", "is"], /is needs the logits of each image/],
    [
      [...m, ...reference, "--metric", "prdc"],
      /prdc needs the features of each image, and bare\.npz/,
    ],
    [
      [...m, ...reference, "--metric", "nn", "--neighbors", "pixels"],
      /looks at the training images/,
    ],
    [
      ["--samples", "wide.npz", ...reference],
      /bare\.npz: their features have a width of 5, and .* 6/,
    ],
    [["--samples", "wide.npz", ...data], /wide\.npz: their features have a width of 6, and .* 5/],
    [
      ["--samples", "foreign.npz", ...data],
      /they are of the features inception, not of f\.safetensors/,
    ],
    [
      ["--samples", "a.npz,a2.npz", ...reference],
      /both have the image 8; --first and --count cut parts/,
    ],
    [
      ["--samples", "a.npz,b.npz", ...reference],
      /model is "a" in a\.npz and "b" in b\.npz/,
    ],
    [
      ["--samples", "a.npz,data", ...reference],
      /a\.npz, which holds statistics, and data, which holds pi/,
    ],
    [["--samples", "bare.npz,bare.npz", ...reference], /they are the same/],
    [[...bare, ...reference, "--count", "4"], /--count is for a single set of pictures/],
    [
      ["--samples", "data", ...data, "--first", "38", "--count", "3"],
      /are beyond the 40 images of data/,
    ],
    [["--samples", "nowhere", ...data], /no such file or folder/],
    [["--metric", "bpd", ...m, ...data, "--guidance", "2"], /--guidance is not for bpd/],
    [["--metric", "class", ...m, "--class", "3"], /--class is for models with classes/],
    [
      [
        "--metric",
        "class",
        "--model",
        "c.safetensors",
        "--class",
        "a",
        "--features",
        "named.safetensors",
      ],
      /c\.safetensors has the classes a, b, c, and named\.safetensors x, y, z/,
    ],
    [[...m, ...fd, ...data, "--eta", "1"], /eta/],
    [[...m, ...data, "--metric", "is", "--count", "9"], /is needs 10 images at the least, not 9/],
    [[...m, ...data, "--metric", "kid", "--count", "3"], /kid needs 4 images at the least, not 3/],
    [
      [...m, ...data, "--metric", "prdc", "--count", "3"],
      /prdc needs 6 images at the least, not 3/,
    ],
    [
      [...m, "--data", "few", "--metric", "prdc"],
      /prdc needs 6 real images at the least, not the 5 of few/,
    ],
    [["--samples", "few", ...data, "--metric", "is"], /is needs 10 images at the least, not 5/],
  ];
  for (const [args, message] of cases) {
    const own = args.includes("--features") ? [] : features;
    const isBits = args[1] === "bpd" && args[0] === "--metric";
    await folder.refuse(["eval", ...device, ...(isBits ? [] : own), ...args], message);
  }
});
