import { assertEquals, assertMatch } from "@std/assert";
import { decode, type Image } from "imagescript";
import { formatParameters, parseParameters } from "../../src/cli/media/parameters.ts";
import { checkOutput, encodePng, writeImages } from "../../src/cli/media/picture_files.ts";
import { readTexts } from "../../src/formats/png_texts.ts";
import { encodeChunk, SIGNATURE } from "../../src/formats/png.ts";
import { sourceTypeIn, XMP } from "../../src/formats/xmp.ts";
import type { Samples } from "../../src/sample/options.ts";
import { Random } from "../random.ts";
import { Folder, tinyModelFile } from "./cli.ts";

const sample = ["sample", "--device", "cpu", "--steps", "2", "--model", "m.safetensors"];

/** A picture with texture, in which there is room for a watermark. */
function textured(): Samples {
  const random = new Random("texture"), shape = [256, 256, 3];
  const data = Float32Array.from({ length: 256 * 256 * 3 }, (_, i) => {
    const x = Math.floor(i / 3) % 256, y = Math.floor(i / 768);
    return 0.5 * Math.sin(x / 30 + i % 3) + 0.3 * Math.cos(y / 22) + random.between(-0.1, 0.1);
  });
  return { count: 1, shape, data };
}

Deno.test("info tells of a picture what made it, and reads its watermark back", async () => {
  await using folder = await Folder.make();
  const output = await checkOutput(folder.at("out/")), unmarked: string[] = [];
  const watermark = { text: "by me", onUnmarked: (what: string) => void unmarked.push(what) };
  await writeImages(output, textured(), [], { model: "m", seed: 7 }, { watermark });
  const info = async (path: string) => JSON.parse(await folder.succeed("info", path, "--json"));
  const { provenance: { software: _, ...made }, ...facts } = await info("out/0000.png");
  assertEquals(made, { model: "m", seed: 7, image: 0, watermark: "by me" });
  assertEquals(facts, {
    ...{ picture: "PNG, 256x256", "digital source type": "trainedAlgorithmicMedia" },
    watermark: "by me",
  });
  assertEquals(unmarked, []);
  const image = await decode(await Deno.readFile(folder.at("out/0000.png"))) as Image;
  await folder.write("x.jpg", await image.encodeJPEG(75) as Uint8Array<ArrayBuffer>);
  const jpeg = await info("x.jpg");
  assertEquals([jpeg.picture, jpeg.provenance, jpeg.watermark], ["JPEG, 256x256", "none", "by me"]);
});

Deno.test("a watermark is claimed only where it is, and refused where there is no room", async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  // Small images enlarged are flat squares.
  const { code, stderr } = await folder.run(...sample, "--count", "4", "--watermark", "x");
  assertEquals(code, 0, stderr);
  assertMatch(stderr, /^the grid has no watermark: it is too flat/m);
  const facts = JSON.parse(await folder.succeed("info", "samples.png", "--json"));
  assertEquals([facts.watermark, facts.provenance.watermark], ["none", undefined]);
  await folder.refuse([...sample, "--watermark", "x", "--out", "x.gif"], /--watermark is for PNG/);
  await folder.refuse([...sample, "--watermark", "x", "--out", "y/"], /as 256x256 have/);
  await folder.refuse([...sample, "--watermark", "x".repeat(21)], /1 to 20 bytes/);
  await folder.write("bad.png", new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10, 0]));
  await folder.refuse(["info", "bad.png"], /Cannot read bad.png/);
});

Deno.test("pictures that began with another are told as such", async () => {
  const picture = { width: 1, height: 1, rgba: new Uint8ClampedArray(4) };
  const typeOf = async (about: Record<string, string>) =>
    sourceTypeIn((await readTexts(await encodePng(picture, about)))[XMP]);
  assertEquals(await typeOf({ model: "mnist" }), "trainedAlgorithmicMedia");
  assertEquals(await typeOf({ init: "a.png" }), "compositeWithTrainedAlgorithmicMedia");
  // As a tag of its own, as others write it.
  const tag = "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/x</";
  assertEquals([sourceTypeIn(tag), sourceTypeIn("<x/>")], ["x", undefined]);
});

Deno.test("parameters come back as they were written, here and by other programs", () => {
  const about = {
    ...{ prompt: "a cat,\n(red: 1.2)", negative: "bad: x", steps: 20, method: "dpmpp_2m" },
    ...{ guidance: 7.5, seed: 1, image: 2, size: [512, 768] as const, model: 'a, "b": c' },
    ...{ sigmas: "karras" },
  };
  const { Version: _, ...read } = parseParameters(formatParameters(about));
  assertEquals(read, {
    ...{ prompt: about.prompt, negative: "bad: x", Steps: "20", Sampler: "DPM++ 2M Karras" },
    ...{ "CFG scale": "7.5", Seed: "1", Size: "768x512", Model: about.model },
    "Image of the seed": "2",
  });
  assertEquals(parseParameters("just a prompt"), { prompt: "just a prompt" });
  const other = 'x\nNegative prompt: y\nz\nSteps: 5, Lora hashes: "a: b, c: d", Model hash: 12ab';
  assertEquals(parseParameters(other), {
    ...{ prompt: "x", negative: "y\nz", Steps: "5", "Lora hashes": "a: b, c: d" },
    "Model hash": "12ab",
  });
});

Deno.test("texts of PNG files are read in every form, and damaged ones are left out", async () => {
  const packed = async (text: string) => {
    const stream = new Blob([text]).stream().pipeThrough(new CompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const bytes = (text: string) => Uint8Array.from(text, (c) => c.charCodeAt(0));
  const chunk = (type: string, ...parts: Uint8Array[]) =>
    encodeChunk({ type, data: Uint8Array.from(parts.flatMap((part) => [...part])) });
  const png = Uint8Array.from([
    ...SIGNATURE,
    ...chunk("tEXt", bytes("a\0é")),
    ...chunk("zTXt", bytes("b\0\0"), await packed("é")),
    ...chunk("iTXt", bytes("c\0\x01\0de\0\0"), await packed("愛")),
    ...chunk("iTXt", bytes("d\0\0\0\0\0"), new TextEncoder().encode("愛")),
    ...chunk("zTXt", bytes("e\0\0xyz")),
    ...chunk("iTXt", bytes("f\0")),
    ...chunk("tEXt", bytes("g\0cut off")).subarray(0, 12),
  ]);
  const texts = await readTexts(png);
  // What is packed holds UTF-8 here, which zTXt does not.
  assertEquals(texts, { a: "é", b: "Ã©", c: "愛", d: "愛" });
  assertEquals(await readTexts(png.subarray(1)), {});
});
