/**
 * Philox4x32-10 in WGSL, the twin of `../philox.ts`.
 *
 * @module
 */

import type { RandomAttributes } from "../philox.ts";
import { PHILOX } from "../philox.ts";
import { sizeOf } from "../../shape.ts";
import { aliases, LOG } from "./expression.ts";
import { bind, bindInput, makeKernel, type Variant } from "./kernel.ts";

const GENERATOR = /* wgsl */ `
fn mul_high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu; let a1 = a >> 16u; let b0 = b & 0xffffu; let b1 = b >> 16u;
  let middle = a1 * b0 + ((a0 * b0) >> 16u);
  let low = (middle & 0xffffu) + a0 * b1;
  return a1 * b1 + (middle >> 16u) + (low >> 16u);
}
fn philox(start: vec4u, seed: vec2u) -> vec4u {
  var c = start;
  var k = seed;
  for (var round = 0; round < 10; round++) {
    c = vec4u(
      mul_high(${PHILOX.m1}u, c.z) ^ c.y ^ k.x, ${PHILOX.m1}u * c.z,
      mul_high(${PHILOX.m0}u, c.x) ^ c.w ^ k.y, ${PHILOX.m0}u * c.x,
    );
    k += vec2u(${PHILOX.w0}u, ${PHILOX.w1}u);
  }
  return c;
}`;

/** Box and Muller; cosine and sine of a turn by Taylor series on an eighth of it. */
const NORMAL = /* wgsl */ `
${aliases("f32")}
${LOG}
fn turn(word: u32) -> vec2f {
  // The nearest quarter turn and the signed rest of it, which is exact.
  let quarter = (word + 0x20000000u) >> 30u;
  let rest = bitcast<i32>(word - (quarter << 30u));
  let r = (f32(rest) + 0.5) * 1.4629180792671596e-9;
  let z = r * r;
  let s = r + r * z * (-0.16666667 + z * (8.3333333e-3 + z * (-1.9841270e-4 + z * 2.7557319e-6)));
  let c = 1.0 + z * (-0.5 + z * (4.1666667e-2 + z * (-1.3888889e-3 + z * 2.4801587e-5)));
  let swapped = select(vec2f(c, s), vec2f(-s, c), (quarter & 1u) == 1u);
  return select(swapped, -swapped, (quarter & 2u) == 2u);
}
fn normals(a: u32, b: u32) -> vec2f {
  return sqrt(-2.0 * log_accurate((f32(a) + 0.5) * 2.3283064365386963e-10)) * turn(b);
}`;

/** The kernel of random tensors: an invocation makes many blocks of four. */
export const randomVariant: Variant<RandomAttributes> = {
  name: "block",
  lower(node, target) {
    const { distribution, stream, below } = node.attributes, [seed, first, step] = node.inputs;
    const elements = sizeOf(node.shape.slice(1)), blocks = Math.ceil(elements / 4);
    const count = blocks * node.shape[0], span = target.lanes * 16;
    const number = sizeOf(first.shape) > 1 ? "first[image]" : "first[0] + i32(image)";
    const values = {
      normal: "let v = vec4f(normals(w.x, w.y), normals(w.z, w.w));",
      uniform: "let v = (vec4f(w) + 0.5) * 2.3283064365386963e-10;",
      integer: `let v = bitcast<vec4i>(vec4u(${
        ["x", "y", "z", "w"].map((c) => `mul_high(w.${c}, u.below)`)
      }));`,
    }[distribution];
    return [makeKernel({
      label: `random ${distribution}`,
      bindings: [
        bindInput("seed", seed),
        bindInput("first", first),
        bindInput("step", step),
        bind("y", node, { write: true }),
      ],
      uniforms: {
        elements,
        blocks,
        count,
        stream,
        ...(distribution === "integer" ? { below } : {}),
      },
      functions: GENERATOR + (distribution === "normal" ? NORMAL : ""),
      lanes: target.lanes,
      body: `let begin = group.x * ${span}u;
let key = bitcast<vec2u>(vec2i(seed[0], seed[1]));
for (var i = begin + lane; i < min(begin + ${span}u, u.count); i += ${target.lanes}u) {
  let image = i / u.blocks; let block = i % u.blocks;
  let w = philox(vec4u(block, bitcast<u32>(${number}), bitcast<u32>(step[0]), u.stream), key);
  ${values}
  let at = image * u.elements + block * 4u;
  y[at] = v.x;
  if (block * 4u + 1u < u.elements) { y[at + 1u] = v.y; }
  if (block * 4u + 2u < u.elements) { y[at + 2u] = v.z; }
  if (block * 4u + 3u < u.elements) { y[at + 3u] = v.w; }
}`,
      workgroups: [Math.ceil(count / span), 1, 1],
    })];
  },
};
