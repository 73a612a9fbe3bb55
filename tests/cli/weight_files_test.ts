import { assertEquals } from "@std/assert";
import { chooseWeights, parseWeightFile } from "../../src/cli/run/weight_files.ts";

const M = "diffusion_pytorch_model";

Deno.test("names of files of weights tell format, variant and part", () => {
  const cases: [string, string?, string?, string?][] = [
    [`${M}.safetensors`, "whole", "safetensors", ""],
    [`${M}.fp16.bin`, "whole", "bin", "fp16"],
    [`${M}.non_ema.safetensors`, "whole", "safetensors", "non_ema"],
    [`${M}-00001-of-00002.safetensors`, "shard", "safetensors", ""],
    [`${M}.fp16-00001-of-00002.safetensors`, "shard", "safetensors", "fp16"],
    [`${M}-00001-of-00002.fp16.safetensors`, "shard", "safetensors", "fp16"],
    [`${M}.safetensors.index.json`, "index", "safetensors", ""],
    [`${M}.safetensors.index.fp16.json`, "index", "safetensors", "fp16"],
    [`${M}.bin.index.json`, "index", "bin", ""],
    ["model.safetensors"],
    [`${M}.safetensors.part`],
    [`${M}.msgpack`],
    ["flax_model.safetensors"],
  ];
  for (const [name, ...expected] of cases) {
    const file = parseWeightFile(name);
    assertEquals(file ? [file.kind, file.format, file.variant] : [], expected, name);
  }
});

Deno.test("what training gave is preferred, then safetensors, then a single file", () => {
  const order = [
    ...[`${M}.safetensors`, `${M}.safetensors.index.json`, `${M}.bin`, `${M}.bin.index.json`],
    ...[`${M}.ema.safetensors`, `${M}.fp32.bin`, `${M}.bf16.bin`, `${M}.fp16.safetensors`],
    ...[`${M}.fp16.bin`, `${M}.mine.safetensors`, `${M}.non_ema.safetensors`],
  ];
  for (let i = 0; i < order.length; i++) {
    const there = ["config.json", `${M}-00001-of-00002.safetensors`, ...order.slice(i).reverse()];
    assertEquals(chooseWeights(there)?.name, order[i]);
  }
  assertEquals(chooseWeights(["config.json", `${M}-00001-of-00002.safetensors`]), undefined);
});
