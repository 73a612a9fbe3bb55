/**
 * What a Worker does for a page: keeps a device, models and samplers, by number.
 *
 * @module
 */

import { type Device, DeviceError } from "../gpu/device.ts";
import { openDevice } from "../gpu/open.ts";
import { inMemory } from "../formats/bytes.ts";
import { InputError } from "../errors.ts";
import { conditionsOf, denoisingNetwork } from "../model/denoiser.ts";
import type { FamilyModel } from "../model/families/mod.ts";
import { readModelFile } from "../model/model_file.ts";
import { fetchModel } from "../model/pretrained.ts";
import { parseSchedule } from "../diffusion/schedule.ts";
import { inpaint } from "../sample/editing/inpaint.ts";
import { guided } from "../sample/guidance/guided.ts";
import { guidanceOfModel } from "../sample/guidance/usual.ts";
import { walkNoise } from "../sample/interpolate.ts";
import { LatentSampler, type LatentStep, paintedShape } from "../sample/latent_sampler.ts";
import type { Samples, SamplingStep } from "../sample/options.ts";
import { Sampler } from "../sample/sampler.ts";
import { tokensInTurns } from "../text/tokenizer.ts";
import type { Call, Service } from "./channel.ts";
import { addSampler, type Compiled, Table } from "./table.ts";
import { makeTrainingService } from "./training_service.ts";
import type {
  ModelFacts,
  OpenCall,
  OpenedDevice,
  OpenedSampler,
  SampleCall,
  SamplerCall,
  SentSource,
  WorkerStreamOptions,
} from "./protocol.ts";

/** A service with a device of its own. */
export function makeService(): Service {
  let device: Device | undefined;
  const models = new Table<FamilyModel>(), samplers = new Table<Compiled>();
  const opened = () => {
    if (!device) throw new DeviceError("No device was opened");
    return device;
  };
  return {
    async open({ kind, threads }: OpenCall, { report }: Call): Promise<OpenedDevice> {
      device = await openDevice(kind, {
        ...(threads === undefined ? {} : { threads }),
        onNotice: (notice) => void report(notice),
      });
      return { kind: device.kind, name: device.name };
    },
    async load(source: SentSource): Promise<ModelFacts & { readonly id: number }> {
      const found = await read(source);
      return { id: models.add(found), ...describe(found) };
    },
    unload(id: number): void {
      models.take(id);
    },
    async compile({ model, options }: SamplerCall): Promise<OpenedSampler> {
      const { guidance, inpaint: painting, ...rest } = options;
      const { model: chosen } = models.get(model), { tokenize } = denoisingNetwork(chosen);
      const sampler = await (chosen.autoencoder ? LatentSampler : Sampler).create(
        opened(),
        chosen,
        {
          ...rest,
          wrap: [...(guidance ? [guided(guidance)] : []), ...(painting ? [inpaint(painting)] : [])],
        },
      );
      return addSampler(samplers, sampler, tokenize);
    },
    async stream({ sampler: id, options }: SampleCall, { signal, report }: Call): Promise<Samples> {
      const { sampler, ...reader } = samplers.get(id);
      const stream: AsyncGenerator<SamplingStep | LatentStep, Samples> = sampler.stream({
        ...startOf(sampler, toldOf(reader, options)),
        signal,
      });
      for (;;) {
        const { done, value } = await stream.next();
        if (done) return value;
        await report(await shownStep(value));
      }
    },
    async sample({ sampler: id, options }: SampleCall, { signal, report }: Call): Promise<Samples> {
      const { sampler, ...reader } = samplers.get(id);
      return await sampler.sample({
        ...{ ...startOf(sampler, toldOf(reader, options)), signal },
        onProgress: (done, total) => void report([done, total]),
      });
    },
    dispose(id: number): void {
      samplers.take(id)?.sampler[Symbol.dispose]();
    },
    ...makeTrainingService(opened, samplers),
  };
}

/** A step as pages show it: with pictures in place of latents. */
async function shownStep(step: SamplingStep | LatentStep): Promise<SamplingStep> {
  if (!("pictures" in step)) return step;
  const { pictures, ...latents } = step;
  return { ...latents, sample: await pictures() };
}

/** Reads a model. */
async function read(source: SentSource): Promise<FamilyModel> {
  if (typeof source === "string") return { model: await fetchModel(source), notes: [] };
  if ("href" in source) return { model: await fetchModel(new URL(source.href)), notes: [] };
  const files = Array.isArray(source) ? source as readonly File[] : [source as File];
  const isConfig = ({ name = "" }: File) => name.endsWith(".json");
  const [weights, ...more] = files.filter((file) => !isConfig(file));
  if (!weights || more.length) {
    throw new InputError(
      `A model is one file of weights, not ${weights ? more.length + 1 : "none"}`,
    );
  }
  const what = weights.name ?? "the model";
  const json = async (pick: (name: string) => boolean): Promise<unknown> => {
    const file = files.find((file) => isConfig(file) && pick(file.name));
    if (!file) return undefined;
    try {
      return JSON.parse(await file.text());
    } catch (error) {
      throw new InputError(`Cannot read ${file.name}: ${(error as Error).message}`);
    }
  };
  const bytes = new Uint8Array(await weights.arrayBuffer());
  return await readModelFile(inMemory(bytes), what, async () => {
    const schedule = await json((name) => name.startsWith("scheduler"));
    return {
      config: await json((name) => !name.startsWith("scheduler")) ?? {},
      ...(schedule === undefined ? {} : { schedule: parseSchedule(schedule) }),
    };
  });
}

/** What is known of a model. */
function describe({ model, notes }: FamilyModel): ModelFacts {
  const { network, card } = model, { itemShape } = network;
  const shape = paintedShape(model, itemShape);
  const { below, none } = conditionsOf(model, itemShape.map((n) => n ?? 1)).labels ?? {};
  const count = none ?? below;
  const classes = count === undefined
    ? undefined
    : Array.from({ length: count }, (_, i) => model.classes?.[i] ?? String(i));
  const reads = network.kind === "denoiser" && network.tokenize !== undefined;
  const guidance = guidanceOfModel({ none, reads });
  return { shape, parameters: network.layout.count, classes, none, reads, guidance, card, notes };
}

/** The settings of a run, with what its network reads. */
function toldOf(
  { tokenize }: Omit<Compiled, "sampler">,
  { prompts, ...options }: WorkerStreamOptions,
): WorkerStreamOptions {
  if (!prompts?.length) return options;
  if (!tokenize) throw new InputError("The model does not read: prompts make no sense");
  const tokens = tokensInTurns(tokenize, prompts, options.count ?? 1);
  return { ...options, conditions: { ...options.conditions, tokens } };
}

/** The settings of a run, with the noise of a walk. */
function startOf(sampler: Compiled["sampler"], { walk, ...options }: WorkerStreamOptions) {
  const shape = sampler instanceof LatentSampler ? sampler.latentShape : sampler.itemShape;
  return walk ? { ...options, start: walkNoise(shape, options, walk) } : options;
}
