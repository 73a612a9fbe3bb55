/**
 * Elementwise work inside the kernels of other operations: as WGSL functions over vectors of four,
 * with the bindings and uniforms that they need.
 *
 * @module
 */

import type { Expression } from "../expression.ts";
import { type Access, collapse, type Elementwise, type Fused } from "../compile/loop.ts";
import { denseStrides, refine, type Refined, type Shape } from "../../shape.ts";
import { type Storage, storageSize } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { emit, functionsFor } from "./expression.ts";
import {
  alignmentOf,
  bind,
  type Binding,
  type Kernel,
  type KernelParts,
  load,
  makeKernel,
} from "./kernel.ts";

/** Where elements are: a number for each axis of a domain, as WGSL. */
type Place = readonly string[];

/** What an expression reads, bound to a kernel. */
class Operands {
  readonly bindings: Binding[] = [];
  readonly uniforms: Record<string, number> = {};
  readonly #prefix: string;
  readonly #parts: { index: number; start: string; strides: string[]; step: "four" | "each" | 0 }[];

  /**
   * @param operands Their strides are along the axes of `sizes`.
   * @param isVector Whether elements are read four at a time, along the last axis.
   */
  constructor(
    prefix: string,
    operands: readonly Access<Tensor>[],
    sizes: readonly number[],
    isVector: boolean,
  ) {
    this.#prefix = prefix;
    this.#parts = operands.map((access, k) => {
      const { strides } = access, last = strides.length - 1;
      const isAligned = strides.slice(0, -1).every((s) => s % 4 === 0) && access.offset % 4 === 0;
      const step = strides[last] === 0 || !isVector ? 0 : isAligned ? "four" : "each";
      const end = sizes.reduce((n, size, i) => n + (size - 1) * strides[i], access.offset) + 1;
      const { index, start } = this.#bind(access, end, step === "four");
      const unit = step === "four" ? 4 : 1;
      return {
        ...{ index, step },
        start: start ? this.#uniform(`start${k}`, start / unit) : "",
        strides: strides.map((s, i) => {
          if (s === 0 || sizes[i] === 1) return "";
          return s === 1 ? "1" : this.#uniform(`s${k}_${i}`, s / unit);
        }),
      };
    });
  }

  /** Binds what an operand reaches; operands that lie side by side share a binding. */
  #bind({ storage, offset }: Access<Tensor>, end: number, vector: boolean) {
    const alignment = alignmentOf(storage), from = offset - offset % alignment;
    const length = Math.min(storageSize(storage), Math.ceil(end / 4) * 4) - from;
    const near = this.bindings.findIndex((b) =>
      b.storage === storage && b.vector === vector && from >= b.offset &&
      from <= b.offset + b.length + alignment
    );
    const index = near < 0 ? this.bindings.length : near, name = `${this.#prefix}${index}`;
    const first = near < 0 ? from : this.bindings[near].offset;
    const longest = Math.max(from + length - first, this.bindings[near]?.length ?? 0);
    this.bindings[index] = { name, storage, offset: first, length: longest, vector, write: false };
    return { index, start: offset - first };
  }

  #uniform(name: string, value: number): string {
    const full = `${this.#prefix}_${name}`;
    this.uniforms[full] = value;
    return `u.${full}`;
  }

  /** Whether an operand does not move along some axes. */
  isFixed(k: number, axes: readonly number[]): boolean {
    return axes.every((axis) => this.#parts[k].strides[axis] === "");
  }

  /** WGSL of type `T` that reads an operand. The last axis counts elements. */
  read(k: number, place: Place): string {
    const { index, start, strides, step } = this.#parts[k], binding = this.bindings[index];
    const terms = place.flatMap((at, i) => {
      const stride = strides[i];
      if (stride === "") return [];
      if (stride !== "1") return [`${at} * ${stride}`];
      return [step === "four" ? `(${at} >> 2u)` : at];
    });
    const at = [...(start ? [start] : []), ...terms].join(" + ") || "0u";
    // A vector is not made of one integer.
    const one = (at: string) => {
      const value = load(binding, at);
      return binding.storage.dtype === "f32" ? value : `f32(${value})`;
    };
    if (step === "four") return load(binding, at);
    if (step === 0) return `T(${one(at)})`;
    return `T(${[0, 1, 2, 3].map((i) => one(`${at} + ${i}u`))})`;
  }
}

/** What makes the numbers of a convolution's image while they are read. */
export class FusedInput {
  readonly #name = "input";
  readonly #operands: Operands;
  readonly #elementwise: Elementwise;
  /** The axes of the domain, which are parts of those of the image. */
  readonly #axes: readonly Refined[];

  /** @param image What the kernel reads, `[batch, height, width, channels]`, as if it existed. */
  constructor(image: Shape, elementwise: Elementwise) {
    this.#elementwise = elementwise;
    this.#axes = refine(image, elementwise.domain)!;
    this.#operands = new Operands("in", elementwise.operands, elementwise.domain, true);
  }

  get expression(): Expression {
    return this.#elementwise.expression;
  }
  get bindings(): readonly Binding[] {
    return this.#operands.bindings;
  }
  get uniforms(): Readonly<Record<string, number>> {
    return this.#operands.uniforms;
  }

  /** WGSL of the function. */
  get function(): string {
    const { operands, expression } = this.#elementwise;
    const { statements, values } = emit([expression], (i) => `x${i}`);
    const parameters = operands.map((_, k) => `x${k}: T`).join(", ");
    return `fn ${this.#name}(${parameters}) -> T {\n${statements}\nreturn ${values[0]};\n}`;
  }

  /** Four channels of a pixel. */
  value(place: Place, held: (k: number) => string | undefined = () => undefined): string {
    const operands = this.#elementwise.operands.map((_, k) => held(k) ?? this.read(k, place));
    return `${this.#name}(${operands})`;
  }

  /** Operands that are the same for all pixels of an image. */
  get fixed(): number[] {
    const moving = this.#axes.flatMap(({ axis }, i) => axis === 1 || axis === 2 ? [i] : []);
    return this.#elementwise.operands.flatMap((_, k) =>
      this.#operands.isFixed(k, moving) ? [k] : []
    );
  }

  read(k: number, place: Place): string {
    return this.#operands.read(
      k,
      this.#axes.map(({ axis, inner, size, isFirst }) => {
        const at = inner === 1 ? place[axis] : `${place[axis]} / ${inner}u`;
        return isFirst ? `(${at})` : `(${at} % ${size}u)`;
      }),
    );
  }
}

/** What becomes of a kernel's result before it is written. */
class FusedOutput {
  readonly bindings: readonly Binding[];
  readonly uniforms: Record<string, number>;
  readonly function: string;
  readonly expression: Expression;

  constructor({ domain, operands, expression }: Elementwise, isVector: boolean) {
    const results = [{ strides: denseStrides(domain) }] as unknown as [];
    const summed = domain.map(() => false);
    const axes = collapse({ ...{ label: "", domain, summed, operands, results } });
    const sizes = axes.map(({ size }) => size);
    const accesses = operands.map((o, k) => ({ ...o, strides: axes.map((a) => a.strides[k]) }));
    const reads = new Operands("out", accesses, sizes, isVector);
    this.uniforms = reads.uniforms;
    // Where the element is along each axis.
    const place = axes.map(({ size, strides }, i) => {
      const inner = strides.at(-1)!;
      const by = (name: string, value: number) => {
        this.uniforms[`out_${name}${i}`] = value;
        return `u.out_${name}${i}`;
      };
      const at = inner === 1 ? "at" : `at / ${by("inner", inner)}`;
      return i === 0 ? `(${at})` : `(${at} % ${by("size", size)})`;
    });
    const loads = operands.map((_, k) => `let x${k + 1} = ${reads.read(k, place)};`);
    const { statements, values } = emit([expression], (i) => `x${i}`);
    this.bindings = reads.bindings;
    this.expression = expression;
    this.function = [
      "fn finish(at: u32, x0: T) -> T {",
      ...[...loads, statements, `return ${values[0]};`, "}"],
    ].join("\n");
  }
}

/** What a kernel computes along with its operation. */
export class FusedWork {
  readonly input: FusedInput | undefined;
  readonly #output: FusedOutput | undefined;
  /** Where the kernel writes, `y`. */
  readonly result: Binding;
  readonly #isVector: boolean;

  /**
   * @param result Where the result goes if nothing becomes of it.
   * @param isVector Whether the result is written four elements at a time.
   * @param image The tensor whose place the computed input takes.
   */
  constructor(result: Storage, fused: Fused, isVector: boolean, image?: Tensor) {
    const { input, output } = fused;
    this.#isVector = isVector;
    this.input = input && image && new FusedInput(image.shape, input);
    this.#output = output && new FusedOutput(output, isVector);
    this.result = bind("y", output?.storage ?? result, { vector: isVector, write: true });
  }

  /** WGSL of what to write instead of an element at `at`, or four of them, if anything is. */
  get finish(): ((at: string, value: string) => string) | undefined {
    if (!this.#output) return undefined;
    return (at, value) =>
      this.#isVector ? `finish(${at}, ${value})` : `finish(${at}, T(${value})).x`;
  }

  /** A kernel that has it all; its result is `y`. */
  kernel(parts: KernelParts): Kernel {
    const all = [this.input, this.#output].filter((part) => part !== undefined);
    const functions = [
      ...(parts.functions ? [parts.functions] : []),
      ...(all.length ? [functionsFor(all.map((part) => part.expression), "vec4f")] : []),
      ...all.map((part) => part.function),
    ];
    return makeKernel({
      ...parts,
      bindings: [...parts.bindings, this.result, ...(this.#output?.bindings ?? [])],
      uniforms: { ...parts.uniforms, ...this.input?.uniforms, ...this.#output?.uniforms },
      ...(functions.length ? { functions: functions.join("\n") } : {}),
    });
  }
}
