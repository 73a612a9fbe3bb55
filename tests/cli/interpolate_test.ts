import { assert, assertEquals, assertMatch } from "@std/assert";
import { decode, GIF } from "imagescript";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { assertClose } from "../close.ts";
import { Folder, tinyModelFile } from "./cli.ts";

const run = ["--model", "m.safetensors", "--device", "cpu", "--steps", "4"];
const command = ["interpolate", ...run];

async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile(1));
  return folder;
}

async function readImages(path: string): Promise<Float32Array> {
  const { tensors } = readSafetensors(await Deno.readFile(path), path);
  return toFloat32(tensors.get("images")!);
}

Deno.test("interpolate goes from the image of one seed to that of another", async () => {
  await using folder = await makeFolder();
  const told = await folder.succeed(
    ...command,
    "--seeds",
    "3,5",
    "--count",
    "4",
    "--out",
    "x.safetensors",
  );
  assertMatch(told, /^x\.safetensors: 4 images from 3 to 5\n$/);
  const path = await readImages(folder.at("x.safetensors"));
  assertEquals(path.length, 4 * 64);
  for (const [seed, place] of [[3, 0], [5, 3]]) {
    const flags = ["--sampler", "ddim", "--count", "1", "--seed", `${seed}`, "--out"];
    await folder.succeed("sample", ...run, ...flags, "end.safetensors");
    const end = await readImages(folder.at("end.safetensors"));
    assertClose(path.slice(64 * place, 64 * place + 64), end, 1e-4, `seed ${seed}`);
  }
});

Deno.test("interpolate goes from one picture to another, a frame each", async () => {
  await using folder = await makeFolder();
  await folder.succeed("sample", ...run, "--count", "2", "--out", "ends/");
  const pictures = "ends/0000.png,ends/0001.png";
  await folder.succeed(...command, "--images", pictures, "--count", "3", "--out", "x.gif");
  const gif = await decode(await Deno.readFile(folder.at("x.gif")));
  assert(gif instanceof GIF);
  assertEquals(gif.length, 3);
});

Deno.test("interpolate refuses ends that are none", async () => {
  await using folder = await makeFolder();
  await folder.write("text.png", "no picture");
  const cases: [string[], RegExp][] = [
    [[], /Give two ends to interpolate between: --seeds A,B or --images A,B/],
    [["--seeds", "1,2", "--images", "a,b"], /Give two ends/],
    [["--seeds", "1"], /--seeds must be two whole numbers with a comma between them, not 1/],
    [["--seeds", "1,x"], /two whole numbers/],
    [["--images", "text.png"], /--images must be two files/],
    [["--images", "text.png,text.png"], /Cannot read text\.png: it is no PNG/],
    [["--images", "text.png,none.png"], /Cannot read (none|text)\.png/],
    [["--seeds", "1,2", "--label", "1"], /--label is for models with classes/],
  ];
  for (const [flags, why] of cases) await folder.refuse([...command, ...flags], why);
});
