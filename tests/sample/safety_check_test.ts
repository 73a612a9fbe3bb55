import { assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import type { Device } from "../../src/gpu/device.ts";
import { makeGraph } from "../../src/gpu/graph.ts";
import { ReferenceDevice } from "../../src/gpu/reference.ts";
import { input } from "../../src/gpu/tensor.ts";
import { WasmDevice } from "../../src/gpu/wasm/device.ts";
import { parseClipImageProcessor } from "../../src/model/clip_image_processor.ts";
import "../../src/model/model.ts";
import { formatNetwork, parseNetwork } from "../../src/model/network.ts";
import { flatten, viewParameters } from "../../src/model/parameters.ts";
import { parseSafetyChecker } from "../../src/model/safety_checker.ts";
import { checkPictures, judge, planCheck, prepareForClip } from "../../src/sample/safety_check.ts";
import { assertClose } from "../close.ts";
import { openGpu } from "../device.ts";
import { readChecked, readChecker, withParameters } from "../safety_checker.ts";

const devices: Readonly<Record<string, () => Promise<Device>>> = {
  GPU: openGpu,
  CPU: () => WasmDevice.open(),
  interpreter: () => Promise.resolve(new ReferenceDevice()),
};

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`the ${kind} sees pictures as PyTorch does, and comes to the same verdicts`, async () => {
    using device = await open();
    const checker = await readChecker(), { pictures, numbers, verdicts } = await readChecked();
    assertEquals(await checkPictures(device, checker, pictures, { weightDType: "f16" }), verdicts);
    const { layout, forward } = checker.network, shards = [input("parameters", [layout.size])];
    const parameter = viewParameters(layout, shards);
    const seen = forward({ parameter }, input("pixels", [4, 18, 18, 3]));
    using program = await device.compile(makeGraph({ ...seen }));
    program.buffers.parameters.write(flatten(layout, checker.parameters));
    const planar = numbers("pixels"), size = 18 * 18;
    program.buffers.pixels.write(
      planar.map((_, i) =>
        planar[Math.floor(i / size / 3) * size * 3 + i % 3 * size + Math.floor(i / 3) % size]
      ),
    );
    program.run();
    for (const name of ["embeddings", "concepts", "special"]) {
      assertClose(await program.buffers[name].read(), numbers(name), 1e-5);
    }
  });
}

Deno.test("pictures are prepared as Pillow and transformers do it, within a level", async () => {
  const { processor } = await readChecker(), { bytes, numbers } = await readChecked();
  const golden = numbers("pixels"),
    size = 18 * 18,
    levels = processor.std.map((std) => 1 / 255 / std);
  let off = 0;
  for (let k = 0; k < 4; k++) {
    const data = bytes.slice(k * 29 * 41 * 3, (k + 1) * 29 * 41 * 3);
    const own = prepareForClip({ width: 41, height: 29, channels: 3, data }, processor);
    for (let i = 0; i < own.length; i++) {
      const expected = golden[(k * 3 + i % 3) * size + Math.floor(i / 3)];
      const difference = Math.abs(own[i] - expected) / levels[i % 3];
      if (difference > 1.01) throw new Error(`${difference} levels off`);
      if (difference > 0.01) off++;
    }
  }
  assertEquals(off, 0);
});

Deno.test("scores are rounded to thousandths, and special care makes others count more", () => {
  const judged = (concepts: number[], special: number[]) => judge(concepts, special);
  assertEquals(judged([0.0004, -1], [-1]), { isWithheld: false, concepts: [], special: [] });
  assertEquals(judged([0.0006, -1], [-1]), { isWithheld: true, concepts: [0], special: [] });
  assertEquals(judged([-1, -0.009], [-1]), { isWithheld: false, concepts: [], special: [] });
  assertEquals(judged([-1, -0.009], [0.1]), { isWithheld: true, concepts: [1], special: [0] });
  assertEquals(judged([-1, -0.0099], [0.1]), { isWithheld: false, concepts: [], special: [0] });
  // What is told of special care does not depend on its order, and alone it withholds nothing.
  assertEquals(judged([-1], [0.1, -0.005]), { isWithheld: false, concepts: [], special: [0] });
  assertThrows(() => judged([NaN], [0]), Error, "not finite");
});

Deno.test("what is no number is an error and no verdict, and a signal stops checking", async () => {
  using device = await WasmDevice.open();
  const checker = await readChecker(), { pictures, verdicts } = await readChecked();
  const broken = withParameters(
    checker,
    (name, values) => name === "visual_projection.weight" ? values.fill(NaN) : values,
  );
  await assertRejects(() => checkPictures(device, broken, pictures), Error, "not finite");
  const abort = new AbortController();
  const some = await checkPictures(device, checker, pictures, {
    signal: abort.signal,
    onProgress: (done) => done === 2 && abort.abort(),
  });
  assertEquals(some, verdicts.slice(0, 2));
});

Deno.test("its memory is told before, and grows with its weights", async () => {
  using device = await WasmDevice.open();
  const checker = await readChecker();
  const [full, half] = [planCheck(device, checker), planCheck(device, checker, "f16")];
  assertEquals(full.bytes > 4 * checker.network.layout.count, true);
  assertEquals(half.bytes < full.bytes, true);
});

Deno.test("configurations of checkers and processors are read as transformers reads them", async () => {
  const { network } = await readChecker();
  const again = parseSafetyChecker(formatNetwork(network));
  assertEquals(again.layout.count, network.layout.count);
  assertEquals(network.itemShape, [18, 18, 3]);
  const plain = { _class_name: "UNet2DModel", block_out_channels: [8], norm_num_groups: 4 };
  const blocks = { down_block_types: ["DownBlock2D"], up_block_types: ["UpBlock2D"] };
  assertThrows(() => parseSafetyChecker({ ...plain, ...blocks }), InputError, "it is a denoiser");
  const bad = { vision_config: { hidden_size: 10, num_attention_heads: 3 } };
  assertThrows(() => parseSafetyChecker(bad), InputError, "does not divide hidden_size");
  const wide = { vision_config: { patch_size: 300 } };
  assertThrows(() => parseSafetyChecker(wide), InputError, "larger than image_size");
  assertEquals(
    parseNetwork({ _class_name: "StableDiffusionSafetyChecker", ...network.config }).kind,
    "safety checker",
  );

  const usual = parseClipImageProcessor();
  assertEquals([usual.size, usual.crop, usual.mean.length], [224, 224, 3]);
  const now = { size: { shortest_edge: 30 }, crop_size: { height: 20, width: 20 } };
  const { size, crop } = parseClipImageProcessor({ ...now, do_convert_rgb: true, resample: 3 });
  assertEquals([size, crop], [30, 20]);
  for (
    const [fields, message] of [
      [{ resample: 2 }, /resample/],
      [{ do_center_crop: false }, /do_center_crop/],
      [{ crop_size: { height: 10, width: 20 } }, /crop_size/],
      [{ size: 20, crop_size: 30 }, /larger than size/],
      [{ image_std: [1, 0, 1] }, /must be positive/],
    ] as const
  ) {
    const { message: said } = assertThrows(() => parseClipImageProcessor(fields), InputError);
    assertMatch(said, message);
  }
});
