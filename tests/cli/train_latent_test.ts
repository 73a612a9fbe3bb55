import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { autoencoderNetwork, parseNetwork } from "../../src/model/network.ts";
import { initializeNetwork } from "../../src/model/weights.ts";
import { type Folder, tinyUNet } from "./cli.ts";
import { makeFolder, readFiles, readState, train } from "./training.ts";

const cpu = ["--device", "cpu"];

/** An autoencoder with weights that were never trained. */
function autoencoder(_class_name: string, channels: number, seed = 0, rest: object = {}) {
  const network = autoencoderNetwork(parseNetwork({
    ...{ _class_name, block_out_channels: [4, 8], norm_num_groups: 2, latent_channels: 2 },
    down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    ...{ in_channels: channels, out_channels: channels, ...rest },
  }));
  return serializeModel({ ...initializeNetwork(network, seed), card: {} });
}

async function makeScene(name = "AutoencoderKL"): Promise<Folder> {
  const folder = await makeFolder();
  await folder.write("ae.safetensors", autoencoder(name, 1));
  return folder;
}
const latent = ["--latent", "ae.safetensors", "--label-dropout", "0.2", ...cpu];
const LATENTS = "latents.safetensors";

for (const name of ["AutoencoderKL", "VQModel"]) {
  Deno.test(`a training on latents of ${name} goes on as if never stopped`, async () => {
    await using folder = await makeScene(name);
    await folder.succeed(...train("whole", 8, ...latent));
    await folder.succeed(...train("parts", 4, ...latent));
    const resume = ["train", "--resume", "--out", "parts", ...cpu];
    const kept = await folder.run(...resume, "--steps", "6");
    assertMatch(kept.stderr, /latents {5}12 by ae.safetensors, kept in the folder, scale/);
    // Without the file, they are made again; so they are if it is damaged.
    await Deno.truncate(folder.at(`parts/${LATENTS}`), 500);
    const anew = await folder.run(...resume, "--steps", "8");
    assertMatch(anew.stderr, /latents {5}12 by ae.safetensors, computed once, scale/);
    assertEquals(await readState(folder, "parts"), await readState(folder, "whole"));
    const [parts, whole] = [await readFiles(folder, "parts"), await readFiles(folder, "whole")];
    for (const path of ["model.safetensors", LATENTS, "samples/step-0000008.png"]) {
      assertEquals(parts[path], whole[path], path);
    }
    const { tensors } = readSafetensors(whole[LATENTS] as Uint8Array<ArrayBuffer>, LATENTS);
    assertEquals([...tensors.keys()], name === "VQModel" ? ["mean"] : ["mean", "log_variance"]);
    assertEquals(tensors.get("mean")!.shape, [12 * 32]);
    const { scheduler, latent: place, network } = JSON.parse(
      await Deno.readTextFile(folder.at("whole/config.json")),
    );
    assertEquals([place, scheduler.clip_sample], ["ae.safetensors", false]);
    assertEquals([network.in_channels, network.sample_size], [2, 4]);
  });
}

Deno.test("a model of latents paints pictures, and is told and exported with its autoencoder", async () => {
  await using folder = await makeScene();
  await folder.succeed(...train("a", 4, ...latent));
  const facts = JSON.parse(await folder.succeed("info", "a", "--json", ...cpu));
  assertEquals([facts.image, facts.latents], ["8x8, 1 channels", "4x4, 2 channels"]);
  assertMatch(facts.autoencoder, /^AutoencoderKL, \d+ parameters, scale \d/);

  const sample = ["sample", "--model", "a", "--steps", "4", "--count", "3", "--seed", "5", ...cpu];
  const tensorsOf = async (name: string) => {
    const file = readSafetensors(await Deno.readFile(folder.at(name)), name);
    return [...file.tensors.values()].find(({ shape }) => shape.length === 4)!;
  };
  await folder.succeed(...sample, "--class", "3", "--guidance", "2", "--out", "x.safetensors");
  const painted = await tensorsOf("x.safetensors");
  assertEquals([...painted.shape].sort(), [1, 3, 8, 8]);
  // The state's average is the model's.
  const state = ["--model", "a/state.safetensors", "--class", "3", "--guidance", "2"];
  await folder.succeed(...sample, ...state, "--out", "y.safetensors");
  assertEquals((await tensorsOf("y.safetensors")).bytes, painted.bytes);
  await folder.succeed(...sample, "--class", "4", "--out", "z.safetensors");
  assertNotEquals((await tensorsOf("z.safetensors")).bytes, painted.bytes);
  for (const out of ["x.png", "x.gif", "x.apng"]) await folder.succeed(...sample, "--out", out);

  await folder.succeed("export", "a", "--out", "whole", "--format", "safetensors");
  const same = ["--model", "whole", "--class", "3", "--guidance", "2", "--out", "w.safetensors"];
  await folder.succeed(...sample, ...same);
  assertEquals((await tensorsOf("w.safetensors")).bytes, painted.bytes);
  await folder.succeed("export", "a", "--out", "parts");
  const vae = JSON.parse(await Deno.readTextFile(folder.at("parts/vae/config.json")));
  assert(vae.scaling_factor !== 0.18215 && vae._class_name === "AutoencoderKL");

  const cascade = ["sample", "--model", "a,a", ...cpu];
  await folder.refuse(cascade, /Cannot use a in a cascade: it is a model of latents/);
  await folder.refuse(
    ["restore", "x.png", "--task", "superres:2", "--model", "a", ...cpu],
    /Cannot use a here: it is a model of latents, which sample, interpolate, eval and serve take/,
  );
});

Deno.test("what goes with an autoencoder, and what does not, is said before anything is done", async () => {
  await using folder = await makeScene();
  const refuse = async (message: RegExp, ...args: string[]) =>
    await folder.refuse(train("a", 2, ...args, ...cpu), message);
  const ae = ["--latent", "ae.safetensors"];
  await refuse(
    /its images are 7x7, .* multiples of 2 for ae.*; --size 8 makes them/,
    ...ae,
    "--size",
    "7",
  );
  await refuse(
    /3 channels, and those of the autoencoder ae.safetensors 1; --channels 1/,
    ...ae,
    "--channels",
    "3",
  );
  for (const flags of [["--flip"], ["--shift", "2"], ["--crop", "random"]]) {
    await refuse(new RegExp(`images cannot vary: leave out ${flags[0]}`), ...ae, ...flags);
  }
  await refuse(/Cannot train by vlb on latents/, ...ae, "--objective", "vlb");
  await refuse(
    /Cannot train SuperResolutionUNet2DModel on latents/,
    ...[...ae, "--objective", "super-resolution"],
  );
  await refuse(/Cannot load the model none: there is no such file/, "--latent", "none");
  await folder.write(
    "unet.safetensors",
    serializeModel(initializeModel(parseNetwork({ ...tinyUNet, sample_size: 8 }), {}, 0)),
  );
  await refuse(
    /unet.safetensors as an autoencoder: it is a UNet2DModel; train one with --objective auto/,
    ...["--latent", "unet.safetensors"],
  );

  await folder.succeed(...train("a", 2, ...ae, ...cpu));
  const resume = ["train", "--resume", "--out", "a", "--steps", "4", ...cpu];
  await folder.write("other.safetensors", autoencoder("AutoencoderKL", 1, 1));
  await folder.refuse(
    [...resume, "--latent", "other.safetensors"],
    /latent is "ae.safetensors" in a and "other.safetensors" in this command/,
  );
  await folder.write("ae.safetensors", autoencoder("AutoencoderKL", 1, 1));
  await folder.refuse(resume, /ae.safetensors is not the autoencoder that a was begun with/);
});

Deno.test("autoencoders are where models are, and latents may be learnt with captions", async () => {
  await using folder = await makeScene();
  await folder.succeed("export", "ae.safetensors", "--out", "vae");
  await folder.write("text.json", {
    network: {
      ...{ _class_name: "TextUNet2DModel", block_out_channels: [8, 8], layers_per_block: 1 },
      ...{ norm_num_groups: 4, attention_head_dim: 2 },
      down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D"],
      up_block_types: ["CrossAttnUpBlock2D", "UpBlock2D"],
      text_encoder: { max_length: 8, width: 8, layers: 1, heads: 2 },
    },
    scheduler: { num_train_timesteps: 10 },
    training: { batch_size: 2, label_dropout: 0.2 },
  });
  await Deno.mkdir(folder.at("pictures"));
  await folder.succeed("sample", "--count", "2", "--steps", "2", "--out", "pictures", ...cpu);
  for await (const { name } of Deno.readDir(folder.at("pictures"))) {
    await folder.write(`pictures/${name.replace(/png$/, "txt")}`, `a ${name}`);
  }
  const flags = ["--latent", "vae", "--captions", "--channels", "1", "--size", "8", ...cpu];
  await folder.succeed(
    ...["train", "--config", "text.json", "--data", "pictures", "--out", "t", "--steps", "2"],
    ...flags,
  );
  await folder.succeed(
    ...["sample", "--model", "t", "--prompt", "a dog", "--guidance", "2", "--steps", "2"],
    ...["--out", "dog.png", ...cpu],
  );
  // The autoencoder of a model of latents is one, too.
  await folder.succeed(...train("again", 2, "--latent", "t", ...cpu));
  const profile = ["train", "--config", "text.json", "--data", "pictures", "--profile", "1"];
  assertMatch(await folder.succeed(...profile, ...flags), /^a step takes .*\n[^]* \[2,4,4,8\] /);
});
