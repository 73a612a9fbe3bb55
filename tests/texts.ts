/**
 * Text encoders and tokenizers, and the golden numbers of their originals.
 *
 * @module
 */

import { join } from "@std/path";
import { type FileTensor, toFloat32 } from "../src/formats/safetensors.ts";
import type { Device, Precision } from "../src/gpu/device.ts";
import { grad } from "../src/gpu/grad.ts";
import { makeGraph } from "../src/gpu/graph.ts";
import { add, mul, square } from "../src/gpu/ops/map.ts";
import { mean } from "../src/gpu/ops/sum.ts";
import { constant, type Tensor } from "../src/gpu/tensor.ts";
import { nameTensors, parametersFrom } from "../src/model/tensors.ts";
import {
  type EncodedTokens,
  parseTextEncoder,
  type TextEncoderNetwork,
} from "../src/model/text_encoder.ts";
import {
  flatten,
  parameterInputs,
  viewParameters,
  type WeightDType,
} from "../src/model/parameters.ts";
import {
  compare,
  compareGradients,
  type Comparison,
  type Numbers,
  readJson,
  readTensors,
} from "./comparison.ts";
import { weightsOf } from "../src/model/weights.ts";
import { writeWeights } from "../src/diffusion/weights.ts";
import { BertTokenizer, fetchBertVocabulary } from "../src/text/bert_tokenizer.ts";
import { ClipTokenizer } from "../src/text/clip_tokenizer.ts";
import { fetchClipVocabulary } from "../src/text/clip_vocabulary.ts";

/** Numbers that came out, and those that are expected. */
interface Pair {
  readonly name: string;
  readonly actual: Numbers;
  readonly expected: Numbers;
}

/** A text encoder and its weights. */
export interface Encoder {
  readonly network: TextEncoderNetwork;
  /** All of them, flat. */
  readonly parameters: Float32Array<ArrayBuffer>;
}

/** What latent diffusion's files put before the names of its text encoder. */
const PREFIX = "cond_stage_model.transformer.";

/** The text encoder in a folder: one of transformers, or of latent diffusion. */
export async function readEncoder(folder: string): Promise<Encoder> {
  const config = await readJson(join(folder, "config.json"));
  const { target, params, ...rest } = config;
  const network = parseTextEncoder(
    target ? { _class_name: target.split(".").at(-1), ...params, ...rest } : config,
  );
  const tensors = await readTensors(join(folder, "model.safetensors"));
  const named = new Map([...tensors].map(([name, tensor]) => [name.replace(PREFIX, ""), tensor]));
  const { layout } = network;
  return { network, parameters: flatten(layout, parametersFrom(layout, named, folder)) };
}

/** What an encoder says of tokens, and whatever else is made of that. */
export async function encodeTokens(
  device: Device,
  { network, parameters }: Encoder,
  ids: Tensor,
  makeOutputs: (encoded: EncodedTokens, parameters: readonly Tensor[]) => Record<string, Tensor>,
  { weightDType = "f32", precision = "f32" }: {
    readonly weightDType?: WeightDType;
    readonly precision?: Precision;
  } = {},
): Promise<Record<string, Numbers>> {
  const { layout, forward } = network;
  const shards = parameterInputs(layout, "parameters", weightDType);
  const encoded = forward({ parameter: viewParameters(layout, shards, { weightDType }) }, ids);
  const outputs = makeOutputs(encoded, shards);
  using program = await device.compile(makeGraph(outputs), { precision });
  const weights = weightsOf({ network, parameters }, "parameters", weightDType);
  for (const [name, values] of Object.entries(weights)) {
    writeWeights(values, program.buffers[name]);
  }
  program.run();
  const read: Record<string, Numbers> = {};
  for (const name of Object.keys(outputs)) read[name] = await program.buffers[name].read();
  return read;
}

const idsOf = (tensor: FileTensor) =>
  constant(Int32Array.from(toFloat32(tensor)), tensor.shape as number[]);

/** Compares all that a text encoder says, and its gradients. */
export async function compareText(device: Device, folder: string): Promise<Comparison[]> {
  const encoder = await readEncoder(folder), { layout } = encoder.network;
  const outputs: Pair[] = [], gradients: Pair[] = [];
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
  for (const file of names.filter((name) => /^io.*\.safetensors$/.test(name)).sort()) {
    const { input_ids: ids, ...golden } = Object.fromEntries(await readTensors(join(folder, file)));
    const actual = await encodeTokens(
      device,
      encoder,
      idsOf(ids),
      ({ states, pooled, hidden }) => ({
        ...(golden.output ? { output: states } : { last_hidden_state: states }),
        ...(pooled ? { pooler_output: pooled } : {}),
        ...(file === "io.safetensors"
          ? {}
          : Object.fromEntries(hidden.map((x, i) => [`hidden_states.${i}`, x]))),
      }),
    );
    for (const [name, tensor] of Object.entries(golden)) {
      outputs.push({ name: `${file} ${name}`, actual: actual[name], expected: toFloat32(tensor) });
    }
  }
  const golden = await readTensors(join(folder, "grads.safetensors"));
  const weigh = (x: Tensor, name: string) =>
    mean(mul(square(x), constant(toFloat32(golden.get(name)!), x.shape)));
  const { input_ids: ids } = Object.fromEntries(await readTensors(join(folder, "io.safetensors")));
  const { loss, gradient } = await encodeTokens(
    ...[device, encoder, idsOf(ids)] as const,
    ({ states, pooled }, [parameters]) => {
      const loss = pooled
        ? add(weigh(states, "weights"), weigh(pooled, "weights_pooled"))
        : weigh(states, "weights");
      return { loss, gradient: grad(loss, [parameters])[0] };
    },
  );
  outputs.push({ name: "loss", actual: loss, expected: toFloat32(golden.get("loss")!) });
  for (const { name, values } of nameTensors(layout, Float32Array.from(gradient))) {
    gradients.push({ name, actual: values, expected: toFloat32(golden.get(name)!) });
  }
  return [compare(`${folder} output`, 1e-4, outputs), compareGradients(folder, gradients)];
}

/** Compares tokens of a file of cases, which are equal or are not. */
export async function compareTokens(_: Device, path: string): Promise<Comparison[]> {
  const { cases, eos } = await readJson(path) as {
    cases: { text: string; ids: number[]; input_ids?: number[] }[];
    eos: number;
  };
  const clip = await fetchClipVocabulary(), bert = await fetchBertVocabulary();
  const [usual, long] = [77, 1000].map((length) =>
    eos === bert.get("[SEP]")
      ? new BertTokenizer(bert, { length })
      : new ClipTokenizer(clip, { length })
  );
  const pairs = cases.flatMap(({ text, ids, input_ids }) => {
    const own = [...long.encode(text).ids.slice(1, ids.length + 2)];
    return [
      { name: text, actual: own, expected: [...ids, eos] },
      ...(input_ids ? [{ name: text, actual: usual.encode(text).ids, expected: input_ids }] : []),
    ];
  });
  return [compare(path, 0, pairs)];
}
