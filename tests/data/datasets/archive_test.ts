import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { inMemory, streamOf, unpack } from "../../../src/formats/bytes.ts";
import { readTar } from "../../../src/formats/tar.ts";
import { extract, readZip } from "../../../src/formats/zip.ts";
import { gzip, makeTar, pictureFile } from "../../pictures.ts";

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
    const bytes = inMemory(await pictureFile(name)), entries = readZip(bytes, name);
    assertEquals(entries.map((e) => e.name), Object.keys(files));
    for (const entry of entries) {
      assertEquals(await extract(bytes, entry, name), files[entry.name]);
    }
  });
}

for (const name of ["pax.tar.gz", "gnu.tar", "ustar.tar"]) {
  Deno.test(`readTar() finds the files of ${name}`, async () => {
    const file = await pictureFile(name);
    const bytes = inMemory(name.endsWith("gz") ? await unpack(streamOf(file), "gzip", name) : file);
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
  assertEquals(readZip(inMemory(empty), "x"), []);
});

Deno.test("damaged archives are refused", async () => {
  const zip = await pictureFile("images.zip"), tar = await pictureFile("gnu.tar");
  const zipError = (bytes: Uint8Array<ArrayBuffer>, why: string) =>
    assertThrows(() => readZip(inMemory(bytes), "x.zip"), InputError, why);
  zipError(zip.slice(0, 900), "Cannot read x.zip as zip: it has no directory; is it truncated?");
  zipError(new Uint8Array(), "it has no directory");
  const directory = zip.length - "made for a test".length - 22;
  zipError(zip.with(directory + 10, 9), "its directory has 4 entries, not 9");
  zipError(zip.with(directory + 18, 9), "its directory is damaged");
  const tarError = (bytes: Uint8Array<ArrayBuffer>, why: string) =>
    assertThrows(() => readTar(inMemory(bytes), "x.tar"), InputError, why);
  tarError(tar.slice(0, 520), "it ends within the file at byte 0; is it truncated?");
  tarError(tar.with(5, 1), "there is no header at byte 0");

  const bytes = inMemory(zip), [png, jpg, gif] = readZip(bytes, "x.zip");
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
    [{ ...jpg, packed: { size: 99999, method: 0 } }, "the archive ends before"],
  ];
  for (const [entry, why] of cases) {
    await assertRejects(() => extract(bytes, entry, "x.zip"), InputError, why);
  }
});

Deno.test("unpack() stops at its limit", async () => {
  const bomb = await gzip(new Uint8Array(1e7));
  await assertRejects(
    () => unpack(streamOf(bomb), "gzip", "Cannot read x", 1e6),
    InputError,
    "Cannot read x: it unpacks to more than 1.00 MB",
  );
});
