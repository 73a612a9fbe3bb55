/**
 * Diffusion models for people who have Deno and nothing else: on any GPU, and on plain CPUs.
 *
 * As a program:
 *
 * ```sh
 * deno run -A jsr:@x/ddpm sample
 * deno run -A jsr:@x/ddpm train --data mnist --out runs/digits
 * ```
 *
 * As a library, in Deno and in browsers, nothing here touches files, prints, or exits. A model is a
 * plain object; {@linkcode Sampler} and {@linkcode Trainer} compile it for a {@linkcode Device}.
 *
 * @example Paint four digits
 * ```ts
 * import { fetchModel, makeGrid, openDevice, Sampler } from "@x/ddpm";
 *
 * const model = await fetchModel("mnist");
 * using device = await openDevice();
 * using sampler = await Sampler.create(device, model, { steps: 5, batchSize: 4 });
 * const picture = makeGrid(await sampler.sample({ count: 4, seed: 1, labels: [3, 1, 4, 1] }));
 * console.log(picture.width, picture.height);
 * ```
 *
 * @module
 */

export { InputError } from "./src/errors.ts";
export {
  type Device,
  DeviceError,
  LimitError,
  type Precision,
  type TensorBuffer,
} from "./src/gpu/device.ts";
export type {
  Excess,
  KernelDescription,
  MemoryPlan,
  ProgramDescription,
  StageDescription,
} from "./src/gpu/describe.ts";
export { type DeviceKind, openDevice, type OpenOptions } from "./src/gpu/open.ts";
export type { Tuning } from "./src/gpu/wgsl/tuner.ts";
export type { DType } from "./src/gpu/tensor.ts";
export type {
  Condition,
  Conditions,
  Denoised,
  Denoiser,
  DenoiserWrapper,
  Level,
  Query,
} from "./src/diffusion/denoiser.ts";
export type { WeightArray, WeightParts, WeightValues } from "./src/diffusion/weights.ts";
export type { Estimates, LevelTensors } from "./src/diffusion/prediction.ts";
export { denoiserOf } from "./src/model/denoiser.ts";
export {
  type AutoencoderNetwork,
  autoencoderNetwork,
  type AutoencoderParts,
  type ClassifierNetwork,
  type ClassifierParts,
  type ConceptScores,
  defineNetwork,
  type DenoisingNetwork,
  type DenoisingParts,
  type Encoded,
  type FeatureNetwork,
  type FeatureParts,
  type Features,
  type Fields,
  formatNetwork,
  type Forward,
  type ItemFeatures,
  type ItemNetwork,
  type ItemNetworkParts,
  type ItemParts,
  type ItemShape,
  type Network,
  type NetworkBase,
  type NetworkClass,
  type NetworkInputs,
  type NetworkMaker,
  type NetworkParts,
  type NoisyItemsNetwork,
  type NoisyItemsParts,
  parseNetwork,
  type Quantized,
  registerNetwork,
  type SafetyCheckerNetwork,
  type SafetyCheckerParts,
  type SegmentKind,
  type TrainableNetwork,
} from "./src/model/network.ts";
export {
  type EncodedTokens,
  parseTextEncoder,
  type TextEncoderNetwork,
  type TextEncoderParts,
} from "./src/model/text_encoder.ts";
export {
  type AutoencoderModel,
  type DualEncoderModel,
  initializeModel,
  type LoadedModel,
  type Model,
  parseModel,
  readAutoencoder,
  readDualEncoder,
  readModel,
  serializeModel,
  type Trainable,
} from "./src/model/model.ts";
export {
  type DualEncoderNetwork,
  dualEncoderNetwork,
  type DualEncoderParts,
} from "./src/model/dual_encoder.ts";
export { type LoraOptions, mergeLora } from "./src/model/lora.ts";
export {
  type ClipImageProcessor,
  parseClipImageProcessor,
} from "./src/model/clip_image_processor.ts";
export { parseSafetyChecker } from "./src/model/safety_checker.ts";
export type { SafetyChecker, TextToImageModel } from "./src/model/text_to_image.ts";
export type { FamilyPipeline } from "./src/model/families/stable_diffusion.ts";
export type { WeightFileDType } from "./src/model/tensors.ts";
export { assembleNetwork, initializeNetwork, type Weighted } from "./src/model/weights.ts";
export type {
  ParameterLayout,
  ParameterReader,
  ParameterSource,
  ParameterSpec,
  ParameterValues,
  WeightDType,
} from "./src/model/parameters.ts";
export { Scratch } from "./src/formats/bytes.ts";
export {
  type FileDType,
  type FileTensor,
  type NamedTensor,
  readSafetensors,
  type Safetensors,
  type StoredTensor,
  writeSafetensors,
} from "./src/formats/safetensors.ts";
export {
  type FamilyAutoencoder,
  type FamilyModel,
  findAutoencoderFamily,
  findFamily,
  readAutoencoderFamily,
  readFamily,
} from "./src/model/families/mod.ts";
export { readModelFile } from "./src/model/model_file.ts";
export {
  type FamilyPieces,
  findPipelineFamily,
  readPipelineFamily,
} from "./src/model/families/pipelines.ts";
export type {
  Family,
  FamilyMember,
  FamilyNetwork,
  FamilyOptions,
  TensorMap,
} from "./src/model/families/family.ts";
export { readTensorFile, readTorch, type TorchFile } from "./src/formats/torch.ts";
export { ByteTokenizer } from "./src/text/byte_tokenizer.ts";
export {
  BertTokenizer,
  fetchBertVocabulary,
  parseBertVocabulary,
} from "./src/text/bert_tokenizer.ts";
export { ClipTokenizer } from "./src/text/clip_tokenizer.ts";
export {
  type ClipVocabulary,
  fetchClipVocabulary,
  parseClipVocabulary,
} from "./src/text/clip_vocabulary.ts";
export type { TokenizerOptions } from "./src/text/framing.ts";
export { parsePromptWeights, type WeightedText } from "./src/text/prompt_weights.ts";
export type { TokenizedText, Tokenizer, WeightedTokens } from "./src/text/tokenizer.ts";
export {
  type NoiseLevel,
  NoiseSchedule,
  parseSchedule,
  type PredictionType,
  type ScheduleConfig,
  type TimestepOptions,
  type TimestepSpacing,
} from "./src/diffusion/schedule.ts";
export {
  exponentialSigmas,
  karrasSigmas,
  polyexponentialSigmas,
  vpSigmas,
} from "./src/diffusion/sigmas.ts";
export { fetchModel } from "./src/model/pretrained.ts";
export type { ShippedModel } from "./src/model/shipped.ts";
export {
  type Bound,
  type Density,
  type LikelihoodOptions,
  measureBound,
  measureDensity,
} from "./src/sample/likelihood.ts";
export { autoguided } from "./src/sample/guidance/autoguided.ts";
export type { GuidanceOptions } from "./src/sample/guidance/extrapolate.ts";
export { guided } from "./src/sample/guidance/guided.ts";
export { embedWatermark, readWatermark } from "./src/sample/watermark.ts";
export { makeGrid, type Picture } from "./src/sample/pixels.ts";
export { interpolate, type NoiseOptions, startNoise, vary } from "./src/sample/interpolate.ts";
export type { MethodOptions, SigmaSpacing } from "./src/sample/options.ts";
export type {
  SampleOptions,
  SamplerOptions,
  Samples,
  SamplingStep,
  StreamOptions,
} from "./src/sample/options.ts";
export {
  classifierGuided,
  type ClassifierGuidedOptions,
} from "./src/sample/guidance/classifier_guided.ts";
export {
  type GuidanceLoss,
  guidedBy,
  type GuidedByOptions,
} from "./src/sample/guidance/guided_by.ts";
export { type LinearOperator, operators } from "./src/sample/guidance/operators.ts";
export {
  type RestorationMethod,
  restored,
  type RestoredOptions,
} from "./src/sample/guidance/restored.ts";
export { measure, type Restoration, restore, type RestoreOptions } from "./src/sample/restore.ts";
export type { Evaluation, Solver, Step, UpdateTable, Weights } from "./src/sample/solver.ts";
export { type MethodName, methods } from "./src/sample/solvers/mod.ts";
export { inpaint, type InpaintOptions } from "./src/sample/editing/inpaint.ts";
export { regions } from "./src/sample/editing/regions.ts";
export type { Resampling } from "./src/sample/editing/resample.ts";
export { Sampler } from "./src/sample/sampler.ts";
export {
  Autoencoder,
  type AutoencoderOptions,
  type Codes,
  type EncodeOptions,
  type LatentOptions,
} from "./src/sample/autoencoder.ts";
export { LatentSampler, type LatentStep } from "./src/sample/latent_sampler.ts";
export { TextToImage } from "./src/sample/text_to_image.ts";
export { checkPictures, type SafetyVerdict } from "./src/sample/safety_check.ts";
export type {
  Generated,
  GenerateOptions,
  GenerationPreview,
  GenerationStage,
  StagePlan,
  TextToImageOptions,
  TextToImagePlan,
} from "./src/sample/text_to_image_options.ts";
export { type UpscaledRows, type UpscaleOptions, Upscaler } from "./src/sample/upscaler.ts";
export {
  type EmaSchedule,
  type LearningRateSchedule,
  parseTraining,
  type TrainingConfig,
} from "./src/train/config.ts";
export type { Dataset, DatasetInfo } from "./src/data/dataset.ts";
export type { Latents } from "./src/data/latents.ts";
export type { LossWeighting, ObjectiveConfig, ObjectiveName } from "./src/train/objective.ts";
export {
  type AutoencoderLoss,
  autoencoderLoss,
  type AutoencoderLossConfig,
  divergence,
} from "./src/train/autoencoder_loss.ts";
export { type Contrast, contrastiveLoss } from "./src/train/contrasting.ts";
export type { OptimizerConfig } from "./src/train/step.ts";
export type { TimestepConfig, TimestepSampling } from "./src/train/timesteps.ts";
export { type ItemSize, type Trained, Trainer } from "./src/train/trainer.ts";
export type { Quartile, StepRecord } from "./src/train/records.ts";
export type {
  RestorableState,
  StateArrays,
  StateName,
  StateReader,
  TrainingState,
} from "./src/train/state.ts";
// Only where this file is the program, not where it is a part of a bundle that is. Deno follows the
// import beforehand; bundlers leave alone what is told to them, or has options that are no literal.
if (import.meta.main && import.meta.url.endsWith("/mod.ts")) {
  const options = {};
  await import(/* webpackIgnore: true */ /* @vite-ignore */ "./src/cli/start.ts", options);
}
