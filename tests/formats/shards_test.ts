import { assert, assertEquals, assertThrows } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { readSafetensors, writeSafetensors } from "../../src/formats/safetensors.ts";
import { joinShards, readShardIndex } from "../../src/formats/shards.ts";
import { mutate } from "../mutate.ts";
import { Random } from "../random.ts";

const shard = (...names: string[]) =>
  readSafetensors(writeSafetensors(names.map((name, i) => ({
    ...{ name, shape: [1], values: new Float32Array([i]) },
  })))).tensors;

const index = (weight_map: Record<string, string>) =>
  readShardIndex({ metadata: { total_size: 12 }, weight_map }, "the index");

Deno.test("the tensors of all files are joined, each once", () => {
  const all = joinShards(
    index({ c: "2.bin", a: "1.bin", b: "1.bin" }),
    new Map([["1.bin", shard("a", "b")], ["2.bin", shard("c")]]),
    "the index",
  );
  assertEquals([...all.keys()].sort(), ["a", "b", "c"]);
});

Deno.test("files that contradict their index are refused by name", () => {
  const cases: [Record<string, string>, Record<string, string[]>, string][] = [
    [{ a: "1", b: "2" }, { 1: ["a"] }, "there is no 2"],
    [{ a: "1", b: "1" }, { 1: ["a"] }, "b is said to be in 1, which does not hold it"],
    [{ a: "1", b: "2" }, { 1: ["a", "b"], 2: ["b"] }, "b is both in 1 and in 2"],
    [{ a: "1" }, { 1: ["a", "b"] }, "1 holds b, of which it says nothing"],
  ];
  for (const [map, files, message] of cases) {
    const shards = new Map(Object.entries(files).map(([file, names]) => [file, shard(...names)]));
    assertThrows(
      () => joinShards(index(map), shards, "the index"),
      InputError,
      `Cannot use the index: ${message}`,
    );
  }
});

Deno.test("an index that names files elsewhere, or none, is refused", () => {
  for (const file of ["../x", "/x", "a/b", "a\\b", "C:x", "..", ".", "", "a\0"]) {
    assertThrows(() => index({ a: file }), InputError, "files lie beside their index");
  }
  assertThrows(() => index({}), InputError, "it names no weights");
  for (const json of [null, [], {}, { weight_map: [] }, { weight_map: { a: 1 } }]) {
    assertThrows(
      () => readShardIndex(json, "x"),
      InputError,
      "Cannot read x as an index of weights",
    );
  }
});

Deno.test("of 2000 damaged indexes each is refused, or names files beside it", () => {
  const text = JSON.stringify({ weight_map: { a: "m-1-of-2.bin", b: "m-2-of-2.bin" } });
  const whole = new TextEncoder().encode(text), random = new Random("indexes");
  let read = 0;
  for (let i = 0; i < 2000; i++) {
    const bytes = mutate(whole, random);
    try {
      const shards = readShardIndex(JSON.parse(new TextDecoder().decode(bytes)), "x");
      for (const file of shards.keys()) assert(!/[/\\:]/.test(file), file);
      read++;
    } catch (error) {
      assert(error instanceof InputError || error instanceof SyntaxError, String(error));
    }
  }
  assert(read > 20);
});
