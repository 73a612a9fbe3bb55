import { assert, assertEquals, assertMatch } from "@std/assert";
import { decode, Image } from "imagescript";
import { Folder, tinyModelFile } from "./cli.ts";
import { readingModelFile, Served } from "./served.ts";

/** A server of a model that reads, and one that does not. */
async function start(): Promise<AsyncDisposable & { readonly served: Served }> {
  const folder = await Folder.make();
  await folder.write("reader.safetensors", readingModelFile());
  await folder.write("m.safetensors", tinyModelFile());
  const places = ["m", "reader"].map((name) => folder.at(`${name}.safetensors`));
  const served = await Served.start({ places });
  return {
    served,
    async [Symbol.asyncDispose]() {
      await served[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function sizeOf(picture: string): Promise<number[]> {
  const image = await decode(Uint8Array.fromBase64(picture));
  assert(image instanceof Image);
  return [image.width, image.height];
}

const usual = { prompt: "a cat", steps: 4, width: 12, height: 8, seed: 3 };

Deno.test("front ends get pictures of texts, of their size, the same for the same seed", async () => {
  await using scene = await start();
  const { served } = scene;
  const paint = async (fields: object) => {
    const { status, body } = await served.post("sdapi/v1/txt2img", { ...usual, ...fields });
    assertEquals(status, 200, body.detail);
    return body;
  };
  const first = await paint({ batch_size: 2, n_iter: 2, cfg_scale: 7 });
  assertEquals(first.images.length, 4);
  assertEquals(await sizeOf(first.images[0]), [12, 8]);
  assertEquals(first.parameters.prompt, "a cat");
  const info = JSON.parse(first.info);
  assertEquals([info.seed, info.all_seeds, info.index_of_first_image], [3, [3, 4, 5, 6], 0]);
  assertEquals([info.batch_size, info.all_prompts.length, info.sd_model_name], [2, 4, "reader"]);
  assertEquals([info.subseed_strength, info.all_subseeds.length], [0, 4]);
  // Each picture comes again for its seed alone, also of samplers that draw noise.
  assertEquals((await paint({ cfg_scale: 7, seed: info.all_seeds[2] })).images, [first.images[2]]);
  const noisy = { sampler_name: "Euler a", cfg_scale: 7 };
  const several = await paint({ ...noisy, n_iter: 3 });
  assertEquals(new Set(several.images).size, 3);
  assertEquals((await paint({ ...noisy, seed: 5 })).images, [several.images[2]]);
  assertEquals((await paint({ cfg_scale: 7 })).images[0], first.images[0]);
  const others = [{ prompt: "dog" }, { negative_prompt: "dog" }, { seed: 4 }, { cfg_scale: 1 }];
  for (const fields of others) {
    const { images } = await paint({ cfg_scale: 7, ...fields });
    assert(images[0] !== first.images[0], JSON.stringify(fields));
  }
  // Without a seed, or with -1, it is any, and told.
  const any = await paint({ seed: -1 }), { seed } = JSON.parse(any.info);
  assertEquals((await paint({ seed })).images, any.images);
  // What front ends send along, and means nothing here.
  const along = { hr_scale: 2, styles: [], s_noise: 1, save_images: false, restore_faces: false };
  assertEquals((await paint({ cfg_scale: 7, ...along })).images[0], first.images[0]);
});

Deno.test("samplers have the names that front ends know", async () => {
  await using scene = await start();
  const { served } = scene;
  const options = await fetch(`${served.url}sdapi/v1/options`);
  // The first that reads.
  assertEquals(await options.json(), { sd_model_checkpoint: "reader" });
  const known = await fetch(`${served.url}sdapi/v1/samplers`);
  const names: { name: string }[] = await known.json();
  for (const { name } of names) {
    const { status, body } = await served.post("sdapi/v1/txt2img", {
      ...{ ...usual, sampler_name: name },
    });
    assertEquals(status, 200, `${name}: ${body.detail}`);
  }
  const comment = async (fields: object) => {
    const { body } = await served.post("sdapi/v1/txt2img", { ...usual, ...fields });
    return new TextDecoder("latin1").decode(Uint8Array.fromBase64(body.images[0]));
  };
  assertMatch(await comment({ sampler_index: "Euler a" }), /sampler euler_ancestral/);
  const karras = /sampler dpmpp_2m, sigmas karras/;
  assertMatch(await comment({ sampler_name: "DPM++ 2M Karras" }), karras);
  assertMatch(await comment({ sampler_name: "DPM++ 2M", scheduler: "Karras" }), karras);
});

Deno.test("img2img begins with a picture, and paints where the mask is white", async () => {
  await using scene = await start();
  const { served } = scene;
  const init = new Image(12, 8).fill(0x4080c0ff);
  const mask = new Image(12, 8).fill(0xff);
  for (let x = 1; x <= 6; x++) for (let y = 1; y <= 8; y++) mask.setPixelAt(x, y, 0xffffffff);
  const [picture, white] = [await init.encode(), await mask.encode()]
    .map((png) => new Uint8Array(png).toBase64());
  const body = { ...usual, init_images: [picture], mask: white, denoising_strength: 1 };
  const { status, body: answer } = await served.post("sdapi/v1/img2img", body);
  assertEquals(status, 200, answer.detail);
  assertEquals(answer.parameters.init_images, null);
  const made = await decode(Uint8Array.fromBase64(answer.images[0]));
  assert(made instanceof Image);
  assertEquals(made.getPixelAt(12, 8), init.getPixelAt(12, 8));
  assert(made.getPixelAt(1, 1) !== init.getPixelAt(1, 1));
  const weak = { ...usual, init_images: [picture], denoising_strength: 0, mask_blur: 4 };
  const same = await served.post("sdapi/v1/img2img", weak);
  assertEquals(same.status, 200, same.body.detail);
  const kept = await decode(Uint8Array.fromBase64(same.body.images[0]));
  assert(kept instanceof Image);
  assertEquals(kept.getPixelAt(5, 5), init.getPixelAt(5, 5));
});

Deno.test("what cannot be done is refused, and not done otherwise", async () => {
  await using scene = await start();
  const { served } = scene;
  const plain = { override_settings: { sd_model_checkpoint: "m" } };
  const cases: [path: string, fields: object, detail: RegExp][] = [
    ["txt2img", { ...plain, width: 8 }, /prompt is for models that read: m does not/],
    ["txt2img", { enable_hr: true }, /enable_hr is not supported/],
    ["txt2img", { restore_faces: true }, /restore_faces is not supported/],
    ["txt2img", { alwayson_scripts: { controlnet: {} } }, /alwayson_scripts is not supported/],
    ["txt2img", { subseed_strength: 0.5 }, /subseed_strength/],
    ["txt2img", { override_settings: { CLIP_stop_at_last_layers: 2 } }, /CLIP_stop_at_last_layers/],
    ["txt2img", { override_settings: { sd_model_checkpoint: "x" } }, /no model x: .* m, reader/],
    ["txt2img", { sampler_name: "Magic" }, /no sampler Magic: there are .*DPM\+\+ 2M/],
    ["txt2img", { scheduler: "Magic" }, /no scheduler Magic/],
    ["txt2img", { batch_size: 9 }, /count/],
    ["txt2img", { width: 100_000 }, /width/],
    ["txt2img", { width: null, height: null }, /any size/],
    ["txt2img", { height: null }, /Give width and height/],
    ["img2img", {}, /init_images/],
    ["img2img", { init_images: [] }, /init_images.*one picture/],
    ["img2img", { init_images: ["AAAA"] }, /Cannot read init/],
    [
      "img2img",
      { init_images: ["AAAA"], mask: "AAAA", mask_blur: 4 },
      /mask_blur is not supported/,
    ],
  ];
  for (const [path, fields, detail] of cases) {
    const { status, body } = await served.post(`sdapi/v1/${path}`, { ...usual, ...fields });
    assertEquals(status, 422, `${path} ${JSON.stringify(fields)}`);
    assertMatch(body.detail, detail);
  }
  const { status, body } = await served.post("sdapi/v1/txt2img", { ...plain, steps: 2 });
  assertEquals([status, body.images?.length], [200, 1]);
});

Deno.test("models, progress and options are told; who goes away gives pictures up", async () => {
  await using served = await Served.start();
  const get = async (path: string) => await (await fetch(`${served.url}sdapi/v1/${path}`)).json();
  const titles = (await get("sd-models")).map(({ title }: { title: string }) => title);
  assertEquals(titles, ["m", "slow", "c"]);
  assertEquals(await get("options"), { sd_model_checkpoint: "m" });
  assertEquals((await get("progress")).progress, 0);
  const leaving = new AbortController();
  const slow = {
    ...{ steps: 1000, batch_size: 8, sampler_name: "DDPM" },
    override_settings: { sd_model_checkpoint: "slow" },
  };
  const asked = served.post("sdapi/v1/txt2img", slow, { signal: leaving.signal });
  let told = await get("progress");
  // The step after one asks is drawn.
  while (!told.current_image) told = await get("progress");
  assert(told.progress && told.state.sampling_steps === 8 * 1000);
  leaving.abort();
  await asked.catch(() => {});
  await served.idle();
  const next = await served.post("sdapi/v1/txt2img", { steps: 2 });
  assertEquals(next.status, 200);
});
