import { assertEquals, assertRejects } from "@std/assert";
import { InputError } from "../../src/errors.ts";
import { retrieve, retrieveTexts } from "../../src/evaluate/retrieval.ts";
import { mixedRows } from "./fixture.ts";

Deno.test("captions are found as by sorting all of them by their nearest images", async () => {
  const samples = mixedRows("samples", 130, 3), real = mixedRows("real", 150, 3);
  const known = Array.from({ length: 150 }, (_, j) => `caption ${j % 40}`);
  const asked = Array.from({ length: 130 }, (_, i) => `caption ${7 * i % 40}`);
  const ranks = asked.map((caption, i) => {
    const far = new Map<string, number>();
    known.forEach((other, j) => {
      let square = 0;
      for (let c = 0; c < 3; c++) square += (samples.data[3 * i + c] - real.data[3 * j + c]) ** 2;
      far.set(other, Math.min(square, far.get(other) ?? Infinity));
    });
    return [...far].sort((a, b) => a[1] - b[1]).findIndex(([other]) => other === caption);
  });
  const share = (most: number) => ranks.filter((rank) => rank < most).length / 130;
  assertEquals(
    await retrieve({ rows: samples, captions: asked }, { rows: real, captions: known }),
    { recallAt1: share(1), recallAt10: share(10), captions: 40 },
  );
});

Deno.test("images find their own captions, and captions that no image has are refused", async () => {
  const rows = mixedRows("x", 12, 4), captions = Array.from(rows.data.subarray(0, 12), String);
  const same = { rows, captions };
  assertEquals(await retrieve(same, same), { recallAt1: 1, recallAt10: 1, captions: 12 });
  const other = { rows, captions: captions.with(5, "a cat") };
  await assertRejects(
    () => retrieve(other, same),
    InputError,
    "look for the caption a cat: no real",
  );
  const signal = AbortSignal.abort(new Error("enough"));
  await assertRejects(() => retrieve(same, same, { signal }), Error, "enough");
});

Deno.test("texts are looked for among all texts, and pictures only by texts that one has", async () => {
  const rows = (data: number[]) => ({
    count: data.length,
    width: 1,
    data: Float32Array.from(data),
  });
  const texts = { rows: rows([0, 1, 2, 3]), captions: ["a", "b", "c", "d"] };
  const pictures = { rows: rows([0.1, 0.7, 1.8]), captions: ["a", "a", "c"] };
  assertEquals(await retrieveTexts(pictures, texts), {
    imageToText: { recallAt1: 2 / 3, recallAt10: 1, captions: 4 },
    textToImage: { recallAt1: 1, recallAt10: 1, captions: 2 },
  });
});
