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
];

for (const [dtype, bytes, values] of encodings) {
  Deno.test(`toFloat32() decodes ${dtype}`, () => {
    const shape = [values.length];
    const file = fileOf({ x: { dtype, shape, data_offsets: [0, bytes.length] } }, bytes.length);
    file.set(bytes, file.length - bytes.length);
    assertEquals([...toFloat32(readSafetensors(file).tensors.get("x")!)], [...values]);
  });
}

const x = { dtype: "F32", shape: [2], data_offsets: [0, 8] };

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
  ["a tensor that is null", fileOf({ x: null }), "x has the unknown type"],
  ["an unknown type", fileOf({ x: { ...x, dtype: "F8" } }, 8), 'x has the unknown type "F8"'],
  ["a type of Object's", fileOf({ x: { ...x, dtype: "toString" } }, 8), "unknown type"],
  ["a type in an array", fileOf({ x: { ...x, dtype: ["F32"] } }, 8), 'unknown type ["F32"]'],
  ["a type without text", fileOf({ x: { ...x, dtype: { toString: 1 } } }, 8), "unknown type"],
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
  ["metadata that are null", fileOf({ __metadata__: null }), "not all strings"],
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
