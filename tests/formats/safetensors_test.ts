import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import {
  type FileDType,
  readSafetensors,
  toFloat32,
  writeSafetensors,
} from "../../src/formats/safetensors.ts";
import { mutate } from "../mutate.ts";
import { Random } from "../random.ts";

/** A file with this header, be it JSON or not, and this many bytes of data. */
function fileOf(header: unknown, dataBytes = 0): Uint8Array<ArrayBuffer> {
  const text = typeof header === "string" ? header : JSON.stringify(header);
  const json = new TextEncoder().encode(text);
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const floats = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(i));

const sample = () =>
  writeSafetensors([
    { name: "conv.weight", shape: [2, 3, 1, 1], values: floats(6) },
    { name: "empty", shape: [0, 4], values: new Float32Array() },
    { name: "scalar", shape: [], values: new Float32Array([7]) },
    { name: "half", shape: [3], values: new Float16Array([0.1, -65504, 6e-8]) },
    { name: "labels", shape: [3], values: new Int32Array([1, -2, 3]) },
  ], { note: 'quotes " and "data_offsets": inside', again: "x" });

Deno.test("a file that was written is read, and written again it has the same bytes", () => {
  const bytes = sample(), { tensors, metadata } = readSafetensors(bytes);
  assertEquals([...tensors.keys()], ["conv.weight", "empty", "scalar", "half", "labels"]);
  assertEquals(tensors.get("conv.weight")!.shape, [2, 3, 1, 1]);
  assertEquals(toFloat32(tensors.get("conv.weight")!), floats(6));
  assertEquals(toFloat32(tensors.get("empty")!), new Float32Array());
  assertEquals([...toFloat32(tensors.get("scalar")!)], [7]);
  assertEquals([...toFloat32(tensors.get("half")!)], [0.0999755859375, -65504, 2 ** -24]);
  assertEquals([...toFloat32(tensors.get("labels")!)], [1, -2, 3]);
  assertEquals(metadata, { note: 'quotes " and "data_offsets": inside', again: "x" });

  const again = [...tensors].map(([name, tensor]) => {
    const values = toFloat32(tensor);
    return {
      name,
      shape: tensor.shape,
      values: { I32: Int32Array, F16: Float16Array }[tensor.dtype as string]?.from(values) ??
        values,
    };
  });
  assertEquals(writeSafetensors(again, metadata), bytes);
});

Deno.test("a file on a disk is read where it is asked for, and told where it was cut off since", () => {
  const bytes = sample(), asked: [number, number][] = [];
  let { length } = bytes;
  const { tensors } = readSafetensors({
    ...{ length, isInMemory: false },
    read(from, to) {
      asked.push([from, to]);
      return bytes.slice(from, Math.min(to, length));
    },
  }, "x.safetensors");
  const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  assertEquals(asked.splice(0), [[0, 8], [8, start]]);
  assertEquals(toFloat32(tensors.get("scalar")!), new Float32Array([7]));
  assertEquals(asked.splice(0), [[start + 24, start + 28]]);
  assertEquals(tensors.get("labels")!.read(4, 8), new Uint8Array([254, 255, 255, 255]));
  length -= 1;
  assertThrows(
    () => tensors.get("labels")!.bytes,
    InputError,
    "Cannot read x.safetensors as safetensors: labels is no longer all there",
  );
});

Deno.test("writeSafetensors() starts the data at a multiple of eight", () => {
  for (let length = 1; length < 12; length++) {
    const bytes = writeSafetensors([{ name: "x".repeat(length), shape: [1], values: floats(1) }]);
    assertEquals((bytes.length - 4) % 8, 0);
  }
});

Deno.test("writeSafetensors() refuses shapes that do not fit and names that are taken", () => {
  const x = { name: "x", shape: [2], values: floats(2) };
  assertThrows(() => writeSafetensors([{ ...x, shape: [3] }]), RangeError, "[3]");
  assertThrows(() => writeSafetensors([x, x]), RangeError, "x: the name is taken");
  assertThrows(() => writeSafetensors([{ ...x, name: "__metadata__" }]), RangeError, "taken");
});

Deno.test("readSafetensors() reads part of a larger buffer, wherever it starts", () => {
  const bytes = sample(), larger = new Uint8Array(bytes.length + 3);
  larger.set(bytes, 3);
  const { tensors } = readSafetensors(larger.subarray(3));
  assertEquals(toFloat32(tensors.get("conv.weight")!), floats(6));
});

Deno.test("readSafetensors() takes tensors in any order of their data, and a file of none", () => {
  const bytes = fileOf({
    b: { dtype: "U8", shape: [2], data_offsets: [1, 3] },
    a: { dtype: "U8", shape: [1], data_offsets: [0, 1] },
  }, 3);
  bytes.set([1, 2, 3], bytes.length - 3);
  const { tensors } = readSafetensors(bytes);
  assertEquals([...toFloat32(tensors.get("b")!)], [2, 3]);
  assertEquals([...toFloat32(tensors.get("a")!)], [1]);
  assertEquals(readSafetensors(fileOf({})).tensors.size, 0);
});

/** Elements of every type with their bytes, little-endian. */
const encodings: readonly [FileDType, readonly number[], readonly number[]][] = [
  ["BOOL", [0, 1], [0, 1]],
  ["U8", [255], [255]],
  ["I8", [255], [-1]],
  ["U16", [0xfe, 0xff], [65534]],
  ["I16", [0xfe, 0xff], [-2]],
  ["U32", [0, 0, 0, 0x80], [2 ** 31]],
  ["I32", [0, 0, 0, 0x80], [-(2 ** 31)]],
  ["U64", [1, 0, 0, 0, 1, 0, 0, 0], [2 ** 32]],
  ["I64", [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [-3]],
  ["F16", [0x00, 0x3c, 0x55, 0xb5, 0x01, 0x00], [1, -0.333251953125, 2 ** -24]],
  ["BF16", [0x80, 0x3f, 0x49, 0xc0, 0x80, 0xff], [1, -3.140625, -Infinity]],
  ["F32", [0, 0, 0x20, 0xc0], [-2.5]],
  ["F64", [0x18, 0x2d, 0x44, 0x54, 0xfb, 0x21, 0x09, 0x40], [Math.fround(Math.PI)]],
  ["F8_E4M3", [0x38, 0xfe, 0x01, 0x08, 0x7f, 0x80], [1, -448, 2 ** -9, 2 ** -6, NaN, -0]],
  ["F8_E5M2", [0x3c, 0xfb, 0x01, 0x04, 0x7c, 0x7d], [1, -57344, 2 ** -16, 2 ** -14, Infinity, NaN]],
];

for (const [dtype, bytes, values] of encodings) {
  Deno.test(`toFloat32() decodes ${dtype}`, () => {
    const shape = [values.length];
    const file = fileOf({ x: { dtype, shape, data_offsets: [0, bytes.length] } }, bytes.length);
    file.set(bytes, file.length - bytes.length);
    assertEquals([...toFloat32(readSafetensors(file).tensors.get("x")!)], [...values]);
  });
}

/** The number that the bits of a float of 16 or fewer bits stand for, as IEEE 754 defines it. */
function numberOf(bits: number, exponentBits: number, fractionBits: number): number {
  const sign = bits >> (exponentBits + fractionBits) ? -1 : 1, all = 2 ** exponentBits - 1;
  const exponent = (bits >> fractionBits) & all, fraction = bits % 2 ** fractionBits;
  const bias = all >> 1, scale = 2 ** -fractionBits;
  if (exponent === all) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * scale * 2 ** (1 - bias);
  return sign * (1 + fraction * scale) * 2 ** (exponent - bias);
}

for (const [dtype, exponentBits, fractionBits] of [["F16", 5, 10], ["BF16", 8, 7]] as const) {
  Deno.test(`toFloat32() decodes every ${dtype}, wherever it lies in memory`, () => {
    const patterns = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
    const expected = Float32Array.from(
      patterns,
      (bits) => numberOf(bits, exponentBits, fractionBits),
    );
    for (const offset of [0, 1, 2, 3]) {
      const memory = new Uint8Array(offset + 2 * 65536 + 1), bytes = memory.subarray(offset, -1);
      bytes.set(new Uint8Array(patterns.buffer));
      const actual = toFloat32({ dtype, shape: [65536], bytes });
      assertEquals(actual.length, 65536);
      assertEquals(actual.findIndex((value, bits) => !Object.is(value, expected[bits])), -1);
    }
  });
}

Deno.test("toFloat32() decodes all types wherever they lie, into memory of its own", () => {
  for (const [dtype, elements, values] of encodings) {
    for (let offset = 0; offset < 9; offset++) {
      const memory = new Uint8Array(offset + elements.length), bytes = memory.subarray(offset);
      bytes.set(elements);
      const actual = toFloat32({ dtype, shape: [values.length], bytes });
      assertEquals([...actual], [...values], `${dtype} at ${offset}`);
      actual.fill(5);
      assertEquals([...bytes], [...elements], `${dtype} at ${offset}`);
    }
  }
});

Deno.test("toFloat32() rounds integers of 64 bits once", () => {
  const values = [2n ** 63n - 1n, -(2n ** 63n), -1n, 2n ** 40n + 1n, 16777217n, -16777219n];
  const bytes = new Uint8Array(BigInt64Array.from(values).buffer), shape = [values.length];
  assertEquals([...toFloat32({ dtype: "I64", shape, bytes })], values.map(Number).map(Math.fround));
  const unsigned = [...new BigUint64Array(bytes.buffer)].map(Number).map(Math.fround);
  assertEquals([...toFloat32({ dtype: "U64", shape, bytes })], unsigned);
});

const x = { dtype: "F32", shape: [2], data_offsets: [0, 8] };

Deno.test("tensors of other types are in nobody's way, and are named when they are asked for", () => {
  const file = fileOf({
    __metadata__: null,
    spectrum: { dtype: "C64", shape: [3], data_offsets: [0, 24] },
    scales: { dtype: "F8_E8M0", shape: [4], data_offsets: [24, 28] },
    packed: { dtype: "F4", shape: [8], data_offsets: [28, 32] },
    odd: { dtype: "toString", shape: [1], data_offsets: [32, 33] },
    x: { ...x, data_offsets: [33, 41] },
  }, 41);
  const { tensors, metadata } = readSafetensors(file);
  assertEquals([...tensors.keys()], ["spectrum", "scales", "packed", "odd", "x"]);
  assertEquals(metadata, {});
  assertEquals([...toFloat32(tensors.get("x")!)], [0, 0]);
  for (const name of ["spectrum", "scales", "packed", "odd"]) {
    const tensor = tensors.get(name)!;
    const { message } = assertThrows(() => toFloat32(tensor, name), InputError);
    assert(
      message.startsWith(`Cannot read ${name}: its elements are of type ${tensor.dtype}, not`),
    );
  }
});

/** What is wrong, a file that is wrong in this way, and what the message has to mention. */
const refusals: readonly [string, Uint8Array<ArrayBuffer>, string][] = [
  ["an empty file", new Uint8Array(), "0 bytes are too few"],
  ["a file that ends within its length", new Uint8Array(7), "7 bytes are too few"],
  [
    "a file that ends within its header",
    fileOf({ x }).subarray(0, 20),
    "the file ends after 20 bytes",
  ],
  [
    "a header that reaches beyond the file",
    withLength(fileOf({ x }, 8), 1000n),
    "takes 1.01 kB, but the file ends after",
  ],
  ["a huge header", withLength(fileOf({ x }, 8), 2n ** 63n), "too long"],
  ["a header of no bytes", fileOf(""), "no JSON"],
  ["a header that is no JSON", fileOf("{x: 1}"), "no JSON"],
  ["a header that is no JSON in several lines", fileOf('{\n"x":\nnonsense}'), "no JSON"],
  ["a header that is no UTF-8", withByte(fileOf({ x }, 8), 10, 0xff), "no JSON"],
  ["a pickle", new Uint8Array([0x80, 2, 0x7d, 0x71, 0, 0x58, 6, 0, 0, 0]), "too long"],
  ["a header that is a number", fileOf("1"), "no JSON object"],
  ["a header that is null", fileOf("null"), "no JSON object"],
  ["a header that is an array", fileOf("[]"), "no JSON object"],
  ["a tensor that is null", fileOf({ x: null }), "x has the type undefined"],
  ["a type in an array", fileOf({ x: { ...x, dtype: ["F32"] } }, 8), 'x has the type ["F32"]'],
  ["a type without text", fileOf({ x: { ...x, dtype: { toString: 1 } } }, 8), "x has the type {"],
  ["a missing shape", fileOf({ x: { ...x, shape: undefined } }, 8), "x has no proper shape"],
  ["a shape that is a number", fileOf({ x: { ...x, shape: 2 } }, 8), "no proper shape"],
  ["a negative size", fileOf({ x: { ...x, shape: [-2] } }, 8), "no proper shape"],
  ["a fractional size", fileOf({ x: { ...x, shape: [0.5, 4] } }, 8), "no proper shape"],
  ["a size in quotes", fileOf({ x: { ...x, shape: ["2"] } }, 8), "no proper shape"],
  ["a size that no number holds", fileOf({ x: { ...x, shape: [2 ** 60] } }, 8), "no proper shape"],
  [
    "sizes whose product overflows",
    fileOf({ x: { ...x, shape: Array(9).fill(2 ** 50) } }, 8),
    "needs",
  ],
  ["missing offsets", fileOf({ x: { ...x, data_offsets: [0] } }, 8), "no proper data_offsets"],
  ["offsets the wrong way round", fileOf({ x: { ...x, data_offsets: [8, 0] } }, 8), "proper"],
  ["negative offsets", fileOf({ x: { ...x, data_offsets: [-8, 0] } }, 8), "proper"],
  [
    "offsets beyond the file",
    fileOf({ x: { ...x, shape: [4], data_offsets: [0, 16] } }, 8),
    "truncated",
  ],
  [
    "too few bytes for a shape",
    fileOf({ x: { ...x, shape: [3] } }, 8),
    "x of F32 [3] needs 12 bytes",
  ],
  ["too many bytes for a type", fileOf({ x: { ...x, dtype: "F16" } }, 8), "needs 4 bytes, not 8"],
  ["overlapping tensors", fileOf({ x, y: { ...x, data_offsets: [4, 12] } }, 12), "y overlaps"],
  ["two tensors in one place", fileOf({ x, y: x }, 8), "y overlaps"],
  [
    "a hole before the first tensor",
    fileOf({ x: { ...x, data_offsets: [4, 12] } }, 12),
    "4 bytes before x",
  ],
  [
    "a hole between tensors",
    fileOf({ x, y: { ...x, data_offsets: [9, 17] } }, 17),
    "1 byte before y",
  ],
  ["trailing bytes", fileOf({ x }, 9), "1 byte after"],
  ["data without tensors", fileOf({}, 8), "8 bytes after"],
  ["metadata that are no strings", fileOf({ __metadata__: { step: 5 } }), "not all strings"],
  ["metadata that are text", fileOf({ __metadata__: "text" }), "not all strings"],
  ["metadata of null", fileOf({ __metadata__: { step: null } }), "not all strings"],
  ["metadata that are a list", fileOf({ __metadata__: ["text"] }), "not all strings"],
  [
    "two tensors of one name",
    fileOf(`{"x":${JSON.stringify(x)},"x":${JSON.stringify(x)}}`, 8),
    "x is there twice",
  ],
  [
    "two tensors of one name in disguise",
    fileOf(`{"\\u0078":{"dtype":"F32"},"x" :${JSON.stringify(x)}}`, 8),
    "x is there twice",
  ],
  ["a shape given twice", fileOf('{"x":{"dtype":"U8","shape":[9],"shape":[]}}'), "shape is there"],
];

function withLength(bytes: Uint8Array<ArrayBuffer>, length: bigint): Uint8Array<ArrayBuffer> {
  new DataView(bytes.buffer).setBigUint64(0, length, true);
  return bytes;
}

function withByte(bytes: Uint8Array<ArrayBuffer>, at: number, byte: number) {
  bytes[at] = byte;
  return bytes;
}

for (const [what, bytes, why] of refusals) {
  Deno.test(`readSafetensors() refuses ${what}`, () => {
    const error = assertThrows(() => readSafetensors(bytes, "x.safetensors"), InputError, why);
    assert(error.message.startsWith("Cannot read x.safetensors as safetensors: "), error.message);
    assert(!error.message.includes("\n"), "the message is one line");
  });
}

Deno.test("readSafetensors() takes equal keys in different objects and in texts", () => {
  const { metadata, tensors } = readSafetensors(
    fileOf({
      __metadata__: { x: '{"x":1,"x":2}', shape: "\\" },
      x,
      y: { ...x, data_offsets: [8, 16] },
    }, 16),
  );
  assertEquals(metadata, { x: '{"x":1,"x":2}', shape: "\\" });
  assertEquals(tensors.size, 2);
});

Deno.test("readSafetensors() gives a value or an InputError for 2,000 damaged files", () => {
  const random = new Random("damage"), original = sample();
  let read = 0;
  for (let i = 0; i < 2000; i++) {
    const bytes = mutate(original, random);
    try {
      const { tensors } = readSafetensors(bytes);
      for (const tensor of tensors.values()) toFloat32(tensor);
      read++;
    } catch (error) {
      assert(error instanceof InputError, `damage ${i}: ${error}`);
    }
  }
  assert(read > 20 && read < 1500, `${read} of 2000 could be read`);
});
