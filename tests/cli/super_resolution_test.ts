import { assertEquals, assertMatch } from "@std/assert";
import { makeFolder, readState, train } from "./training.ts";

const larger = ["--objective", "super-resolution", "--device", "cpu"];

Deno.test("a training to enlarge says so in its files, and goes on as if never stopped", async () => {
  await using folder = await makeFolder();
  const flags = [...larger, "--factor", "4", "--label-dropout", "0.2", "--held-out", "0.2"];
  await folder.succeed(...train("whole", 8, ...flags));
  await folder.succeed(...train("parts", 4, ...flags));
  await folder.succeed("train", "--resume", "--out", "parts", "--steps", "8", "--device", "cpu");
  assertEquals(await readState(folder, "parts"), await readState(folder, "whole"));
  const { network, training } = JSON.parse(
    await Deno.readTextFile(folder.at("whole/config.json")),
  );
  assertEquals([network._class_name, network.factor], ["SuperResolutionUNet2DModel", 4]);
  assertEquals([network.num_class_embeds, training.label_dropout], [11, 0.2]);
  const facts = JSON.parse(await folder.succeed("info", "whole", "--json", "--device", "cpu"));
  assertEquals([facts.network, facts.factor], ["SuperResolutionUNet2DModel", 4]);
  assertMatch(facts["memory to train"], /in batches of 64/);

  await folder.refuse(
    ["train", "--resume", "--out", "parts", "--steps", "9", ...larger, "--factor", "2"],
    /Cannot resume: factor is 4 in parts and 2 in this command/,
  );
  // What flags made of a configuration can be given as one.
  const enlarge = [...larger, "--factor", "4"];
  const printed = await folder.succeed(
    "train",
    "--config",
    "tiny.json",
    ...enlarge,
    "--print-config",
  );
  await folder.write("printed.json", printed);
  await folder.succeed(...train("again", 2, "--config", "printed.json", "--device", "cpu"));
  const again = JSON.parse(await Deno.readTextFile(folder.at("again/config.json")));
  assertEquals(again.network, { ...network, num_class_embeds: null });
});

Deno.test("what cannot be enlarged is refused", async () => {
  await using folder = await makeFolder();
  await folder.refuse(train("a", 2, "--factor", "2"), /--factor goes with --objective super-res/);
  await folder.refuse(train("a", 2, ...larger, "--factor", "1"), /--factor must be a whole number/);
  await folder.refuse(
    train("a", 2, ...larger, "--factor", "3"),
    /enlarges by 3 is for sides that are multiples of 3, not for 8x8/,
  );
  await folder.succeed(...train("a", 2, "--device", "cpu"));
  await folder.refuse(
    ["train", "--resume", "--out", "a", "--steps", "9", ...larger],
    /_class_name is "UNet2DModel" in a and "SuperResolutionUNet2DModel" in this command/,
  );
});
