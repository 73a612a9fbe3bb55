import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { decode, GIF, Image } from "imagescript";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.ts";
import { serializeModel } from "../../src/model/model.ts";
import { assertClose } from "../close.ts";
import { classModel, type Folder, makeClassModels } from "./cli.ts";
import { makeFolder, train } from "./training.ts";

const NAMES = ["cat", "dog", "seal, grey"];
const run = ["--model", "m.safetensors", "--device", "cpu", "--steps", "2"];
const sample = ["sample", ...run];

/** Runs a command that makes `x.safetensors`; the images, what they are said to be, and was told. */
async function make(folder: Folder, ...args: string[]) {
  const { code, stderr } = await folder.run(...args, "--out", "x.safetensors");
  assertEquals(code, 0, stderr);
  const bytes = await Deno.readFile(folder.at("x.safetensors"));
  const { tensors, metadata } = readSafetensors(bytes, "x"),
    values = toFloat32(
      tensors.get("images")!,
    );
  const images = Array.from(
    { length: values.length / 64 },
    (_, i) => values.slice(64 * i, 64 * i + 64),
  );
  return { images, metadata, stderr };
}

Deno.test("classes are chosen by name or number, and take turns", async () => {
  await using folder = await makeClassModels(NAMES);
  const turns = await make(folder, ...sample, "--class", "dog,cat", "--count", "4");
  assertEquals(turns.metadata.class, "dog,cat");
  for (const chosen of [["--class", "1, 0"], ["--label", "1,0"]]) {
    assertEquals((await make(folder, ...sample, ...chosen, "--count", "4")).images, turns.images);
  }
  const dogs = await make(folder, ...sample, "--class", "dog", "--count", "4");
  assertEquals(dogs.metadata.class, "dog");
  for (const k of [0, 2]) assertClose(turns.images[k], dogs.images[k], 1e-6);
  for (const k of [1, 3]) assertNotEquals(turns.images[k], dogs.images[k]);
  // A name may have a comma; and the image of a class does not depend on the count.
  const all = await make(folder, ...sample, "--class", "all", "--count", "6");
  assertEquals(all.metadata.class, NAMES.join(","));
  const seals = await make(folder, ...sample, "--class", "seal, grey", "--count", "3");
  assertClose(all.images[2], seals.images[2], 1e-6);
  const twice = await make(folder, ...sample, "--class", "all", "--count", "9");
  all.images.forEach((image, k) => assertClose(twice.images[k], image, 1e-6));
});

Deno.test("every class has a column, and every picture in a folder its own", async () => {
  await using folder = await makeClassModels(NAMES);
  const grid = async () => {
    const image = await decode(await Deno.readFile(folder.at("samples.png")));
    assert(image instanceof Image);
    return [image.width / 16, image.height / 16];
  };
  await folder.succeed(...sample, "--class", "all");
  assertEquals(await grid(), [3 * 9 + 1, 6 * 9 + 1], "as many as 16 and a whole row need");
  await folder.succeed(...sample, "--class", "all", "--count", "40");
  assertEquals(await grid(), [3 * 9 + 1, 14 * 9 + 1]);
  await folder.succeed(...sample, "--class", "dog", "--count", "4");
  assertEquals(await grid(), [2 * 9 + 1, 2 * 9 + 1]);

  await folder.succeed(...sample, "--class", "cat,none", "--count", "3", "--out", "all/");
  for (const [k, name] of ["cat", "none", "cat"].entries()) {
    const text = new TextDecoder("latin1").decode(
      await Deno.readFile(folder.at(`all/000${k}.png`)),
    );
    assert(text.includes(`"image":${k},"class":"${name}"`), name);
  }
});

Deno.test("without a class images are of classes that are drawn from the seed", async () => {
  await using folder = await makeClassModels(NAMES);
  for (const model of ["m.safetensors", "all.safetensors"]) {
    const drawing = [...sample, "--model", model];
    const drawn = await make(folder, ...drawing, "--count", "8", "--seed", "1");
    const names = drawn.metadata.class.split(/,(?! )/);
    assertEquals([names.length, new Set(names).size], [8, 3]);
    assertMatch(
      drawn.stderr,
      new RegExp(`^class: drawn by chance: ${names.join(", ")}; --class`, "m"),
    );
    const few = await make(folder, ...drawing, "--count", "3", "--seed", "1");
    few.images.forEach((image, k) => assertClose(image, drawn.images[k], 1e-6));
    const other = await make(folder, ...drawing, "--count", "8", "--seed", "2");
    assertNotEquals(other.metadata.class, drawn.metadata.class);
    const given = await make(
      folder,
      ...[...drawing, "--class", names[2], "--count", "3", "--seed", "1"],
    );
    assertClose(given.images[2], drawn.images[2], 1e-6, "which are the classes that are told");
  }
});

Deno.test("what begins with an image is of none if nobody says of what", async () => {
  await using folder = await makeClassModels(NAMES);
  await folder.succeed(...sample, "--count", "1", "--out", "a.png");
  const init = ["--init", "a.png", "--count", "2"];
  const none = await make(folder, ...sample, ...init);
  assertMatch(none.stderr, /^class: none; --class chooses$/m);
  assertEquals([none.metadata.class, none.metadata.guidance], ["none", undefined]);
  const asked = await make(folder, ...sample, ...init, "--class", "none");
  assertEquals(asked.images, none.images);
  assert(!asked.stderr.includes("class:"));
  const all = await make(folder, ...sample, ...init, "--model", "all.safetensors");
  assertMatch(all.stderr, /^class: drawn by chance: /m);
});

Deno.test("a class that is none is refused with those that there are", async () => {
  await using folder = await makeClassModels(NAMES);
  const cases: [string[], RegExp][] = [
    [["--class", "cta"], /no class cta: its classes are cat, dog, seal, grey and none; .* cat\?/],
    [["--class", "cat,giraffes"], /no class giraffes: .* and none$/m],
    [["--class", "7"], /The model has no class 7/],
    [["--class", "-1"], /The model has no class -1/],
    [["--class", "cat,"], /The model has no class : /],
    [["--class", "cat", "--label", "dog"], /Give --class or --label: they are the same/],
    [["--class", "all", "--count", "2"], /--class asks for 3 classes: --count 2 leaves some out/],
    [
      ["--class", "none", "--model", "all.safetensors"],
      /no class none: .* without --label-dropout/,
    ],
    [
      ["--class", "1", "--model", "plain.safetensors"],
      /plain\.safetensors has none, .* --label-dropout/,
    ],
    [
      ["--label", "1", "--model", "plain.safetensors"],
      /^error: --label is for models with classes/,
    ],
  ];
  for (const [flags, why] of cases) await folder.refuse([...sample, ...flags], why);
  await folder.refuse(
    ["interpolate", ...run, "--seeds", "1,2", "--class", "cow"],
    /The model has no class cow: its classes are cat, dog, seal, grey and none; .* cat\?/,
  );
});

Deno.test("interpolate makes a way for each class, by seeds and by pictures", async () => {
  await using folder = await makeClassModels(NAMES);
  const go = ["interpolate", ...run, "--count", "3"];
  const dog = await make(folder, ...go, "--seeds", "1,2", "--class", "dog");
  const both = await make(folder, ...go, "--seeds", "1,2", "--class", "cat,dog");
  assertEquals([dog.images.length, both.images.length], [3, 6]);
  dog.images.forEach((image, k) => assertClose(both.images[2 * k + 1], image, 1e-6));
  assertEquals(both.metadata.class, "cat,dog");
  const none = await make(folder, ...go, "--seeds", "1,2");
  assertMatch(none.stderr, /^class: none; --class chooses$/m);
  assertEquals(none.images.length, 3);

  await folder.succeed(...sample, "--class", "cat", "--count", "2", "--out", "ends/");
  const images = ["--images", "ends/0000.png,ends/0001.png"];
  const cat = await make(folder, ...go, ...images, "--class", "cat");
  const all = await make(folder, ...go, ...images, "--class", "all");
  cat.images.forEach((image, k) => assertClose(all.images[3 * k], image, 1e-5));
  await folder.succeed(...go, ...images, "--class", "all", "--out", "x.gif");
  const gif = await decode(await Deno.readFile(folder.at("x.gif")));
  assert(gif instanceof GIF);
  assertEquals([gif.length, gif.width / 16, gif.height / 16], [3, 3 * 9 + 1, 9 + 1]);
});

Deno.test("a model that is trained with label dropout knows its classes and none", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("run", 2, "--label-dropout", "0.1"));
  const facts = JSON.parse(await folder.succeed("info", "run", "--json"));
  assertEquals(facts.classes, Array.from({ length: 10 }, (_, c) => String(c)));
  assertEquals(facts["class none"], "yes");
  const flags = ["sample", "--model", "run", "--device", "cpu", "--steps", "2"];
  const { stderr, metadata } = await make(folder, ...flags);
  assertMatch(stderr, /^class: drawn by chance: /m);
  assertMatch(metadata.class, /^\d(,\d)+$/);
  assertEquals((await make(folder, ...flags, "--class", "9,3")).metadata.class, "9,3");

  // Version 0.1.0 wrote no names.
  const path = folder.at("run/model.safetensors");
  const { tensors, metadata: { classes: _, ...rest } } = readSafetensors(await Deno.readFile(path));
  const values = [...tensors].map(([name, t]) => ({ name, shape: t.shape, values: toFloat32(t) }));
  await Deno.writeFile(path, writeSafetensors(values, rest));
  const former = JSON.parse(await folder.succeed("info", "run", "--json"));
  assertEquals([former.classes, former["class none"]], [facts.classes, "yes"]);
});

Deno.test("a network with room for more classes than the data have still knows none", async () => {
  await using folder = await makeFolder();
  const config = JSON.parse(await Deno.readTextFile(folder.at("tiny.json")));
  await folder.write("tiny.json", {
    ...config,
    unet: { ...config.unet, num_class_embeds: 14 },
    training: { ...config.training, label_dropout: 0.2 },
  });
  await folder.succeed(...train("run", 2));
  const facts = JSON.parse(await folder.succeed("info", "run", "--json"));
  assertEquals([facts.classes.length, facts["class none"]], [13, "yes"]);
});

Deno.test("info lists the classes of a model", async () => {
  await using folder = await makeClassModels(NAMES);
  const { classes: _, ...unnamed } = classModel(NAMES, false);
  await folder.write("n.safetensors", serializeModel(unnamed));
  const of = async (name: string) => {
    const facts = JSON.parse(await folder.succeed("info", `${name}.safetensors`, "--json"));
    return [facts.classes, facts["class none"]];
  };
  assertEquals(await of("m"), [NAMES, "yes"]);
  assertEquals(await of("all"), [NAMES, "no: trained without label dropout"]);
  assertEquals(await of("n"), [3, "no: trained without label dropout"]);
  assertEquals(await of("plain"), [undefined, undefined]);
  assertMatch(await folder.succeed("info", "m.safetensors"), /^classes +\["cat","dog",/m);
});
