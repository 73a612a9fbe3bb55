import { assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { type FileTensor, readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import type { TensorMap } from "../../src/model/families/family.ts";
import { readPipelineFamily } from "../../src/model/families/pipelines.ts";
import { stableDiffusion } from "../../src/model/families/stable_diffusion.ts";
import { mergeLora } from "../../src/model/lora.ts";
import { fileShape, flatten, readParameter, toFileOrder } from "../../src/model/parameters.ts";
import type { TextToImageModel } from "../../src/model/text_to_image.ts";
import { sizeOf } from "../../src/shape.ts";
import { ByteTokenizer } from "../../src/text/byte_tokenizer.ts";
import { assertClose } from "../close.ts";
import { hashed } from "../formula.ts";

const at = (name: string) => new URL(`../fixtures/pipelines/single-file/${name}`, import.meta.url);
const config = JSON.parse(await Deno.readTextFile(at("config.json")));
const { tensors } = readSafetensors(await Deno.readFile(at("model.safetensors")));
const { denoiser, autoencoder, textEncoder } = readPipelineFamily(stableDiffusion, tensors, "x", {
  config,
});
const model: TextToImageModel = {
  ...{ denoiser: denoiser!, autoencoder: autoencoder!, textEncoder: textEncoder! },
  tokenizer: new ByteTokenizer(),
};

const block = "down_blocks.0.attentions.0";
/** Weights of all kinds: dense, convolutions of one pixel and of nine, and of the text encoder. */
const changed = {
  unet: [
    ...[`${block}.transformer_blocks.0.attn1.to_q`, `${block}.transformer_blocks.0.attn2.to_out.0`],
    ...[`${block}.proj_in`, "down_blocks.1.resnets.0.conv1"],
  ],
  text_encoder: ["text_model.encoder.layers.1.self_attn.v_proj"],
};
type Network = keyof typeof changed;
const pieceOf = ({ denoiser, textEncoder }: TextToImageModel, network: Network) =>
  network === "unet" ? denoiser : textEncoder;

/** A parameter in the order of files, and its shape. */
function weight(model: TextToImageModel, network: Network, name: string) {
  const { network: { layout }, parameters } = pieceOf(model, network);
  const index = layout.specs.findIndex((spec) => spec.name === `${name}.weight`);
  const spec = layout.specs[index];
  return {
    shape: fileShape(spec),
    values: toFileOrder(spec, readParameter(layout, parameters, index)),
  };
}

const tensor = (shape: readonly number[], values: ArrayLike<number>): FileTensor => ({
  ...{ dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) },
});

/** The two matrices for a weight of the model. */
function matrices(network: Network, name: string, rank: number) {
  const [out, input, ...window] = weight(model, network, name).shape;
  const shapes = { down: [rank, input, ...window], up: [out, rank, ...window.map(() => 1)] };
  return Object.fromEntries(
    Object.entries(shapes).map(([half, shape]) => [
      half,
      tensor(shape, hashed(`${name}.${half}`, sizeOf(shape))),
    ]),
  );
}

/** What a name of a module becomes with each kind of names. */
const kohya = (network: Network, name: string, part: string) =>
  `lora_${network === "unet" ? "unet" : "te"}_${name.replaceAll(".", "_")}.` +
  (part === "alpha" ? part : `lora_${part}.weight`);
const peft = (network: Network, name: string, part: string) =>
  `${network}.${name}.` + (part === "alpha" ? part : `lora_${part === "up" ? "B" : "A"}.weight`);
const diffusers = (network: Network, name: string, part: string) =>
  `${network}.${name}.lora${network === "unet" ? "" : "_linear_layer"}.${part}.weight`;

/** A file for all these weights. */
function fileOf(name: typeof kohya, rank: number, alpha?: number): TensorMap {
  const file = new Map<string, FileTensor>();
  for (const network of ["unet", "text_encoder"] as const) {
    for (const module of changed[network]) {
      for (const [half, matrix] of Object.entries(matrices(network, module, rank))) {
        file.set(name(network, module, half), matrix);
      }
      if (alpha) file.set(name(network, module, "alpha"), tensor([], [alpha]));
    }
  }
  return file;
}

/** The weight with the change, in double precision. */
function expected(network: Network, name: string, rank: number, scale: number): number[] {
  const { values, shape } = weight(model, network, name), columns = sizeOf(shape.slice(1));
  const { up, down } = matrices(network, name, rank);
  const [left, right] = [toFloat32(up), toFloat32(down)];
  return [...values].map((value, i) => {
    const row = Math.floor(i / columns), column = i % columns;
    let sum = 0;
    for (let k = 0; k < rank; k++) sum += left[row * rank + k] * right[k * columns + column];
    return value + scale * sum;
  });
}

function assertMerged(merged: TextToImageModel, rank: number, scale: number): void {
  for (const network of ["unet", "text_encoder"] as const) {
    for (const name of changed[network]) {
      const actual = weight(merged, network, name).values;
      assertClose(actual, expected(network, name, rank, scale), 2e-6, name);
    }
  }
}

Deno.test("products of any rank are added to weights of all kinds, at alpha / rank and the scale", () => {
  for (const rank of [1, 3, 4, 6]) {
    assertMerged(mergeLora(model, fileOf(kohya, rank, 2), { scale: 0.8 }), rank, 0.8 * 2 / rank);
  }
  assertMerged(mergeLora(model, fileOf(kohya, 4)), 4, 1);
  assertMerged(mergeLora(model, fileOf(kohya, 4, 4), { scale: -0.5 }), 4, -0.5);
});

Deno.test("names of diffusers and peft, new and old, say the same", () => {
  assertMerged(mergeLora(model, fileOf(peft, 4)), 4, 1);
  assertMerged(mergeLora(model, fileOf(peft, 4, 2)), 4, 0.5);
  assertMerged(mergeLora(model, fileOf(diffusers, 4)), 4, 1);
  const [query, out] = changed.unet, old = new Map<string, FileTensor>();
  for (const [half, matrix] of Object.entries(matrices("unet", query, 4))) {
    old.set(`${query.replace(/to_q$/, "processor.to_q_lora")}.${half}.weight`, matrix);
  }
  for (const [half, matrix] of Object.entries(matrices("unet", out, 4))) {
    old.set(`unet.${out.replace(/to_out\.0$/, "processor.to_out_lora")}.${half}.weight`, matrix);
  }
  const text = changed.text_encoder[0];
  for (const [half, matrix] of Object.entries(matrices("text_encoder", text, 4))) {
    old.set(`text_encoder.${text.replace(/v_proj$/, "to_v_lora")}.${half}.weight`, matrix);
  }
  const merged = mergeLora(model, old);
  for (const [network, name] of [["unet", query], ["unet", out], ["text_encoder", text]] as const) {
    assertClose(weight(merged, network, name).values, expected(network, name, 4, 1), 2e-6, name);
  }
});

Deno.test("all other weights stay, and none is changed in its place", () => {
  const flat = (model: TextToImageModel, network: Network) => {
    const { network: { layout }, parameters } = pieceOf(model, network);
    return { layout, values: flatten(layout, parameters) };
  };
  for (const network of ["unet", "text_encoder"] as const) {
    const before = flat(model, network);
    const inMemory = {
      ...model,
      denoiser: { ...model.denoiser, parameters: flat(model, "unet").values },
    };
    const after = flat(mergeLora(inMemory, fileOf(kohya, 4)), network);
    const { layout } = before, touched: string[] = [];
    layout.specs.forEach(({ name, shape }, i) => {
      const part = (values: Float32Array) =>
        values.subarray(layout.offsets[i], layout.offsets[i] + sizeOf(shape));
      const [a, b] = [part(before.values), part(after.values)];
      if (a.some((value, k) => value !== b[k])) touched.push(name.replace(/\.weight$/, ""));
    });
    assertEquals(touched.sort(), [...changed[network]].sort());
    assertEquals(flat(inMemory, network).values, before.values);
  }
  assertEquals(mergeLora(model, fileOf(kohya, 4)).autoencoder, model.autoencoder);
});

Deno.test("several add up, and a scale of zero changes nothing", () => {
  const twice = mergeLora(mergeLora(model, fileOf(kohya, 4), { scale: 0.5 }), fileOf(peft, 4), {
    scale: 0.25,
  });
  assertMerged(twice, 4, 0.75);
  assertMerged(mergeLora(model, fileOf(kohya, 4), { scale: 0 }), 4, 0);
});

Deno.test("a file for another network is refused by the first tensor that does not fit", () => {
  const first = kohya("unet", changed.unet[0], "down"), up = kohya("unet", changed.unet[0], "up");
  const rank4 = matrices("unet", changed.unet[0], 4);
  const refuse = (file: Record<string, FileTensor>, message: string) => {
    const error = assertThrows(
      () => mergeLora(model, new Map(Object.entries(file)), { what: "x.safetensors" }),
      InputError,
      message,
    );
    assertEquals(error.message.startsWith("Cannot use x.safetensors for this model: "), true);
  };
  const { down } = rank4, good = { [first]: down, [up]: rank4.up };
  const wide = tensor([4, 16], new Float32Array(64));
  refuse(
    { ...good, [first]: wide },
    `${first} has shape [4, 16], but ${changed.unet[0]}.weight is`,
  );
  refuse({ ...good, [up]: tensor([8, 2], new Float32Array(16)) }, "and the rank is 4");
  refuse({ [first]: down }, `there is a ${first} without its other half`);
  const deep = "lora_unet_down_blocks_7_attentions_0_proj_in.lora_down.weight";
  refuse({ [deep]: down }, `it has nothing that ${deep} would change`);
  refuse(
    { "lora_te2_text_model.lora_up.weight": down },
    "lora_te2_text_model.lora_up.weight is none",
  );
  refuse({ ...good, "lora_unet_x.hada_w1_a": down }, "lora_unet_x.hada_w1_a is none of a LoRA");
  refuse({ ...good, [first.replace("lora_down", "lora_mid")]: down }, "lora_mid.weight is none of");
  refuse({}, "it holds no tensors");
  refuse({ ...good, [first]: { ...down, dtype: "I32" } }, "is of type I32, not a float");
  const alpha = first.replace("lora_down.weight", "alpha");
  refuse({ ...good, [alpha]: tensor([2], [1, 2]) }, `${alpha} is not one number`);
  refuse({ ...good, [peft("unet", changed.unet[0], "up")]: rank4.up }, "is there twice");
  refuse({ [first]: tensor([0, 8], []), [up]: tensor([8, 0], []) }, `${first} has shape [0, 8]`);
  assertThrows(() => mergeLora(model, fileOf(kohya, 4), { scale: NaN }), InputError, "NaN");
});

Deno.test("numbers that are not finite are refused when they are read", () => {
  const file = new Map(fileOf(kohya, 4)), [name] = file.keys();
  const { shape } = file.get(name)!;
  file.set(name, tensor(shape, new Float32Array(sizeOf(shape)).fill(NaN)));
  const { denoiser: { network, parameters } } = mergeLora(model, file);
  assertThrows(() => flatten(network.layout, parameters), InputError, "are not finite");
});
