/**
 * Layers of networks that other projects wrote: each asks for its parameters by the names that they
 * have there.
 *
 * @module
 */

import type { Window } from "../gpu/convolution.ts";
import { conv2d, same } from "../gpu/ops/conv2d.ts";
import { groupNorm } from "../gpu/ops/group_norm.ts";
import { linear } from "../gpu/ops/matmul.ts";
import { dropout } from "../gpu/ops/random.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { Forward } from "./network.ts";
import type { ParameterSpec } from "./parameters.ts";

type Initializer = ParameterSpec["init"];

/** Makes layers of a forward pass. */
export class NamedLayers {
  readonly #forward: Forward;
  #stream: number;

  constructor(forward: Forward) {
    this.#forward = forward;
    this.#stream = forward.firstStream ?? 0;
  }

  /** A parameter as it is. */
  plain(name: string, shape: readonly number[], init: Initializer = "ones"): Tensor {
    return this.#get(name, shape, "plain", init);
  }

  /** Convolution of `size` × `size`. */
  conv(
    name: string,
    x: Tensor,
    channels: number,
    size: 1 | 3 | 7,
    { window = same(size), init = "xavier", hasBias = true }: {
      readonly window?: Window;
      readonly init?: Initializer;
      readonly hasBias?: boolean;
    } = {},
  ): Tensor {
    const weight = this.#get(`${name}.weight`, [size, size, x.shape[3], channels], "conv", init);
    const bias = hasBias ? this.plain(`${name}.bias`, [channels], "zeros") : undefined;
    return conv2d(x, weight, bias, window);
  }

  /** Dense layer over the last axis. */
  dense(name: string, x: Tensor, size: number, init: Initializer = "xavier"): Tensor {
    const weight = this.#get(`${name}.weight`, [size, x.shape.at(-1)!], "linear", init);
    return linear(x, weight, this.plain(`${name}.bias`, [size], "zeros"));
  }

  /** Group normalisation with an epsilon of 1e-5. */
  norm(name: string, x: Tensor, groups: number): Tensor {
    const channels = x.shape.at(-1)!, scale = this.plain(`${name}.weight`, [channels]);
    return groupNorm(x, scale, this.plain(`${name}.bias`, [channels], "zeros"), groups, 1e-5);
  }

  /** Drops values with a probability, in training. */
  drop(x: Tensor, rate: number): Tensor {
    const { random } = this.#forward;
    return random && rate ? dropout(x, rate, random, this.#stream++) : x;
  }

  #get(name: string, shape: readonly number[], order: ParameterSpec["order"], init: Initializer) {
    return this.#forward.parameter({ name, shape, order, init, isTrained: true });
  }
}
