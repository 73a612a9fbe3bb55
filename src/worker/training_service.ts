/**
 * What a Worker does for a page that trains.
 *
 * @module
 */

import { parseImages, preparationOf } from "../data/image_options.ts";
import { arrayPictures } from "../data/datasets/array.ts";
import { pictureDataset } from "../data/pictures.ts";
import { outputChannels } from "../diffusion/prediction.ts";
import { parseSchedule } from "../diffusion/schedule.ts";
import { InputError } from "../errors.ts";
import type { Device } from "../gpu/device.ts";
import { Pace } from "../gpu/step_pacer.ts";
import { denoisingNetwork } from "../model/denoiser.ts";
import { type Model, serializeModel } from "../model/model.ts";
import { noisyItemsNetwork, parseNetwork } from "../model/network.ts";
import { Sampler } from "../sample/sampler.ts";
import { parseTraining } from "../train/config.ts";
import { initialModel } from "../train/initial_model.ts";
import { describeDivergence } from "../train/records.ts";
import { cardOf, DEFAULT_TRAINING_STEPS, type RunConfig } from "../train/run_config.ts";
import type { RestorableState } from "../train/state.ts";
import { Trainer } from "../train/trainer.ts";
import { type ArrayPictures, readTraining, writeTraining } from "../train/training_file.ts";
import type { Call, Service } from "./channel.ts";
import type {
  AverageCall,
  OpenedSampler,
  OpenedTrainer,
  TrainCall,
  TrainerCall,
  WorkerPictures,
  WorkerTrainerOptions,
} from "./protocol.ts";
import { addSampler, type Compiled, Table } from "./table.ts";

/** A training, and what it is of. */
interface Training {
  readonly trainer: Trainer;
  readonly model: Model;
  readonly config: RunConfig;
  readonly pictures: ArrayPictures;
  /** The loss of its first step here. */
  first?: number;
}

/** The part of a service that trains, on its device. */
export function makeTrainingService(device: () => Device, samplers: Table<Compiled>): Service {
  const trainings = new Table<Training>();
  async function begin(
    config: RunConfig,
    pictures: ArrayPictures,
    state?: RestorableState,
  ): Promise<Omit<OpenedTrainer, "pictures">> {
    const data = pictureDataset(pictures, prepare(pictures, config));
    const model = initialModel(config, data) as Model;
    const trainer = await Trainer.create(device(), model, data, config.training);
    try {
      if (state) trainer.restore(state);
    } catch (error) {
      trainer[Symbol.dispose]();
      throw error;
    }
    const id = trainings.add({ trainer, model, config, pictures });
    return { id, step: trainer.step, parameters: trainer.parameters };
  }
  return {
    async beginTraining({ pictures, options }: TrainerCall) {
      const { name, count, height, width, channels, data, labels, classes } = pictures;
      const found = arrayPictures(name, { count, height, width, channels }, data, {
        ...(labels ? { labels } : {}),
        ...(classes ? { classes } : {}),
      }) as ArrayPictures;
      return await begin(configure(found, options), found);
    },
    async resumeTraining(file: Blob): Promise<OpenedTrainer> {
      const name = file instanceof File ? file.name : "the training";
      const bytes = new Uint8Array(await file.arrayBuffer());
      const { config, state, pictures } = await readTraining(bytes, name);
      const own = { ...pictures, name: config.data };
      return { ...await begin(config, own, state), pictures: describe(own) };
    },
    async train({ trainer: id, steps }: TrainCall, { signal, report }: Call): Promise<number> {
      const training = trainings.get(id), { trainer } = training, pace = new Pace(device());
      for (const last = trainer.step + steps; trainer.step < last && !signal.aborted;) {
        const count = pace.begin(last - trainer.step);
        for (let i = 0; i < count; i++) await trainer.run();
        const records = await trainer.records(count);
        training.first ??= records[0].loss;
        const bad = describeDivergence(records, training.first);
        if (bad) throw new InputError(`${bad}: try a lower learning_rate`);
        await report(records);
        await pace.end(count);
      }
      return trainer.step;
    },
    async compileAverage({ trainer: id, options }: AverageCall): Promise<OpenedSampler> {
      const { trainer, model } = trainings.get(id), { tokenize } = denoisingNetwork(model);
      const settings = { ...options, parameters: trainer.average };
      return addSampler(samplers, await Sampler.create(device(), model, settings), tokenize);
    },
    async saveTraining(id: number): Promise<Uint8Array> {
      const { trainer, config, pictures } = trainings.get(id);
      return await writeTraining(config, await trainer.state(), pictures);
    },
    async saveModel(id: number): Promise<Uint8Array> {
      const { trainer, config } = trainings.get(id);
      const card = { software: "@x/ddpm", ...cardOf(config, trainer.step, device().name) };
      return serializeModel(await trainer.model(card));
    },
    endTraining(id: number): void {
      trainings.take(id)?.trainer[Symbol.dispose]();
    },
  };
}

/** How pictures of one size are prepared. */
const prepare = (
  { name, array: { layout } }: ArrayPictures,
  { images }: Pick<RunConfig, "images">,
) => preparationOf(name, images, { ...layout, isOneSize: true });

/** The configuration of a training on pictures. */
function configure(
  pictures: ArrayPictures,
  { network, scheduler, training, images }: WorkerTrainerOptions,
): RunConfig {
  const { height, width } = pictures.array.layout, noise = parseSchedule(scheduler ?? {});
  const options = parseImages({ size: [height, width], ...images });
  const format = prepare(pictures, { images: options }), { channels } = format;
  const sizes = {
    sample_size: [format.height, format.width],
    ...{ in_channels: channels, out_channels: outputChannels(noise, channels) },
  };
  return {
    ...{ data: pictures.name, steps: DEFAULT_TRAINING_STEPS, images: options },
    network: noisyItemsNetwork(parseNetwork({ ...sizes, ...network })),
    ...{ scheduler: noise, training: parseTraining(training ?? {}) },
  };
}

/** Pictures as they are sent. */
function describe({ name, array, labels, classes }: ArrayPictures): WorkerPictures {
  const { count, height, width, channels } = array.layout;
  return {
    ...{ name, count, height, width, channels: channels as 1 | 3 },
    // What is sent is handed over, and the training needs its own.
    data: array.bytes.slice(),
    ...(labels ? { labels: Int32Array.from(labels) } : {}),
    ...(classes ? { classes } : {}),
  };
}
