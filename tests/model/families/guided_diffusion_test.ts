import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../../src/errors.ts";
import { toFloat32 } from "../../../src/formats/safetensors.ts";
import { grad } from "../../../src/gpu/grad.ts";
import { makeGraph } from "../../../src/gpu/graph.ts";
import { mul, square } from "../../../src/gpu/ops/map.ts";
import { mean, sum } from "../../../src/gpu/ops/sum.ts";
import { constant, input } from "../../../src/gpu/tensor.ts";
import { classifierNetwork, logSoftmax, oneHot } from "../../../src/model/classifier.ts";
import { denoisingNetwork } from "../../../src/model/denoiser.ts";
import { findFamily, readFamily } from "../../../src/model/families/mod.ts";
import { flatten, toFileOrder, viewParameters } from "../../../src/model/parameters.ts";
import { factorOf } from "../../../src/sample/upscaler.ts";
import { sizeOf } from "../../../src/shape.ts";
import { assertClose } from "../../close.ts";
import { openCpuAs } from "../../device.ts";
import { formulaTensors } from "../../formula.ts";
import { channelsLast, ioOf } from "../../families.ts";
import { assertGolden, fixtureOf } from "./golden.ts";

async function load(name: string) {
  const folder = fixtureOf(`adm/${name}`), config = await folder.json("config.json");
  const { tensors } = await folder.tensors("model.pt");
  return { folder, config, tensors, io: (await folder.tensors("io.safetensors")).tensors };
}
const [uncond, conditional, classifier, superres] = await Promise.all(
  ["uncond-updown", "class-new-order", "classifier", "superres"].map(load),
);
const family = findFamily(uncond.tensors)!;

for (const device of ["cpu", "gpu"] as const) {
  Deno.test(`denoisers of guided-diffusion predict what the original does, with both orders of attention, on a ${device.toUpperCase()}`, async () => {
    const first = readFamily(family, uncond.tensors, "x.pt", uncond);
    await assertGolden(first.model, ioOf(uncond.io), device);
    const second = readFamily(family, conditional.tensors, "x.pt", conditional);
    await assertGolden(second.model, ioOf(conditional.io), device);
    const third = readFamily(family, superres.tensors, "x.pt", superres);
    await assertGolden(third.model, ioOf(superres.io), device);
    assertEquals(factorOf(third.model), 2);
    assertThrows(() => factorOf(first.model), InputError, "does not enlarge pictures");
    assertEquals(first.model.schedule.varianceType, "learned_range");
    assertEquals(
      [first.model.schedule.betaSchedule, second.model.schedule.betaSchedule],
      ["linear", "squaredcos_cap_v2"],
    );
    assertEquals(second.model.network.conditions([16, 16, 3]), {
      labels: { shape: [], dtype: "i32", below: 10 },
    });
  });
}

Deno.test("a network of the published 32 groups and 64 channels predicts what the original does", async () => {
  const folder = fixtureOf("adm/formula"), { shapes } = await folder.json("weights.json");
  const tensors = formulaTensors(Object.entries<number[]>(shapes));
  const { model } = readFamily(family, tensors, "x.pt", {
    config: await folder.json("config.json"),
  });
  await assertGolden(model, ioOf((await folder.tensors("io.safetensors")).tensors));
  assertEquals(model.network.config.norm_num_groups, 32);
});

Deno.test("gradients by all parameters and by pictures are those of the original", async () => {
  const { model } = readFamily(family, uncond.tensors, "x.pt", uncond);
  const network = denoisingNetwork(model), { layout } = network;
  const golden = (await uncond.folder.tensors("grads.safetensors")).tensors;
  const sample = channelsLast(uncond.io.get("x")!), weights = channelsLast(golden.get("weights")!);
  const x = input("x", sample.shape), parameters = input("parameters", [layout.size]);
  const prediction = network.forward({ parameter: viewParameters(layout, [parameters]) }, {
    sample: x,
    timestep: constant([...toFloat32(uncond.io.get("timesteps")!)]),
    conditions: {},
  });
  const loss = mean(mul(square(prediction), input("weights", weights.shape)));
  const [byParameters, byPictures] = grad(loss, [parameters, x]);
  using device = await openCpuAs(2, {});
  using program = await device.compile(makeGraph({ loss, byParameters, byPictures }));
  program.buffers.parameters.write(flatten(layout, model.parameters));
  program.buffers.x.write(sample.values);
  program.buffers.weights.write(weights.values);
  program.run();
  assertClose(await program.buffers.loss.read(), toFloat32(golden.get("loss")!), 1e-5, "loss");
  const expected = channelsLast(golden.get("x")!);
  assertClose(await program.buffers.byPictures.read(), expected.values, 1e-4, "gradient by x");
  const flat = await program.buffers.byParameters.read();
  layout.specs.forEach((spec, i) => {
    const own = Float32Array.from(
      flat.subarray(layout.offsets[i], layout.offsets[i] + sizeOf(spec.shape)),
    );
    const expected = toFloat32(golden.get(spec.name)!);
    // Biases of keys cancel in the softmax.
    assertClose([...toFileOrder(spec, own), 1e-4], [...expected, 1e-4], 1e-4, spec.name);
  });
});

Deno.test("the classifier gives the logits of the original, and the gradient of a class by pictures", async () => {
  const { model } = readFamily(family, classifier.tensors, "x.pt", classifier);
  const network = classifierNetwork(model), { layout } = network, { io } = classifier;
  const sample = channelsLast(io.get("x")!), x = input("x", sample.shape);
  const labels = constant(Int32Array.from(toFloat32(io.get("y")!)));
  const parameters = input("parameters", [layout.size]);
  const logits = network.forward({ parameter: viewParameters(layout, [parameters]) }, {
    sample: x,
    timestep: constant([...toFloat32(io.get("timesteps")!)]),
    conditions: {},
  });
  const chosen = sum(mul(logSoftmax(logits), oneHot(labels, 10)), [1]);
  const [gradient] = grad(sum(chosen), [x]);
  using device = await openCpuAs(2, {});
  using program = await device.compile(makeGraph({ logits, chosen, gradient }));
  program.buffers.parameters.write(flatten(layout, model.parameters));
  program.buffers.x.write(sample.values);
  program.run();
  assertClose(await program.buffers.logits.read(), toFloat32(io.get("output")!), 1e-5, "logits");
  assertClose(await program.buffers.chosen.read(), toFloat32(io.get("log_prob")!), 1e-5, "log p");
  const expected = channelsLast(io.get("gradient")!).values;
  assertClose(await program.buffers.gradient.read(), expected, 1e-4, "gradient");
});

Deno.test("published sizes are told by shapes, and what shapes do not tell is taken from flags", async () => {
  const published = async (name: string, config: object) => {
    const { shapes } = await fixtureOf("adm").json(`${name}.keys.json`);
    const tensors = new Map(
      Object.entries<number[]>(shapes).map(([key, shape]) => [
        key,
        { dtype: "F16", shape, bytes: new Uint8Array() },
      ]),
    );
    return readFamily(family, tensors, name, { config });
  };
  const flags = { num_head_channels: 64, learn_sigma: true, use_scale_shift_norm: true };
  const { model, notes } = await published("guided-diffusion-64-class", {
    ...{ ...flags, image_size: 64, num_channels: 192, num_res_blocks: 3, class_cond: true },
    ...{ attention_resolutions: "32,16,8", resblock_updown: true, noise_schedule: "cosine" },
    ...{ use_new_attention_order: true, diffusion_steps: 1000, dropout: 0.1 },
  });
  assertEquals(model.network.config.channel_mult, [1, 2, 3, 4]);
  assertEquals(model.network.config.num_classes, 1000);
  assertEquals(notes.length, 2);
  const large = await published("guided-diffusion-256-uncond", {
    ...{ ...flags, image_size: 256, num_channels: 256, attention_resolutions: "32,16,8" },
  });
  assertEquals(large.model.network.config.channel_mult, [1, 1, 2, 2, 4, 4]);
  assertEquals(
    large.notes[1],
    "its scripts' defaults are taken for granted: use_new_attention_order false, noise_schedule " +
      "linear, diffusion_steps 1000",
  );
  const judge = await published("guided-diffusion-64-classifier", {
    ...{ image_size: 64, classifier_depth: 4, noise_schedule: "cosine", num_classes: 1000 },
    ...{ classifier_attention_resolutions: "32,16,8" },
  });
  assertEquals(judge.model.network.kind, "classifier");
  assertEquals(judge.model.network.itemShape, [64, 64, 3]);
});

Deno.test("flags that are missing, unknown or contradict the tensors are named", () => {
  const fails = ({ tensors }: typeof uncond, config: object) =>
    assertThrows(() => readFamily(family, tensors, "x.pt", { config }), InputError).message;
  const includes = (message: string, part: string) => assert(message.includes(part), message);
  includes(
    fails(uncond, {}),
    "its tensors do not tell image_size, num_head_channels, use_new_attention_order, noise_schedule",
  );
  includes(fails(classifier, {}), "its tensors do not tell image_size and classifier_depth");
  const wrong = (fixture: typeof uncond, fields: object, why: string) =>
    includes(fails(fixture, { ...fixture.config, ...fields }), why);
  wrong(uncond, { num_res_blocks: 2 }, "says num_res_blocks 2, but its tensors are of 1");
  wrong(uncond, { channel_mult: "1,4" }, "says channel_mult [1,4], but its tensors are of [1,2]");
  wrong(
    uncond,
    { attention_resolutions: "16" },
    "says attention_resolutions [16], but its tensors are",
  );
  wrong(
    uncond,
    { resblock_updown: false },
    "says resblock_updown false, but its tensors are of true",
  );
  wrong(uncond, { learn_sigma: false }, "says learn_sigma false, but its tensors are of true");
  wrong(uncond, { class_cond: true }, "says class_cond true, but its tensors are of false");
  wrong(
    uncond,
    { num_head_channels: 5 },
    "12 channels of a level are no multiple of num_head_channels",
  );
  wrong(
    uncond,
    { norm_num_groups: 32 },
    "6 channels of a level are no multiple of norm_num_groups",
  );
  wrong(uncond, { noise_schedule: "quadratic" }, "noise_schedule");
  wrong(uncond, { more: 1 }, "more");
  wrong(
    superres,
    { large_size: undefined },
    "6 channels go in, needs both large_size and small_size",
  );
  wrong(superres, { small_size: 5 }, "needs both large_size and small_size");
  wrong(conditional, { num_classes: 9 }, "says num_classes 9, but its tensors are of 10");
  wrong(
    uncond,
    { rescale_timesteps: true, diffusion_steps: 4000 },
    "rescale_timesteps is supported for 1000 diffusion_steps, not for 4000",
  );
  wrong(classifier, { classifier_depth: 2 }, "4 input_blocks are no levels of 2 residual blocks");
  wrong(classifier, { classifier_resblock_updown: false }, "says classifier_resblock_updown false");
  wrong(classifier, { classifier_pool: "adaptive" }, "classifier_pool");
  const less = new Map(uncond.tensors);
  less.delete("out.0.bias");
  includes(fails({ ...uncond, tensors: less }, uncond.config), "it lacks out.0.bias");
});
