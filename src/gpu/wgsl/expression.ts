/**
 * {@linkcode Expression}s as WGSL, over the type alias `T` (`f32` or `vec4f`).
 *
 * WGSL leaves the accuracy of `sin` and `cos` beyond ±π open, and drivers round them, `log` and
 * `exp` coarsely (lavapipe's `exp` is off by up to 6e-7); the functions here are within 2e-7 of the
 * true value on every device.
 *
 * @module
 */

import { erfQuotient } from "../erf.ts";
import { type Expression, inOrder, type Primitive, wordOf } from "../expression.ts";

/** A float literal. */
export function literal(value: number): string {
  if (value === Infinity || value === -Infinity || Number.isNaN(value)) {
    throw new RangeError(`Cannot write ${value} in WGSL: constants must be finite`);
  }
  const text = `${Math.fround(value)}`;
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}

const templates: Record<Primitive, (a: string, b: string, c: string) => string> = {
  add: (a, b) => `${a} + ${b}`,
  sub: (a, b) => `${a} - ${b}`,
  mul: (a, b) => `${a} * ${b}`,
  div: (a, b) => `${a} / ${b}`,
  neg: (a) => `-${a}`,
  min: (a, b) => `min(${a}, ${b})`,
  max: (a, b) => `max(${a}, ${b})`,
  exp: (a) => `exp_accurate(${a})`,
  log: (a) => `log_accurate(${a})`,
  sqrt: (a) => `sqrt(${a})`,
  sin: (a) => `sin_accurate(${a}, 0.0)`,
  cos: (a) => `sin_accurate(${a}, 1.0)`,
  tanh: (a) => `tanh_accurate(${a})`,
  sigmoid: (a) => `1.0 / (1.0 + exp_accurate(-${a}))`,
  erf: (a) => `erf_accurate(${a})`,
  less: (a, b) => `select(T(), T(1.0), ${a} < ${b})`,
  select: (a, b, c) => `select(${c}, ${b}, ${a} != T())`,
  f16Low: (a) => `half_value(U(${a}) & U(0xffffu))`,
  f16High: (a) => `half_value(U(${a}) >> U(16u))`,
  bf16Low: (a) => `bitcast<T>(U(${a}) << U(16u))`,
  bf16High: (a) => `bitcast<T>(U(${a}) & U(0xffff0000u))`,
};

/** Functions that expressions need at module scope, for `T` = `type`. */
export function functionsFor(expressions: readonly Expression[], type: "f32" | "vec4f"): string {
  const used = new Set(inOrder(expressions).flatMap((s) => s.kind === "call" ? [s.primitive] : []));
  const uses = (...names: Primitive[]) => names.some((name) => used.has(name));
  return [
    aliases(type),
    ...(uses("exp", "sigmoid", "tanh", "erf") ? [EXP] : []),
    ...(uses("log") ? [LOG] : []),
    ...(uses("sin", "cos") ? [SIN] : []),
    ...(uses("tanh") ? [TANH] : []),
    ...(uses("erf") ? [ERF] : []),
    ...(uses("f16Low", "f16High") ? [HALF] : []),
  ].join("\n");
}

/** The types that the functions here are written in: `T`, and integers of the same width. */
export const aliases = (type: "f32" | "vec4f"): string =>
  type === "f32"
    ? "alias T = f32; alias I = i32; alias U = u32;"
    : "alias T = vec4f; alias I = vec4i; alias U = vec4u;";

/** eˣ = 2ⁿ eʳ with r in ±½ ln 2, subtracted in two parts; x beyond [-87, 88] counts as its ends. */
export const EXP = /* wgsl */ `
fn exp_accurate(x: T) -> T {
  let y = clamp(x, T(-87.0), T(88.0));
  let n = round(y * 1.442695);
  let r = (y - n * 0.693359375) + n * 2.12194440e-4;
  let p = 0.5 + r * (0.16666667 + r * (4.1666668e-2 + r * (8.3333338e-3 + r * 1.3888889e-3)));
  let e = 1.0 + (r + r * r * p);
  return e * bitcast<T>((I(n) + I(127)) << U(23u));
}`;

/**
 * Natural logarithm of normal positive numbers: x = 2ᵏ m with m in [√½, √2), then
 * ln m = 2 artanh((m - 1) / (m + 1)) as a series; ln 2 in two parts.
 */
export const LOG = /* wgsl */ `
fn log_accurate(x: T) -> T {
  let k = (bitcast<I>(x) - I(0x3f3504f3)) >> U(23u);
  let m = bitcast<T>(bitcast<I>(x) - (k << U(23u)));
  let s = (m - 1.0) / (m + 1.0);
  let z = s * s;
  let series = s * (2.0 + z * (0.6666667 + z * (0.4 + z * (0.2857143 + z * 0.2222222))));
  return T(k) * 0.693359375 + (series - T(k) * 2.12194440e-4);
}`;

/**
 * sin(x + quarter * π/2): x is reduced by the nearest multiple of π/2 in three exact parts (Cody and
 * Waite), then Taylor series of sine and cosine on ±π/4.
 */
const SIN = /* wgsl */ `
fn sin_accurate(x: T, quarter: f32) -> T {
  let n = round(x * 0.63661977);
  let r = ((x - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.549789948768648e-8;
  let z = r * r;
  let s = r + r * z * (-0.16666667 + z * (8.3333310e-3 + z * (-1.9840874e-4 + z * 2.7525562e-6)));
  let c = 1.0 + z * (-0.5 + z * (4.1666664e-2 + z * (-1.3888397e-3 + z * 2.4433157e-5)));
  let q = n + quarter;
  let odd = q - 2.0 * floor(q * 0.5);
  let half = floor(q * 0.5);
  let sign = 1.0 - 2.0 * (half - 2.0 * floor(half * 0.5));
  return sign * select(s, c, odd > T(0.5));
}`;

/** tanh by its series near zero, by the exponential function elsewhere. */
const TANH = /* wgsl */ `
fn tanh_accurate(x: T) -> T {
  let z = x * x;
  let near = x * (1.0 + z * (-0.33333334 + z * (0.13333334 + z * (-0.05396825 + z * 0.02186949))));
  let far = 1.0 - 2.0 / (exp_accurate(2.0 * min(abs(x), T(20.0))) + 1.0);
  return select(sign(x) * far, near, abs(x) < T(0.25));
}`;

/** Horner's scheme in z. */
const horner = (coefficients: readonly number[]): string =>
  coefficients.map(literal).reduceRight((sum, c) => `(${c} + z * ${sum})`);

/** See {@linkcode erfQuotient}. */
const ERF = /* wgsl */ `
fn erf_accurate(x: T) -> T {
  let near = clamp(x, T(${literal(-erfQuotient.limit)}), T(${literal(erfQuotient.limit)}));
  let z = near * near;
  let quotient = near * ${horner(erfQuotient.numerator)} / ${horner(erfQuotient.denominator)};
  return select(quotient, sign(x), abs(x) > T(${literal(erfQuotient.limit)}));
}`;

/**
 * The float of 16 bits, as integers up to the end: `unpack2x16float` may take subnormals for zero, and
 * compilers may believe that there are no infinities. The exponent's bias grows by 112, of infinities
 * and NaN once more; subnormals are multiples of 2⁻²⁴.
 */
const HALF = /* wgsl */ `
fn half_value(h: U) -> T {
  let m = h & U(0x7fffu);
  let normal = (m << U(13u)) + U(0x38000000u);
  let large = select(normal, normal + U(0x38000000u), m >= U(0x7c00u));
  let size = select(large, bitcast<U>(T(m) * 5.9604645e-8), m < U(0x400u));
  return bitcast<T>(size | ((h & U(0x8000u)) << U(16u)));
}`;

/**
 * Statements that compute expressions, and the name or literal that holds each of them.
 *
 * @param isInteger Arguments that are of type `I`.
 */
export function emit(
  expressions: readonly Expression[],
  argument: (index: number) => string,
  isInteger: (index: number) => boolean = () => false,
): { statements: string; values: string[] } {
  const names = new Map<Expression, string>(), lines: string[] = [];
  for (const e of inOrder(expressions)) {
    if (e.kind === "constant") names.set(e, `T(${literal(e.value)})`);
    else if (e.kind === "argument") {
      names.set(e, isInteger(e.index) ? `T(${argument(e.index)})` : argument(e.index));
    } else {
      const word = wordOf(e);
      const [a, b, c] = word ? [argument(word.index)] : e.operands.map((o) => names.get(o)!);
      const name = `t${lines.length}`;
      lines.push(`let ${name} = ${templates[e.primitive](a, b, c)};`);
      names.set(e, name);
    }
  }
  return { statements: lines.join("\n"), values: expressions.map((e) => names.get(e)!) };
}
