import { assertMatch } from "@std/assert";
import { torchArchive } from "../torch.ts";
import { Folder, tinyModelFile } from "./cli.ts";

/** What a header says of a tensor. */
interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Some tensor of the tiny model, and the one that follows it in the file. */
const TENSOR = "conv_in.bias", NEXT = "down_blocks.0.resnets.0.norm1.weight";

/** The tiny model's file with its header changed. */
function withHeader(
  change: (tensors: Record<string, Entry>, metadata: Record<string, string>) => void,
): Uint8Array {
  const file = tinyModelFile(), start = 8 + Number(new DataView(file.buffer).getBigUint64(0, true));
  const { __metadata__: metadata, ...tensors } = JSON.parse(
    new TextDecoder().decode(file.subarray(8, start)),
  );
  change(tensors, metadata);
  return assemble(JSON.stringify({ __metadata__: metadata, ...tensors }), file.subarray(start));
}

function assemble(header: string, data: Uint8Array, length?: number): Uint8Array {
  const text = new TextEncoder().encode(header),
    file = new Uint8Array(8 + text.length + data.length);
  new DataView(file.buffer).setBigUint64(0, BigInt(length ?? text.length), true);
  file.set(text, 8);
  file.set(data, 8 + text.length);
  return file;
}

const damages: Record<string, [Uint8Array, RegExp]> = {
  "is empty": [new Uint8Array(), /0 bytes are too few/],
  "is a text": [
    new TextEncoder().encode("this is no model at all"),
    /a header of \d+ PB is too/,
  ],
  "ends within its header": [
    tinyModelFile().subarray(0, 200),
    /header takes [\d.]+ kB, but the file ends after 200 bytes/,
  ],
  "has a header longer than itself": [
    assemble("{}", new Uint8Array(4), 7),
    /takes 15 bytes, but the file ends after 14 bytes/,
  ],
  "has a header that is no JSON": [assemble("{", new Uint8Array()), /its header is no JSON/],
  "ends within a tensor": [tinyModelFile().subarray(0, -4), /is it truncated\?/],
  "holds more than its tensors": [
    new Uint8Array([...tinyModelFile(), 0]),
    /1 byte after the last tensor/,
  ],
  "has tensors that overlap": [
    withHeader((h) => {
      h[NEXT].data_offsets = [h[NEXT].data_offsets[0] - 4, h[NEXT].data_offsets[1] - 4];
    }),
    new RegExp(`${NEXT.replaceAll(".", "\\.")} overlaps`),
  ],
  "has a tensor beyond its end": [
    withHeader((h) => h[TENSOR].data_offsets = [1e9, 1e9 + 32]),
    /conv_in\.bias ends after 1\.00 GB, but the file after [\d.]+ kB; is it truncated/,
  ],
  "has an unknown type": [
    withHeader((h) => h[TENSOR].dtype = "F31"),
    /conv_in\.bias is of type F31, not a float \(F8_E4M3, F8_E5M2, F16, BF16, F32, F64\)/,
  ],
  "has integers for weights": [
    withHeader((h) => h[TENSOR].dtype = "I32"),
    /conv_in\.bias is of type I32, not a float/,
  ],
  "lacks a tensor": [
    withHeader((h) => {
      h.another = h[TENSOR];
      delete h[TENSOR];
    }),
    /it lacks conv_in\.bias/,
  ],
  "has a tensor of another shape": [
    withHeader((h) => h[TENSOR].shape = [4, 2]),
    /conv_in\.bias has shape \[?4.*2.*, but the network wants \[?8/,
  ],
  "holds no network": [
    withHeader((_, metadata) => delete metadata.network),
    /its header holds no network/,
  ],
  "holds a network that is none": [
    withHeader((_, metadata) => metadata.network = '{"layers": 3}'),
    /Bad UNet configuration: .*layers/,
  ],
};

for (const [what, [file, message]] of Object.entries(damages)) {
  Deno.test(`a model that ${what} is refused`, async () => {
    await using folder = await Folder.make();
    await folder.write("model.safetensors", file);
    await folder.write("samples.png", "a picture of before");
    await folder.refuse(["sample", "--model", "model.safetensors", "--device", "cpu"], message);
    await folder.refuse(["info", "model.safetensors"], /model\.safetensors|Bad UNet/);
  });
}

Deno.test("a model that holds weights that are not finite is refused where they are read", async () => {
  const file = tinyModelFile();
  new DataView(file.buffer).setFloat32(file.length - 4, NaN, true);
  await using folder = await Folder.make();
  await folder.write("model.safetensors", file);
  await folder.write("samples.png", "a picture of before");
  const model = ["--model", "model.safetensors", "--device", "cpu"];
  await folder.refuse(["sample", ...model], /holds numbers that are not finite/);
  assertMatch(await folder.succeed("info", "model.safetensors"), /^parameters +\d+/m);
});

Deno.test("a model that cannot be read is refused", async () => {
  await using folder = await Folder.make();
  await folder.write("weights.safetensors", tinyModelFile());
  await folder.refuse(["info", "nothing.safetensors"], /there is no such file or folder/);
  await folder.refuse(["info", "weights.safetensors/x"], /there is no such file or folder/);
  await folder.refuse(["info", "."], /it holds neither model\.safetensors nor diffusion_pytorch/);
  await folder.write("diffusion_pytorch_model.bin", "anything");
  await folder.write("config.json", "{}");
  await folder.refuse(["info", "."], /diffusion_pytorch_model\.bin as safetensors: /);
  await folder.write("diffusion_pytorch_model.bin", torchArchive("cos\nsystem\n(S'ls'\ntR."));
  await folder.refuse(["info", "."], /as a pickle: it calls os\.system, which is not run/);
});

Deno.test("a model without colours can only be written as numbers", async () => {
  await using folder = await Folder.make();
  await folder.write("deep.safetensors", tinyModelFile(4));
  const model = ["sample", "--model", "deep.safetensors", "--device", "cpu", "--count", "1"];
  await folder.refuse(model, /Cannot draw images of 4 channels/);
  await folder.refuse([...model, "--out", "x.gif"], /Cannot draw images of 4 channels/);
  const told = await folder.succeed(...model, "--steps", "1", "--out", "x.safetensors");
  assertMatch(told, /^x\.safetensors: 1 image in /);
});

Deno.test("a folder named as the model that comes along does not hide it", async () => {
  await using folder = await Folder.make();
  await Deno.mkdir(folder.at("mnist"));
  assertMatch(await folder.succeed("info", "mnist"), /^parameters +\d+/m);
  await folder.refuse(["info", "./mnist"], /it holds neither/);
});
