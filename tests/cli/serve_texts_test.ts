import { assert, assertEquals, assertMatch } from "@std/assert";
import { decode, Image } from "imagescript";
import { tinyTextToImage, writePipeline } from "../text_to_image.ts";
import { Folder } from "./cli.ts";
import { Served } from "./served.ts";

/** The pixels of a PNG. */
async function pixelsOf(png: Uint8Array): Promise<number[]> {
  const image = await decode(png);
  assert(image instanceof Image);
  return [image.width, image.height, ...image.bitmap];
}

Deno.test("a pipeline that paints texts is served, and paints what sample does", async () => {
  await using folder = await Folder.make();
  await writePipeline(folder, "sd", tinyTextToImage({ channels: 4, vocabulary: 49408 }));
  await using served = await Served.start({ places: [folder.at("sd")], isShared: false });
  const [{ guidance }] = await (await fetch(`${served.url}api/models`)).json();
  assertEquals(guidance, { scale: 7.5 });
  const init = new Image(16, 16).fill((x) => x <= 8 ? 0xc04020ff : 0x2060c0ff);
  const mask = new Image(16, 16).fill((x) => x <= 8 ? 0xffffffff : 0xff);
  const [picture, white] = [await init.encode(), await mask.encode()];
  await folder.write("init.png", picture);
  await folder.write("mask.png", white);
  const sent = { init: picture.toBase64(), mask: white.toBase64() };
  const size = { width: 16, height: 16 }, sizeFlag = ["--size", "16x16"];
  const cases: [job: Record<string, unknown>, flags: string[]][] = [
    [{ prompt: "a red heart", ...size, count: 2 }, ["--prompt", "a red heart", ...sizeFlag]],
    [{ prompt: "a heart", negative_prompt: "red", guidance: 3, sampler: "ddim", ...size }, [
      ...["--prompt", "a heart", "--negative", "red", "--guidance", "3", "--sampler", "ddim"],
      ...sizeFlag,
    ]],
    [{ prompt: "a heart", ...sent, strength: 0.5, ...size }, [
      ...["--prompt", "a heart", "--init", "init.png", "--mask", "mask.png", "--strength", "0.5"],
      ...sizeFlag,
    ]],
  ];
  for (const [i, [job, flags]] of cases.entries()) {
    const id = await served.begin({ ...job, steps: 2, seed: 3 });
    const events = await served.follow(id);
    assertEquals(events.at(-1)!.name, "done", JSON.stringify(events.at(-1)));
    // Their x_t are latents.
    const previews = events.map(({ data }) => data.preview).filter(Boolean);
    assert(previews.length && previews.every((preview) => !("noisy" in preview)));
    await folder.succeed(
      ...["sample", "--model", "sd", "--device", "cpu", "--threads", "1", "--steps", "2"],
      ...["--seed", "3", "--count", `${job.count ?? 1}`, "--out", `out${i}/`, ...flags],
    );
    for (let k = 0; k < Number(job.count ?? 1); k++) {
      const png = await served.picture(id, k), other = folder.at(`out${i}/000${k}.png`);
      assertEquals(await pixelsOf(png), await pixelsOf(await Deno.readFile(other)));
      const text = new TextDecoder("latin1").decode(png);
      assertMatch(text, /parameters\0[^]*Steps: 2, Sampler: [^]*, Seed: 3, Size: 16x16, Model: sd/);
    }
  }
  const answer = await served.post("sdapi/v1/txt2img", { prompt: "a heart", steps: 2, ...size });
  assertEquals([answer.status, answer.body.images?.length], [200, 1]);
  const wrong: [job: object, detail: RegExp][] = [
    [{}, /sd paints texts: give a prompt/],
    [{ prompt: "a", class: "cat" }, /class is not for sd, which paints texts/],
    [{ prompt: "a", walk: { seed: 1, share: 0.5 } }, /walk is not for sd/],
    [{ prompt: "a", width: 15, height: 16 }, /multiples of 2|multiples/],
    [{ prompt: "a", ...size, mask: sent.mask }, /needs an image/],
  ];
  for (const [job, detail] of wrong) {
    const { status, body } = await served.post("api/jobs", job);
    assertEquals(status, 422);
    assertMatch(body.detail, detail);
  }
});
