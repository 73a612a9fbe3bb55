import { assert, assertEquals, assertMatch } from "@std/assert";
import { decode, Image } from "imagescript";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { Folder, tinyUNet } from "./cli.ts";

/** A picture of greys, or of colors whose green is another one. */
async function picture(
  width: number,
  height: number,
  value: (x: number, y: number) => number,
  isColored = false,
): Promise<Uint8Array> {
  const image = new Image(width, height);
  for (let i = 0; i < width * height; i++) {
    const v = value(i % width, Math.floor(i / width));
    image.bitmap.set([v, isColored ? 255 - v : v, v, 255], 4 * i);
  }
  return await image.encode();
}

/** A model whose weights were never trained: it takes all noise for a part of the picture. */
const modelFile = (channels: number) =>
  serializeModel(initializeModel(
    parseNetwork({ ...tinyUNet, sample_size: 8, in_channels: channels, out_channels: channels }),
    ...[{ num_train_timesteps: 10 }, 0] as const,
  ));

/** A folder with pictures and models of 8 × 8. */
async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make(), ramp = (x: number, y: number) => 40 + 12 * x + 8 * y;
  await folder.write("grey.safetensors", modelFile(1));
  await folder.write("color.safetensors", modelFile(3));
  await folder.write("small.png", await picture(2, 2, (x, y) => 60 + 50 * x + 90 * y));
  await folder.write("odd.png", await picture(3, 5, ramp));
  await folder.write("full.png", await picture(8, 8, ramp));
  await folder.write("large.png", await picture(40, 20, (x) => 5 * x));
  await folder.write("colored.png", await picture(8, 8, ramp, true));
  await folder.write("mask.png", await picture(8, 8, (x) => x < 3 ? 255 : 0));
  await folder.write("black.png", await picture(8, 8, () => 0));
  await folder.write("white.png", await picture(8, 8, () => 255));
  return folder;
}

const restore = (task: string, ...more: string[]) => [
  ...["restore", "--task", task, "--model", "grey.safetensors", "--device", "cpu"],
  ...["--steps", "5", ...more],
];

const redOf = async (path: string) => {
  const image = await decode(await Deno.readFile(path)) as Image;
  return { ...image, values: Array.from(image.bitmap).filter((_, i) => i % 4 === 0) };
};

Deno.test("restore enlarges small pictures, and large ones that it reduces first", async () => {
  await using folder = await makeFolder();
  const sr = restore("superres:4"), { stdout, stderr } = await folder.run(...sr, "small.png");
  assertMatch(
    stdout,
    /^restored\.png: 1 picture in [\d.]+ s; what is known of it is met to 0\.00\d\d rms, of a range of 2, and was to \d\.\d{4} before the last correction\n$/,
  );
  assertMatch(stderr, /^small\.png: 2x2, taken for what is left$/m);
  const { values } = await redOf(folder.at("restored.png"));
  assertEquals(values.length, 64, "a single picture is one, not a grid");
  for (let block = 0; block < 4; block++) {
    const own = values.filter((_, i) => (i >> 5) * 2 + ((i >> 2) & 1) === block);
    const mean = own.reduce((a, b) => a + b) / 16,
      expected = 60 + 50 * (block & 1) + 90 * (block >> 1);
    assert(Math.abs(mean - expected) < 1, `${mean} instead of ${expected}`);
  }
  const several = await folder.run(...sr, "full.png", "large.png", "--out", "all/");
  assertEquals(several.code, 0, several.stderr);
  assertMatch(several.stderr, /^full\.png: 8x8, reduced to 2x2 first$/m);
  assertMatch(several.stderr, /^large\.png: 40x20, brought to 8x8, reduced to 2x2 first$/m);
  assertEquals((await folder.list(folder.at("all"))).length, 2);
  const fitted = await folder.run(...sr, "odd.png", "--seed", "2");
  assertMatch(fitted.stderr, /^odd\.png: 3x5, taken for what is left, brought to 2x2$/m);
});

Deno.test("restore keeps what a mask leaves, sharpens and colors", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...restore("inpaint", "full.png", "--mask", "mask.png", "--out", "a.png"));
  const [kept, before] = [await redOf(folder.at("a.png")), await redOf(folder.at("full.png"))];
  kept.values.forEach((v, i) => i % 8 < 3 || assertEquals(v, before.values[i]));
  assert(kept.values.some((v, i) => Math.abs(v - before.values[i]) > 8));

  const dps = ["full.png", "--method", "dps", "--zeta", "1", "--out", "b.safetensors"];
  await folder.succeed(...restore("deblur:0.7", ...dps));
  const { tensors, metadata } = readSafetensors(
    await Deno.readFile(folder.at("b.safetensors")),
    "b",
  );
  assertEquals(tensors.get("images")!.shape, [1, 1, 8, 8]);
  assert(toFloat32(tensors.get("images")!).every((v) => v >= -1 && v <= 1));
  assertEquals([metadata.task, metadata.method, metadata.zeta], ["deblur:0.7", "dps", "1"]);

  const color = restore("colorize", "full.png", "colored.png", "--out", "c/")
    .with(4, "color.safetensors");
  const { code, stderr } = await folder.run(...color);
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^colored\.png: 8x8, made grey$/m);
  assert(!stderr.includes("full.png:"));
  const image = await decode(await Deno.readFile(folder.at("c/0000.png"))) as Image;
  before.values.forEach((v, i) => {
    const mean = image.bitmap.subarray(4 * i, 4 * i + 3).reduce((a, b) => a + b) / 3;
    assert(Math.abs(mean - v) < 1.1, `${mean} instead of ${v}`);
  });
});

Deno.test("restore says what is wrong, and a restoration that diverged fails", async () => {
  await using folder = await makeFolder();
  await folder.write(
    "classes.safetensors",
    serializeModel(initializeModel(
      parseNetwork({
        ...tinyUNet,
        sample_size: 8,
        in_channels: 1,
        out_channels: 1,
        num_class_embeds: 3,
      }),
      ...[{}, 0] as const,
    )),
  );
  const bare = ["restore", "full.png", "--device", "cpu"];
  for (
    const [args, message] of [
      [bare, /Say what is lost: --task superres:4 \(2 to 64\), inpaint, deblur:1\.5/],
      [restore("superres", "full.png"), /--task must be superres:4 .*, not superres$/],
      [restore("superres:1", "full.png"), /--task must be superres:4 .*, not superres:1$/],
      [restore("superres:2.5", "full.png"), /not superres:2\.5$/],
      [restore("deblur", "full.png"), /not deblur$/],
      [restore("deblur:-1", "full.png"), /not deblur:-1$/],
      [restore("inpaint:3", "full.png"), /not inpaint:3$/],
      [restore("zoom", "full.png"), /not zoom$/],
      [restore("superres:4"), /restore needs pictures: ddpm restore IN\.png/],
      [
        restore("superres:3", "full.png"),
        /of 8x8 from ones 3 times as small: sides must be multiples/,
      ],
      [restore("superres:4", "full.png", "small.png"), /full\.png and small\.png together: one is/],
      [restore("colorize", "full.png"), /Cannot colorize: the model's pictures are grey$/],
      [restore("inpaint", "full.png"), /--task inpaint needs a --mask, which is white where/],
      [
        restore("deblur:1", "full.png", "--mask", "mask.png"),
        /--mask is for --task inpaint, not deblur$/,
      ],
      [
        restore("inpaint", "full.png", "--mask", "small.png"),
        /The mask small\.png is 2x2, but the picture full\.png is 8x8$/,
      ],
      [
        restore("inpaint", "full.png", "--mask", "black.png"),
        /black everywhere: there is nothing to paint/,
      ],
      [restore("inpaint", "full.png", "--mask", "white.png"), /white everywhere: nothing is known/],
      [restore("superres:4", "full.png", "--zeta", "3"), /--zeta is for --method dps/],
      [restore("superres:4", "full.png", "--out", "x.gif"), /Cannot write x\.gif/],
      [restore("superres:4", "none.png"), /none\.png/],
      [
        restore("superres:4", "full.png").with(4, "classes.safetensors"),
        /Cannot restore with classes\.safetensors: it has to be told labels; take an unconditional/,
      ],
    ] as const
  ) await folder.refuse(args, new RegExp(message.source, "m"));
  const wild = restore("superres:4", "small.png", "--method", "dps", "--zeta", "100000");
  const { code, stdout, stderr } = await folder.run(...wild);
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^error: Cannot restore image 0: .* a smaller zeta than 100000$/m);
  assert(!(await folder.list()).some((line) => line.includes("restored.png")));
});
