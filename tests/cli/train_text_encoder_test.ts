import { assertEquals } from "@std/assert";
import { encodePng } from "../../src/cli/media/picture_files.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import { serializeModel } from "../../src/model/model.ts";
import { dualEncoderNetwork } from "../../src/model/dual_encoder.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { initializeNetwork } from "../../src/model/weights.ts";
import { assertClose } from "../close.ts";
import { Folder, tinyModelFile } from "./cli.ts";

const text_encoder = { vocab_size: 257, max_length: 8, width: 8, layers: 1, heads: 2 };
const network = {
  ...{ _class_name: "TextUNet2DModel", block_out_channels: [8, 8], layers_per_block: 1 },
  ...{ norm_num_groups: 4, attention_head_dim: 2, text_encoder },
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D"],
  up_block_types: ["CrossAttnUpBlock2D", "UpBlock2D"],
};

/** Two pictures with captions, a dual encoder, and a configuration of a UNet. */
async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await Deno.mkdir(folder.at("pictures"));
  for (const [i, caption] of ["a cat", "a dog"].entries()) {
    const rgba = Uint8ClampedArray.from({ length: 4 * 8 * 8 }, (_, k) => k % 4 < 3 ? k * i : 255);
    await folder.write(`pictures/${i}.png`, await encodePng({ width: 8, height: 8, rgba }, {}));
    await folder.write(`pictures/${i}.txt`, caption);
  }
  const dual = parseNetwork({
    ...{ _class_name: "DualEncoder", sample_size: 8, in_channels: 3, projection_dim: 5 },
    ...{ block_out_channels: [4, 4], text_encoder },
  });
  await folder.write(
    "dual.safetensors",
    serializeModel({ ...initializeNetwork(dualEncoderNetwork(dual), 3), card: {} }),
  );
  await folder.write("text.json", { network, training: { batch_size: 2, learning_rate: 1e-30 } });
  return folder;
}

const data = ["--data", "pictures", "--captions", "--size", "8", "--channels", "3"];
const train = ["train", ...data, "--steps", "1", "--device", "cpu"];

/** The parameters of a file's text encoder. */
async function textEncoder(folder: Folder, file: string): Promise<number[]> {
  const { tensors } = readSafetensors(await Deno.readFile(folder.at(file)), file);
  return [...tensors].filter(([name]) => name.startsWith("text_encoder."))
    .sort(([a], [b]) => a < b ? -1 : 1).flatMap(([, tensor]) => [...toFloat32(tensor)]);
}

/** The rounding of an EMA. */
const ROUNDING = 1e-7;

Deno.test("a training starts with the text encoder of another network, and goes on without it", async () => {
  await using folder = await makeFolder();
  const start = [...train, "--config", "text.json", "--text-encoder"];
  await folder.succeed(...start, "dual.safetensors", "--out", "a");
  const found = await textEncoder(folder, "a/model.safetensors");
  assertEquals(found.length, 257 * 8 + 8 * 8 + 12 * 8 * 8 + 12 * 8);
  assertClose(found, await textEncoder(folder, "dual.safetensors"), ROUNDING);
  // What a training of captions has made is a beginning, too.
  await Deno.remove(folder.at("dual.safetensors"));
  await folder.succeed(...start, "a", "--out", "b");
  assertClose(await textEncoder(folder, "b/model.safetensors"), found, ROUNDING);

  const resume = ["train", "--resume", "--out", "a", "--steps", "2", "--device", "cpu"];
  await folder.refuse(
    [...resume, "--text-encoder", "b"],
    /text_encoder is "dual.safetensors" in a and "b" in this command/,
  );
  await folder.succeed(...resume);
  assertClose(await textEncoder(folder, "a/model.safetensors"), found, ROUNDING);
});

Deno.test("a network that is not described has the text encoder that it is given", async () => {
  await using folder = await makeFolder();
  const given = ["--text-encoder", "dual.safetensors", "--print-config"];
  const config = JSON.parse(await folder.succeed(...train, ...given));
  assertEquals(config.text_encoder, "dual.safetensors");
  assertEquals(config.network.text_encoder, text_encoder);
});

Deno.test("a text encoder that there is none of, or that does not fit, is refused", async () => {
  await using folder = await makeFolder();
  await folder.write("unet.safetensors", tinyModelFile());
  const wide = { ...network, text_encoder: { ...text_encoder, width: 16 } };
  await folder.write("wide.json", { network: wide });
  const out = ["--out", "a", "--text-encoder"];
  await folder.refuse(
    [...train, ...out, "unet.safetensors"],
    /start with the text encoder of unet.safetensors: it is a UNet2DModel, which has none; train/,
  );
  await folder.refuse(
    [...train, "--config", "wide.json", ...out, "dual.safetensors"],
    /width is 8 in dual.safetensors and 16 in the network/,
  );
  await folder.refuse(
    [...train, "--config", "tiny", ...out, "dual.safetensors"],
    /UNet2DModel has none; --captions trains a network that has/,
  );
  await folder.refuse([...train, ...out, "none"], /there is no such file/);
});
