/**
 * A small WebAssembly assembler. Expressions are {@linkcode Code} values that nest like the formulas
 * they stand for; statements are appended to the {@linkcode Body} of a function.
 *
 * @example
 * ```ts ignore
 * const module = new Module();
 * module.define("scale", ["i32", "i32", "f32"], (f, [address, bytes, factor]) => {
 *   const by = f.vector(f32x4.splat(factor)), end = f.integer(add(address, bytes));
 *   f.loop(address, end, 16, () => f.store(address, 0, f32x4.mul(load(address), by)));
 * });
 * ```
 *
 * @module
 */

/** Types of values. */
export type ValueType = "i32" | "i64" | "f32" | "v128";
const typeCodes: Record<ValueType, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, v128: 0x7b };

type Bytes = readonly number[];

/** Instructions that leave one value on the stack. */
export class Code {
  constructor(readonly bytes: Bytes) {}
}

/** A parameter or local variable; as an operand it is read. */
export class Local {
  constructor(readonly index: number, readonly type: ValueType) {}
}

/** What an instruction works on; a number stands for an i32 constant. */
export type Operand = Code | Local | number;

/** A non-negative integer in LEB128. */
function unsigned(n: number): number[] {
  const out: number[] = [];
  for (let rest = n >>> 0;;) {
    const low = rest & 0x7f;
    rest >>>= 7;
    if (!rest) {
      out.push(low);
      return out;
    }
    out.push(low | 0x80);
  }
}

/** A signed 32-bit integer in LEB128. */
function signed(n: number): number[] {
  const out: number[] = [];
  for (let rest = n | 0;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    if ((rest === 0 && !(low & 0x40)) || (rest === -1 && low & 0x40)) {
      out.push(low);
      return out;
    }
    out.push(low | 0x80);
  }
}

const floatBytes = (x: number): number[] => [...new Uint8Array(new Float32Array([x]).buffer)];

function pushed(x: Operand): Bytes {
  if (x instanceof Code) return x.bytes;
  return x instanceof Local ? [0x20, ...unsigned(x.index)] : [0x41, ...signed(x)];
}

function joined(operands: readonly Operand[], opcode: Bytes): Code {
  const bytes: number[] = [];
  for (const x of operands) for (const b of pushed(x)) bytes.push(b);
  for (const b of opcode) bytes.push(b);
  return new Code(bytes);
}

type Instruction = (...operands: Operand[]) => Code;
const plain = (...opcode: number[]): Instruction => (...operands) => joined(operands, opcode);
const simd = (n: number): Instruction => plain(0xfd, ...unsigned(n));

/** A load; alignment hint 0 is always valid, and free on x86 and ARM. */
const loading = (...opcode: number[]) => (address: Operand, offset = 0): Code =>
  joined([address], [...opcode, 0, ...unsigned(offset)]);

const folding =
  (fold: (a: number, b: number) => number, opcode: number) => (a: Operand, b: Operand): Operand =>
    typeof a === "number" && typeof b === "number" ? fold(a, b) | 0 : joined([a, b], [opcode]);

const rawAdd = folding((a, b) => a + b, 0x6a);
const rawMul = folding(Math.imul, 0x6c);
/** Integer sum. */
export const add = (a: Operand, b: Operand): Operand => b === 0 ? a : a === 0 ? b : rawAdd(a, b);
/** Integer difference. */
export const sub = (a: Operand, b: Operand): Operand =>
  b === 0 ? a : folding((a, b) => a - b, 0x6b)(a, b);
/** Integer product. */
export const mul = (a: Operand, b: Operand): Operand =>
  b === 1 ? a : a === 1 ? b : a === 0 || b === 0 ? 0 : rawMul(a, b);
/** Unsigned quotient. */
export const div = (a: Operand, b: Operand): Operand => b === 1 ? a : plain(0x6e)(a, b);
/** Unsigned remainder. */
export const rem = (a: Operand, b: Operand): Operand => b === 1 ? 0 : plain(0x70)(a, b);

/** Further integer instructions; comparisons are unsigned and give 0 or 1. */
export const i32 = {
  and: plain(0x71),
  or: plain(0x72),
  xor: plain(0x73),
  shl: plain(0x74),
  shr: plain(0x76),
  eqz: plain(0x45),
  eq: plain(0x46),
  ne: plain(0x47),
  lt: plain(0x49),
  gt: plain(0x4b),
  ge: plain(0x4f),
  /** First operand if the third is not 0, else the second. */
  select: plain(0x1b),
  load: loading(0x28),
  wrap: plain(0xa7),
  truncate: plain(0xfc, 0),
};

/** 64-bit integers. */
export const i64 = {
  extend: plain(0xad),
  mul: plain(0x7e),
  shr: plain(0x88),
  const: (n: number): Code => new Code([0x42, ...signed(n)]),
};

/** Single floats. */
export const f32 = {
  const: (x: number): Code => new Code([0x43, ...floatBytes(x)]),
  load: loading(0x2a),
  add: plain(0x92),
  sub: plain(0x93),
  mul: plain(0x94),
  div: plain(0x95),
  max: plain(0x97),
  fromI32: plain(0xb2),
};

/** Loads of four floats, or of one into all lanes. */
export const load = loading(0xfd, 0x00);
export const loadSplat = loading(0xfd, 0x09);
/** The first lane from memory, zeros in the others. */
export const loadZero = loading(0xfd, 0x5c);

/** Bits of vectors. */
export const v128 = { and: simd(0x4e), or: simd(0x50), xor: simd(0x51), select: simd(0x52) };

/** Four floats. */
export const f32x4 = {
  const: (x: number): Code => new Code([0xfd, 0x0c, ...[x, x, x, x].flatMap(floatBytes)]),
  splat: simd(0x13),
  lane: (v: Operand, lane: number): Code => joined([v], [0xfd, 0x1f, lane]),
  /** A vector with one lane replaced. */
  replaceLane: (v: Operand, lane: number, x: Operand): Code => joined([v, x], [0xfd, 0x20, lane]),
  eq: simd(0x41),
  lt: simd(0x43),
  gt: simd(0x44),
  abs: simd(0xe0),
  neg: simd(0xe1),
  sqrt: simd(0xe3),
  add: simd(0xe4),
  sub: simd(0xe5),
  mul: simd(0xe6),
  div: simd(0xe7),
  floor: simd(0x68),
  nearest: simd(0x6a),
  // The relaxed forms leave NaN to the machine, and are much quicker for it.
  min: simd(0x10d),
  max: simd(0x10e),
  /** a b + c, fused where the machine can. */
  madd: simd(0x105),
  /** c - a b, fused where the machine can. */
  nmadd: simd(0x106),
  fromI32: simd(0xfa),
  fromU32: simd(0xfb),
};

/** Two doubles. */
export const f64x2 = {
  add: simd(0xf0),
  sub: simd(0xf1),
  mul: simd(0xf2),
  /** The first lanes of two vectors. */
  low: (a: Operand, b: Operand): Code => joined([a, b], shuffling(0, 16)),
  /** The second lanes of two vectors. */
  high: (a: Operand, b: Operand): Code => joined([a, b], shuffling(8, 24)),
};

/** Takes eight bytes from either of these places on, of two vectors one after the other. */
const shuffling = (...from: number[]) => [
  ...[0xfd, 0x0d],
  ...from.flatMap((first) => Array.from({ length: 8 }, (_, i) => first + i)),
];

/** Four integers. */
export const i32x4 = {
  const: (x: number): Code => {
    const bytes = [...new Uint8Array(new Int32Array([x]).buffer)];
    return new Code([0xfd, 0x0c, ...bytes, ...bytes, ...bytes, ...bytes]);
  },
  splat: simd(0x11),
  add: simd(0xae),
  sub: simd(0xb1),
  shl: simd(0xab),
  shrSigned: simd(0xac),
  shrUnsigned: simd(0xad),
  truncate: simd(0x101),
};

/** The body of a function that is being written. */
export class Body {
  readonly index: number;
  readonly parameters: readonly ValueType[];
  readonly locals: ValueType[] = [];
  /** Runs first: what constants are set with. */
  readonly #entry: number[] = [];
  readonly #code: number[] = [];
  readonly #constants = new Map<string, Local>();

  constructor(parameters: readonly ValueType[], index: number) {
    this.parameters = parameters;
    this.index = index;
  }

  /** A new local variable. */
  local(type: ValueType): Local {
    return new Local(this.parameters.length + this.locals.push(type) - 1, type);
  }

  /** A new variable of a value. */
  let(type: ValueType, value: Operand): Local {
    const local = this.local(type);
    this.set(local, value);
    return local;
  }

  /** A new integer variable. */
  integer(value: Operand): Local {
    return this.let("i32", value);
  }

  /** A new vector variable. */
  vector(value: Operand): Local {
    return this.let("v128", value);
  }

  /**
   * A vector of one number, set once on entry: V8 would build an immediate anew at every use, which
   * makes exponentials three times as slow.
   */
  constant(x: number, as: "float" | "integer" = "float"): Local {
    const key = `${as}${Object.is(x, -0) ? "-0" : x}`;
    let local = this.#constants.get(key);
    if (!local) {
      local = this.local("v128");
      this.#constants.set(key, local);
      const { bytes } = as === "float" ? f32x4.const(x) : i32x4.const(x);
      this.#entry.push(...bytes, 0x21, ...unsigned(local.index));
    }
    return local;
  }

  #emit(...parts: readonly Bytes[]): void {
    for (const part of parts) for (const b of part) this.#code.push(b);
  }

  set(local: Local, value: Operand): void {
    this.#emit(pushed(value), [0x21], unsigned(local.index));
  }

  increase(local: Local, by: Operand): void {
    this.set(local, add(local, by));
  }

  /** Stores a vector. */
  store(address: Operand, offset: number, value: Operand): void {
    this.#emit(pushed(address), pushed(value), [0xfd, 0x0b, 0], unsigned(offset));
  }

  storeFloat(address: Operand, offset: number, value: Operand): void {
    this.#emit(pushed(address), pushed(value), [0x38, 0], unsigned(offset));
  }

  storeInteger(address: Operand, offset: number, value: Operand): void {
    this.#emit(pushed(address), pushed(value), [0x36, 0], unsigned(offset));
  }

  /** Stores one lane of a vector. */
  storeLane(address: Operand, offset: number, value: Operand, lane: number): void {
    this.#emit(pushed(address), pushed(value), [0xfd, 0x5a, 0], unsigned(offset), [lane]);
  }

  if(condition: Operand, then: () => void, otherwise?: () => void): void {
    this.#emit(pushed(condition), [0x04, 0x40]);
    then();
    if (otherwise) {
      this.#emit([0x05]);
      otherwise();
    }
    this.#emit([0x0b]);
  }

  /** `do body while (condition)`. */
  doWhile(body: () => void, condition: () => Operand): void {
    this.#emit([0x03, 0x40]);
    body();
    this.#emit(pushed(condition()), [0x0d, 0, 0x0b]);
  }

  /** Walks `i` up to `end` in steps; runs at least once. */
  loop(i: Local, end: Operand, step: Operand, body: () => void): void {
    this.doWhile(() => {
      body();
      this.increase(i, step);
    }, () => i32.lt(i, end));
  }

  /** Runs `count` times, at least once. */
  repeat(count: Operand, body: (i: Local) => void): void {
    const i = this.integer(0);
    if (count === 1) body(i);
    else this.loop(i, count, 1, () => body(i));
  }

  /** Calls a function of the same module that returns nothing. */
  call(f: Body, ...args: Operand[]): void {
    this.#emit(...args.map(pushed), [0x10], unsigned(f.index));
  }

  /** The function as it stands in a code section. */
  encode(): Bytes[] {
    const runs: [count: number, type: ValueType][] = [];
    for (const type of this.locals) {
      const last = runs.at(-1);
      if (last?.[1] === type) last[0]++;
      else runs.push([1, type]);
    }
    const locals = runs.map(([n, type]) => [...unsigned(n), typeCodes[type]]);
    return sized([unsigned(runs.length), ...locals, this.#entry, this.#code, [0x0b]]);
  }
}

const lengthOf = (parts: readonly Bytes[]) => parts.reduce((n, { length }) => n + length, 0);

/** Parts behind their length. */
const sized = (parts: readonly Bytes[]): Bytes[] => [unsigned(lengthOf(parts)), ...parts];

/** Functions over an imported memory `env.memory`. */
export class Module {
  readonly #functions: { name: string; body: Body }[] = [];

  /** Writes a function that is exported under its name. */
  define(
    name: string,
    parameters: readonly ValueType[],
    build: (f: Body, parameters: Local[]) => void,
  ): Body {
    const body = new Body(parameters, this.#functions.length);
    this.#functions.push({ name, body });
    build(body, parameters.map((type, i) => new Local(i, type)));
    return body;
  }

  /**
   * The binary.
   *
   * @param maxPages What the memory was made with.
   */
  encode({ maxPages, isShared }: { maxPages: number; isShared: boolean }): Uint8Array<ArrayBuffer> {
    const functions = this.#functions,
      text = (s: string) => {
        const bytes = [...new TextEncoder().encode(s)];
        return [...unsigned(bytes.length), ...bytes];
      };
    const section = (id: number, items: readonly (readonly Bytes[])[]) => [
      [id],
      ...sized([unsigned(items.length), ...items.flat()]),
    ];
    const types = functions.map(({ body: { parameters } }) => [[
      ...[0x60, ...unsigned(parameters.length)],
      ...[...parameters.map((type) => typeCodes[type]), 0],
    ]]);
    const limits = isShared ? [3, 1, ...unsigned(maxPages)] : [1, 1, ...unsigned(maxPages)];
    const parts: Bytes[] = [
      [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      ...section(1, types),
      ...section(2, [[[...text("env"), ...text("memory"), 2, ...limits]]]),
      ...section(3, functions.map((_, i) => [unsigned(i)])),
      ...section(7, functions.map(({ name }, i) => [text(name), [0, ...unsigned(i)]])),
      ...section(10, functions.map(({ body }) => body.encode())),
    ];
    const out = new Uint8Array(lengthOf(parts));
    let at = 0;
    for (const part of parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  }
}
