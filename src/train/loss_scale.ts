/**
 * Dynamic loss scaling (Micikevicius et al., "Mixed precision training", 2018), for gradients that are
 * kept as 16-bit floats: they are computed of the loss times a scale, so that small ones do not vanish.
 * Where they overflow, the step is skipped and the scale halved; after many good steps it is doubled.
 * All of it happens on the device; nothing is read back.
 *
 * @module
 */

import * as e from "../gpu/expression.ts";
import type { Graph } from "../gpu/graph.ts";
import { map, mul } from "../gpu/ops/map.ts";
import { slice } from "../gpu/ops/view.ts";
import { constant, input, type Tensor } from "../gpu/tensor.ts";

/** Where the scale starts and what it does not leave. */
const FIRST_SCALE = 2 ** 16, MIN_SCALE = 1, MAX_SCALE = 2 ** 24;
/** Good steps after which it is doubled. */
const PATIENCE = 2000;
/** Norms of sums of finite squares are below it; infinity and NaN are not. */
const FINITE = 1e19;

/**
 * The numbers of the state: the scale, good steps since it changed, and the powers of Adam's betas by
 * the steps that were not skipped.
 */
const FIRST: readonly number[] = [FIRST_SCALE, 0, 1, 1];

/** The state of loss scaling among the tensors of a step. */
export class LossScale {
  /** What the state is before the first step. */
  static readonly first: readonly number[] = FIRST;
  /** `[1]`. */
  readonly scale: Tensor;
  readonly #state: Tensor = input("scaling", [FIRST.length]);

  constructor() {
    this.scale = this.#at(0);
  }

  #at(i: number): Tensor {
    return slice(this.#state, 0, i, 1);
  }

  /** What follows of the norm of scaled gradients. */
  judge(scaledNorm: Tensor, betas: readonly [number, number]): ScalerUpdate {
    const isGood = map([scaledNorm], (n) => e.less(n, FINITE));
    const powers = betas.map((beta, i) => mul(this.#at(2 + i), beta));
    return {
      isGood,
      norm: map([scaledNorm, this.scale], e.div),
      corrections: [
        map([powers[0]], (p) => e.div(1, e.sub(1, p))),
        map([powers[1]], (p) => e.div(1, e.sqrt(e.sub(1, p)))),
      ],
      updates: [this.#next(isGood, betas)],
    };
  }

  /** The state after a step. */
  #next(isGood: Tensor, [beta1, beta2]: readonly [number, number]): Graph["updates"][number] {
    const place = constant([0, 1, 2, 3]), factors = constant([1, 1, beta1, beta2]);
    const next = map(
      [this.#state, this.scale, this.#at(1), isGood, place, factors],
      (old, scale, streak, isGood, place, factor) => {
        const isPatient = e.less(streak, PATIENCE - 1);
        const grown = e.select(isPatient, scale, e.min(e.mul(scale, 2), MAX_SCALE));
        const good = choose(
          place,
          grown,
          e.select(isPatient, e.add(streak, 1), 0),
          e.mul(old, factor),
        );
        const bad = choose(place, e.max(e.mul(scale, 0.5), MIN_SCALE), e.constant(0), old);
        return e.select(isGood, good, bad);
      },
    );
    return [this.#state, next];
  }
}

/** What follows of a step's gradients. */
export interface ScalerUpdate {
  /** 1 if they are finite, else 0. */
  readonly isGood: Tensor;
  /** Their norm without the scale. */
  readonly norm: Tensor;
  /** Of the biases of Adam's moments, at this step. */
  readonly corrections: readonly [Tensor, Tensor];
  /** Of the state of loss scaling. */
  readonly updates: Graph["updates"];
}

/** The first value at place 0, the second at 1, the third elsewhere. */
const choose = (
  place: e.Expression,
  first: e.Expression,
  second: e.Expression,
  other: e.Expression,
) => e.select(place, e.select(e.less(place, 1.5), second, other), first);

/** The same updates where a step is good; state stays as it was where it is skipped. */
export const unlessSkipped = (updates: Graph["updates"], isGood: Tensor): Graph["updates"] =>
  updates.map(([state, next]) => [
    state,
    map([state, next, isGood], (state, next, isGood) => e.select(isGood, next, state)),
  ]);

/** Whether the norm of scaled gradients is that of a step that was skipped. */
export const isOverflow = (scaledNorm: number): boolean => !(scaledNorm < FINITE);

/** Whether the scale is as small as it gets, so that what overflows is not for its sake. */
export const isExhausted = (scale: number): boolean => scale <= MIN_SCALE;
