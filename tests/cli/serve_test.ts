import { assert, assertEquals, assertMatch } from "@std/assert";
import { decode, Image } from "imagescript";
import { serializeModel } from "../../src/model/model.ts";
import { isPainted, latentModel, valueAt } from "../latent_model.ts";
import { Folder } from "./cli.ts";
import { readingModelFile, Served, slowModelFile } from "./served.ts";

const base64 = (bytes: Uint8Array) => new Uint8Array(bytes).toBase64();

/** The pixels of a PNG, and what its texts say. */
async function look(png: Uint8Array): Promise<{ pixels: number[]; width: number; height: number }> {
  const image = await decode(png);
  assert(image instanceof Image);
  return { pixels: [...image.bitmap], width: image.width, height: image.height };
}

/** The JSON in a PNG that says how it was made. */
function commentOf(png: Uint8Array): Record<string, unknown> {
  const text = new TextDecoder("latin1").decode(png);
  return JSON.parse(/Comment\0(\{.*?\})[^}]{4}/s.exec(text)![1]);
}

/** What `sample` makes of a model, one picture. */
async function sampled(folder: Folder, model: string, ...flags: string[]) {
  await folder.succeed(
    ...["sample", "--model", `${model}.safetensors`, "--device", "cpu", "--threads", "1"],
    ...["--count", "1", "--out", "out/", ...flags],
  );
  return await look(await Deno.readFile(folder.at("out/0000.png")));
}

Deno.test("a job is told of from beginning to end, and its pictures are those of sample", async () => {
  await using served = await Served.start();
  const job = { model: "m", count: 3, steps: 6, seed: 7, sampler: "ddpm" };
  const { status, headers, body } = await served.post("api/jobs", job);
  assertEquals([status, headers.get("location")], [201, `/api/jobs/${body.id}`]);
  const events = await served.follow(body.id);
  assertEquals<unknown>(events.at(-1)!.data, { id: body.id, state: "done", images: 3 });
  assert(events.every(({ name }) => ["queued", "running", "step", "done"].includes(name)));

  await served.folder.succeed(
    ...["sample", "--model", "m.safetensors", "--device", "cpu", "--threads", "1", "--count", "3"],
    ...["--steps", "6", "--seed", "7", "--sampler", "ddpm", "--out", "out/"],
  );
  for (let k = 0; k < 3; k++) {
    const png = await served.picture(body.id, k);
    const other = await Deno.readFile(served.folder.at(`out/000${k}.png`));
    assertEquals(await look(png), await look(other));
    const told = { ...commentOf(other), model: "m" };
    assertEquals(commentOf(png), told);
  }
  assertEquals((await served.ask(`api/jobs/${body.id}/images/3`)).status, 404);
  assertEquals((await served.ask(`api/jobs/${body.id}/images/x`)).status, 404);
  assertEquals((await served.ask(`api/jobs/${body.id}`)).body.state, "done");
  // Whoever comes late is told the end.
  assertEquals((await served.follow(body.id)).map(({ name }) => name), ["done"]);
  assertEquals((await served.ask("api/jobs/nothing/events")).status, 404);
});

Deno.test("steps come in order, each with a preview of all pictures", async () => {
  await using served = await Served.start();
  const first = await served.begin({ model: "slow", steps: 1000, sampler: "ddpm", count: 8 });
  const id = await served.begin({ model: "m", count: 3, steps: 5, sampler: "ddim" });
  // The second one waits until the first is out of the way, so that nothing of it is missed.
  const following = served.follow(id);
  await served.ask(`api/jobs/${first}`, { method: "DELETE" });
  const events = await following, steps = events.filter(({ name }) => name === "step");
  assertEquals(
    steps.map(({ data }) => [data.step, data.steps]),
    [1, 2, 3, 4, 5].map((n) => [n, 5]),
  );
  for (const { data: { preview } } of steps) {
    for (const png of [preview.png, preview.noisy]) {
      const { width, height, pixels } = await look(Uint8Array.fromBase64(png));
      assertEquals([width, height], [16, 16]);
      assert(new Set(pixels).size > 20);
    }
    assertEquals([preview.columns, preview.first, preview.count], [2, 0, 3]);
  }
  const [{ data: { preview: begun } }] = steps;
  assert(begun.png !== begun.noisy);
  const names = events.map(({ name }) => name);
  assert(names.indexOf("queued") < names.indexOf("running"), `${names}`);
});

Deno.test("init, strength, mask, classes and guidance do what they do in sample", async () => {
  await using served = await Served.start();
  const start = await served.begin({ model: "m", steps: 4, seed: 1 });
  await served.follow(start);
  const init = await served.picture(start);
  const mask = new Image(8, 8).fill(0xff);
  for (let x = 1; x <= 8; x++) for (let y = 1; y <= 4; y++) mask.setPixelAt(x, y, 0xffffffff);
  const maskPng = await mask.encode();
  await served.folder.write("init.png", init);
  await served.folder.write("mask.png", maskPng);
  const cases: [job: Record<string, unknown>, flags: string[]][] = [
    [{ model: "m", init: base64(init), strength: 0.5, steps: 8 }, [
      ...["--init", "init.png", "--strength", "0.5", "--steps", "8"],
    ]],
    [
      {
        model: "m",
        init: `data:image/png;base64,${base64(init)}`,
        mask: base64(maskPng),
        steps: 9,
      },
      [
        ...["--init", "init.png", "--mask", "mask.png", "--steps", "9"],
      ],
    ],
    [{ model: "c", class: "dog", guidance: 3, steps: 4 }, [
      ...["--class", "dog", "--guidance", "3", "--steps", "4"],
    ]],
    [{ model: "c", labels: [1], guidance: 4, steps: 4 }, [
      ...["--class", "dog", "--guidance", "4", "--steps", "4"],
    ]],
    [{ model: "c", steps: 4, eta: 0.5, sampler: "ddim" }, [
      ...["--steps", "4", "--eta", "0.5", "--sampler", "ddim"],
    ]],
  ];
  for (const [job, flags] of cases) {
    const id = await served.begin({ ...job, seed: 5 }), events = await served.follow(id);
    assertEquals(events.at(-1)!.name, "done", JSON.stringify(events.at(-1)));
    const other = await sampled(served.folder, String(job.model), "--seed", "5", ...flags);
    assertEquals(await look(await served.picture(id)), other, JSON.stringify(job));
  }
});

Deno.test("prompts do what they do in sample, with guidance and without", async () => {
  await using folder = await Folder.make();
  await folder.write("r.safetensors", readingModelFile(8));
  await using served = await Served.start({ places: [folder.at("r.safetensors")] });
  const cases: [job: Record<string, unknown>, flags: string[]][] = [
    [{ prompt: "a cat", negative_prompt: "dogs" }, ["--prompt", "a cat", "--negative", "dogs"]],
    [{ prompt: "a cat", guidance: 1 }, ["--prompt", "a cat", "--guidance", "1"]],
    [{}, []],
  ];
  const seen = new Set<string>();
  for (const [job, flags] of cases) {
    const id = await served.begin({ ...job, steps: 3 });
    assertEquals((await served.follow(id)).at(-1)!.name, "done");
    const picture = await look(await served.picture(id));
    assertEquals(picture, await sampled(folder, "r", "--steps", "3", ...flags));
    seen.add(String(picture.pixels));
  }
  assertEquals(seen.size, cases.length);
});

Deno.test("models of latents do what they do in sample, and their steps are pictures", async () => {
  await using folder = await Folder.make();
  await folder.write("l.safetensors", serializeModel(latentModel));
  await folder.write("slow.safetensors", slowModelFile());
  const places = ["l", "slow"].map((name) => folder.at(`${name}.safetensors`));
  await using served = await Served.start({ places });
  const { body } = await served.ask("api/models");
  assertEquals((body as unknown as { shape: number[] }[])[0].shape, [8, 8, 1]);
  const [init, mask] = [new Image(8, 8), new Image(8, 8)];
  for (let i = 0; i < 64; i++) {
    const [x, y] = [i % 8 + 1, Math.floor(i / 8) + 1];
    init.setPixelAt(x, y, valueAt(i) * 0x1010100 + 0xff);
    mask.setPixelAt(x, y, isPainted(i) ? 0xffffffff : 0xff);
  }
  const [initPng, maskPng] = [await init.encode(), await mask.encode()];
  await folder.write("init.png", initPng);
  await folder.write("mask.png", maskPng);
  const cases: [job: Record<string, unknown>, flags: string[]][] = [
    [{ width: 8, height: 8 }, []],
    [{ init: base64(initPng), strength: 0.5 }, ["--init", "init.png", "--strength", "0.5"]],
    [{ init: base64(initPng), mask: base64(maskPng) }, [
      "--init",
      "init.png",
      "--mask",
      "mask.png",
    ]],
  ];
  for (const [job, flags] of cases) {
    const first = await served.begin({ model: "slow", steps: 1000, sampler: "ddpm", count: 8 });
    const id = await served.begin({ ...job, model: "l", labels: [1], steps: 4, seed: 5 });
    // It waits until the first job is out of the way, so that nothing of it is missed.
    const following = served.follow(id);
    await served.ask(`api/jobs/${first}`, { method: "DELETE" });
    const events = await following;
    assertEquals(events.at(-1)!.name, "done", JSON.stringify(events.at(-1)));
    const usual = ["--steps", "4", "--seed", "5", "--class", "1"];
    const other = await sampled(folder, "l", ...usual, ...flags);
    assertEquals(await look(await served.picture(id)), other, JSON.stringify(job));
    const { preview } = events.find(({ name }) => name === "step")!.data;
    const { width, height } = await look(Uint8Array.fromBase64(preview.png));
    assertEquals([width, height, preview.noisy], [8, 8, undefined]);
  }
  const walk = {
    model: "l",
    labels: [1],
    steps: 4,
    sampler: "ddim",
    walk: { seed: 2, share: 0.5 },
  };
  assertEquals((await served.follow(await served.begin(walk))).at(-1)!.name, "done");
  const odd = await served.post("api/jobs", { model: "l", width: 12, height: 8 });
  assertEquals(odd.status, 422);
  assertMatch(JSON.stringify(odd.body), /makes pictures of 8x8 pixels, not 12x8/);
});

Deno.test("a walk goes from the noise of one seed to that of another", async () => {
  await using served = await Served.start();
  const paint = async (job: object) => {
    const id = await served.begin({ model: "m", sampler: "ddim", steps: 4, ...job });
    await served.follow(id);
    return (await look(await served.picture(id))).pixels;
  };
  const [one, here, between] = [
    await paint({ seed: 1 }),
    await paint({ seed: 1, walk: { seed: 2, share: 0 } }),
    await paint({ seed: 1, walk: { seed: 2, share: 0.5 } }),
  ];
  assertEquals(here, one);
  assert(between.some((value, i) => value !== one[i]));
});

Deno.test("a job is cancelled by request, while it waits or runs", async () => {
  await using served = await Served.start();
  const slow = { model: "slow", steps: 1000, sampler: "ddpm", count: 8 };
  const [running, waiting] = [await served.begin(slow), await served.begin(slow)];
  const ends = [served.follow(running), served.follow(waiting)];
  for (const id of [waiting, running]) await served.ask(`api/jobs/${id}`, { method: "DELETE" });
  for (const events of await Promise.all(ends)) assertEquals(events.at(-1)!.name, "cancelled");
  assertEquals((await served.ask(`api/jobs/${running}/images/0`)).status, 404);
  // There is room for others.
  const next = await served.follow(await served.begin({ model: "m", steps: 2 }));
  assertEquals(next.at(-1)!.name, "done");
});

Deno.test("who leaves gives a job up, unless somebody else watches", async () => {
  await using served = await Served.start({ patience: { left: 1, asked: 60_000 } });
  const slow = { model: "slow", steps: 1000, sampler: "ddpm", count: 8 };
  const id = await served.begin(slow), leaving = new AbortController();
  const events = served.events(id, leaving.signal);
  await events.next();
  leaving.abort();
  await events.next().catch(() => {});
  await served.idle();
  assertEquals((await served.ask(`api/jobs/${id}`)).body.state, "cancelled");

  const other = await served.begin({ ...slow, steps: 200 }), away = new AbortController();
  const staying = served.follow(other), brief = served.events(other, away.signal);
  await brief.next();
  away.abort();
  await brief.next().catch(() => {});
  assertEquals((await staying).at(-1)!.name, "done");
});

Deno.test("a job that nobody asks about is given up", async () => {
  await using served = await Served.start({ patience: { left: 1, asked: 1 } });
  const id = await served.begin({ model: "slow", steps: 1000, sampler: "ddpm", count: 8 });
  await served.idle();
  assertEquals((await served.ask(`api/jobs/${id}`)).body.state, "cancelled");
});

Deno.test("no more wait than the queue takes, and no more of one client than its share", async () => {
  await using served = await Served.start({ queue: 8 });
  const slow = { model: "slow", steps: 1000, sampler: "ddpm", count: 8 };
  const as = (session: number) => ({
    headers: { Cookie: `ddpm-${new URL(served.url).port}=.${`${session}`.padStart(36, "0")}` },
  });
  const ids = [await served.begin(slow, as(0))];
  for (let i = 0; i < 2; i++) ids.push(await served.begin(slow, as(1)));
  const greedy = await served.post("api/jobs", slow, as(1));
  assertEquals([greedy.status, greedy.body.error], [429, "busy"]);
  assertMatch(greedy.body.detail, /^2 of your jobs wait already$/);
  for (const session of [2, 3, 4]) {
    for (let i = 0; i < 2; i++) ids.push(await served.begin(slow, as(session)));
  }
  const late = await served.post("api/jobs", slow, as(5));
  assertEquals([late.status, late.body.detail], [429, "8 jobs wait already"]);
  assert(Number(late.headers.get("retry-after")) >= 1);
  const { body } = await served.ask(`api/jobs/${ids.at(-1)}`);
  assertEquals([body.state, body.position], ["queued", 8]);
  for (const id of ids) await served.ask(`api/jobs/${id}`, { method: "DELETE" });
  await served.idle();
});

Deno.test("what is wrong with a request is told", async () => {
  await using served = await Served.start();
  const png = base64(await new Image(8, 8).encode());
  const huge = Uint8Array.fromBase64(png);
  new DataView(huge.buffer).setUint32(16, 60_000);
  const cut = base64(Uint8Array.fromBase64(png).subarray(0, 40));
  const cases: [body: unknown, status: number, detail: RegExp][] = [
    ["{", 400, /no JSON/],
    ["\x00\xff", 400, /no JSON/],
    ["[]", 422, /expected object/],
    [{ steps: 1001 }, 422, /steps: Too big: expected number to be <=1000/],
    [{ count: 9 }, 422, /count: .*<=8/],
    [{ count: 0 }, 422, /count/],
    [{ count: 1.5 }, 422, /count/],
    [{ seed: -1 }, 422, /seed/],
    [{ width: 4096, height: 4096 }, 422, /width/],
    [{ width: 16 }, 422, /pictures of 8x8 pixels, not 16x8/],
    [{ model: "../../etc/passwd" }, 422, /There is no model .*: there are m, slow, c/],
    [{ sampler: "magic" }, 422, /sampler/],
    [{ color: "red" }, 422, /color/],
    [{ prompt: "a cat" }, 422, /^prompt is for models that read: m does not/],
    [{ negative_prompt: "a cat" }, 422, /negative_prompt is for a prompt/],
    [{ class: "cat" }, 422, /^class is for models with classes/],
    [{ model: "c", class: "cow" }, 422, /no class cow.*cat, dog and none/],
    [{ model: "c", labels: [3] }, 422, /Label 3 is not one of 0 to 2/],
    [{ model: "c", labels: [0], class: "cat" }, 422, /class or labels/],
    [{ labels: [0] }, 422, /m has no classes/],
    [{ guidance: 2 }, 422, /guidance leads towards a class/],
    [{ strength: 0.5 }, 422, /needs an image/],
    [{ mask: png }, 422, /needs an image/],
    [{ init: "%%%" }, 422, /init: it is no base64/],
    [{ init: "aGVsbG8=" }, 422, /Cannot read init: it is no PNG/],
    [{ init: cut }, 422, /Cannot read init as PNG: its data are damaged/],
    [{ init: base64(huge) }, 422, /init: 60000x8 is more than 2048 a side/],
    [{ init: png, mask: png }, 422, /mask mask is black everywhere/],
    [{ init: png, walk: { seed: 1, share: 0 } }, 422, /walk starts from noise/],
    [{ model: "m", steps: 11 }, 422, /11 steps|steps/],
    [{ eta: 0.5, sampler: "euler" }, 422, /eta/],
  ];
  for (const [body, status, detail] of cases) {
    const answer = await served.post("api/jobs", body), what = JSON.stringify(body);
    assertEquals(answer.status, status, `${what}: ${answer.body.detail}`);
    assertMatch(answer.body.detail, detail, what);
    assert(!answer.body.detail.includes(served.folder.path), answer.body.detail);
  }
  assertEquals((await served.ask("api/jobs", { method: "POST", body: "{}" })).status, 415);
  const large = await served.post("api/jobs", `"${"x".repeat(17 * 2 ** 20)}"`);
  assertEquals([large.status, large.body.error], [413, "too_large"]);
  assertEquals((await served.ask("nothing")).status, 404);
  assertEquals((await served.ask("data/page.html")).status, 404);
  assertEquals((await served.ask("..%2f..%2fetc/passwd")).status, 404);
  assertEquals((await served.ask("m.safetensors")).status, 404);
  const wrong = await served.ask("api/health", { method: "DELETE" });
  assertEquals([wrong.status, wrong.headers.get("allow")], [405, "GET"]);
  assertEquals((await served.ask(`?${"x".repeat(3000)}`)).status, 414);
  const headers = { Large: "x".repeat(20_000) };
  assertEquals((await served.ask("api/health", { headers })).status, 431);
  assertEquals(served.errors, []);
});

Deno.test("a body that does not arrive is not waited for", async () => {
  await using served = await Served.start({ bodyPatience: 10 });
  using connection = await Deno.connect({
    hostname: "127.0.0.1",
    port: Number(new URL(served.url).port),
  });
  const { host } = new URL(served.url);
  const head = `POST /api/jobs HTTP/1.1\r\nHost: ${host}\r\nContent-Type: application/json\r\n`;
  await connection.write(new TextEncoder().encode(`${head}Content-Length: 100\r\n\r\n{`));
  const buffer = new Uint8Array(1000), size = await connection.read(buffer);
  assertMatch(new TextDecoder().decode(buffer.subarray(0, size!)), /^HTTP\/1.1 408/);
});

Deno.test("models tell how they are guided where nobody says, which is what sample does", async () => {
  await using served = await Served.start();
  const models = await (await fetch(`${served.url}api/models`)).json();
  assertEquals(models.map(({ guidance }: { guidance: unknown }) => guidance), [
    ...[undefined, undefined, { scale: 1.75, interval: [0.3, 1.6] }],
  ]);
  const job = { model: "c", class: "dog", steps: 4 }, pictures: Uint8Array[] = [];
  for (const said of [{}, { guidance: 1.75, guidance_interval: [0.3, 1.6] }]) {
    const id = await served.begin({ ...job, ...said });
    await served.follow(id);
    pictures.push(await served.picture(id));
  }
  assertEquals(pictures[0], pictures[1]);
});

Deno.test("the document describes what there is, by the schemas that requests are checked by", async () => {
  await using served = await Served.start();
  const document = await (await fetch(`${served.url}openapi.json`)).json();
  assertEquals(document.openapi, "3.1.0");
  const paths: Record<string, Record<string, Operation>> = document.paths;
  for (
    const path of [
      ...["/api/jobs", "/api/jobs/{id}", "/api/jobs/{id}/events", "/api/jobs/{id}/images/{k}"],
      ...["/api/models", "/api/samplers", "/api/health", "/openapi.json"],
      ...["/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/progress", "/sdapi/v1/options"],
    ]
  ) assert(paths[path], path);
  const { post } = paths["/api/jobs"];
  const { schema } = post.requestBody!.content["application/json"];
  assertEquals(schema.properties.steps.maximum, 1000);
  assertEquals(schema.properties.count.maximum, 8);
  assertEquals(schema.additionalProperties, false);
  assert(!schema.required?.includes("seed"), "what has a default need not be sent");
  // Nothing is at a path but what the document says.
  for (const [path, methods] of Object.entries(paths)) {
    const there = path.replace(/\{\w+\}/g, "0");
    for (const method of ["GET", "POST", "DELETE", "PUT"]) {
      const answer = await fetch(served.url.slice(0, -1) + there, { method });
      await answer.body?.cancel();
      assertEquals(answer.status !== 405, method.toLowerCase() in methods, `${method} ${path}`);
    }
  }
});

/** What the document says of a request. */
interface Operation {
  readonly requestBody?: {
    readonly content: Readonly<
      Record<string, {
        readonly schema: {
          readonly properties: Readonly<Record<string, { readonly maximum: number }>>;
          readonly additionalProperties: boolean;
          readonly required?: readonly string[];
        };
      }>
    >;
  };
}
