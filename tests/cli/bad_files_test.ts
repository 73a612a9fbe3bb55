import { Folder, imagesFile, labelsFile, tinyModelFile, tinyUNet } from "./cli.ts";

const IMAGES = "train-images-idx3-ubyte", LABELS = "train-labels-idx1-ubyte";
const sample = ["sample", "--model", "m.safetensors", "--device", "cpu", "--steps", "1"];
const train = ["train", "--data", ".", "--out", "run", "--device", "cpu", "--steps", "1"];

/** A folder with a model, and with data to train on. */
async function makeFolder(): Promise<Folder> {
  const folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  await folder.write(IMAGES, imagesFile());
  await folder.write(LABELS, labelsFile());
  await folder.write("tiny.json", { unet: tinyUNet });
  return folder;
}

Deno.test("an output that cannot be written is refused before anything is computed", async () => {
  await using folder = await makeFolder();
  await folder.write("plain", "a file");
  const cases: [string, RegExp][] = [
    ["nowhere/x.png", /Cannot write nowhere\/x\.png: the folder nowhere does not exist/],
    ["nowhere/folder/", /the folder .*nowhere does not exist/],
    ["plain/x.png", /the folder plain is a file, not a folder/],
    ["plain", /Cannot write to plain: it is a file/],
    ["x.jpg", /Cannot write x\.jpg: give a name that ends in \.png/],
    ["x.png.bak", /give a name that ends in/],
    ["plain/x/y.png", /the folder plain\/x does not exist/],
  ];
  for (const [out, message] of cases) await folder.refuse([...sample, "--out", out], message);
});

Deno.test("IDX files that are damaged are refused", async () => {
  await using folder = await makeFolder();
  const changed = (change: (file: Uint8Array) => void) => {
    const file = imagesFile();
    change(file);
    return file;
  };
  const cases: [string, Uint8Array, RegExp][] = [
    [IMAGES, changed((f) => f[2] = 13), /train-images.* magic number is 0x00000d03/],
    [IMAGES, changed((f) => f[3] = 1), /should be 12 bytes, but there are/],
    [IMAGES, changed((f) => f[7]++), /13x8x8 should be 832 bytes, but there are 768/],
    [IMAGES, imagesFile().subarray(0, -1), /should be 768 bytes, but there are 767/],
    [IMAGES, imagesFile().subarray(0, 10), /10 bytes are too few/],
    [IMAGES, new Uint8Array(), /0 bytes are too few/],
    [IMAGES, new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0]), /its gzip data are damaged/],
    [IMAGES, labelsFile(), /its images are of shape 12, not count x height x width/],
    [LABELS, imagesFile(), /12 images have labels of shape 12x8x8/],
  ];
  for (const [name, file, message] of cases) {
    const good = await Deno.readFile(folder.at(name));
    await folder.write(name, file);
    await folder.refuse(train, message);
    await folder.write(name, good);
  }
});

Deno.test("data that are not there are refused", async () => {
  await using folder = await makeFolder();
  await Deno.mkdir(folder.at("empty"));
  const train = ["train", "--out", "run", "--data"];
  await folder.refuse([...train, "mnits"], /known by name are: mnist, .*; did you mean mnist\?/);
  await folder.refuse([...train, "empty"], /empty: it holds no images, files that end in \.png/);
});

Deno.test("a configuration that makes no sense is refused", async () => {
  await using folder = await makeFolder();
  await folder.write("wide.json", { unet: { ...tinyUNet, in_channels: 3, out_channels: 3 } });
  const cases: [string | object, RegExp][] = [
    ["{", /Cannot read c\.json as JSON/],
    ["[]", /Bad c\.json: .*expected object/],
    [{ unets: {} }, /Bad c\.json: .*unets/],
    [{ unet: 5 }, /Bad c\.json: unet: .*expected record/],
    [{ unet: { ...tinyUNet, block_out_channels: [6, 12] } }, /6 of block_out_channels is no mult/],
    [{ unet: { ...tinyUNet, block_out_channels: [8] } }, /need as many down_block_types/],
    [{ unet: { ...tinyUNet, sample_size: 16 } }, /images are 8x8, but the sample_size .* is 16x16/],
    [{ unet: { ...tinyUNet, in_channels: 3 } }, /images have 1 channels, but .* in_channels 3/],
    [{ training: { batch_size: 0 } }, /Bad training configuration: batch_size/],
    [{ training: { steps: 10 } }, /Bad training configuration: .*steps/],
    [{ scheduler: { beta_schedule: "straight" } }, /Bad noise schedule: beta_schedule/],
  ];
  for (const [content, message] of cases) {
    await folder.write("c.json", content);
    await folder.refuse([...train, "--config", "c.json"], message);
  }
  await folder.refuse([...train, "--config", "d.json"], /Cannot read d\.json: it does not exist/);
});

Deno.test("a folder that holds other things is not trained into", async () => {
  await using folder = await makeFolder();
  await folder.write("model.safetensors", tinyModelFile());
  await folder.refuse([...train, "--out", "."], /it holds a model\.safetensors already/);
  await folder.refuse(
    [...train, "--out", "m.safetensors"],
    /Cannot write to m\.safetensors: it is a file/,
  );
  await folder.refuse(
    [...train, "--out", "m.safetensors/run"],
    /the folder .*m\.safetensors is a file/,
  );
});

Deno.test("where no training is, none is resumed", async () => {
  await using folder = await makeFolder();
  await folder.refuse([...train, "--resume"], /Cannot resume: run holds no training/);
});

Deno.test("where nobody may write, nothing is computed", async () => {
  await using folder = await makeFolder();
  // Not even root may create files there.
  for (const out of ["/sys/x.png", "/sys", "/sys/folder/"]) {
    await folder.refuse([...sample, "--out", out], /Cannot write (to )?\/sys/);
  }
  await folder.refuse([...train, "--out", "/sys/run"], /Cannot write (to )?\/sys\/run/);
});
