/**
 * The three directions of convolution as implicit matrix products: nothing is unfolded in memory,
 * the operands of the tile generator compute where their numbers lie.
 *
 * @module
 */

import type { Variant } from "./kernel.ts";
import { FusedWork } from "./elementwise.ts";
import { bindInput, FOLDED, foldGrid, load, loadFour } from "./kernel.ts";
import { splitSum } from "./split_k.ts";
import { generateTile, type Source, type Step } from "./gemm.ts";
import { type ConvSizes, convSizes, type Window } from "../convolution.ts";
import type { Shape } from "../../shape.ts";

/** Sizes as uniforms. */
function uniforms(s: ConvSizes): Record<string, number> {
  return {
    ...{ height: s.height, width: s.width, channels: s.channels },
    ...{ kernel_height: s.kernelHeight, kernel_width: s.kernelWidth },
    ...{ out_height: s.outHeight, out_width: s.outWidth, out_channels: s.outChannels },
    ...{ top: s.padding[0], left: s.padding[2] },
  };
}

/** Numbers where a condition holds, else zeros; `count` limits them at the end of odd channels. */
const masked = (value: string, ok: string, isVector = true, channel = "", count = "") =>
  isVector
    ? `select(vec4f(), ${value}, ${ok})`
    : `select(vec4f(), ${value}, (vec4u(${channel}) + vec4u(0u, 1u, 2u, 3u) < vec4u(${count})) & vec4<bool>(${ok}))`;

/** Where to read an image, wherever the tap is: its pixel if it is computed, else its index. */
const clamped = (slot: string, [n, y, x]: readonly string[], isComputed: boolean) =>
  isComputed
    ? `let vy${slot} = select(0u, ${y}${slot}, ok${slot}); let vx${slot} = select(0u, ${x}${slot}, ok${slot});`
    : `let i${slot} = select(0u, ((${n}${slot} * u.height + ${y}${slot}) * u.width + ${x}${slot}) * u.channels + c, ok${slot});`;

/** The loop over taps and channels, four channels an iteration. `channels` names a uniform. */
const tapLoop = (channels: string) => ({
  begin: "var ty = 0u; var tx = 0u; var c = 0u; var tap = 0u;",
  condition: "ty < u.kernel_height",
  advance: `c += 4u;
if (c >= u.${channels}) {
  c = 0u; tx += 1u; tap += 1u;
  if (tx == u.kernel_width) { tx = 0u; ty += 1u; }
}`,
});

/** y[n, oy, ox, k] = bias[k] + Σ x[n, oy·s - top + ty, ox·s - left + tx, c] w[ty, tx, c, k]. */
export const forwardVariant: Variant<Window> = {
  name: "implicit product",
  fuses: { input: true, output: true },
  lower(node, target, fused) {
    const [x, w, bias] = node.inputs;
    const s = convSizes(x.shape, w.shape, node.shape, node.attributes);
    const isVector = s.channels % 4 === 0 && s.outChannels % 4 === 0;
    const work = new FusedWork(node, fused, isVector, x), { input } = work;
    const images = bindInput("x", x, isVector), weights = bindInput("w", w, isVector);
    const biases = bias && bindInput("bias", bias, isVector);
    const patches: Source = {
      layout: "along",
      prepare: (slot, index) =>
        `let p${slot} = ${index};
let x${slot} = p${slot} % u.out_width * ${s.stride}u - u.left;
let y${slot} = p${slot} / u.out_width % u.out_height * ${s.stride}u - u.top;
let n${slot} = p${slot} / (u.out_width * u.out_height);`,
      step: (slot) =>
        `let ix${slot} = x${slot} + tx; let iy${slot} = y${slot} + ty;
let ok${slot} = ix${slot} < u.width && iy${slot} < u.height;
${clamped(slot, ["n", "iy", "ix"], input !== undefined)}`,
      fetch: (slot) =>
        input
          ? masked(input.value([`n${slot}`, `vy${slot}`, `vx${slot}`, "c"]), `ok${slot}`)
          : masked(loadFour(images, `i${slot}`), `ok${slot}`, isVector, "c", "u.channels"),
    };
    const kernel: Source = {
      layout: "across",
      prepare: (slot, index) => `let k${slot} = ${index};`,
      fetch: (slot, step) =>
        loadFour(weights, `(tap * u.channels + c + ${step.value}) * u.out_channels + k${slot}`),
    };
    const pixels = s.batch * s.outHeight * s.outWidth;
    const tile = generateTile({
      ...{ size: [pixels, s.outChannels, 1], block: FOLDED },
      ...tapLoop("channels"),
      ...{ rows: "pixels", columns: "out_channels", a: patches, b: kernel, vector: isVector },
      ...(biases ? { start: (column: string) => loadFour(biases, column) } : {}),
      place: (row, column) => `${row} * u.out_channels + ${column}`,
      finish: work.finish,
    }, target);
    const columns = Math.ceil(s.outChannels / tile.columns);
    return [work.kernel({
      label: "conv2d",
      bindings: [...input?.bindings ?? [images], weights, ...(biases ? [biases] : [])],
      uniforms: { ...uniforms(s), pixels },
      ...tile.code(work.result),
      workgroups: [columns, ...foldGrid(Math.ceil(pixels / tile.rows)).grid],
    })];
  },
};

/** dx[n, y, x, c] = Σ dy[n, (y + top - ty) / s, (x + left - tx) / s, k] w[ty, tx, c, k]. */
export const inputGradVariant: Variant<Window & { shape: Shape }> = {
  name: "implicit product",
  fuses: { input: false, output: true },
  lower(node, target, fused) {
    const [g, w] = node.inputs;
    const s = convSizes(node.shape, w.shape, g.shape, node.attributes);
    const isVector = s.channels % 4 === 0 && s.outChannels % 4 === 0;
    const work = new FusedWork(node, fused, isVector);
    const gradient = bindInput("g", g, isVector), weights = bindInput("w", w, isVector);
    const strided = (axis: string, slot: string) =>
      s.stride === 1
        ? `let o${axis}${slot} = q${axis}${slot};`
        : `let o${axis}${slot} = q${axis}${slot} / ${s.stride}u;`;
    const divides = (slot: string) =>
      s.stride === 1
        ? ""
        : ` && ox${slot} * ${s.stride}u == qx${slot} && oy${slot} * ${s.stride}u == qy${slot}`;
    const patches: Source = {
      layout: "along",
      prepare: (slot, index) =>
        `let p${slot} = ${index};
let x${slot} = p${slot} % u.width + u.left;
let y${slot} = p${slot} / u.width % u.height + u.top;
let n${slot} = p${slot} / (u.width * u.height) * u.out_height;`,
      step: (slot) =>
        `let qx${slot} = x${slot} - tx; let qy${slot} = y${slot} - ty;
${strided("x", slot)} ${strided("y", slot)}
let ok${slot} = ox${slot} < u.out_width && oy${slot} < u.out_height${divides(slot)};
let i${slot} = select(0u, ((n${slot} + oy${slot}) * u.out_width + ox${slot}) * u.out_channels + c, ok${slot});`,
      fetch: (slot) =>
        masked(loadFour(gradient, `i${slot}`), `ok${slot}`, isVector, "c", "u.out_channels"),
    };
    const kernel: Source = {
      layout: "along",
      prepare: (slot, index) => `let c${slot} = ${index};`,
      fetch: (slot) => loadFour(weights, `(tap * u.channels + c${slot}) * u.out_channels + c`),
    };
    const pixels = s.batch * s.height * s.width;
    const tile = generateTile({
      ...{ size: [pixels, s.channels, 1], block: FOLDED },
      ...tapLoop("out_channels"),
      ...{ rows: "pixels", columns: "channels", a: patches, b: kernel, vector: isVector },
      place: (row, column) => `${row} * u.channels + ${column}`,
      finish: work.finish,
    }, target);
    return [work.kernel({
      label: "conv2d_input_grad",
      bindings: [gradient, weights],
      uniforms: { ...uniforms(s), pixels },
      ...tile.code(work.result),
      workgroups: [
        Math.ceil(s.channels / tile.columns),
        ...foldGrid(Math.ceil(pixels / tile.rows)).grid,
      ],
    })];
  },
};

/** dw[ty, tx, c, k] = Σ x[n, oy·s - top + ty, ox·s - left + tx, c] dy[n, oy, ox, k] over pixels. */
export const weightGradVariant: Variant<Window & { shape: Shape }> = {
  name: "implicit product",
  fuses: { input: true, output: false },
  lower(node, target, fused) {
    const [x, g] = node.inputs;
    const s = convSizes(x.shape, node.shape, g.shape, node.attributes);
    const isVector = s.channels % 4 === 0 && s.outChannels % 4 === 0;
    const images = bindInput("x", x, isVector), results = bindInput("g", g, isVector);
    const taps = s.kernelHeight * s.kernelWidth, pixels = s.batch * s.outHeight * s.outWidth;
    const each = [0, 1, 2, 3], { input } = new FusedWork(node, fused, isVector, x);
    // Four rows are of one tap, and read together.
    const isWhole = isVector || input !== undefined;
    // A row is a tap and an input channel; with odd channels, four rows may be of two taps.
    const tapOf = (slot: string, index: string) =>
      `let m${slot} = ${index};
let c${slot} = m${slot} % u.channels;
let tx${slot} = m${slot} / u.channels % u.kernel_width - u.left;
let ty${slot} = m${slot} / u.channels / u.kernel_width - u.top;`;
    const element = (slot: string, { name, value }: Step) => {
      const ix = `(ox${name} * ${s.stride}u + tx${slot})`;
      const iy = `(oy${name} * ${s.stride}u + ty${slot})`;
      const ok = `p + ${value} < end && ${ix} < u.width && ${iy} < u.height`;
      const at = `((n${name} * u.height + ${iy}) * u.width + ${ix}) * u.channels + c${slot}`;
      const pixel = [`n${name}`, `select(0u, ${iy}, ${ok})`, `select(0u, ${ix}, ${ok})`];
      return { ok, at: `select(0u, ${at}, ${ok})`, place: [...pixel, `c${slot}`] };
    };
    const rows = taps * s.channels, size = [rows, s.outChannels, 1] as const;
    const patches: Source = {
      layout: "across",
      prepare: (slot, index) =>
        isWhole
          ? tapOf(slot, index)
          : each.map((i) => tapOf(`${slot}${i}`, `${index} + ${i}u`)).join("\n"),
      step: (_, step) =>
        step
          ? `let o${step.name} = p + ${step.value}; let ox${step.name} = o${step.name} % u.out_width;
let oy${step.name} = o${step.name} / u.out_width % u.out_height;
let n${step.name} = o${step.name} / (u.out_width * u.out_height);`
          : "",
      fetch(slot, step) {
        if (isWhole) {
          const { ok, at, place } = element(slot, step);
          return masked(input?.value(place) ?? loadFour(images, at), ok);
        }
        const values = each.map((i) => {
          const { ok, at } = element(`${slot}${i}`, step);
          return `select(0.0f, ${load(images, at)}, ${ok})`;
        });
        return `vec4f(${values})`;
      },
    };
    const gradient: Source = {
      layout: "across",
      prepare: (slot, index) => `let k${slot} = ${index};`,
      fetch: (slot, step) =>
        loadFour(results, `min(p + ${step.value}, end - 1u) * u.out_channels + k${slot}`),
    };
    const next = (u: number, to: string | number) =>
      `var ox${to} = ox${u} + 1u; var oy${to} = oy${u}; var n${to} = n${u};
if (ox${to} == u.out_width) {
  ox${to} = 0u; oy${to} += 1u;
  if (oy${to} == u.out_height) { oy${to} = 0u; n${to} += 1u; }
}`;
    const begin = "var p = group.z * u.chunk; let end = min(p + u.chunk, u.pixels);";
    // Lanes that fetch all four pixels of an iteration walk them; those that fetch one find it.
    const walk = {
      begin: `${begin} var ox0 = p % u.out_width; var oy0 = p / u.out_width % u.out_height;
var n0 = p / (u.out_width * u.out_height);`,
      iteration: [0, 1, 2].map((u) => next(u, u + 1)).join("\n"),
      advance: `${next(3, "_")} ox0 = ox_; oy0 = oy_; n0 = n_; p += 4u;`,
    };
    const tile = generateTile({
      size,
      ...{ begin, condition: "p < end", advance: "p += 4u;", walk },
      ...{ rows: "rows", columns: "out_channels", a: patches, b: gradient, vector: isVector },
      place: (row, column) => `(group.z * u.rows + ${row}) * u.out_channels + ${column}`,
    }, target);
    const columns = Math.ceil(s.outChannels / tile.columns);
    const groups = columns * Math.ceil(rows / tile.rows);
    return splitSum(
      "conv2d_weight_grad",
      node,
      pixels,
      groups,
      target,
      (result, parts, chunk) => {
        const work = new FusedWork(result, fused, isVector, x);
        return work.kernel({
          label: "conv2d_weight_grad",
          bindings: [...input?.bindings ?? [images], results],
          uniforms: { ...uniforms(s), rows, pixels, chunk },
          ...tile.code(work.result),
          workgroups: [columns, Math.ceil(rows / tile.rows), parts],
        });
      },
    );
  },
};
