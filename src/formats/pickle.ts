/**
 * Pickles, in which Python keeps objects, of all protocols. A pickle is a program, and what makes it
 * dangerous is that it may call any function by its name. This one calls none but those that it is
 * given, which make plain data of plain data.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { type Bytes, viewOf } from "./bytes.ts";
import {
  byteString,
  Cursor,
  decimalNumber,
  decodeText,
  escapedText,
  longNumber,
  PickleError,
  quotedString,
} from "./pickle_bytes.ts";

export { PickleError };

/** A function or class that a pickle names, and does not call. */
export class Global {
  /** Its module and its own name, `collections.OrderedDict`. */
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/** Data whose state a pickle may set after it made them. */
export interface Stateful {
  /** @throws {PickleError} If it is no such state. */
  setState(state: unknown): void;
}

/** Makes data of arguments, and tells how many elements it goes through, if it is not few. */
export type PickleFunction = (
  args: readonly unknown[],
  count: (elements: number) => void,
) => unknown;

/** What a pickle may use that is not in it. */
export interface Surroundings {
  /** What it may call, by name. */
  readonly functions: Readonly<Record<string, PickleFunction>>;
  /** What stands for data that are somewhere else, given what they are called. */
  readonly persistent?: (id: unknown) => unknown;
}

/**
 * What a pickle may do: an operation counts as 1, an object as {@linkcode OBJECT}. Files of models do some
 * hundred thousand. With the length of the file, it bounds time and memory.
 */
const MOST_WORK = 2 ** 22, OBJECT = 16;

/**
 * Reads a pickle: lists and tuples as arrays, dictionaries as maps, bytes as such. Strings of Python 2,
 * which may be bytes, are text if they are ASCII.
 *
 * @param what What it is called, for messages.
 * @param from The byte at which it starts.
 * @returns The object, and where the pickle ends.
 * @throws {InputError} If it is damaged, calls what it may not, or does too much.
 */
export function readPickle(
  bytes: Bytes,
  what: string,
  surroundings: Surroundings,
  from = 0,
): { readonly value: unknown; readonly end: number } {
  const cursor = new Cursor(bytes, from);
  try {
    return { value: new Machine(cursor, surroundings).run(), end: cursor.at };
  } catch (error) {
    if (!(error instanceof PickleError)) throw error;
    throw new InputError(`Cannot read ${what} as a pickle: ${error.message}`);
  }
}

/** Where what belongs together begins on the stack. */
const MARK = Symbol("mark");

/** The state of a pickle that is being read. */
class Machine {
  readonly memo = new Map<number, unknown>();
  readonly #stack: unknown[] = [];
  #work = 0;

  constructor(readonly cursor: Cursor, readonly surroundings: Surroundings) {}

  run(): unknown {
    for (;;) {
      const { at } = this.cursor, code = this.cursor.byte();
      if (code === STOP) return this.pop();
      const operation = operations.get(code);
      if (!operation) throw new PickleError(`byte ${at} is ${code}, which is no operation`);
      this.count(1);
      operation(this);
    }
  }

  readonly count = (work: number): void => {
    this.#work += work;
    if (this.#work > MOST_WORK) throw new PickleError("it makes more objects than any model has");
  };

  push(value: unknown): void {
    this.#stack.push(value);
  }

  /** Pushes an object that is new. */
  make(value: object): void {
    this.count(OBJECT);
    this.#stack.push(value);
  }

  top(): unknown {
    if (this.#stack.length && this.#stack.at(-1) !== MARK) return this.#stack.at(-1);
    throw new PickleError(`before byte ${this.cursor.at}, it takes what is not there`);
  }

  pop(): unknown {
    const value = this.top();
    this.#stack.pop();
    return value;
  }

  mark(): void {
    this.#stack.push(MARK);
  }

  /** Everything above the last mark, which is taken away too. */
  popMark(): unknown[] {
    const at = this.#stack.lastIndexOf(MARK);
    if (at < 0) throw new PickleError(`before byte ${this.cursor.at}, it takes what is not there`);
    return this.#stack.splice(at).slice(1);
  }

  /** The last one or what is above the last mark, whichever it is. */
  drop(): void {
    if (!this.#stack.length) this.pop();
    this.#stack.pop();
  }

  get(index: number): void {
    if (!this.memo.has(index)) throw new PickleError(`it remembers nothing as ${index}`);
    this.push(this.memo.get(index));
  }

  /** Pushes what a function makes, if it is one that may be called. */
  call(callee: unknown, args: unknown): void {
    const { functions } = this.surroundings;
    if (!(callee instanceof Global)) throw new PickleError("it calls what is no function");
    if (!Object.hasOwn(functions, callee.name)) {
      throw new PickleError(
        `it calls ${callee.name}, which is not run: only what makes tensors and plain data is`,
      );
    }
    if (!Array.isArray(args)) throw new PickleError(`it calls ${callee.name} without arguments`);
    this.count(OBJECT);
    this.push(functions[callee.name](args, this.count));
  }

  setState(state: unknown): void {
    const target = this.top();
    // Attributes of a dictionary, as the versions of the modules of a network.
    if (target instanceof Map) return;
    if (!isStateful(target)) throw new PickleError("it sets the state of what has none");
    target.setState(state);
  }

  refer(id: unknown): void {
    const { persistent } = this.surroundings;
    if (!persistent) throw new PickleError("it refers to data outside itself");
    this.push(persistent(id));
  }

  append(items: readonly unknown[]): void {
    const target = this.top();
    if (target instanceof Set) { for (const item of items) target.add(item); }
    else if (Array.isArray(target)) { for (const item of items) target.push(item); }
    else throw new PickleError("it appends to what is no list");
  }

  setItems(items: readonly unknown[]): void {
    const target = this.top();
    if (!(target instanceof Map) || items.length % 2) {
      throw new PickleError("it sets items of what is no dictionary");
    }
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
  }
}

const isStateful = (x: unknown): x is Stateful =>
  typeof x === "object" && x !== null && "setState" in x;

/** A dictionary of keys and values in turn. */
function dictionary(items: readonly unknown[]): Map<unknown, unknown> {
  if (items.length % 2) throw new PickleError("a key of a dictionary has no value");
  return new Map(
    Array.from({ length: items.length / 2 }, (_, i) => [items[2 * i], items[2 * i + 1]]),
  );
}

/** Characters of the longest name of a function. */
const LONGEST_NAME = 200;

/** A global of a module and a name, which are text. */
function globalOf(module: unknown, name: unknown): Global {
  if (typeof module !== "string" || typeof name !== "string") {
    throw new PickleError("it names a function by what is no text");
  }
  if (module.length + name.length > LONGEST_NAME) {
    throw new PickleError(`the name of a function has ${module.length + name.length} characters`);
  }
  return new Global(`${module}.${name}`);
}

const float = (text: string): number => {
  const special: Record<string, number> = { inf: Infinity, "-inf": -Infinity, nan: NaN };
  const value = special[text] ?? Number(text || NaN);
  if (Number.isNaN(value) && text !== "nan") decimalNumber(text);
  return value;
};

const STOP = 0x2e;

const extension = () => {
  throw new PickleError("it names a function by a number, which nothing here has");
};
const outOfBand = () => {
  throw new PickleError("it takes data from a buffer that is not part of it");
};

type Operation = (m: Machine) => void;

/** Operations, and the characters or numbers that stand for them. */
const table: readonly (readonly [string | number, Operation])[] = [
  ["(", (m) => m.mark()],
  ["0", (m) => m.drop()],
  ["1", (m) => void m.popMark()],
  ["2", (m) => m.push(m.top())],
  // Numbers.
  ["F", (m) => m.push(float(m.cursor.line()))],
  ["G", (m) => m.push(viewOf(m.cursor.take(8)).getFloat64(0))],
  ["I", (m) => {
    const text = m.cursor.line();
    m.push(text === "01" ? true : text === "00" ? false : decimalNumber(text));
  }],
  ["J", (m) => m.push(m.cursor.number(4) | 0)],
  ["K", (m) => m.push(m.cursor.number(1))],
  ["L", (m) => m.push(decimalNumber(m.cursor.line()))],
  ["M", (m) => m.push(m.cursor.number(2))],
  ["N", (m) => m.push(null)],
  [0x88, (m) => m.push(true)],
  [0x89, (m) => m.push(false)],
  [0x8a, (m) => m.push(longNumber(m.cursor.sized(1)))],
  [0x8b, (m) => m.push(longNumber(m.cursor.sized(4)))],
  // Text and bytes.
  ["S", (m) => m.push(quotedString(m.cursor.line()))],
  ["T", (m) => m.push(byteString(m.cursor.sized(4)))],
  ["U", (m) => m.push(byteString(m.cursor.sized(1)))],
  ["V", (m) => m.push(escapedText(m.cursor.line()))],
  ["X", (m) => m.push(decodeText(m.cursor.sized(4)))],
  [0x8c, (m) => m.push(decodeText(m.cursor.sized(1)))],
  [0x8d, (m) => m.push(decodeText(m.cursor.sized(8)))],
  ["B", (m) => m.make(m.cursor.sized(4).slice())],
  ["C", (m) => m.make(m.cursor.sized(1).slice())],
  [0x8e, (m) => m.make(m.cursor.sized(8).slice())],
  [0x96, (m) => m.make(m.cursor.sized(8).slice())],
  // Lists, tuples, dictionaries and sets.
  ["]", (m) => m.make([])],
  ["l", (m) => m.make(m.popMark())],
  ["a", (m) => {
    const item = m.pop();
    m.append([item]);
  }],
  ["e", (m) => m.append(m.popMark())],
  [")", (m) => m.make([])],
  ["t", (m) => m.make(m.popMark())],
  [0x85, (m) => m.make([m.pop()])],
  [0x86, (m) => m.make([m.pop(), m.pop()].reverse())],
  [0x87, (m) => m.make([m.pop(), m.pop(), m.pop()].reverse())],
  ["}", (m) => m.make(new Map())],
  ["d", (m) => m.make(dictionary(m.popMark()))],
  ["s", (m) => {
    const value = m.pop(), key = m.pop();
    m.setItems([key, value]);
  }],
  ["u", (m) => m.setItems(m.popMark())],
  [0x8f, (m) => m.make(new Set())],
  [0x90, (m) => m.append(m.popMark())],
  [0x91, (m) => m.make(new Set(m.popMark()))],
  // What was there before.
  ["p", (m) => void m.memo.set(Number(decimalNumber(m.cursor.line())), m.top())],
  ["q", (m) => void m.memo.set(m.cursor.number(1), m.top())],
  ["r", (m) => void m.memo.set(m.cursor.number(4), m.top())],
  [0x94, (m) => void m.memo.set(m.memo.size, m.top())],
  ["g", (m) => m.get(Number(decimalNumber(m.cursor.line())))],
  ["h", (m) => m.get(m.cursor.number(1))],
  ["j", (m) => m.get(m.cursor.number(4))],
  // Functions and classes.
  ["c", (m) => m.make(globalOf(m.cursor.line(), m.cursor.line()))],
  [0x93, (m) => {
    const name = m.pop(), module = m.pop();
    m.make(globalOf(module, name));
  }],
  ["R", (m) => {
    const args = m.pop();
    m.call(m.pop(), args);
  }],
  [0x81, (m) => {
    const args = m.pop();
    m.call(m.pop(), args);
  }],
  [0x92, (m) => {
    const named = m.pop(), args = m.pop();
    if (!(named instanceof Map) || named.size) {
      throw new PickleError("it names arguments of a class");
    }
    m.call(m.pop(), args);
  }],
  ["i", (m) => m.call(globalOf(m.cursor.line(), m.cursor.line()), m.popMark())],
  ["o", (m) => {
    const [callee, ...args] = m.popMark();
    m.call(callee, args);
  }],
  ["b", (m) => {
    const state = m.pop();
    m.setState(state);
  }],
  ["P", (m) => m.refer(m.cursor.line())],
  ["Q", (m) => m.refer(m.pop())],
  [0x82, extension],
  [0x83, extension],
  [0x84, extension],
  [0x97, outOfBand],
  [0x98, outOfBand],
  // The version, and how much is read at a time.
  [0x80, (m) => void m.cursor.byte()],
  [0x95, (m) => void m.cursor.take(8)],
];

const operations: ReadonlyMap<number, Operation> = new Map(
  table.map(([code, operation]) => [
    typeof code === "string" ? code.charCodeAt(0) : code,
    operation,
  ]),
);
