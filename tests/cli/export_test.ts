import { assert, assertEquals, assertMatch } from "@std/assert";
import { copyFixture } from "../fixture.ts";
import { readSafetensors } from "../../src/formats/safetensors.ts";
import { serializeModel } from "../../src/model/model.ts";
import { classModel, Folder, tinyModel, tinyModelFile } from "./cli.ts";

const WEIGHTS = "unet/diffusion_pytorch_model.safetensors";

/** The tensors of a file, as bytes. */
const tensorsOf = async (path: string) =>
  new Map(
    readSafetensors(await Deno.readFile(path)).tensors.entries()
      .map(([name, { dtype, shape, bytes }]) => [name, { dtype, shape, bytes }]),
  );

Deno.test("a folder of diffusers that is read and written has the same bytes in its tensors", async () => {
  for (const name of ["cifar-like", "class-conditional", "fourier-class-timestep"]) {
    await using folder = await Folder.make();
    await copyFixture(`unet/${name}`, folder.at("given"));
    await folder.succeed("export", "given", "--out", "made");
    const [given, made] = [
      await tensorsOf(folder.at("given/diffusion_pytorch_model.safetensors")),
      await tensorsOf(folder.at(`made/${WEIGHTS}`)),
    ];
    assert(given.size > 20);
    assertEquals(made.size, given.size);
    for (const [key, tensor] of given) assertEquals(made.get(key), tensor, key);
  }
});

Deno.test("a model of this program comes back from diffusers as the bytes that it was", async () => {
  await using folder = await Folder.make();
  const model = { ...classModel(["cat", "dog"]), card: { data: "pets" } };
  const bytes = serializeModel(model);
  await folder.write("m.safetensors", bytes);
  const { code, stdout, stderr } = await folder.run("export", "m.safetensors", "--out", "there");
  assertEquals([code, stdout], [0, "there: UNet2DModel as f32, 195 kB\n"]);
  assertMatch(stderr, /^names of classes are in the header.*\nno pipeline of diffusers tells/);
  await folder.succeed("export", "there", "--out", "back", "--format", "safetensors");
  assertEquals(await Deno.readFile(folder.at("back/model.safetensors")), bytes);
  // What comes back is what was there, and so are its pictures.
  const paint = ["--count", "1", "--steps", "2", "--sampler", "ddim", "--device", "cpu", "--out"];
  for (const from of ["there", "back", "m.safetensors"]) {
    await folder.succeed("sample", "--model", from, ...paint, "x.safetensors");
    await Deno.rename(folder.at("x.safetensors"), folder.at(`${from.slice(0, 2)}.images`));
  }
  const [there, back, own] = await Promise.all(
    ["th", "ba", "m."].map((name) => tensorsOf(folder.at(`${name}.images`))),
  );
  assertEquals([there, back], [own, own]);
});

Deno.test("weights are written in 16 bits when that is asked for", async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  for (const dtype of ["f16", "bf16"]) {
    for (const format of ["diffusers", "safetensors"]) {
      const out = `${format}-${dtype}`;
      await folder.succeed(
        ...["export", "m.safetensors", "--out", out, "--format", format, "--dtype", dtype],
      );
      const path = folder.at(`${out}/${format === "diffusers" ? WEIGHTS : "model.safetensors"}`);
      const types = (await tensorsOf(path)).values().map((tensor) => tensor.dtype);
      assertEquals([...new Set(types)], [dtype.toUpperCase()]);
      await folder.succeed("info", out, "--device", "cpu");
    }
  }
  // It is not said after half of it is there.
  const model = tinyModel();
  const large = { ...model, parameters: model.parameters.with(0, 1e6) };
  await folder.write("large.safetensors", serializeModel(large));
  await folder.refuse(
    ["export", "large.safetensors", "--out", "large", "--dtype", "f16"],
    /Cannot write \S+ as F16: it holds numbers beyond 65504; --dtype f32 keeps them/,
  );
});

Deno.test("what is there already is neither replaced nor mixed with", async () => {
  await using folder = await Folder.make();
  await folder.write("m.safetensors", tinyModelFile());
  await Deno.mkdir(folder.at("empty"));
  await folder.succeed("export", "m.safetensors", "--out", "empty");
  const cases: [string[], RegExp][] = [
    [["m.safetensors", "--out", "empty"], /Cannot write to empty: it is not empty/],
    [["m.safetensors", "--out", "m.safetensors"], /it is a file; give a folder/],
    [["m.safetensors", "--out", "none/x"], /the folder \S+none does not exist/],
    [["m.safetensors"], /export needs --out/],
    [["--out", "x"], /export needs a model/],
    [["m.safetensors", "empty", "--out", "x"], /export takes one model, not m\.saf.* and empty/],
    [["m.safetensors", "--out", "x", "--dtype", "f64"], /--dtype must be one of f32, f16, bf16/],
  ];
  for (const [args, message] of cases) await folder.refuse(["export", ...args], message);
});
