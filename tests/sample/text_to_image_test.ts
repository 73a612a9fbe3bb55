import { assert, assertEquals, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import type { Samples } from "../../src/sample/options.ts";
import { weigh } from "../../src/sample/text_states.ts";
import { TextToImage } from "../../src/sample/text_to_image.ts";
import type { GenerationPreview } from "../../src/sample/text_to_image_options.ts";
import { ByteTokenizer } from "../../src/text/byte_tokenizer.ts";
import { assertClose } from "../close.ts";
import { tinyTextToImage } from "../text_to_image.ts";

const model = tinyTextToImage(), settings = { steps: 3 };
const picture = (shade = 0.5): Samples => ({
  ...{ count: 1, shape: [16, 16, 3] },
  data: Float32Array.from({ length: 16 * 16 * 3 }, (_, i) => shade * Math.sin(i / 40)),
});
/** The left half is painted. */
const mask = Float32Array.from({ length: 256 }, (_, i) => i % 16 < 8 ? 1 : 0);
const prompts = ["a cat", "a dog"];
const part = ({ data, count }: Samples, k: number) =>
  data.slice(k * data.length / count, (k + 1) * data.length / count);

Deno.test("an image of a seed is the same for any count, batch, and place to begin", async () => {
  using device = await WasmDevice.open();
  const one = await TextToImage.create(device, model, settings);
  const three = await TextToImage.create(device, model, { ...settings, batchSize: 3 });
  const all = await one.generate({ prompts, count: 5, seed: 3 });
  const batches = await three.generate({ prompts, count: 5, seed: 3 });
  assertClose(batches.images.data, all.images.data, 1e-4);
  const later = await one.generate({ prompts, count: 2, first: 3, seed: 3 });
  assertEquals([0, 1].map((k) => part(later.images, k)), [3, 4].map((k) => part(all.images, k)));
  const other = await one.generate({ prompts: ["a dog"], seed: 3 });
  assertNotEquals(other.images.data, part(all.images, 0));
});

Deno.test("texts lead, negative ones too, and only with guidance", async () => {
  using device = await WasmDevice.open();
  const paint = async (guidance: number, negative: string) => {
    const painter = await TextToImage.create(device, model, { ...settings, guidance });
    return (await painter.generate({ prompts: ["a cat"], negative })).latents.data;
  };
  assertNotEquals(await paint(7.5, ""), await paint(7.5, "a dog"));
  assertEquals(await paint(1, ""), await paint(1, "a dog"));
});

Deno.test("weights of words change states and keep their mean", () => {
  const states = Float32Array.from({ length: 12 }, (_, i) => i + 1);
  assertEquals(weigh(states, [1, 1, 1]), states);
  const weighed = weigh(states, [1, 2, 1]), mean = 6.5;
  assertClose([weighed.reduce((a, b) => a + b) / 12], [mean], 1e-6);
  assertClose([weighed[4] / weighed[0]], [2 * states[4] / states[0]], 1e-6);
});

Deno.test("prompts with weights are read as such where the tokenizer knows them", async () => {
  using device = await WasmDevice.open();
  const plain = new ByteTokenizer({ length: 77 });
  const tokenizer = {
    ...{ length: 77, vocabulary: plain.vocabulary },
    encode: (text: string) => plain.encode(text),
    encodeWeighted: (text: string) => {
      const weights = new Float32Array(77).fill(1);
      if (text.startsWith("(")) weights[1] = 1.5;
      return { ...plain.encode(text.replaceAll(/[()]/g, "")), weights };
    },
  };
  const painter = await TextToImage.create(device, { ...model, tokenizer }, settings);
  const { latents } = await painter.generate({ prompts: ["cat", "(cat)"], seed: 1 });
  const { latents: again } = await painter.generate({ prompts: ["cat"], seed: 1, first: 1 });
  assertNotEquals(part(latents, 1), again.data);
});

Deno.test("what is cut off a prompt is told once, before anything is computed", async () => {
  using device = await WasmDevice.open();
  const painter = await TextToImage.create(device, model, settings), told: unknown[] = [];
  const signal = AbortSignal.abort(), long = "x".repeat(80);
  const { images } = await painter.generate({
    ...{ prompts: [long, "short", long], signal },
    onCut: (...cut) => told.push(cut),
  });
  assertEquals([told, images.count], [[[long, "xxx"]], 0]);
});

Deno.test("image to image keeps the image at strength 0, and changes more with more strength", async () => {
  using device = await WasmDevice.open();
  const painter = await TextToImage.create(device, model, { steps: 5, guidance: 1 });
  const latentsAt = async (strength: number) =>
    (await painter.generate({ prompts, count: 1, init: picture(), strength })).latents.data;
  const kept = await latentsAt(0);
  const far = (values: Float32Array) => Math.hypot(...values.map((x, i) => x - kept[i]));
  const [little, much] = [far(await latentsAt(0.2)), far(await latentsAt(0.8))];
  assert(0 < little && little < much, `${little} and ${much}`);
});

for (const channels of [4, 9] as const) {
  Deno.test(`with ${channels} channels a mask says where to paint`, async () => {
    using device = await WasmDevice.open();
    const painter = await TextToImage.create(device, tinyTextToImage({ channels }), settings);
    const options = { prompts: ["a cat", "a dog"], init: picture(), mask, seed: 1 };
    const { latents } = await painter.generate(options);
    const plain = await painter.generate({ ...options, init: picture(-0.5) });
    assertNotEquals(latents.data, plain.latents.data);
    if (channels === 9) return;
    // What is not painted is as it was, of all images alike.
    const known = await painter.generate({ ...options, strength: 0 });
    for (let i = 0; i < latents.data.length; i++) {
      const isPainted = i % 32 < 16;
      assertEquals(latents.data[i] === known.latents.data[i], !isPainted, `${i}`);
    }
    const far = await painter.generate({ ...options, strength: 0.7, count: 1 });
    assertEquals(far.latents.count, 1);
  });
}

Deno.test("previews show latents of Stable Diffusion by a linear map, and decode others", async () => {
  using device = await WasmDevice.open();
  for (const [scalingFactor, side] of [[0.18215, 8], [0.5, 16]] as const) {
    const other = tinyTextToImage({ scalingFactor });
    const painter = await TextToImage.create(device, other, { steps: 4 });
    const shown: GenerationPreview[] = [], pictures: Samples[] = [];
    const made = await painter.generate({
      ...{ prompts, every: 2 },
      async onPreview(preview) {
        shown.push(preview);
        // One that nobody looks at is not made.
        if (preview.step === 4) pictures.push(await preview.pictures());
      },
    });
    assertEquals(shown.map(({ index, step }) => [index, step]), [[0, 2], [0, 4], [1, 2], [1, 4]]);
    assertEquals(pictures.map(({ shape }) => shape), [[side, side, 3], [side, side, 3]]);
    assertEquals(made.images, (await painter.generate({ prompts })).images);
  }
});

Deno.test("a signal stops every stage, and what is done is decoded", async () => {
  using device = await WasmDevice.open();
  const painter = await TextToImage.create(device, model, settings);
  const whole = await painter.generate({ prompts, init: picture(), seed: 1 });
  const counts = { text: 0, encode: 0, denoise: 1, decode: 1 };
  for (const [stage, count] of Object.entries(counts)) {
    const stop = new AbortController();
    const { images } = await painter.generate({
      ...{ prompts, init: picture(), seed: 1, signal: stop.signal },
      onProgress: (now) => now === stage && stop.abort(),
    });
    assertEquals(images.count, count, stage);
    if (stage === "decode") assertEquals(images.data, part(whole.images, 0));
  }
});

Deno.test("a plan tells what stages take, and devices give all of it back", async () => {
  using device = await WasmDevice.open();
  let held = 0;
  const counted = <T extends Disposable>(resource: T, bytes: number): T => {
    const dispose = resource[Symbol.dispose].bind(resource);
    held += bytes;
    return Object.assign(resource, {
      [Symbol.dispose]: () => {
        held -= bytes;
        dispose();
      },
    });
  };
  const counting: Device = {
    ...{ kind: device.kind, name: device.name },
    buffer(length, dtype) {
      return counted(device.buffer(length, dtype), 4 * length);
    },
    async compile(graph, options) {
      const program = await device.compile(graph, options);
      return counted(program, program.memory);
    },
    plan: (graph, options) => device.plan(graph, options),
    idle: () => device.idle(),
    [Symbol.dispose]: () => {},
  };
  const plan = TextToImage.plan(device, model, settings);
  const painter = await TextToImage.create(counting, model, settings);
  const peaks: Record<string, number> = {};
  await painter.generate({
    ...{ prompts, init: picture() },
    onProgress: (stage) => peaks[stage] = Math.max(peaks[stage] ?? 0, held),
  });
  assertEquals(held, 0);
  for (const [stage, { bytes }] of Object.entries(plan)) {
    const taken = peaks[stage];
    assert(taken <= bytes && taken > 0.9 * bytes, `${stage}: ${taken} of ${bytes}`);
  }
  const halves = TextToImage.plan(device, model, { ...settings, weightDType: "f16" });
  assert(halves.text.bytes < plan.text.bytes && halves.denoise.bytes < plan.denoise.bytes);
});

const refused: [string, Parameters<typeof tinyTextToImage>[0], object, RegExp][] = [
  ["sizes", {}, { size: [16, 15] }, /16x15: sides must be multiples of 2$/],
  ["steps", {}, { steps: 0 }, /0/],
  ["methods", {}, { method: "magic" }, /Cannot sample by magic: the methods are ddpm/],
];
for (const [what, other, options, message] of refused) {
  Deno.test(`${what} that make no sense are refused before anything is compiled`, async () => {
    using device = await WasmDevice.open();
    const broken = tinyTextToImage(other);
    const error = await assertRejects(
      () => TextToImage.create(device, broken, options),
      InputError,
    );
    assert(message.test(error.message), error.message);
    assertThrows(() => TextToImage.plan(device, broken, options), InputError);
  });
}

Deno.test("pieces that do not go together are told apart", async () => {
  using device = await WasmDevice.open();
  const { denoiser, ...rest } = model, tokenizer = new ByteTokenizer({ length: 20 });
  const cases: [typeof model, RegExp][] = [
    [
      { denoiser, ...rest, tokenizer },
      /the tokenizer makes 20 tokens below 257, .* takes 77 below 300/,
    ],
    [{ ...model, textEncoder: tinyTextToImage({ vocabulary: 100 }).textEncoder }, /below 100/],
  ];
  for (const [pieces, message] of cases) {
    const error = await assertRejects(() => TextToImage.create(device, pieces), InputError);
    assert(message.test(error.message), error.message);
  }
});

Deno.test("calls that make no sense are refused, and say what would be right", async () => {
  using device = await WasmDevice.open();
  const painter = await TextToImage.create(device, model, settings);
  const holes = await TextToImage.create(device, tinyTextToImage({ channels: 9 }), settings);
  const init = picture(), none = new Float32Array(256);
  const cases: [Promise<unknown>, RegExp][] = [
    [painter.generate({ prompts: [] }), /give a text, which may be empty/],
    [painter.generate({ prompts, mask }), /A mask needs a picture/],
    [painter.generate({ prompts, init, mask: none }), /leaves nothing to paint/],
    [painter.generate({ prompts, init, mask: [1] }), /A mask is 16x16, 256 numbers, not 1/],
    [painter.generate({ prompts, init, strength: 2 }), /strength 2: it lies between 0 and 1/],
    [painter.generate({ prompts, init, count: 0 }), /number of images is 0/],
    [
      painter.generate({ prompts, init: { ...init, shape: [8, 32, 3] } }),
      /1 or 2 of \[16, 16, 3\]/,
    ],
    [holes.generate({ prompts }), /fills holes: .* \(9 channels\); give init and mask/],
  ];
  for (const [call, message] of cases) {
    const error = await assertRejects(() => call, InputError);
    assert(message.test(error.message), error.message);
  }
});

Deno.test("begun with a picture, plms keeps to noise levels if it is told to", async () => {
  using device = await WasmDevice.open();
  const scheduler = { _class_name: "PNDMScheduler", skip_prk_steps: true, clip_sample: undefined };
  const painter = await TextToImage.create(device, tinyTextToImage({ scheduler }), { steps: 10 });
  assertEquals([painter.method, painter.steps], ["plms", 10]);
  const options = { prompts: ["a cat"], init: picture(), seed: 1 };
  const usual = await painter.generate(options);
  const right = await painter.generate({ ...options, keepsNoiseLevels: true });
  assertNotEquals(usual.latents.data, right.latents.data);
});
