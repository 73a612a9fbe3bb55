/**
 * 16-bit floats, IEEE 754's binary16: by the engine's own arrays where there are such (Deno, Node 24,
 * browsers of 2025), by arithmetic where there are none.
 *
 * @module
 */

/** Numbers of 16-bit floats, in the order of their bits. */
export function widenHalves(
  bits: Uint16Array<ArrayBuffer>,
  values: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  if (globalThis.Float16Array) {
    values.set(new Float16Array(bits.buffer, bits.byteOffset, bits.length));
  } else for (let i = 0; i < bits.length; i++) values[i] = widenHalf(bits[i]);
  return values;
}

/** The bits of numbers rounded to the nearest 16-bit floats, of two equally near ones to the even. */
export function roundToHalves(values: Float32Array<ArrayBuffer>): Uint16Array<ArrayBuffer> {
  if (globalThis.Float16Array) return new Uint16Array(new Float16Array(values).buffer);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < halves.length; i++) halves[i] = roundToHalf(bits[i], values[i]);
  return halves;
}

const word = new Uint32Array(1), float = new Float32Array(word.buffer);

/** The number of a 16-bit float. */
export function widenHalf(half: number): number {
  const exponent = half & 0x7c00, fraction = half & 0x3ff;
  if (!exponent) return (half & 0x8000 ? -fraction : fraction) * 2 ** -24;
  const isFinite = exponent !== 0x7c00;
  // 127 is what exponents of 32 bits are counted from, and 15 what those of 16 are.
  word[0] = (half & 0x8000) << 16 |
    (isFinite ? ((half & 0x7fff) << 13) + (127 - 15 << 23) : 0x7f800000 | fraction << 13);
  return float[0];
}

/** The 16-bit float that is nearest to a number, of which the 32 bits are given too. */
function roundToHalf(bits: number, value: number): number {
  const sign = bits >>> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return sign | 0x7e00;
  // From 2^16 on; what is rounded up to that becomes infinite by itself.
  if (size >= 0x47800000) return sign | 0x7c00;
  // Below 2^-14 they are multiples of 2^-24.
  if (size < 0x38800000) {
    const units = Math.abs(value) * 2 ** 24, whole = Math.floor(units), rest = units - whole;
    return sign | whole + Number(rest > 0.5 || rest === 0.5 && whole & 1);
  }
  return sign | (size - (127 - 15 << 23) + 0xfff + (size >> 13 & 1)) >> 13;
}
