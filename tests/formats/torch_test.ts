/**
 * Files of PyTorch, whole and damaged. More of the damaged ones than in the suite:
 * `deno test -A tests/formats/torch_test.ts -- 20000`.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { inMemory } from "../../src/formats/bytes.ts";
import { readSafetensors, toFloat32, writeSafetensors } from "../../src/formats/safetensors.ts";
import { readTensorFile, readTorch } from "../../src/formats/torch.ts";
import { readZip } from "../../src/formats/zip.ts";
import { mutate } from "../mutate.ts";
import { deflateZip, makeZip } from "../pictures.ts";
import { Random } from "../random.ts";
import { pickledTensor, torchArchive } from "../torch.ts";

const COUNT = Number(Deno.args[0] ?? 1500);

const fixtures = new URL("../fixtures/", import.meta.url);
const read = (name: string) => Deno.readFile(new URL(name, fixtures));
const [modern, legacy] = await Promise.all(["torch/modern.pt", "torch/legacy.pt"].map(read));

/** Fails unless both have the same tensors. */
function assertSame(
  actual: Awaited<ReturnType<typeof readTorch>>["tensors"],
  expected: ReturnType<typeof readSafetensors>["tensors"],
): void {
  for (const [name, { dtype, shape, bytes }] of expected) {
    const found = actual.get(name);
    assertEquals([found?.dtype, found?.shape], [dtype, shape], name);
    assertEquals(found?.bytes, bytes, name);
    const middle = bytes.length >> 1;
    assertEquals(found?.read(middle, bytes.length), bytes.subarray(middle), name);
  }
}

for (const [name, bytes] of Object.entries({ "a zip": modern, "of before 1.6": legacy })) {
  Deno.test(`tensors of every type, with strides, offsets and shared storages, are read: ${name}`, async () => {
    const { tensors, metadata } = await readTorch(bytes);
    const expected = readSafetensors(await read("torch/expected.safetensors")).tensors;
    assertEquals(expected.size, 20);
    assertSame(tensors, expected);
    assertEquals([...tensors.keys()].filter((key) => !expected.has(key)), ["array"]);
    assertEquals([...toFloat32(tensors.get("array")!)], [0, 1, 2, 3, 4, 5]);
    assertEquals(metadata, {
      ...{ step: "7", best: "0.25", note: "größer" },
      "optimizer.param_groups.0.lr": "0.001",
    });
  });
}

for (const name of ["model.ckpt", "model-legacy.ckpt"]) {
  Deno.test(`a published layout is read as the same in safetensors: ddpm-original/${name}`, async () => {
    const { tensors } = readSafetensors(await read("ddpm-original/model.safetensors"));
    const found = (await readTorch(await read(`ddpm-original/${name}`))).tensors;
    assertEquals([...found.keys()].sort(), [...tensors.keys()].sort());
    assertSame(found, tensors);
  });
}

Deno.test("numbers are read when they are asked for, and those of others are not", async () => {
  const ranges: [number, number][] = [];
  const { tensors } = await readTorch({
    ...{ length: legacy.length, isInMemory: false },
    read(from, to) {
      ranges.push([from, to]);
      return legacy.slice(from, to);
    },
  });
  ranges.length = 0;
  const row = tensors.get("views.row")!;
  assertEquals(ranges, []);
  row.read(4, 12);
  assertEquals(ranges.map(([from, to]) => to - from), [8]);
});

Deno.test("what a file is, is told by how it starts and not by its name", async () => {
  const names = (bytes: Uint8Array<ArrayBuffer>) =>
    readTensorFile(bytes).then(({ tensors }) => tensors.size);
  assertEquals(await names(modern), 21);
  assertEquals(await names(legacy), 21);
  // The length of this header begins as a pickle does.
  const entry = { name: "x", shape: [1], values: new Float32Array(1) };
  let note = "", file = writeSafetensors([entry], { note });
  while (file[0] !== 0x80 || file[1] !== 2) file = writeSafetensors([entry], { note: note += "x" });
  assertEquals(await names(file), 1);
  await assertRejects(() => names(new Uint8Array(100).fill(65)), InputError, "as safetensors");
});

/** A tensor, as numbers in decimal of a pickle of protocol 0. */
const tensor = (offset: number, shape: string, strides: string, count = 4, key = "0") =>
  "ctorch._utils\n_rebuild_tensor_v2\n(" +
  `(S'storage'\nctorch\nFloatStorage\nS'${key}'\nS'cpu'\nI${count}\ntQ` +
  `I${offset}\n(${shape}t(${strides}tI00\nNtR`;
const zeros = { "archive/data/0": new Uint8Array(16) };

Deno.test("types that have no storages of their own are read, and parts of storages as old versions had them", async () => {
  // Of version 2.1 and later: bytes, and what they are told beside them.
  const untyped = (type: string, offset: number, count: number) =>
    "ctorch._utils\n_rebuild_tensor_v3\n((S'storage'\nctorch.storage\nUntypedStorage\nS'0'\nS'cpu'\nI16\ntQ" +
    `I${offset}\n(I${count}\nt(I1\ntI00\nNctorch\n${type}\ntR`;
  const part =
    "ctorch._utils\n_rebuild_tensor\n((S'storage'\nctorch\nShortStorage\nS'1'\nS'cpu'\nI6\n" +
    "(S'2'\nI2\nI3\nttQI1\n(I2\nt(I1\nttR";
  const pickle = `(S'f8'\n${untyped("float8_e4m3fn", 4, 3)}S'u2'\n${
    untyped("uint16", 1, 2)
  }S'part'\n${part}d.`;
  const { tensors } = await readTorch(torchArchive(pickle, {
    "archive/data/0": Uint8Array.of(1, 2, 3, 4, 0x38, 0x40, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "archive/data/1": new Uint8Array(Int16Array.of(1, 2, 3, 4, 5, 6).buffer),
  }));
  const numbers = (name: string) => [tensors.get(name)!.dtype, ...toFloat32(tensors.get(name)!)];
  assertEquals(numbers("f8"), ["F8_E4M3", 1, 2, -1]);
  assertEquals(numbers("u2"), ["U16", 0x0403, 0x4038]);
  assertEquals(numbers("part"), ["I16", 4, 5]);
  const far = pickle.replace("I2\nI3\ntt", "I2\nI5\ntt"), other = pickle.replace("uint16", "qint8");
  await assertRejects(() => readTorch(torchArchive(far)), InputError, "a part of the storage 1 is");
  await assertRejects(
    () => readTorch(torchArchive(other)),
    InputError,
    "a tensor is of type qint8",
  );
});

const wrong: Record<string, [Uint8Array<ArrayBuffer>, string]> = {
  "a path that leads out": [
    torchArchive("N.", { "archive/../../data/0": new Uint8Array(3) }),
    "a file archive/../../data/0, outside of its folder",
  ],
  "an absolute path": [
    torchArchive("N.", { "/etc/passwd": new Uint8Array(3) }),
    "a file /etc/passwd, outside of its folder",
  ],
  "another zip": [makeZip({ "a.txt": new Uint8Array(3) }), "a zip archive without data.pkl"],
  "a storage that is missing": [
    torchArchive(`${tensor(0, "I4\n", "I1\n")}.`),
    "it lacks archive/data/0",
  ],
  "a storage that is too short": [
    torchArchive(`${tensor(0, "I4\n", "I1\n")}.`, { "archive/data/0": new Uint8Array(12) }),
    "archive/data/0 has 12 bytes, not 16 bytes",
  ],
  "a tensor beyond its storage": [
    torchArchive(`${tensor(1, "I4\n", "I1\n")}.`, zeros),
    "a tensor 4 is larger than its storage of 4",
  ],
  "strides beyond it": [
    torchArchive(`${tensor(0, "I2\nI2\n", "I3\nI1\n")}.`, zeros),
    "a tensor 2x2 is larger than its storage of 4",
  ],
  "negative strides": [
    torchArchive(`${tensor(3, "I4\n", "I-1\n")}.`, zeros),
    "the sizes of a tensor are damaged",
  ],
  "an enormous tensor in few bytes": [
    torchArchive(`${tensor(0, "I100000\nI100000\n", "I0\nI0\n")}.`, zeros),
    "a tensor 100000x100000 repeats 4 elements",
  ],
  "a size that overflows": [
    torchArchive(`${tensor(0, "I4294967296\nI4294967296\n", "I0\nI0\n")}.`, zeros),
    "the sizes of a tensor are damaged",
  ],
  "one storage of two sizes": [
    torchArchive(`(${tensor(0, "I4\n", "I1\n")}${tensor(0, "I4\n", "I1\n", 5)}t.`, zeros),
    "the storage 0 is there as two different ones",
  ],
  "numbers with the highest byte first": [
    torchArchive("N.", { "archive/byteorder": Uint8Array.from("big", (c) => c.charCodeAt(0)) }),
    "highest byte first",
  ],
  "complex numbers": [
    torchArchive("((S'storage'\nctorch\nComplexFloatStorage\nS'0'\nS'cpu'\nI4\ntQt."),
    "its numbers are in a ComplexFloatStorage",
  ],
  "a circle": [torchArchive("}p0\nS'again'\ng0\ns."), "more than 64 levels"],
  "dictionaries that unfold to too many": [
    torchArchive(
      Array.from(
        { length: 40 },
        (_, i) => `}p${i}\n` + (i ? `S'a'\ng${i - 1}\nsS'b'\ng${i - 1}\ns` : ""),
      )
        .join("") + ".",
    ),
    "it has more objects than any model",
  ],
  "two of one name": [
    torchArchive(
      `}S'a.b'\n${tensor(0, "I4\n", "I1\n")}sS'a'\n}S'b'\n${tensor(0, "I4\n", "I1\n")}ss.`,
      zeros,
    ),
    "a.b is there twice",
  ],
  "a name that is too long": [
    torchArchive(`}S'${"x".repeat(600)}'\nI1\ns.`),
    "is too long for a name",
  ],
  "a program": [torchArchive("cos\nsystem\n(S'ls'\ntR."), "it calls os.system, which is not run"],
};

for (const [name, [bytes, why]] of Object.entries(wrong)) {
  Deno.test(`a file of PyTorch is refused that holds ${name}`, async () => {
    const { message } = await assertRejects(() => readTorch(bytes, "x.pt"), InputError);
    assertMatch(message, /x\.pt/);
    assert(message.includes(why), message);
  });
}

Deno.test("a file of PyTorch that is truncated anywhere is refused", async () => {
  for (const whole of [modern, legacy]) {
    for (let length = 0; length < whole.length; length += 1 + length % 7) {
      const file = whole.slice(0, length);
      const { message } = await assertRejects(() => readTorch(file, "x.pt"), InputError);
      assertMatch(message, /x\.pt/);
    }
  }
});

/** The archive with all of its files compressed. */
const deflated = await deflateZip(modern);

Deno.test("storages that were compressed in the archive are read, as PyTorch does", async () => {
  assert(deflated.length < 0.8 * modern.length);
  const { tensors } = await readTorch(deflated, "x.pt");
  assertSame(tensors, readSafetensors(await read("torch/expected.safetensors")).tensors);
});

/** The place of a field in the directory's entry of a file. */
async function fieldOf(archive: Uint8Array<ArrayBuffer>, name: string, field: number) {
  const { offset } = (await readZip(inMemory(archive), "x")).find((entry) => entry.name === name)!;
  const view = new DataView(archive.buffer);
  for (let i = 0; i + 46 < archive.length; i++) {
    const isEntry = view.getUint32(i, true) === 0x02014b50;
    if (isEntry && view.getUint32(i + 42, true) === offset) return { view, at: i + field };
  }
  throw new Error(`${name} is not there`);
}

Deno.test("a storage that is packed otherwise, or is not what it says, is refused by its name", async () => {
  const cases: [field: number, value: number, why: string][] = [
    [10, 12, "modern/data/0 in x.pt: it is not stored as it is, but compressed or encrypted"],
    [8, 1, "modern/data/0 in x.pt: it is encrypted"],
    // Its size as it would be unpacked.
    [24, 1 << 20, "modern/data/0 in x.pt: it has 60 bytes, not 1.05 MB"],
    [24, 12, "modern/data/0 in x.pt: it unpacks to more than 12 bytes"],
  ];
  for (const [field, value, why] of cases) {
    const file = deflated.slice(), { view, at } = await fieldOf(file, "modern/data/0", field);
    if (field === 24) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    const { message } = await assertRejects(() => readTorch(file, "x.pt"), InputError);
    assert(message.includes(why), message);
  }
});

Deno.test("an archive of which little unpacks to much is refused before it is unpacked", async () => {
  const count = 2 ** 26, pickle = `}S'x'\n${pickledTensor("0", [count], count)}s.`;
  const bomb = await deflateZip(torchArchive(pickle, { "archive/data/0": new Uint8Array(1000) }));
  const { view, at } = await fieldOf(bomb, "archive/data/0", 24);
  view.setUint32(at, 4 * count, true);
  const { message } = await assertRejects(() => readTorch(bomb, "x.pt"), InputError);
  assertMatch(message, /x\.pt.*it unpacks to more than 67\.\d MB, but has \d+ bytes/);
});

Deno.test(`${COUNT} damaged files end in tensors or in an error that names them`, async () => {
  const random = new Random("damaged tensors"), before = Deno.memoryUsage().rss;
  const pickles = await Promise.all([0, 2, 4, 5].map((p) => read(`torch/arrays-${p}.pkl`)));
  const files = [modern, legacy, ...pickles, modern, legacy, deflated];
  let good = 0, largest = 0, slowest = 0;
  for (let i = 0; i < COUNT; i++) {
    const bytes = mutate(files[i % files.length], random), began = performance.now();
    try {
      const { tensors } = await readTorch(bytes, "x.pt");
      for (const tensor of tensors.values()) {
        if (!tensor.dtype.startsWith("numpy")) toFloat32(tensor);
      }
      good++;
    } catch (error) {
      assert(error instanceof InputError, (error as Error).stack);
      assert(error.message.includes("x.pt") && error.message.length < 1500, error.message);
    }
    slowest = Math.max(slowest, performance.now() - began);
    largest = Math.max(largest, Deno.memoryUsage().rss - before);
  }
  // deno-lint-ignore no-console -- asked for on the command line
  if (Deno.args.length) console.log({ good, bad: COUNT - good, largest, slowest });
  assert(largest < 1e9, `the process grew by ${largest} bytes`);
  assert(good > 0.05 * COUNT && good < 0.9 * COUNT, `${good} of ${COUNT}`);
});
