/**
 * Elementary functions of four floats, and {@linkcode Expression}s made of them.
 *
 * @module
 */

import { erfQuotient } from "../erf.ts";
import { type Expression, inOrder, type Primitive, wordOf } from "../expression.ts";
import { type Body, type Code, f32, f32x4, i32x4, Local, type Operand, v128 } from "./assembler.ts";

/** A polynomial with these coefficients, the constant one first. */
function polynomial(f: Body, x: Operand, coefficients: readonly number[]): Operand {
  const [first, ...rest] = coefficients.map((c) => f.constant(c)).reverse();
  return rest.reduce<Operand>((sum, c) => f32x4.madd(sum, x, c), first);
}

/**
 * eˣ = 2ⁿ eʳ: adding 1.5 · 2²³ leaves n in the low bits of a sum, and shifting those by 23 makes an
 * exponent of them. Within 1e-7 on [-87, 88]; beyond, x counts as the nearer end.
 */
function exp(f: Body, x: Operand): Code {
  const magic = f.constant(1.5 * 2 ** 23);
  const y = f.vector(f32x4.min(f32x4.max(x, f.constant(-87)), f.constant(88)));
  const shifted = f.vector(f32x4.madd(y, f.constant(Math.LOG2E), magic));
  const n = f.vector(f32x4.sub(shifted, magic));
  const high = 0.693359375;
  const r = f.vector(
    f32x4.nmadd(n, f.constant(Math.LN2 - high), f32x4.nmadd(n, f.constant(high), y)),
  );
  const p = polynomial(f, r, [0.5, 0.16666667, 4.1666668e-2, 8.3333338e-3, 1.3888889e-3]);
  const e = f32x4.add(f32x4.madd(f32x4.mul(r, r), p, r), f.constant(1));
  return i32x4.add(e, i32x4.shl(shifted, 23));
}

/** ln x for normal positive x: see `log_accurate` in `../wgsl/expression.ts`. */
function log(f: Body, x: Operand): Code {
  const root = f.constant(0x3f3504f3, "integer"), bits = f.vector(x);
  const k = f.vector(i32x4.shrSigned(i32x4.sub(bits, root), 23));
  const m = f.vector(i32x4.sub(bits, i32x4.shl(k, 23)));
  const one = f.constant(1);
  const s = f.vector(f32x4.div(f32x4.sub(m, one), f32x4.add(m, one)));
  const z = f.vector(f32x4.mul(s, s));
  const series = f32x4.mul(s, polynomial(f, z, [2, 2 / 3, 2 / 5, 2 / 7, 2 / 9]));
  const exponent = f.vector(f32x4.fromI32(k));
  return f32x4.madd(
    exponent,
    f.constant(0.693359375),
    f32x4.nmadd(exponent, f.constant(2.12194440e-4), series),
  );
}

/** sin(x + quarter · π/2): see `sin_accurate` in `../wgsl/expression.ts`. */
function sin(f: Body, x: Operand, quarter: 0 | 1): Code {
  const from = f.vector(x);
  const n = f.vector(f32x4.nearest(f32x4.mul(from, f.constant(2 / Math.PI))));
  const parts = [1.5703125, 4.837512969970703e-4, 7.549789948768648e-8];
  const r = f.vector(parts.reduce<Operand>((y, p) => f32x4.nmadd(n, f.constant(p), y), from));
  const z = f.vector(f32x4.mul(r, r));
  const s = f.vector(
    f32x4.madd(
      f32x4.mul(r, z),
      polynomial(f, z, [-0.16666667, 8.3333310e-3, -1.9840874e-4, 2.7525562e-6]),
      r,
    ),
  );
  const c = f.vector(
    polynomial(f, z, [1, -0.5, 4.1666664e-2, -1.3888397e-3, 2.4433157e-5]),
  );
  const q = f.vector(f32x4.add(n, f.constant(quarter)));
  const half = f.vector(f32x4.floor(f32x4.mul(q, f.constant(0.5))));
  const odd = f32x4.gt(f32x4.nmadd(half, f.constant(2), q), f.constant(0.5));
  const isNegative = f32x4.nmadd(
    f32x4.floor(f32x4.mul(half, f.constant(0.5))),
    f.constant(2),
    half,
  );
  const sign = f32x4.nmadd(isNegative, f.constant(2), f.constant(1));
  return f32x4.mul(sign, v128.select(c, s, odd));
}

/** The sign of x on a magnitude. */
const withSign = (f: Body, magnitude: Operand, x: Operand): Code =>
  v128.or(magnitude, v128.and(x, f.constant(-0)));

/** tanh by its series near zero, by exponentials elsewhere. */
function tanh(f: Body, x: Operand): Code {
  const from = f.vector(x), a = f.vector(f32x4.abs(from)), z = f.vector(f32x4.mul(from, from));
  const series = [1, -1 / 3, 2 / 15, -17 / 315, 62 / 2835];
  const near = f.vector(f32x4.mul(from, polynomial(f, z, series)));
  const capped = f32x4.min(a, f.constant(20));
  const e = f.vector(exp(f, f32x4.mul(capped, f.constant(2))));
  const far = f32x4.sub(f.constant(1), f32x4.div(f.constant(2), f32x4.add(e, f.constant(1))));
  return v128.select(near, withSign(f, far, from), f32x4.lt(a, f.constant(0.25)));
}

/** erf: see {@linkcode erfQuotient}. */
function erf(f: Body, x: Operand): Code {
  const { limit, numerator, denominator } = erfQuotient;
  const from = f.vector(x), end = f.constant(limit), one = f.constant(1);
  const near = f.vector(f32x4.max(f32x4.min(from, end), f.constant(-limit)));
  const z = f.vector(f32x4.mul(near, near));
  const over = f32x4.mul(near, polynomial(f, z, numerator));
  const quotient = f32x4.div(over, polynomial(f, z, denominator));
  return v128.select(withSign(f, one, from), quotient, f32x4.gt(f32x4.abs(from), end));
}

/** The float of the low 16 bits, of which the others are 0: see `half_value` in `../wgsl/expression.ts`. */
function half(f: Body, word: Operand): Code {
  const h = f.vector(word), bias = f.constant(112 << 23, "integer");
  const m = f.vector(v128.and(h, f.constant(0x7fff, "integer"))), size = f.vector(f32x4.fromI32(m));
  const normal = f.vector(i32x4.add(i32x4.shl(m, 13), bias));
  const isSpecial = f32x4.gt(size, f.constant(0x7bff));
  const large = v128.select(i32x4.add(normal, bias), normal, isSpecial);
  const small = f32x4.mul(size, f.constant(2 ** -24));
  const magnitude = v128.select(small, large, f32x4.lt(size, f.constant(0x400)));
  const sign = i32x4.shl(v128.and(h, f.constant(0x8000, "integer")), 16);
  return v128.or(magnitude, sign);
}

/** The sum of the lanes of a vector, in all lanes. */
export const horizontal = (v: Operand): Operand =>
  f32x4.splat(
    f32.add(
      f32.add(f32x4.lane(v, 0), f32x4.lane(v, 1)),
      f32.add(f32x4.lane(v, 2), f32x4.lane(v, 3)),
    ),
  );

type Emitter = (f: Body, a: Operand, b: Operand, c: Operand) => Code;

const emitters: Record<Primitive, Emitter> = {
  add: (_, a, b) => f32x4.add(a, b),
  sub: (_, a, b) => f32x4.sub(a, b),
  mul: (_, a, b) => f32x4.mul(a, b),
  div: (_, a, b) => f32x4.div(a, b),
  neg: (_, a) => f32x4.neg(a),
  min: (_, a, b) => f32x4.min(a, b),
  max: (_, a, b) => f32x4.max(a, b),
  exp,
  log,
  sqrt: (_, a) => f32x4.sqrt(a),
  sin: (f, a) => sin(f, a, 0),
  cos: (f, a) => sin(f, a, 1),
  tanh,
  sigmoid: (f, a) => f32x4.div(f.constant(1), f32x4.add(f.constant(1), exp(f, f32x4.neg(a)))),
  erf,
  less: (f, a, b) => v128.and(f32x4.lt(a, b), f.constant(1)),
  select: (f, a, b, c) => v128.select(c, b, f32x4.eq(a, f.constant(0))),
  f16Low: (f, a) => half(f, v128.and(a, f.constant(0xffff, "integer"))),
  f16High: (f, a) => half(f, i32x4.shrUnsigned(a, 16)),
  bf16Low: (_, a) => i32x4.shl(a, 16),
  bf16High: (f, a) => v128.and(a, f.constant(-0x10000, "integer")),
};

/**
 * Emits expressions; a product that is used once, by a sum, is fused with it.
 *
 * @param argument The vector of an input, which may be loaded at its first use; of integers, as floats
 * or as they are.
 */
export function emitExpressions(
  f: Body,
  expressions: readonly Expression[],
  argument: (index: number, isWord: boolean) => Operand,
): Operand[] {
  const order = inOrder(expressions), uses = new Map<Expression, number>();
  for (const e of order) {
    if (e.kind === "call") { for (const o of e.operands) uses.set(o, (uses.get(o) ?? 0) + 1); }
  }
  for (const e of expressions) uses.set(e, (uses.get(e) ?? 0) + 1);
  const values = new Map<Expression, Operand>();
  const product = (e: Expression): readonly Expression[] | undefined =>
    e.kind === "call" && e.primitive === "mul" && uses.get(e) === 1 ? e.operands : undefined;
  const visit = (e: Expression): Operand => {
    let value = values.get(e);
    if (value === undefined) {
      value = compute(e);
      // What is used again, or emits statements of its own, is kept in a variable.
      if (!(value instanceof Local)) value = f.vector(value);
      values.set(e, value);
    }
    return value;
  };
  const compute = (e: Expression): Operand => {
    if (e.kind === "constant") return f.constant(e.value);
    if (e.kind === "argument") return argument(e.index, false);
    const word = wordOf(e);
    if (word) return emitters[e.primitive](f, argument(word.index, true), 0, 0);
    const { primitive, operands: [a, b, c] } = e;
    if (primitive === "add") {
      const [inner, outer] = product(a) ? [product(a)!, b] : [product(b), a];
      if (inner) return f32x4.madd(visit(inner[0]), visit(inner[1]), visit(outer));
    }
    if (primitive === "sub" && product(b)) {
      const [p, q] = product(b)!;
      return f32x4.nmadd(visit(p), visit(q), visit(a));
    }
    return emitters[primitive](f, visit(a), b ? visit(b) : 0, c ? visit(c) : 0);
  };
  return expressions.map(visit);
}

/** Elementary functions for kernels that are not made of expressions. */
export const vectorFunctions: {
  readonly exp: (f: Body, x: Operand) => Code;
  readonly log: (f: Body, x: Operand) => Code;
  readonly sin: (f: Body, x: Operand, quarter: 0 | 1) => Code;
} = { exp, log, sin };
