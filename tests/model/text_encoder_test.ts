import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { grad } from "../../src/gpu/grad.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { add, mul, sub } from "../../src/gpu/ops/map.ts";
import { linear } from "../../src/gpu/ops/matmul.ts";
import { mean } from "../../src/gpu/ops/sum.ts";
import { constant, input, type Tensor } from "../../src/gpu/tensor.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { initializeModel } from "../../src/model/model.ts";
import { parametersFrom } from "../../src/model/tensors.ts";
import { formatNetwork, noisyItemsNetwork, parseNetwork } from "../../src/model/network.ts";
import { parseTextEncoder } from "../../src/model/text_encoder.ts";
import {
  initializeParameters,
  type ParameterSource,
  viewParameters,
} from "../../src/model/parameters.ts";
import { logSoftmax } from "../../src/model/classifier.ts";
import { stateAtLargest } from "../../src/model/text_layers.ts";
import type { FileTensor } from "../../src/formats/safetensors.ts";
import { ByteTokenizer } from "../../src/text/byte_tokenizer.ts";
import { sizeOf } from "../../src/shape.ts";
import { assertClose } from "../close.ts";
import { openGpu } from "../device.ts";
import { Random } from "../random.ts";
import { type Encoder, encodeTokens, readEncoder } from "../texts.ts";
import keys from "../fixtures/clip-vit-l-14-text.keys.json" with { type: "json" };

const devices: Readonly<Record<string, () => Promise<Device>>> = {
  GPU: openGpu,
  CPU: () => WasmDevice.open(),
  interpreter: () => Promise.resolve(new ReferenceDevice()),
};

const clipFolder = fromFileUrl(new URL("../fixtures/clip/text", import.meta.url));
const tinyClip = {
  ...{ architectures: ["CLIPTextModel"], hidden_size: 8, intermediate_size: 12, vocab_size: 20 },
  ...{ num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 7, eos_token_id: 19 },
};

/** An encoder of which no parameter is zero. */
function randomEncoder(fields: Readonly<Record<string, unknown>>): Encoder {
  const network = parseTextEncoder(fields), random = new Random("text encoder");
  const parameters = initializeParameters(network.layout, 1).map((x) =>
    x + random.between(-0.3, 0.3)
  );
  return { network, parameters };
}

const tokens = (ids: readonly (readonly number[])[]) =>
  constant(Int32Array.from(ids.flat()), [ids.length, ids[0].length]);

Deno.test("the text encoder of Stable Diffusion 1 has the names and shapes that its files have", () => {
  const network = parseTextEncoder(keys.config);
  const own = network.layout.specs.map(({ name, shape }) => [name, [...shape]] as const);
  assertEquals(Object.fromEntries(own), keys.shapes);
  assertEquals([own.length, network.layout.count], [keys.tensors, keys.elements]);
  assertEquals([network.tokens, network.vocabulary, network.width], [77, 49408, 768]);
  const again = parseTextEncoder(formatNetwork(network));
  assertEquals([again.className, again.config], [network.className, network.config]);
});

Deno.test("positions in files are passed over, and what is missing is told", async () => {
  const { network: { layout } } = await readEncoder(clipFolder);
  const tensors = new Map(layout.specs.map(({ name, shape }): [string, FileTensor] => {
    const bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b));
    return [name, { dtype: "F32", shape: [...shape], bytes }];
  }));
  const positions: FileTensor = { dtype: "I64", shape: [1, 77], bytes: new Uint8Array(616) };
  tensors.set("text_model.embeddings.position_ids", positions);
  parametersFrom(layout, tensors, "it");
  tensors.set("text_projection.weight", positions);
  assertThrows(() => parametersFrom(layout, tensors, "it"), InputError, "text_projection.weight");
  tensors.delete("text_projection.weight");
  tensors.delete("text_model.final_layer_norm.bias");
  assertThrows(
    () => parametersFrom(layout, tensors, "it"),
    InputError,
    "it lacks text_model.final",
  );
});

Deno.test("a token of CLIP knows nothing of those behind it, and one of the others does", async () => {
  using device = await WasmDevice.open();
  const classes = [tinyClip, {
    ...{ _class_name: "BERTEmbedder", n_embed: 8, n_layer: 1, vocab_size: 20, dim_head: 4 },
  }, { _class_name: "TextTransformer", width: 8, layers: 1, heads: 2, vocab_size: 20 }];
  for (const [i, fields] of classes.entries()) {
    const encoder = randomEncoder(fields);
    const ids = tokens([[3, 4, 5, 6, 7], [3, 4, 5, 8, 9]]);
    const { states } = await encodeTokens(device, encoder, ids, ({ states }) => ({ states }));
    const all = Array.from(states), size = 5 * 8, seen = 3 * 8;
    const difference = Math.max(
      ...all.slice(0, seen).map((x, k) => Math.abs(x - all[size + k])),
    );
    assert(i === 0 ? difference === 0 : difference > 1e-3, `${encoder.network.className}`);
    assert(all.slice(seen, size).some((x, k) => Math.abs(x - all[size + seen + k]) > 1e-3));
  }
});

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`the ${kind} pools where a text ends, or at the greatest id where files say 2`, async () => {
    using device = await open();
    const rows = [[0, 5, 19, 19, 19], [0, 7, 6, 5, 4], [19, 1, 1, 1, 1]];
    for (const [end, places] of [[19, [2, 0, 0]], [2, [2, 1, 0]], [5, [1, 3, 0]]] as const) {
      const encoder = randomEncoder({ ...tinyClip, eos_token_id: end });
      const { states, pooled } = await encodeTokens(
        ...[device, encoder, tokens(rows)] as const,
        ({ states, pooled }) => ({ states, pooled: pooled! }),
      );
      const expected = places.flatMap((place, row) =>
        Array.from(states).slice((row * 5 + place) * 8, (row * 5 + place + 1) * 8)
      );
      assertClose(pooled, expected, 1e-6);
    }
  });

  Deno.test(`the ${kind} gives a text the same states in a batch of one, and of any length`, async () => {
    using device = await open();
    const encoder = randomEncoder({ ...tinyClip, hidden_act: "gelu" });
    const encode = async (rows: number[][]) =>
      (await encodeTokens(device, encoder, tokens(rows), ({ states }) => ({ states }))).states;
    const all = Array.from(await encode([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]]));
    assertClose(await encode([[6, 7, 8, 9, 10]]), all.slice(40, 80), 1e-5);
    assertClose(await encode([[6, 7, 8]]), all.slice(40, 64), 1e-5);
    assertClose(await encode([[6]]), all.slice(40, 48), 1e-5);
  });

  Deno.test(`the ${kind} reads texts with weights of 16 bits`, async () => {
    using device = await open();
    const encoder = await readEncoder(clipFolder), ids = tokens([[998, 5, 900, 999, 999]]);
    const encode = async (options: Parameters<typeof encodeTokens>[4]) =>
      (await encodeTokens(device, encoder, ids, ({ states }) => ({ states }), options)).states;
    const exact = await encode({});
    assertClose(await encode({ weightDType: "f16" }), exact, 1e-3);
    assertClose(await encode({ weightDType: "bf16" }), exact, 1e-2);
    // Activations of 16 bits are for GPUs.
    if (kind === "GPU") assertClose(await encode({ precision: "f16" }), exact, 1e-2);
  });
}

Deno.test("gradients of a TextTransformer are those of central differences", async () => {
  const fields = { _class_name: "TextTransformer", width: 6, layers: 2, heads: 3, max_length: 5 };
  const encoder = randomEncoder({ ...fields, vocab_size: 7 }), random = new Random("directions");
  const ids = tokens([[1, 2, 6, 6, 6], [3, 3, 0, 5, 6]]), device = new ReferenceDevice();
  const weigh = (x: Tensor) => {
    const weights = Array.from({ length: sizeOf(x.shape) }, (_, i) => Math.sin(i + 1));
    return mean(mul(x, constant(weights, x.shape)));
  };
  const run = (parameters: Float32Array<ArrayBuffer>) =>
    encodeTokens(device, { ...encoder, parameters }, ids, ({ states, pooled }, shards) => {
      const loss = add(weigh(states), weigh(pooled!));
      return { loss, gradient: grad(loss, shards)[0] };
    });
  const { gradient } = await run(encoder.parameters), step = 1 / 2048;
  for (let trial = 0; trial < 5; trial++) {
    const direction = encoder.parameters.map(() => random.between(-1, 1));
    const [up, down] = await Promise.all(
      [step, -step].map((s) => run(encoder.parameters.map((x, i) => x + s * direction[i]))),
    );
    const slope = direction.reduce((total, d, i) => total + d * gradient[i], 0);
    assertAlmostEquals((up.loss[0] - down.loss[0]) / (2 * step), slope, 1e-3);
    assert(Math.abs(slope) > 0.02, `${slope}`);
  }
});

Deno.test("captions have states and a vector of their own, none too", async () => {
  const encoder = randomEncoder({ _class_name: "TextTransformer" });
  const { network } = encoder, tokenizer = new ByteTokenizer();
  assertEquals([network.tokens, network.vocabulary, network.width], [48, 257, 128]);
  assertEquals([tokenizer.length, tokenizer.vocabulary], [network.tokens, network.vocabulary]);
  using device = await WasmDevice.open();
  const rows = ["a red circle", "a red circlf", ""].map((text) => [...tokenizer.encode(text).ids]);
  const { states, pooled } = await encodeTokens(
    ...[device, encoder, tokens(rows)] as const,
    ({ states, pooled }) => ({ states, pooled: pooled! }),
  );
  assertEquals([states.length, pooled.length], [3 * 48 * 128, 3 * 128]);
  const all = Array.from(pooled), row = (i: number) => all.slice(128 * i, 128 * (i + 1));
  for (const [a, b] of [[0, 1], [1, 2], [0, 2]]) {
    assert(row(a).some((x, k) => Math.abs(x - row(b)[k]) > 1e-3));
  }
  const first = Array.from({ length: 128 }, (_, c) => {
    let total = 0;
    for (let n = 0; n < 48; n++) total += states[n * 128 + c];
    return total / 48;
  });
  assertClose(row(0), first, 1e-5);
});

Deno.test("text encoders are no networks of items, and those are no text encoders", () => {
  assertThrows(() => parseNetwork(tinyClip), InputError, "it is a text encoder");
  const network = parseTextEncoder(tinyClip);
  assertThrows(() => noisyItemsNetwork(network), InputError, "knows nothing of noise");
  assertThrows(() => initializeModel(network, {}, 0), InputError, "it is a text encoder");
  const unet = {
    _class_name: "UNet2DModel",
    block_out_channels: [8],
    norm_num_groups: 4,
    down_block_types: ["DownBlock2D"],
    up_block_types: ["UpBlock2D"],
  };
  assertThrows(() => parseTextEncoder(unet), InputError, "it is a denoiser");
  assertThrows(() => parseTextEncoder({}), InputError, "class undefined");
  assertThrows(() => parseTextEncoder(null), InputError, "no object");
  assertThrows(
    () => parseTextEncoder({ architectures: ["T5EncoderModel"] }),
    InputError,
    "class T5EncoderModel: known are",
  );
});

Deno.test("configurations that cannot be are refused", () => {
  const bad: [Record<string, unknown>, string][] = [
    [{ num_attention_heads: 3 }, "num_attention_heads: does not divide hidden_size"],
    [{ hidden_act: "relu" }, "hidden_act"],
    [{ hidden_size: 1e9 }, "hidden_size"],
    [{ model_type: "clip" }, "model_type"],
    [{ num_hidden_layers: 0 }, "num_hidden_layers"],
  ];
  for (const [fields, message] of bad) {
    assertThrows(() => parseTextEncoder({ ...tinyClip, ...fields }), InputError, message);
  }
  const own = { _class_name: "TextTransformer" };
  assertThrows(() => parseTextEncoder({ ...own, heads: 3 }), InputError, "does not divide width");
  assertThrows(() => parseTextEncoder({ ...own, depth: 3 }), InputError, "depth");
  const bert = { _class_name: "BERTEmbedder", n_embed: 8 };
  assertThrows(() => parseTextEncoder(bert), InputError, "n_layer");
  parseTextEncoder({ ...bert, n_layer: 1, device: "cpu", use_tokenizer: false });
});

Deno.test("more tokens than there are places are refused", () => {
  const { forward } = parseTextEncoder(tinyClip);
  const parameter: ParameterSource = ({ name, shape }) => input(name, shape);
  assertThrows(
    () => forward({ parameter }, input("ids", [1, 8], "i32")),
    RangeError,
    "7 at the most",
  );
  assertThrows(() => forward({ parameter }, input("ids", [7], "i32")), RangeError, "[batch, n]");
});

Deno.test("of equal scores the first one counts", async () => {
  const device = new ReferenceDevice(), states = input("states", [2, 3, 1]);
  const y = stateAtLargest(constant([1, 2, 2, 0, 0, 0], [2, 3]), states);
  using program = await device.compile(makeGraph({ y }));
  program.buffers.states.write([1, 2, 3, 4, 5, 6]);
  program.run();
  assertEquals([...await program.buffers.y.read()], [2, 4]);
});

Deno.test("a TextTransformer learns to tell captions apart that differ in a letter", async () => {
  const fields = { _class_name: "TextTransformer", width: 16, layers: 1, heads: 2, max_length: 8 };
  const { layout, forward } = parseTextEncoder(fields),
    tokenizer = new ByteTokenizer({ length: 8 });
  const captions = ["cat", "cut", "a cat", "", "tac", "cats"];
  const ids = tokens(captions.map((text) => [...tokenizer.encode(text).ids]));
  const parameters = input("parameters", [layout.size]), head = input("head", [6, 16]);
  const { pooled } = forward({ parameter: viewParameters(layout, [parameters]) }, ids);
  const logits = logSoftmax(linear(pooled!, head));
  const target = constant(captions.flatMap((_, i) => captions.map((_, k) => Number(i === k))), [
    6,
    6,
  ]);
  const loss = mul(mean(mul(logits, target)), -6), updated = [parameters, head];
  const gradients = grad(loss, updated);
  const updates = updated.map((x, i): [Tensor, Tensor] => [x, sub(x, mul(gradients[i], 0.3))]);
  using device = await WasmDevice.open();
  using program = await device.compile(makeGraph({ loss }, updates));
  program.buffers.parameters.write(initializeParameters(layout, 1));
  program.run();
  const [first] = await program.buffers.loss.read();
  program.run(200);
  const [last] = await program.buffers.loss.read();
  assert(first > 1 && last < 0.1, `${first} ${last}`);
});
