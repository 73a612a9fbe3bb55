import { assert, assertEquals, assertMatch } from "@std/assert";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { imagesFile } from "./cli.ts";
import { makeFolder, readFiles, readLog, train } from "./training.ts";

const network = (_class_name: string, rest: object = {}) => ({
  ...{ _class_name, block_out_channels: [4, 8], norm_num_groups: 2, latent_channels: 2 },
  down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D"],
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
  ...rest,
});
const own = (_class_name: string, rest: object = {}) => ({
  ...{ data: "data", network: network(_class_name, rest) },
  training: { objective: "autoencoder", batch_size: 4, learning_rate: 0.002, warmup_steps: 2 },
});
const cpu = ["--device", "cpu"], config = ["--config", "own.json", ...cpu];

for (const name of ["AutoencoderKL", "VQModel"]) {
  Deno.test(`a training of ${name} goes on as if never stopped, and says what it is`, async () => {
    await using folder = await makeFolder();
    await folder.write("own.json", own(name));
    const flags = [...config, "--held-out", "0.2"];
    await folder.succeed(...train("whole", 8, ...flags));
    await folder.succeed(...train("parts", 4, ...flags));
    await folder.succeed("train", "--resume", "--out", "parts", "--steps", "8", ...cpu);
    const [parts, whole] = [await readFiles(folder, "parts"), await readFiles(folder, "whole")];
    for (const path of ["model.safetensors", "state.safetensors", "samples/step-0000008.png"]) {
      assertEquals(parts[path], whole[path], path);
    }
    const [first, , third] = await readLog(folder, "whole");
    assertEquals(Object.keys(first).slice(0, 4), ["step", "loss", "reconstruction", "penalty"]);
    assert(third.step === 6 && first.loss > 0);
    const facts = JSON.parse(await folder.succeed("info", "whole", "--json", ...cpu));
    assertEquals([facts.network, facts.kind, facts.latents], [
      ...[name, "autoencoder", "2 times smaller, 2 channels"],
    ]);
    assertEquals([facts.data, facts.steps, facts["moving average"]], ["data", "8", "yes"]);
    // Measured, and not what diffusers takes for granted.
    assert(facts.scaling_factor > 0 && facts.scaling_factor !== 0.18215);

    await folder.succeed("export", "whole", "--out", "vae");
    const exported = JSON.parse(await Deno.readTextFile(folder.at("vae/config.json")));
    assertEquals([exported._class_name, exported.scaling_factor], [name, facts.scaling_factor]);
    const tensorsOf = (bytes: Uint8Array<ArrayBuffer>) =>
      [...readSafetensors(bytes, "").tensors].map(([name, { bytes }]) => [name, bytes]);
    const file = await Deno.readFile(folder.at("vae/diffusion_pytorch_model.safetensors"));
    assertEquals(tensorsOf(file), tensorsOf(whole["model.safetensors"] as Uint8Array<ArrayBuffer>));
    const again = JSON.parse(await folder.succeed("info", "vae", "--json", ...cpu));
    assertEquals([again.family, again.steps], ["diffusers", "8"]);
    await folder.refuse(
      ["sample", "--model", "whole"],
      /it is an autoencoder .*give a network that/,
    );
  });
}

Deno.test("what cannot be trained as an autoencoder is refused", async () => {
  await using folder = await makeFolder();
  await folder.write("own.json", own("AutoencoderKL"));
  await folder.refuse(
    train("a", 2, ...config, "--size", "7"),
    /pictures of data are 7x7, .* 2 times smaller: sides must be multiples of that, as of 8x8/,
  );
  await folder.refuse(
    train("a", 2, ...config, "--objective", "mse"),
    /Cannot train an AutoencoderKL by mse: the objective of autoencoders is autoencoder/,
  );
  await folder.refuse(
    train("a", 2, "--objective", "autoencoder", ...cpu),
    /Cannot train a UNet2DModel by autoencoder: it is a denoiser/,
  );
  await folder.refuse(
    train("a", 2, ...config, "--label-dropout", "0.1"),
    /label_dropout.* makes no sense with the objectives classifier, autoencoder and contrastive/,
  );
  await folder.write("own.json", { ...own("VQModel"), scheduler: { num_train_timesteps: 10 } });
  await folder.refuse(train("a", 2, ...config), /autoencoders see no noise; leave it out/);
  await folder.write("own.json", own("VQModel", { in_channels: 3, out_channels: 3 }));
  await folder.refuse(train("a", 2, ...config), /its images have 1 channels.*--channels 3 makes/);
});

Deno.test("without a configuration, the objective autoencoder has a network of its own", async () => {
  await using folder = await makeFolder();
  const printed = JSON.parse(
    await folder.succeed("train", "--objective", "autoencoder", "--print-config"),
  );
  assertEquals([printed.network._class_name, printed.scheduler], ["AutoencoderKL", {}]);
  const preset = await folder.succeed("train", "--config", "autoencoder", "--print-config");
  assertEquals({ ...printed, data: "emoji", steps: 4000 }, JSON.parse(preset));
  await folder.write("images", imagesFile());
  const flags = ["--batch-size", "2", "--profile", "1", "--size", "8", ...cpu];
  const profile = await folder.succeed(
    "train",
    "--objective",
    "autoencoder",
    "--data",
    "data",
    ...flags,
  );
  assertMatch(profile, /a step takes/);
});
