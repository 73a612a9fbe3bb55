import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { inceptionFeatures, prepareForInception } from "../../src/evaluate/inception.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { mean } from "../../src/gpu/ops/sum.ts";
import { interpret } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { INCEPTION, inceptionMaps } from "../../src/model/inception.ts";
import { parametersFrom } from "../../src/model/tensors.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { flatten, viewParameters } from "../../src/model/parameters.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";
import { inceptionWeights } from "../inception.ts";

const fixtures = new URL("../fixtures/inception/", import.meta.url);
const readTensors = async (name: string) =>
  readSafetensors(await Deno.readFile(new URL(`${name}.safetensors`, fixtures))).tensors;
const [images, golden] = await Promise.all(["images", "features"].map(readTensors));
const resized = JSON.parse(await Deno.readTextFile(new URL("resize.json", fixtures)));
const weights = inceptionWeights(), cpu = devices["a CPU with three threads, above 2 GiB"];
const rules = ["pytorch-fid", "torch-fidelity"] as const, names = ["square", "tall"] as const;

/** A picture of the fixtures as a sampler would have made it. */
function samplesOf(name: string) {
  const { shape, bytes } = images.get(name)!;
  return { count: 1, shape, data: Float32Array.from(bytes, (x) => x / 127.5 - 1) };
}

/** The same picture as it goes to a device: a channel after the other. */
function planesOf(name: string) {
  const { shape: [height, width, channels], bytes } = images.get(name)!;
  const pixels = height * width;
  const values = Float64Array.from(
    bytes,
    (_, i) => bytes[i % pixels * channels + Math.floor(i / pixels)],
  );
  return { shape: [1, channels, height, width], values };
}

Deno.test("the formula gives the weights of the golden numbers", async () => {
  assertEquals(weights.size, 472);
  for (
    const [name, expected] of Object.entries({
      "Conv2d_1a_3x3.conv.weight":
        "4010bf73c5da4f2125c24d355e091fa97ec025626ec8a9cbc1ff48df3a75b7c2",
      "Conv2d_1a_3x3.bn.running_var":
        "d9485da9d822f51c9e08989eb14349aefa9f833fbbe52c6e0fa554c2458cd89d",
      "fc.weight": "b74576e3f01be1753504684dba6d281c20a141e82c6cd7cbfccf8ddbac372d45",
    })
  ) {
    const hash = await crypto.subtle.digest("SHA-256", weights.get(name)!.bytes);
    assertEquals(new Uint8Array(hash).toHex(), expected, name);
  }
});

for (const name of names) {
  for (const rule of rules) {
    Deno.test(`the ${name} picture is resized as ${rule} does, without rounding`, () => {
      const { shape, values } = planesOf(name);
      const graph = makeGraph({ pictures: prepareForInception(input("pixels", shape), rule) });
      const { pictures } = interpret(graph, { pixels: values });
      const bytes = Array.from(
        pictures,
        (x) => rule === "pytorch-fid" ? (x + 1) * 127.5 : x * 128 + 128,
      );
      const expected = resized.cases[`${name}/${rule}`],
        points: [number, number][] = resized.points;
      const found = points.flatMap(([y, x]) => [0, 1, 2].map((c) => bytes[(y * 299 + x) * 3 + c]));
      // The origin of the TensorFlow rule's numbers computed places in 32 bits.
      assertClose(found, expected.pixels.flat(), rule === "pytorch-fid" ? 1e-6 : 1e-5, "pixels");
      const sum = (f: (v: number, y: number, x: number, c: number) => number) =>
        bytes.reduce((n, v, i) => {
          const pixel = Math.floor(i / 3);
          return n + f(v, Math.floor(pixel / 299), pixel % 299, i % 3);
        }, 0);
      for (
        const [what, actual] of Object.entries({
          sum: [sum((v) => v)],
          sum_of_squares: [sum((v) => v * v)],
          channel_sums: [0, 1, 2].map((k) => sum((v, _y, _x, c) => c === k ? v : 0)),
          row_weighted_sum: [sum((v, y) => v * (1 + y))],
          column_weighted_sum: [sum((v, _, x) => v * (1 + x))],
        })
      ) assertClose(actual, [expected[what]].flat(), 1e-6, what);
    });
  }
}

Deno.test("every block of Inception v3 has the channel means of PyTorch", async () => {
  using device = await cpu();
  const { layout } = parseNetwork({ _class_name: INCEPTION });
  const { shape, values } = planesOf("square"), pixels = input("pixels", shape);
  const parameter = viewParameters(layout, [input("parameters", [layout.size])]);
  const maps = inceptionMaps(parameter, prepareForInception(pixels, "pytorch-fid"));
  const means = [...maps].map(([name, x]) => [name, mean(x, [1, 2])] as const);
  using program = await device.compile(makeGraph(Object.fromEntries(means)));
  program.buffers.parameters.write(flatten(layout, parametersFrom(layout, weights, "weights")));
  program.buffers.pixels.write(values);
  program.run();
  const compared = means.filter(([name]) => golden.has(`mean.${name}`));
  assertEquals(compared.length, 13);
  for (const [name] of compared) {
    const expected = toFloat32(golden.get(`mean.${name}`)!);
    assertClose(await program.buffers[name].read(), expected, 5e-6, name);
  }
});

for (const [kind, open] of Object.entries({ "a CPU": cpu, "a GPU": devices["this GPU"] })) {
  Deno.test(`features of both preprocessings are those of PyTorch, on ${kind}`, async () => {
    using device = await open();
    for (const preprocessing of rules) {
      using inception = await inceptionFeatures(device, weights, { preprocessing, batchSize: 1 });
      assertEquals(inception.name, `InceptionV3 (${preprocessing})`);
      for (const name of names) {
        const { features } = await inception.extract(samplesOf(name));
        assertClose(features, toFloat32(golden.get(`${name}.${preprocessing}`)!), 5e-6, name);
      }
    }
  });
}

Deno.test("pictures are told apart whatever the batch, as files have them, grey ones too; logits lack the bias", async () => {
  using device = await cpu();
  // What newer versions of PyTorch save beside it, and nothing reads.
  const counter = { dtype: "I64", shape: [], bytes: new Uint8Array(8) };
  const saved = new Map([...weights, ["Mixed_5b.branch1x1.bn.num_batches_tracked", counter]]);
  using inception = await inceptionFeatures(device, saved, { batchSize: 2 });
  const square = samplesOf("square"), { data, shape } = square;
  const mirrored = data.toReversed(), slightly = data.map((x) => x * 1.01 + 0.001);
  const three = { count: 3, shape, data: Float32Array.of(...data, ...mirrored, ...slightly) };
  const { features, logits } = await inception.extract(three);
  assertEquals([features.length, logits!.length], [3 * 2048, 3 * 1008]);
  assertClose(features.subarray(0, 2048), toFloat32(golden.get("square.pytorch-fid")!), 5e-6);
  // Beyond [-1, 1] and between two levels there is nothing in a file.
  const asFile = slightly.map((x) => Math.round(Math.min(Math.max((x + 1) * 127.5, 0), 255)))
    .map((x) => x / 127.5 - 1);
  const alone = await inception.extract({ count: 1, shape, data: asFile });
  assertEquals(alone.features, features.subarray(2 * 2048));

  const matrix = toFloat32(weights.get("fc.weight")!);
  const expected = Array.from(
    { length: 1008 },
    (_, k) => matrix.subarray(k * 2048, (k + 1) * 2048).reduce((n, w, i) => n + w * features[i], 0),
  );
  assertClose(logits!.subarray(0, 1008), expected, 5e-6, "logits");

  const grey = Float32Array.from({ length: 24 * 20 }, (_, i) => i % 255 / 127.5 - 1);
  const colour = Float32Array.from({ length: 3 * grey.length }, (_, i) => grey[Math.floor(i / 3)]);
  const [one, other] = [
    await inception.extract({ count: 1, shape: [24, 20, 1], data: grey }),
    await inception.extract({ count: 1, shape: [24, 20, 3], data: colour }),
  ];
  assertClose(one.features, other.features, 1e-6);

  const refuse = (shape: number[], value: number, why: string) =>
    assertRejects(
      () => inception.extract({ count: 1, shape, data: new Float32Array(400).fill(value) }),
      InputError,
      why,
    );
  await refuse([10, 10, 4], 0, "pictures of 4 channels");
  await refuse([10, 10, 1], NaN, "picture 0: it holds numbers that are not finite");
  await refuse([100, 1], 0, "no pictures");
  await assertRejects(() => inception.extract(three, AbortSignal.abort()), DOMException);
});

Deno.test("tensors that are missing, superfluous or of another network are named", async () => {
  using device = await cpu();
  const fails = async (change: (tensors: typeof weights) => void): Promise<string> => {
    const tensors = new Map(weights);
    change(tensors);
    const error = await assertRejects(
      () => inceptionFeatures(device, tensors, { what: "w.pth" }),
      InputError,
    );
    assertStringIncludes(error.message, "Cannot load w.pth: ");
    return error.message;
  };
  const small = { dtype: "F32", shape: [2], bytes: new Uint8Array(8) };
  assertStringIncludes(
    await fails((t) => t.delete("Mixed_7c.branch_pool.bn.running_var")),
    "it lacks Mixed_7c.branch_pool.bn.running_var",
  );
  assertStringIncludes(
    await fails((t) => t.set("AuxLogits.fc.bias", small)),
    "the network has no place for AuxLogits.fc.bias",
  );
  // What torchvision publishes itself.
  const wrong = { ...small, shape: [1000, 2048] };
  assertStringIncludes(
    await fails((t) => t.set("fc.weight", wrong)),
    "fc.weight has shape [1000, 2048], but the network wants [1008, 2048]",
  );
});
