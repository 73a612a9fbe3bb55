import { assertEquals, assertMatch } from "@std/assert";
import { licenseOf } from "../../src/cli/commands/model_facts.ts";
import { serializeModel } from "../../src/model/model.ts";
import { shippedModels } from "../../src/model/shipped.ts";
import { copyFixture } from "../fixture.ts";
import { Folder, tinyModel, tinyModelFile } from "./cli.ts";
import { checkpoint, HubServer, sha256, WEIGHTS } from "./hub_server.ts";

Deno.test("info describes this machine", async () => {
  await using folder = await Folder.make();
  assertMatch(await folder.succeed("info"), /^adapter +\S+/m);
  const { device, adapter } = JSON.parse(await folder.succeed("info", "--json", "--device", "cpu"));
  assertEquals(device, "cpu");
  assertMatch(adapter, /^CPU/);
});

Deno.test("info describes a model", async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  const text = await folder.succeed("info", "m.safetensors");
  assertMatch(text, /^parameters +\d+$/m);
  assertMatch(text, /^block_out_channels +\[8,16\]$/m);
  const facts = JSON.parse(await folder.succeed("info", "--json", "m.safetensors"));
  assertEquals(facts.sample_size, 8);
  assertEquals(facts.numTrainTimesteps, 10);
});

Deno.test("info describes the model that comes along", async () => {
  await using folder = await Folder.make();
  const facts = JSON.parse(await folder.succeed("info", "mnist", "--json"));
  assertEquals(facts.sample_size, 28);
  assertEquals(facts.data, "mnist");
  assertMatch(facts.steps, /^\d+$/);
});

Deno.test("info describes autoencoders, which are no models to sample from", async () => {
  await using folder = await Folder.make();
  for (const name of ["kl", "kl-old-names", "vq-ldm"]) {
    await copyFixture(`autoencoder/${name}`, folder.at(name));
  }
  for (const place of ["kl", "kl-old-names", "vq-ldm/model.ckpt"]) {
    const facts = JSON.parse(await folder.succeed("info", place, "--json"));
    const { kind, latents, scaling_factor, network } = facts, isKl = place.startsWith("kl");
    assertEquals(
      [kind, latents, network],
      [
        "autoencoder",
        `2 times smaller, ${isKl ? 4 : 3} channels`,
        isKl ? "AutoencoderKL" : "VQModel",
      ],
    );
    if (isKl) assertEquals(scaling_factor, 0.18215);
    const wrong = /Cannot use .* as a model: it is an autoencoder .* give a network that denoises/;
    await folder.refuse(["sample", "--model", place], wrong);
  }
  await Deno.remove(folder.at("kl/diffusion_pytorch_model.safetensors"));
  await folder.refuse(["info", "kl"], /it holds neither model.safetensors nor diffusion_pytorch/);
});

Deno.test("models lists what comes with the package", async () => {
  await using folder = await Folder.make();
  const text = await folder.succeed("models"), lines = text.trim().split("\n");
  assertEquals(lines.length, 1 + shippedModels.length);
  const models = JSON.parse(await folder.succeed("models", "--json"));
  for (const [i, name] of shippedModels.entries()) {
    assertMatch(lines[1 + i], new RegExp(`^${name} +(28x28x1|64x64x3) `));
    const { parameters } = JSON.parse(await folder.succeed("info", name, "--json"));
    assertEquals([models[i].name, models[i].parameters], [name, parameters]);
  }
  await folder.refuse(["models", "mnist"], /models takes flags only, not mnist/);
});

const device = ["--json", "--device", "cpu"];

Deno.test("info tells where a model is from, what its files are, and what its card allows", async () => {
  await using hub = new HubServer();
  await using folder = await Folder.make();
  const cache = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" };
  Object.assign(folder.env, cache);
  for (const [path, content] of checkpoint()) {
    await Deno.mkdir(folder.at(`pipe/${path}`).replace(/[^/]*$/, ""), { recursive: true });
    await folder.write(`pipe/${path}`, content);
  }
  for (const place of ["pipe", "hf:google/tiny", "hf:google/tiny/unet"]) {
    const facts = JSON.parse(await folder.succeed("info", place, ...device));
    const { layout } = tinyModel().network;
    const expected = {
      ...{ family: "diffusers", network: "UNet2DModel", parameters: layout.count },
      ...{ image: "8x8, 1 channels", schedule: "10 timesteps, linear", prediction: "epsilon" },
      ...{ sampler: "ddpm", dtype: "F32", sha256: sha256(checkpoint().get(WEIGHTS)!) },
      ...{ license: "apache-2.0", missing: "nothing" },
    };
    for (const [name, value] of Object.entries(expected)) assertEquals(facts[name], value, name);
    assertEquals(facts.pipeline, place.endsWith("unet") ? undefined : "DDPMPipeline");
    assertMatch(facts["moving average"], /^not told/);
  }
  await folder.write("m.safetensors", serializeModel(tinyModel(), "BF16"));
  const own = JSON.parse(await folder.succeed("info", "m.safetensors", ...device));
  assertEquals([own.family, own.dtype, own.license], ["ddpm", "BF16", undefined]);
  assertEquals(own["moving average"], "not told");
  const trained = { ...tinyModel(), card: { training: "{}" } };
  await folder.write("trained.safetensors", serializeModel(trained));
  const told = JSON.parse(await folder.succeed("info", "trained.safetensors", ...device));
  assertEquals(told["moving average"], "yes");
  assertEquals(own.sha256, sha256(await Deno.readFile(folder.at("m.safetensors"))));
});

Deno.test("info tells what is missing to run a pipeline, without fetching its weights", async () => {
  await using hub = new HubServer();
  await using folder = await Folder.make();
  const cache = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" };
  Object.assign(folder.env, cache);
  const index = {
    ...{ _class_name: "LDMPipeline", unet: ["diffusers", "UNet2DModel"] },
    ...{ vqvae: ["diffusers", "VQModel"], scheduler: ["diffusers", "DDIMScheduler"] },
  };
  hub.files.set("model_index.json", new TextEncoder().encode(JSON.stringify(index)));
  assertEquals(JSON.parse(await folder.succeed("info", "hf:google/tiny", ...device)), {
    ...{ family: "diffusers", pipeline: "LDMPipeline", network: "unet (UNet2DModel)" },
    ...{ license: "apache-2.0", missing: "vqvae (VQModel)" },
  });
  assertEquals(hub.fetched, ["model_index.json", "README.md"]);
});

Deno.test("the licence is that of the YAML that a card begins with", () => {
  const cases: [string, string | undefined][] = [
    ["---\nlicense: mit\ntags: [x]\n---\n# A\n", "mit"],
    ["---\r\ntags:\r\n- x\r\nlicense: 'cc-by-4.0'\r\n---\r\n", "cc-by-4.0"],
    ["---\nlicense:\n- mit\n- apache-2.0\ntags:\n- x\n---\n", "mit, apache-2.0"],
    ["---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE\n---\n", "own"],
    ["---\nlicense: other\n---\n", "other"],
    ["---\ntags: []\n---\nlicense: mit\n", undefined],
    ["license: mit\n", undefined],
    ["---\nlicense:\n---\n", undefined],
    ["", undefined],
  ];
  for (const [card, license] of cases) assertEquals(licenseOf(card), license, card);
});

Deno.test("info describes a UNet that is told texts, and sample says what it lacks", async () => {
  await using folder = await Folder.make();
  await copyFixture("unet-condition/inpaint-9ch", folder.at("unet"));
  await folder.write("unet/scheduler_config.json", { _class_name: "DDIMScheduler" });
  const facts = JSON.parse(await folder.succeed("info", "unet", ...device));
  assertEquals([facts.network, facts.image], ["UNet2DConditionModel", "8x8, 4 channels"]);
  assertEquals([facts.parameters, facts.cross_attention_dim, facts.in_channels], [53004, 24, 9]);
  assertMatch(facts["memory to train"], /^none: .* told states of texts, but those that read/);
  await folder.refuse(
    ["sample", "--model", "unet"],
    /Cannot sample from unet: the UNet2DConditionModel needs a text.*whole pipeline/,
  );
  await copyFixture("unet-condition/depth-8heads", folder.at("ldm"));
  const alone = JSON.parse(await folder.succeed("info", "ldm/ldm-fp16.ckpt", ...device));
  assertEquals([alone.network, alone.attention_head_dim], ["UNet2DConditionModel", 8]);
});
