/**
 * Scalar expressions: what one element of an elementwise tensor operation computes. Each primitive
 * is one line of {@linkcode primitives}: its value and its derivatives, the latter as expressions
 * again. Those of {@linkcode HalfPrimitive} widen 16-bit floats, of which a 32-bit integer holds two. The WGSL of a primitive is in `wgsl/expression.ts`. Equal expressions are the same object,
 * so common subexpressions are shared without a pass of their own.
 *
 * @module
 */

import { widenHalf } from "../halves.ts";

/** A scalar expression over numbered arguments. */
export type Expression = Constant | Argument | Call;

/** A number. */
export interface Constant {
  /** Which of the three it is. */
  readonly kind: "constant";
  /** Equal expressions have the same. */
  readonly id: number;
  /** The number. */
  readonly value: number;
}

/** The value of the input with this index at the current element. */
export interface Argument {
  /** Which of the three it is. */
  readonly kind: "argument";
  /** Equal expressions have the same. */
  readonly id: number;
  /** Of the input. */
  readonly index: number;
}

/** A primitive applied to other expressions. */
export interface Call {
  /** Which of the three it is. */
  readonly kind: "call";
  /** Equal expressions have the same. */
  readonly id: number;
  /** What is called. */
  readonly primitive: Primitive;
  /** With what. */
  readonly operands: readonly Expression[];
}

/** What primitives take. */
export type Operand = Expression | number;

/** What a primitive computes, and its derivatives. */
export interface Rule {
  /** The value for given operands. */
  readonly value: (a: number, b: number, c: number) => number;
  /** Partial derivatives by each operand, given the operands and the expression itself. */
  readonly derivatives: (
    operands: readonly Expression[],
    self: Expression,
  ) => readonly Operand[];
}

const rule = (value: Rule["value"], derivatives: Rule["derivatives"]): Rule => ({
  value,
  derivatives,
});

/**
 * What widens the low or the high 16 bits of an integer, IEEE's half precision or bfloat16, exactly.
 * Its operand is the value of an `i32` input.
 */
export type HalfPrimitive = "f16Low" | "f16High" | "bf16Low" | "bf16High";

/** The name of a primitive. */
export type Primitive =
  | HalfPrimitive
  | ("add" | "sub" | "mul" | "div" | "neg" | "min" | "max" | "exp" | "log" | "sqrt")
  | ("sin" | "cos" | "tanh" | "sigmoid" | "erf" | "less" | "select");

/** Value and derivatives of everything an expression can call. */
export const primitives: Readonly<Record<Primitive, Rule>> = {
  add: rule((a, b) => a + b, () => [1, 1]),
  sub: rule((a, b) => a - b, () => [1, -1]),
  mul: rule((a, b) => a * b, ([a, b]) => [b, a]),
  div: rule((a, b) => a / b, ([_, b], self) => [div(1, b), neg(div(self, b))]),
  neg: rule((a) => -a, () => [-1]),
  min: rule((a, b) => Math.min(a, b), ([a, b]) => [less(a, b), sub(1, less(a, b))]),
  max: rule((a, b) => Math.max(a, b), ([a, b]) => [less(b, a), sub(1, less(b, a))]),
  exp: rule(Math.exp, (_, self) => [self]),
  log: rule(Math.log, ([a]) => [div(1, a)]),
  sqrt: rule(Math.sqrt, (_, self) => [div(0.5, self)]),
  sin: rule(Math.sin, ([a]) => [cos(a)]),
  cos: rule(Math.cos, ([a]) => [neg(sin(a))]),
  tanh: rule(Math.tanh, (_, self) => [sub(1, mul(self, self))]),
  sigmoid: rule((a) => 1 / (1 + Math.exp(-a)), (_, self) => [mul(self, sub(1, self))]),
  /** The Gauss error function. */
  erf: rule(erfValue, ([a]) => [mul(2 / Math.sqrt(Math.PI), exp(neg(mul(a, a))))]),
  /** 1 where a < b, else 0. */
  less: rule((a, b) => a < b ? 1 : 0, () => [0, 0]),
  /** b where a is not 0, else c. */
  select: rule((a, b, c) => a !== 0 ? b : c, ([a]) => [0, select(a, 1, 0), select(a, 0, 1)]),
  f16Low: rule((a) => widenHalf(a & 0xffff), () => [0]),
  f16High: rule((a) => widenHalf(a >>> 16), () => [0]),
  bf16Low: rule((a) => asFloat(a << 16), () => [0]),
  bf16High: rule((a) => asFloat(a & 0xffff0000), () => [0]),
};

const bits = new Uint32Array(1), single = new Float32Array(bits.buffer);
const asFloat = (word: number): number => (bits[0] = word, single[0]);

/** The input whose bits a call widens, if it is one of {@linkcode HalfPrimitive}. */
export function wordOf({ primitive, operands: [a] }: Call): Argument | undefined {
  if (!/^b?f16/.test(primitive)) return undefined;
  if (a.kind === "argument") return a;
  throw new TypeError(`Cannot take ${primitive} of anything but an input`);
}

const interned = new Map<string, Expression>();

function intern<E extends Expression>(key: string, make: (id: number) => E): E {
  let found = interned.get(key) as E | undefined;
  if (!found) interned.set(key, found = make(interned.size));
  return found;
}

/** The expression of a number. */
export function constant(value: number): Expression {
  return intern(
    Object.is(value, -0) ? "-0" : `${value}`,
    (id) => ({ kind: "constant", id, value }),
  );
}

/** The expression that reads input `index`. */
export function argument(index: number): Expression {
  return intern(`#${index}`, (id) => ({ kind: "argument", id, index }));
}

const lift = (x: Operand): Expression => typeof x === "number" ? constant(x) : x;
const isNumber = (x: Expression, value: number) => x.kind === "constant" && x.value === value;

/** A call, folded where its operands make the result obvious. */
export function call(primitive: Primitive, ...args: readonly Operand[]): Expression {
  const operands = args.map(lift);
  const [a, b, c] = operands;
  if (operands.every((x) => x.kind === "constant")) {
    const [x, y, z] = operands.map((o) => (o as Constant).value);
    return constant(primitives[primitive].value(x, y, z));
  }
  switch (primitive) {
    case "add":
      if (isNumber(a, 0)) return b;
      if (isNumber(b, 0)) return a;
      break;
    case "sub":
      if (isNumber(a, 0)) return neg(b);
      if (isNumber(b, 0)) return a;
      break;
    case "mul":
      if (isNumber(a, 0) || isNumber(b, 0)) return constant(0);
      if (isNumber(a, 1)) return b;
      if (isNumber(b, 1)) return a;
      if (isNumber(a, -1)) return neg(b);
      if (isNumber(b, -1)) return neg(a);
      break;
    case "div":
      if (isNumber(a, 0)) return a;
      if (isNumber(b, 1)) return a;
      break;
    case "neg":
      if (a.kind === "call" && a.primitive === "neg") return a.operands[0];
      break;
    case "select":
      if (b === c) return b;
      break;
  }
  return intern(`${primitive}(${operands.map((o) => o.id)})`, (id) => ({
    kind: "call",
    id,
    primitive,
    operands,
  }));
}

/** A function of one operand. */
export type Unary = (a: Operand) => Expression;
/** A function of two operands. */
export type Binary = (a: Operand, b: Operand) => Expression;
const unary = (name: Primitive): Unary => (a) => call(name, a);
const binary = (name: Primitive): Binary => (a, b) => call(name, a, b);

/** a + b. */
export const add: Binary = binary("add");
/** a - b. */
export const sub: Binary = binary("sub");
/** a · b. */
export const mul: Binary = binary("mul");
/** a / b. */
export const div: Binary = binary("div");
/** The smaller one. */
export const min: Binary = binary("min");
/** The larger one. */
export const max: Binary = binary("max");
/** 1 where a < b, else 0. */
export const less: Binary = binary("less");
/** -a. */
export const neg: Unary = unary("neg");
/** e to the power of a. */
export const exp: Unary = unary("exp");
/** The natural logarithm. */
export const log: Unary = unary("log");
/** The square root. */
export const sqrt: Unary = unary("sqrt");
/** The sine. */
export const sin: Unary = unary("sin");
/** The cosine. */
export const cos: Unary = unary("cos");
/** The hyperbolic tangent. */
export const tanh: Unary = unary("tanh");
/** 1 / (1 + exp(-a)). */
export const sigmoid: Unary = unary("sigmoid");
/** The error function. */
export const erf: Unary = unary("erf");
/** The half-precision float in the low 16 bits. */
export const f16Low: Unary = unary("f16Low");
/** The half-precision float in the high 16 bits. */
export const f16High: Unary = unary("f16High");
/** The bfloat16 in the low 16 bits. */
export const bf16Low: Unary = unary("bf16Low");
/** The bfloat16 in the high 16 bits. */
export const bf16High: Unary = unary("bf16High");
/** The second where the first is not 0, else the third. */
export const select = (condition: Operand, yes: Operand, no: Operand): Expression =>
  call("select", condition, yes, no);

/** d expression / d argument `index`. */
export function differentiate(expression: Expression, index: number): Expression {
  const known = new Map<Expression, Expression>();
  const visit = (e: Expression): Expression => {
    let d = known.get(e);
    if (!d) known.set(e, d = derive(e));
    return d;
  };
  const derive = (e: Expression): Expression => {
    if (e.kind !== "call") return constant(e.kind === "argument" && e.index === index ? 1 : 0);
    const inner = e.operands.map(visit);
    if (inner.every((d) => isNumber(d, 0))) return constant(0);
    const outer = primitives[e.primitive].derivatives(e.operands, e);
    return inner.reduce<Expression>((sum, d, i) => add(sum, mul(outer[i], d)), constant(0));
  };
  return visit(expression);
}

/** The expression with each argument replaced. */
export function substitute(
  expression: Expression,
  replacement: (index: number) => Expression,
): Expression {
  const known = new Map<Expression, Expression>();
  const visit = (e: Expression): Expression => {
    let r = known.get(e);
    if (!r) {
      r = e.kind === "constant"
        ? e
        : e.kind === "argument"
        ? replacement(e.index)
        : call(e.primitive, ...e.operands.map(visit));
      known.set(e, r);
    }
    return r;
  };
  return visit(expression);
}

/** Every subexpression of these, operands before the calls that use them. */
export function inOrder(expressions: readonly Expression[]): Expression[] {
  const order = new Set<Expression>();
  const visit = (e: Expression) => {
    if (order.has(e)) return;
    if (e.kind === "call") e.operands.forEach(visit);
    order.add(e);
  };
  expressions.forEach(visit);
  return [...order];
}

/** Abramowitz and Stegun 7.1.5 and 7.1.14: a series near zero, a continued fraction beyond. */
function erfValue(x: number): number {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 1; Math.abs(term) > 1e-17; n++) {
      term *= -z * z / n;
      sum += term / (2 * n + 1);
    }
    return Math.sign(x) * 2 / Math.sqrt(Math.PI) * sum;
  }
  let fraction = 0;
  for (let n = 60; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.sign(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction));
}
