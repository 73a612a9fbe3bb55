import { assert, assertEquals } from "@std/assert";
import { Image } from "imagescript";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { Folder, tinyUNet } from "./cli.ts";

const sample = ["sample", "--model", "m.safetensors", "--device", "cpu", "--sampler", "ddim"];

/** A folder with a model of three classes, an image of every grey, and a mask of its right half. */
async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  const sizes = { sample_size: 8, in_channels: 1, out_channels: 1, num_class_embeds: 3 };
  const model = initializeModel(parseNetwork({ ...tinyUNet, ...sizes }), {}, 0);
  const parameters = model.parameters.map((x, i) => x + 0.1 * Math.sin(i));
  await folder.write("m.safetensors", serializeModel({ ...model, parameters }));
  const draw = (grey: (x: number, y: number) => number) => {
    const image = new Image(8, 8);
    for (let y = 0; y < 8; y++) {
      for (let x = 0; x < 8; x++) {
        const v = grey(x, y);
        image.setPixelAt(x + 1, y + 1, Image.rgbaToColor(v, v, v, 255));
      }
    }
    return image.encode();
  };
  await folder.write("init.png", await draw((x, y) => 4 * (8 * y + x)));
  await folder.write("right.png", await draw((x) => x < 4 ? 0 : 255));
  await folder.write("black.png", await draw(() => 0));
  return folder;
}

async function paint(folder: Folder, ...args: string[]): Promise<Float32Array> {
  await folder.succeed(...sample, "--count", "1", "--out", "x.safetensors", ...args);
  const { tensors } = readSafetensors(await Deno.readFile(folder.at("x.safetensors")));
  return toFloat32(tensors.get("images")!);
}

const init = Float32Array.from({ length: 64 }, (_, i) => 4 * i / 127.5 - 1);
const isRight = (i: number) => i % 8 >= 4;

Deno.test("sample starts from an image, and changes as much of it as --strength says", async () => {
  await using folder = await makeFolder();
  const from = (strength: number) =>
    paint(
      folder,
      "--label",
      "1",
      "--steps",
      "4",
      "--init",
      "init.png",
      "--strength",
      `${strength}`,
    );
  const far = (image: Float32Array) =>
    image.reduce((sum, x, i) => sum + (x - init[i]) ** 2, 0) / image.length;
  const [none, some, all] = [far(await from(0)), far(await from(0.5)), far(await from(1))];
  assert(none < 1e-10 && none < some && some < all, `${none}, ${some}, ${all}`);
});

Deno.test("sample paints what is white in --mask, and keeps the rest of --init", async () => {
  await using folder = await makeFolder();
  const steps = ["--label", "0", "--steps", "4", "--jump", "2", "--resample", "2"];
  const image = await paint(folder, ...steps, "--init", "init.png", "--mask", "right.png");
  image.forEach((x, i) => assertEquals(x === init[i], !isRight(i), `pixel ${i}`));
});

Deno.test("sample generates another class in --region", async () => {
  await using folder = await makeFolder();
  const of = (label: number, ...args: string[]) =>
    paint(folder, "--label", `${label}`, "--steps", "1", ...args);
  const [one, other] = [await of(0), await of(2)];
  const both = await of(0, "--region", "right.png", "--other-class", "2");
  both.forEach((x, i) => assert(Math.abs(x - (isRight(i) ? other : one)[i]) < 1e-5, `pixel ${i}`));
  assert(one.some((x, i) => Math.abs(x - other[i]) > 1e-3));
});

Deno.test("edits that make no sense are refused", async () => {
  await using folder = await makeFolder();
  const cases: [string, RegExp][] = [
    ["--strength 0.5", /--strength needs an image to start from: --init IMAGE/],
    ["--init init.png --mask black.png", /black\.png is black everywhere/],
    ["--init init.png --mask alpha", /init\.png is transparent|has no transparency/],
    ["--init init.png --mask right.png --outpaint 2", /--mask or --outpaint, not both/],
    ["--init init.png --outpaint 4", /leaves nothing of the image/],
    ["--resample 3", /--resample and --jump need --mask/],
    ["--region right.png", /--region and --other-class together/],
    ["--region right.png --other-class 3", /has no class 3: its classes are 0, 1 and 2/],
  ];
  for (const [args, why] of cases) {
    await folder.refuse([...sample, "--label", "0", ...args.split(" ")], why);
  }
});
