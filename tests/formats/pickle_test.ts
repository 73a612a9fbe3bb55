import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { inMemory } from "../../src/formats/bytes.ts";
import { arrayFunctions, PickledArray } from "../../src/formats/pickled_arrays.ts";
import { Global, readPickle, type Surroundings } from "../../src/formats/pickle.ts";
import { torchSurroundings } from "../../src/formats/torch_tensors.ts";

const folder = new URL("../fixtures/torch/", import.meta.url);

/** A pickle of operations: text, a character for each byte, and numbers of bytes. */
const pickleOf = (...parts: (string | number)[]) =>
  Uint8Array.from(
    parts.flatMap((part) =>
      typeof part === "number" ? [part] : [...part].map((char) => char.charCodeAt(0))
    ),
  );

const read = (bytes: Uint8Array<ArrayBuffer>, around: Surroundings = torchSurroundings()) =>
  readPickle(inMemory(bytes), "x.pkl", around).value;

const refuse = (bytes: Uint8Array<ArrayBuffer>, why: string | RegExp) => {
  const { message } = assertThrows(() => read(bytes), InputError);
  assertMatch(message, /^Cannot read x\.pkl as a pickle: /);
  assertMatch(message, why instanceof RegExp ? why : new RegExp(RegExp.escape(why)));
};

for (let protocol = 0; protocol <= 5; protocol++) {
  Deno.test(`pickles of protocol ${protocol} give what Python put into them`, async () => {
    const file = await Deno.readFile(new URL(`arrays-${protocol}.pkl`, folder));
    const found = read(file, { functions: torchSurroundings().functions });
    assert(found instanceof Map);
    const arrays = Object.fromEntries(
      [...found].flatMap(([key, x]) =>
        x instanceof PickledArray ? [[key, [x.type, x.shape, [...x.bytes()]]]] : []
      ),
    );
    const bytesOf = (x: ArrayBufferView<ArrayBuffer>) => [...new Uint8Array(x.buffer)];
    assertEquals(arrays, {
      f4: ["f4", [2, 3], bytesOf(Float32Array.of(-1, -0.6, -0.2, 0.2, 0.6, 1))],
      fortran: ["i2", [2, 3], bytesOf(Int16Array.of(0, 1, 2, 3, 4, 5))],
      u1: ["u1", [6], [250, 251, 252, 253, 254, 255]],
      big: [">i4", [3], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]],
      objects: ["O8", [2], []],
    });
    const rest = [...found].filter(([, x]) => !(x instanceof PickledArray));
    const { set, bytes, ...plain } = Object.fromEntries(rest);
    assertEquals([...set], [1]);
    assertEquals([...bytes], [0, 255]);
    assertEquals(plain, {
      ...{ scalar: 1.5, long: 2n ** 70n, negative: -3, float: 1.5, none: null, yes: true },
      ...{ text: "naïve \u{1f600}", list: [1, [2, [3]]] },
    });
  });
}

/** What attackers put into files: each would run something in Python. */
const attacks: Record<string, [Uint8Array<ArrayBuffer>, string]> = {
  "os.system": [pickleOf("cos\nsystem\n(S'touch x'\ntR."), "os.system"],
  "posix.system": [pickleOf(0x80, 2, "cposix\nsystem\nX\x02\0\0\0ls", 0x85, "R."), "posix.system"],
  "eval, by two strings": [
    pickleOf(0x80, 4, 0x8c, 8, "builtins", 0x8c, 4, "eval", 0x93, 0x8c, 1, "1", 0x85, "R."),
    "builtins.eval",
  ],
  "getattr": [pickleOf("c__builtin__\ngetattr\n(NNtR."), "__builtin__.getattr"],
  "an old-style instance": [pickleOf("(S'ls'\nios\nsystem\n."), "os.system"],
  "an object of a class": [pickleOf("(cos\nsystem\nS'ls'\no."), "os.system"],
  "a new object": [pickleOf(0x80, 2, "csubprocess\nPopen\n)", 0x81, "."), "subprocess.Popen"],
  "a new object with names": [
    pickleOf(0x80, 4, "csubprocess\nPopen\n)}", 0x92, "."),
    "subprocess.Popen",
  ],
  "a file within": [pickleOf("ctorch.storage\n_load_from_bytes\n(tR."), "_load_from_bytes"],
  "a name of JavaScript's": [pickleOf("c\nconstructor\n(tR."), "it calls .constructor"],
  "another one": [pickleOf("ctoString\n__proto__\n(tR."), "toString.__proto__"],
};

for (const [name, [bytes, called]] of Object.entries(attacks)) {
  Deno.test(`a pickle that calls is refused by what it calls: ${name}`, () => {
    refuse(bytes, called);
    refuse(bytes, "which is not run: only what makes tensors and plain data is");
  });
}

Deno.test("a function that is named and not called is an object like others", () => {
  const found = read(pickleOf("(cos\nsystem\nI1\nd."));
  assert(found instanceof Map);
  const [[key, value]] = found;
  assert(key instanceof Global);
  assertEquals([key.name, value], ["os.system", 1]);
});

Deno.test("the state of what is no data cannot be set", () => {
  refuse(pickleOf("cos\nenviron\n}b."), "sets the state of what has none");
  refuse(pickleOf("]}b."), "sets the state of what has none");
});

Deno.test("what is damaged says how", () => {
  refuse(pickleOf(), "it ends too early; is it truncated?");
  refuse(pickleOf(0x80, 2, "}"), "it ends too early");
  refuse(pickleOf(0x80, 2, "X\xff\xff\xff\x7fabc."), "it ends too early");
  refuse(pickleOf(0x8e, 255, 255, 255, 255, 255, 255, 255, 255, "."), "it ends too early");
  refuse(pickleOf("!"), "byte 0 is 33, which is no operation");
  refuse(pickleOf("."), "it takes what is not there");
  refuse(pickleOf("(."), "it takes what is not there");
  refuse(pickleOf("NNs."), "it takes what is not there");
  refuse(pickleOf("Ne."), "it takes what is not there");
  refuse(pickleOf("h\x07."), "it remembers nothing as 7");
  refuse(pickleOf("NNNs."), "sets items of what is no dictionary");
  refuse(pickleOf("NNa."), "appends to what is no list");
  refuse(pickleOf("(Nd."), "a key of a dictionary has no value");
  refuse(pickleOf("Ix\n."), '"x" is no number');
  refuse(pickleOf("F1.5x\n."), '"1.5x" is no number');
  refuse(pickleOf("S'abc\n."), "a string lacks its quotation marks");
  refuse(pickleOf("NNR."), "it calls what is no function");
  refuse(pickleOf("NN", 0x93, "."), "names a function by what is no text");
  refuse(pickleOf("\x82\x01."), "names a function by a number");
  refuse(pickleOf("\x97."), "from a buffer that is not part of it");
  refuse(pickleOf("NQ."), "refers to what is no storage");
  refuse(pickleOf("c_codecs\nencode\n(V\\u20ac\nS'latin1'\ntR."), "encodes what is no text");
  refuse(pickleOf("c_codecs\nencode\n(Va\nS'utf8'\ntR."), "or not as latin1");
  refuse(pickleOf("(S'module'\ntQ."), "a network with its code; save its state_dict()");
});

Deno.test("what would take forever, or all memory, is refused", () => {
  const many = (text: string, count: number, ...rest: (string | number)[]) => {
    const end = pickleOf(...rest), bytes = new Uint8Array(text.length * count + end.length);
    for (let i = 0; i < text.length * count; i++) bytes[i] = text.charCodeAt(i % text.length);
    bytes.set(end, text.length * count);
    return bytes;
  };
  const before = Deno.memoryUsage().rss;
  refuse(many("(", 5_000_000), "more objects than any model has");
  refuse(many("}", 1_000_000), "more objects than any model has");
  refuse(many("]", 1_000_000), "more objects than any model has");
  refuse(many("N0", 5_000_000), "more objects than any model has");
  refuse(pickleOf(0x8b, 255, 255, 0, 0, "x".repeat(65536)), "a number has 65.5 kB");
  refuse(pickleOf(`I${"9".repeat(1000)}\n.`), "is no number");
  refuse(many("cx", 2_000_000), "a line of it is too long");
  // A list of pairs of which a dictionary is made again and again.
  const pairs = many("NN\x86", 60_000, "tq\x00");
  const start = pickleOf("(").length;
  const bomb = new Uint8Array(start + pairs.length + 4 + 27 * 1000);
  bomb.set(pickleOf("("));
  bomb.set(pairs, start);
  const again = pickleOf("ccollections\nOrderedDict\nh\x00\x85R");
  for (let at = start + pairs.length; at + again.length < bomb.length; at += again.length) {
    bomb.set(again, at);
  }
  refuse(bomb, "more objects than any model has");
  assert(Deno.memoryUsage().rss - before < 1.5e9);
});

Deno.test("nested and circular objects of any depth are read", () => {
  const deep = read(pickleOf("]".repeat(50_000), "a".repeat(49_999), "."));
  assert(Array.isArray(deep) && Array.isArray(deep[0]));
  const circle = read(pickleOf("]q\x00h\x00a."));
  assert(Array.isArray(circle) && circle[0] === circle);
});

Deno.test("strings of Python 2 are text where they are ASCII, and bytes where they are not", () => {
  assertEquals(read(pickleOf("(U\x03abcT\x02\0\0\0\x80\xffS'a\\n\\x41\\'\\\\'\nt.")), [
    "abc",
    Uint8Array.of(0x80, 0xff),
    "a\nA'\\",
  ]);
  // As cPickle wrote arrays in 2009: their content is a string.
  const dtype =
    "cnumpy\ndtype\n(U\x02u1K\0K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb";
  const array = read(
    pickleOf(
      "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\x01btR(K\x01(K\x02t",
      dtype,
      "I00\nU\x02\x80Atb.",
    ),
    { functions: arrayFunctions },
  );
  assert(array instanceof PickledArray);
  assertEquals([array.type, [...array.bytes()]], ["u1", [0x80, 0x41]]);
});
