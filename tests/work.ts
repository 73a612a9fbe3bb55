/**
 * Counting of work in place of a clock: what the methods of arrays, sets and maps walk through.
 *
 * @module
 */

type Method = (this: unknown, ...args: unknown[]) => unknown;
type Cost = (self: { readonly length: number; readonly size: number }) => number;

const one: Cost = () => 1, length: Cost = ({ length }) => length, size: Cost = ({ size }) => size;

/** Methods that call back until they are told to stop: each call counts. */
const searches = ["every", "some", "find", "findIndex", "findLast", "findLastIndex"];

const costs: readonly (readonly [prototype: object, cost: Cost, names: readonly PropertyKey[]])[] =
  [
    [Array.prototype, one, ["push", "pop", "at"]],
    [Array.prototype, length, [
      ...["map", "flatMap", "filter", "forEach", "reduce", "slice", "concat", "toSorted", "sort"],
      ...["toReversed", "indexOf", "lastIndexOf", "includes", "join", "toString", Symbol.iterator],
    ]],
    [Map.prototype, one, ["get", "set", "has", "delete"]],
    [Map.prototype, size, ["forEach", "entries", "keys", "values", Symbol.iterator]],
    [Set.prototype, one, ["add", "has", "delete"]],
    [Set.prototype, size, [
      ...["forEach", "entries", "keys", "values", "union", "difference", "intersection"],
      Symbol.iterator,
    ]],
    [WeakMap.prototype, one, ["get", "set", "has"]],
  ];

/**
 * How many elements of collections a function walks through.
 *
 * @param most Where it is ended by an error.
 */
export function countWork(f: () => void, most: number): number {
  let work = 0;
  const count = (n: number) => {
    work += n;
    if (work > most) {
      // What handles the error is not counted.
      work = -Infinity;
      throw new RangeError(`this takes more than ${most} steps`);
    }
  };
  const undo: (() => void)[] = [];
  const replace = (prototype: object, name: PropertyKey, wrap: (method: Method) => Method) => {
    const descriptor = Object.getOwnPropertyDescriptor(prototype, name)!;
    Object.defineProperty(prototype, name, { ...descriptor, value: wrap(descriptor.value) });
    undo[undo.length] = () => Object.defineProperty(prototype, name, descriptor);
  };
  for (const [prototype, cost, names] of costs) {
    for (const name of names) {
      replace(prototype, name, (method) =>
        function (...args) {
          count(cost(this as Parameters<Cost>[0]));
          return Reflect.apply(method, this, args);
        });
    }
  }
  for (const name of searches) {
    replace(Array.prototype, name, (method) =>
      function (callback, self) {
        const counted: Method = function (...args) {
          count(1);
          return Reflect.apply(callback as Method, this, args);
        };
        return Reflect.apply(method, this, [counted, self]);
      });
  }
  try {
    f();
  } finally {
    for (let i = 0; i < undo.length; i++) undo[i]();
  }
  return work;
}
