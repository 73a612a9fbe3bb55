import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { ReferenceDevice } from "../../../src/gpu/reference.ts";
import { denoiserOf } from "../../../src/model/denoiser.ts";
import type { Model } from "../../../src/model/model.ts";
import { autoguided } from "../../../src/sample/guidance/autoguided.ts";
import { guided } from "../../../src/sample/guidance/guided.ts";
import { Sampler } from "../../../src/sample/sampler.ts";
import { type MethodName, methods } from "../../../src/sample/solvers/mod.ts";
import { assertClose } from "../../close.ts";
import { devices, openCpuAs, openGpu } from "../../device.ts";
import { randomModel, smallNetwork, tinyNetwork } from "../../networks.ts";
import { classModel, estimateOn, ofItem, weaker } from "./guidance.ts";

const reference = new ReferenceDevice();
const plain = randomModel(tinyNetwork(), { clip_sample: false });
const differs = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).some((x, i) => Math.abs(x - b[i]) > 1e-3);

Deno.test("autoguidance agrees with both models by themselves, on every device", async () => {
  // A smaller network that predicts something else is a weaker model too.
  const other = {
    ...randomModel(smallNetwork(), { clip_sample: false, prediction_type: "v_prediction" }),
  };
  const cases: [Model, Model, Record<string, number[]>][] = [
    [plain, weaker(plain), {}],
    [plain, other, {}],
    [classModel(), weaker(classModel()), { labels: [0, 1, 2] }],
    [classModel(), weaker(plain), { labels: [0, 1, 2] }],
  ];
  const all = { "the interpreter": () => Promise.resolve(reference), ...devices };
  for (const [model, weak, conditions] of cases) {
    const own = denoiserOf(model), its = denoiserOf(weak, [8, 8], "weak");
    const { labels } = conditions;
    const better = await estimateOn(reference, own, conditions);
    const worse = await estimateOn(reference, its, its.conditions.labels ? { labels } : {});
    const scales = [1.7, 0, 3];
    for (const [name, open] of Object.entries(all)) {
      using device = await open();
      const found = await estimateOn(device, autoguided(its)(own), {
        ...conditions,
        autoguidance: scales,
      });
      for (const key of ["sample", "epsilon"] as const) {
        const wanted = better[key].map((x, i) =>
          worse[key][i] + scales[ofItem(i)] * (x - worse[key][i])
        );
        assertClose(found[key], wanted, name === "the interpreter" ? 1e-6 : 1e-4, `${key} ${name}`);
      }
      assert(differs(found.sample, better.sample));
      if (model !== plain) break;
    }
  }
});

Deno.test("all methods are autoguided alike on all devices, around guidance by classes", async () => {
  const gpu = await openGpu(), cpu = await openCpuAs(2, {});
  using _ = gpu;
  using __ = cpu;
  const model = classModel(), calm = { ...model, parameters: model.parameters.map((x) => x / 2) };
  const weak = denoiserOf(weaker(calm), [8, 8], "weak");
  for (const method of Object.keys(methods) as MethodName[]) {
    if (methods[method].isInverse) continue;
    const images: Float32Array[] = [];
    for (const device of [reference, gpu, cpu]) {
      const wrap = [guided({ scale: 1.5, interval: [0, 5] }), autoguided(weak, { scale: 1.5 })];
      using sampler = await Sampler.create(device, calm, { method, steps: 4, batchSize: 2, wrap });
      images.push((await sampler.sample({ count: 2, seed: 5, labels: [1, 2] })).data);
    }
    for (const data of images) assertClose(data, images[0], 1e-3, method);
  }
});

Deno.test("autoguidance is for some noise levels, and image k is the same in any batch", async () => {
  using device = await openGpu();
  const weak = denoiserOf(weaker(plain), [8, 8], "weak");
  const of = async (batchSize: number, interval?: [number, number]) => {
    const wrap = interval ? [autoguided(weak, { interval, rescale: 0.5 })] : [];
    using sampler = await Sampler.create(device, plain, { steps: 5, batchSize, wrap });
    return (await sampler.sample({ count: 3, seed: 1 })).data;
  };
  const none = await of(3), all = await of(3, [0, Infinity]);
  assertEquals(await of(3, [1e6, Infinity]), none);
  assert(differs(all, none));
  assertClose(await of(2, [0, Infinity]), all, 1e-4);
});

Deno.test("a weaker model that does not go with the model is refused", () => {
  const own = denoiserOf(classModel()), of = (model: Model) => denoiserOf(model, [8, 8], "weak");
  const refuse = (weak: ReturnType<typeof of>, why: string, denoiser = own) =>
    assertThrows(
      () => autoguided(weak)(denoiser),
      InputError,
      `Cannot guide by the weaker model: ${why}`,
    );
  refuse(denoiserOf(plain), "the weights of both are called parameters");
  refuse(
    denoiserOf(plain, [4, 8], "weak"),
    "its items are [4, 8, 1], those of the model [8, 8, 1]",
  );
  const schedules = [{ num_train_timesteps: 500 }, { beta_end: 0.03 }, { prediction_type: "edm" }];
  for (const schedule of schedules) {
    refuse(of(randomModel(tinyNetwork(), schedule)), "it was trained on other noise levels");
  }
  refuse(of(classModel()), "it is told labels, and the model is not", denoiserOf(plain));
  const more = randomModel(tinyNetwork({ num_class_embeds: 9 }));
  refuse(of(more), "it knows 9 labels, and the model 4");
  const vectors = randomModel(tinyNetwork({ class_embed_type: "identity" }));
  refuse(of(vectors), "it takes other labels");
  refuse(
    denoiserOf(plain, [8, 8], "other"),
    "the model is guided by one",
    autoguided(of(plain))(own),
  );
  assertThrows(() => autoguided(of(plain), { rescale: -1 }), InputError, "a rescaling of -1");
});
