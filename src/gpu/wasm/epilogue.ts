/**
 * Epilogues: what is made of a convolution's or product's result while it is in registers. Operands lie
 * either like the result, or are one number an image and channel.
 *
 * @module
 */

import type { Fused } from "../compile/loop.ts";
import { denseStrides } from "../../shape.ts";
import type { Storage } from "../storage.ts";
import type { Tensor } from "../tensor.ts";
import { add, type Body, load, type Local, mul, type Operand, sub } from "./assembler.ts";
import type { Pointer } from "./kernel.ts";
import { emitExpressions } from "./vector.ts";

/** The epilogue of a kernel. */
export class Epilogue {
  /** What the kernel writes. */
  readonly target: Storage;
  /** Pointers of the operands, for the kernel's list. */
  readonly pointers: readonly Pointer[];
  /** What tells its code from that of others. */
  readonly key: string;
  readonly #output: Fused["output"];
  /** For each operand, bytes between images, or `undefined` if it lies like the result. */
  readonly #imageStrides: readonly (number | undefined)[];

  constructor(node: Tensor, { output }: Fused) {
    const domain = output?.domain ?? node.shape, dense = denseStrides(domain);
    const operands = output?.operands ?? [];
    this.#output = output;
    this.target = output?.storage ?? node;
    const fit = (strides: readonly number[]) =>
      strides.every((s, i) => s === dense[i] || domain[i] === 1);
    this.#imageStrides = operands.map(({ strides }) => fit(strides) ? undefined : 4 * strides[0]);
    this.pointers = operands.map(({ storage, offset }, k) => ({
      ...{ storage, offset: 4 * offset, write: false },
      isInStep: this.#imageStrides[k] === undefined,
    }));
    this.key = JSON.stringify([output?.expression.id, this.#imageStrides]);
  }

  /** Whether an operand lies like the result. */
  get readsLikeResult(): boolean {
    return this.#imageStrides.includes(undefined);
  }

  /** Starts using it in a kernel whose result is at `y`. */
  begin(f: Body, y: Local, pointers: readonly Local[]): EpilogueCode {
    const strides = this.#imageStrides;
    // How far an operand that lies like the result is from it, or where its image's channels are.
    const bases = pointers.map((p, k) =>
      strides[k] === undefined ? f.integer(sub(p, y)) : f.integer(p)
    );
    const images = pointers.map((_, k) => strides[k] === undefined ? bases[k] : f.local("i32"));
    return {
      enterImage: (n) =>
        images.forEach((image, k) => {
          const stride = strides[k];
          if (stride !== undefined) f.set(image, add(bases[k], mul(n, stride)));
        }),
      apply: (value, address, offset, channel) => {
        const output = this.#output;
        if (!output) return value;
        const result = f.vector(value);
        return emitExpressions(f, [output.expression], (i) => {
          if (i === 0) return result;
          const k = i - 1, isAlike = strides[k] === undefined;
          return isAlike
            ? load(add(address, bases[k]), offset)
            : load(add(images[k], channel.address), channel.offset);
        })[0];
      },
    };
  }
}

/** An epilogue at work. */
export interface EpilogueCode {
  /** Moves to an image. */
  enterImage(n: Operand): void;
  /**
   * The value to store instead of a result.
   *
   * @param address Where the result would be, with `offset`.
   * @param channel Bytes of its first channel.
   */
  apply(
    value: Operand,
    address: Operand,
    offset: number,
    channel: { readonly address: Operand; readonly offset: number },
  ): Operand;
}
