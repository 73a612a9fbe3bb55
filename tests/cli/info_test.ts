import { assertEquals, assertMatch } from "@std/assert";
import { shippedModels } from "../../src/model/pretrained.ts";
import { Folder, tinyModelFile } from "./cli.ts";

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

Deno.test("models lists what comes with the package", async () => {
  await using folder = await Folder.make();
  const text = await folder.succeed("models"), lines = text.trim().split("\n");
  assertEquals(lines.length, 1 + shippedModels.length);
  const models = JSON.parse(await folder.succeed("models", "--json"));
  for (const [i, name] of shippedModels.entries()) {
    assertMatch(lines[1 + i], new RegExp(`^${name} +28x28x1 `));
    const { parameters } = JSON.parse(await folder.succeed("info", name, "--json"));
    assertEquals([models[i].name, models[i].parameters], [name, parameters]);
  }
  await folder.refuse(["models", "mnist"], /models takes flags only, not mnist/);
});
