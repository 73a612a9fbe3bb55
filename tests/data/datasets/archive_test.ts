import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { followLinks } from "../../../src/formats/archive.ts";
import { inMemory } from "../../../src/formats/bytes.ts";
import { gunzip } from "../../../src/formats/gzip.ts";
import { readTar } from "../../../src/formats/tar.ts";
import { extract, readZip } from "../../../src/formats/zip.ts";
import { gzip, join, makeTar, makeZip, type Packed, pictureFile } from "../../pictures.ts";
import { Random } from "../../random.ts";

/** The files that are in all archives. */
const files: Record<string, Uint8Array> = {
  "cats/a.png": await pictureFile("rgb.png"),
  "cats/b.jpg": await pictureFile("rgb.jpg"),
  "dogs/ü/c.gif": await pictureFile("rgb.gif"),
  "readme.txt": new TextEncoder().encode("hello\n".repeat(50)),
};
const long = `${"x".repeat(120)}/${"y".repeat(130)}/long.png`;

for (const name of ["images.zip", "wide.zip"]) {
  Deno.test(`readZip() finds the files of ${name}, and extract() unpacks them`, async () => {
    const bytes = inMemory(await pictureFile(name)), entries = await readZip(bytes, name);
    assertEquals(entries.map((e) => e.name), Object.keys(files));
    for (const entry of entries) {
      assertEquals(await extract(bytes, entry, name), files[entry.name]);
    }
  });
}

for (const name of ["pax.tar.gz", "gnu.tar", "ustar.tar"]) {
  Deno.test(`readTar() finds the files of ${name}`, async () => {
    const file = await pictureFile(name);
    const bytes = inMemory(name.endsWith("gz") ? await gunzip(inMemory(file), name) : file);
    const entries = readTar(bytes, name);
    const expected = name === "ustar.tar" ? files : { ...files, [long]: files["cats/a.png"] };
    assertEquals(entries.map((e) => e.name), Object.keys(expected));
    for (const entry of entries) {
      assertEquals(await extract(bytes, entry, name), expected[entry.name]);
    }
  });
}

Deno.test("readTar() reads what the tests make, and readZip() an empty archive", async () => {
  const bytes = inMemory(makeTar(files));
  for (const entry of readTar(bytes, "x")) {
    assertEquals(await extract(bytes, entry, "x"), files[entry.name]);
  }
  const empty = new Uint8Array(22);
  empty.set([0x50, 0x4b, 5, 6]);
  assertEquals(await readZip(inMemory(empty), "x"), []);
});

Deno.test("damaged archives are refused", async () => {
  const zip = await pictureFile("images.zip"), tar = await pictureFile("gnu.tar");
  const zipError = (bytes: Uint8Array<ArrayBuffer>, why: string) =>
    assertRejects(() => readZip(inMemory(bytes), "x.zip"), InputError, why);
  await zipError(
    zip.slice(0, 900),
    "Cannot read x.zip as zip: it has no directory; is it truncated?",
  );
  await zipError(new Uint8Array(), "it has no directory");
  const directory = zip.length - "made for a test".length - 22;
  await zipError(zip.with(directory + 10, 9), "its directory has 4 entries, not 9");
  await zipError(zip.with(directory + 18, 9), "its directory is damaged");
  const tarError = (bytes: Uint8Array<ArrayBuffer>, why: string) =>
    assertThrows(() => readTar(inMemory(bytes), "x.tar"), InputError, why);
  tarError(tar.slice(0, 520), "it ends within the file at byte 0; is it truncated?");
  tarError(tar.with(5, 1), "there is no header at byte 0");

  const bytes = inMemory(zip), [png, jpg, gif] = await readZip(bytes, "x.zip");
  await assertRejects(
    () => extract(bytes, { ...png, size: png.size - 1 }, "x.zip"),
    InputError,
    "Cannot read cats/a.png in x.zip: it unpacks to more than 152 bytes",
  );
  const cases: [typeof png, string][] = [
    [{ ...gif, size: 2 ** 31 + 1 }, "are too many"],
    [{ ...jpg, size: 9 }, "it has 712 bytes, not 9"],
    [{ ...png, offset: 1 }, "its header is damaged"],
    [{ ...png, packed: { ...png.packed!, method: 12 } }, "it is packed by method 12, not stored"],
    [{ ...jpg, packed: { ...jpg.packed!, size: 99999 } }, "the archive ends before"],
  ];
  for (const [entry, why] of cases) {
    await assertRejects(() => extract(bytes, entry, "x.zip"), InputError, why);
  }
});

Deno.test("gunzip() unpacks all members of a file, whatever zeros are between and after them", async () => {
  const random = new Random("gzip");
  const parts = [0, 1, 300, 70_000, 200_000].map((n) =>
    new Uint8Array(n).map(() => random.below(3))
  );
  const members = await Promise.all(parts.map(gzip)), all = join(...parts);
  for (const zeros of [0, 1, 5, 8, 9, 512, 150_000]) {
    const padded = members.flatMap((member) => [member, new Uint8Array(zeros)]);
    assertEquals(await gunzip(inMemory(join(...padded)), "x"), all, `${zeros} zeros`);
  }
  // What looks like a header, within data that are stored as they are.
  const stored = new Uint8Array(5000).map(() => random.below(256));
  for (let at = 0; at < 5000; at += 500) stored.set([0x1f, 0x8b, 8, 0], at);
  const odd = await gzip(stored);
  assertEquals(await gunzip(inMemory(join(odd, odd)), "x"), join(stored, stored));
});

Deno.test("gunzip() refuses what is damaged, cut or followed by something else", async () => {
  const one = await gzip(new TextEncoder().encode("hello\n".repeat(50)));
  const cases = [
    ...[one.slice(0, -1), one.slice(0, 12), one.with(-6, 1 ^ one.at(-6)!), one.with(15, 9)],
    ...[join(one, new Uint8Array([1, 2, 3])), join(one, one.slice(0, -3))],
    ...[join(one, new Uint8Array(3), new Uint8Array([7])), join(one.slice(0, -8), one)],
  ];
  for (const bytes of cases) {
    await assertRejects(
      () => gunzip(inMemory(bytes), "Cannot read x"),
      InputError,
      "Cannot read x: its gzip data are damaged",
    );
  }
  const many = join(...Array(3000).fill(new Uint8Array([0x1f, 0x8b, 8, 0, 1, 2, 3])));
  await assertRejects(() => gunzip(inMemory(many), "x"), InputError, "damaged");
});

Deno.test("gunzip() stops at its limit, for all members together", async () => {
  const bomb = await gzip(new Uint8Array(1e7)), part = await gzip(new Uint8Array(6e5));
  for (const bytes of [bomb, join(part, part)]) {
    await assertRejects(
      () => gunzip(inMemory(bytes), "Cannot read x", 1e6),
      InputError,
      "Cannot read x: it unpacks to more than 1.00 MB",
    );
  }
});

/** "Käse/中" in encodings: their bytes. */
const odd: Record<string, number[]> = {
  ...{ "Latin-1": [0x4b, 0xe4, 0x73, 0x65], "CP437": [0x4b, 0x84, 0x73, 0x65] },
  ...{ GBK: [0xd6, 0xd0], "Shift-JIS": [0x95, 0x5c], "another GBK": [0xd6, 0xd1] },
  "Shift-JIS that starts alike": [0x95, 0x5c, 0x41],
};

Deno.test("names that are not UTF-8 stay distinct, in zip and in tar", async () => {
  const folders = Object.values(odd).map((bytes) => new Uint8Array(bytes));
  const slash = new TextEncoder().encode("/1.bmp");
  const files = folders.map((folder, i) => ({
    name: join(folder, slash),
    data: new Uint8Array([i]),
  }));
  files.push({ name: new TextEncoder().encode("中/1.bmp"), data: new Uint8Array([99]) });
  for (const [bytes, read] of [[makeZip(files), readZip], [makeTar(files), readTar]] as const) {
    const entries = await read(inMemory(bytes), "x");
    const found = followLinks(entries).files.map(({ name }) => name.split("/")[0]);
    assertEquals(new Set(found).size, files.length, found.join());
    assertEquals(found.filter((name) => ["Käse", "中"].includes(name)), ["Käse", "中"]);
  }
});

Deno.test("names with backslashes are paths in a zip, and names in a tar", async () => {
  const files = { "a\\1.bmp": new Uint8Array([1]) };
  assertEquals((await readZip(inMemory(makeZip(files)), "x"))[0].name, "a/1.bmp");
  assertEquals(readTar(inMemory(makeTar(files)), "x")[0].name, "a\\1.bmp");
});

Deno.test("a tar whose checksums took bytes for negative is read", () => {
  const bytes = makeTar([{ name: new Uint8Array([0xe4, 0xf6]), data: new Uint8Array([5]) }]);
  const sum = parseInt(new TextDecoder().decode(bytes.subarray(148, 154)), 8) - 512;
  bytes.set(new TextEncoder().encode(sum.toString(8).padStart(6, "0")), 148);
  assertEquals(readTar(inMemory(bytes), "x").map(({ name }) => name), ["äö"]);
});

Deno.test("a zip is found before a comment that looks like an end record", async () => {
  const files = { "a.bmp": new Uint8Array([1, 2, 3]), "b.bmp": new Uint8Array([4]) };
  const empty = makeZip({}), other = makeZip({ "c.bmp": new Uint8Array([5]) });
  for (const comment of ["note PK\x05\x06 and more", "PK\x05\x06", empty, other]) {
    const bytes = inMemory(makeZip(files, comment)), entries = await readZip(bytes, "x");
    assertEquals(entries.map(({ name }) => name), Object.keys(files));
    assertEquals(await extract(bytes, entries[0], "x"), files["a.bmp"]);
  }
  // What was appended, or is missing of the comment, does no harm.
  const whole = makeZip(files, "a comment");
  for (const bytes of [join(whole, new Uint8Array(9)), whole.slice(0, -4)]) {
    assertEquals((await readZip(inMemory(bytes), "x")).length, 2);
  }
});

/** A tree with links of every kind, and what each of its names holds. */
const linked: Packed[] = [
  { name: "./b/", kind: "5" },
  { name: "./b/0.bmp", data: new Uint8Array([10]) },
  { name: "./b/1.bmp", data: new Uint8Array([11]) },
  { name: "./a/0.bmp", kind: "2", target: "../b/0.bmp" },
  { name: "./a/1.bmp", kind: "2", target: "0.bmp" },
  { name: "c", kind: "2", target: "b" },
  { name: "d", kind: "2", target: "./a/../c/" },
  { name: "a/up", kind: "2", target: ".." },
  { name: "b/self", kind: "2", target: "self" },
  { name: "b/out", kind: "2", target: "/etc/0.bmp" },
  { name: "b/over", kind: "2", target: "../../b/0.bmp" },
  { name: "a/none.bmp", kind: "2", target: "../b/9.bmp" },
];
const reached = {
  "a/0.bmp": 10,
  "a/1.bmp": 10,
  ...{ "b/0.bmp": 10, "b/1.bmp": 11, "c/0.bmp": 10, "c/1.bmp": 11, "d/0.bmp": 10, "d/1.bmp": 11 },
};

for (const kind of ["tar", "zip"] as const) {
  Deno.test(`links in a ${kind} are followed, and named where they lead nowhere or round`, async () => {
    const made = kind === "tar" ? makeTar(linked) : makeZip(linked);
    const bytes = inMemory(made), read = kind === "tar" ? readTar : readZip;
    const { files, lost } = followLinks(await read(bytes, "x"));
    const found: Record<string, number> = {};
    for (const entry of files) found[entry.name] = (await extract(bytes, entry, "x"))[0];
    assertEquals(found, reached);
    const why = Object.fromEntries(lost.map(({ name, why }) => [name, why]));
    assertEquals(why["a/none.bmp"], "it is a link to ../b/9.bmp, which is not there");
    assertEquals(why["a/up"], "it is a link to .., which it is in");
    const nowhere = ["b", "c", "d"].flatMap((at) =>
      ["self", "out", "over"].map((n) => `${at}/${n}`)
    );
    assertEquals(Object.keys(why).sort(), ["a/none.bmp", "a/up", ...nowhere].sort());
  });
}

Deno.test("hard links in a tar are their files, of several files of a name the last counts", async () => {
  const bytes = inMemory(makeTar([
    { name: "late.bmp", kind: "1", target: "a.bmp" },
    { name: "a.bmp", data: new Uint8Array([1]) },
    { name: "b/link.bmp", kind: "1", target: "./a.bmp" },
    { name: "a.bmp", data: new Uint8Array([2]) },
    { name: "soft", kind: "2", target: "b" },
    { name: "hard", kind: "1", target: "soft" },
  ]));
  const { files, lost } = followLinks(readTar(bytes, "x"));
  const found: [string, number][] = [];
  for (const entry of files) found.push([entry.name, (await extract(bytes, entry, "x"))[0]]);
  const expected = { "a.bmp": 2, "b/link.bmp": 1, "hard/link.bmp": 1, "soft/link.bmp": 1 };
  assertEquals(Object.fromEntries(found), expected);
  assertEquals(lost, [
    { name: "late.bmp", why: "it is a link to a.bmp, which does not come before it" },
  ]);
});

Deno.test("links that make a great many paths come to an end", () => {
  const pairs = Array.from({ length: 40 }, (_, i): Packed[] => [
    { name: `${i}/x`, kind: "2", target: `../${i + 1}` },
    { name: `${i}/y`, kind: "2", target: `../${i + 1}` },
  ]);
  const { files, lost } = followLinks(readTar(
    inMemory(makeTar([...pairs.flat(), { name: "40/a.bmp", data: new Uint8Array(1) }])),
    "x",
  ));
  assert(files.length + lost.length < 50_000);
  const deep = { name: "a/".repeat(100_000) + "b", offset: 0, size: 1 };
  assertEquals(followLinks([deep]).lost[0].why, "it is in 100000 folders");
});

for (const version of ["gnu", "pax-0.0", "pax-0.1", "pax-1.0"]) {
  Deno.test(`a sparse file in a tar of ${version} has the zeros that were left out`, async () => {
    const packed = inMemory(await pictureFile(`sparse-${version}.tar.gz`));
    const bytes = inMemory(await gunzip(packed, "x")), [entry, ...more] = readTar(bytes, "x");
    assertEquals([entry.name, entry.size, more.length], ["holes.bmp", 120_054, 0]);
    const file = await extract(bytes, entry, "x"), expected = new Uint8Array(120_054);
    expected.set(file.subarray(0, 54));
    assertEquals(new TextDecoder().decode(file.subarray(0, 2)), "BM");
    for (let i = 1; i < 14; i++) expected.fill(i + 1, i * 8229, i * 8229 + 20 + i);
    assertEquals(file, expected);
  });
}

Deno.test("a sparse file that says it is huge, or whose parts do not fit, is refused", async () => {
  const made = await gunzip(inMemory(await pictureFile("sparse-gnu.tar.gz")), "x");
  for (
    const [at, text] of [[483, "77777777777"], [386, "00077777777"], [398, "77777777"]] as const
  ) {
    const bytes = made.slice();
    bytes.set(new TextEncoder().encode(text), at);
    bytes.fill(0x20, 148, 156);
    const sum = bytes.subarray(0, 512).reduce((a, b) => a + b, 0);
    bytes.set(new TextEncoder().encode(sum.toString(8).padStart(6, "0")), 148);
    assertThrows(() => readTar(inMemory(bytes), "x"), InputError, "do not fit; is it damaged?");
  }
});
