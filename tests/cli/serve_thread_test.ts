import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ComputeThread } from "../../src/cli/serve/compute_thread.ts";
import { InputError } from "../../src/errors.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { Folder } from "./cli.ts";
import { type JobEvent, Served } from "./served.ts";

/** A model of which one evaluation takes long beside an answer. */
function largeModelFile(): Uint8Array<ArrayBuffer> {
  const network = parseNetwork({
    ...{ sample_size: 64, in_channels: 3, out_channels: 3, layers_per_block: 1 },
    ...{ block_out_channels: [32, 32], norm_num_groups: 4 },
    ...{ down_block_types: ["DownBlock2D", "DownBlock2D"] },
    up_block_types: ["UpBlock2D", "UpBlock2D"],
  });
  return serializeModel(initializeModel(network, {}, 0));
}

Deno.test("requests are answered while a network is evaluated", async () => {
  await using folder = await Folder.make();
  await folder.write("large.safetensors", largeModelFile());
  await using served = await Served.start({
    places: [folder.at("large.safetensors")],
    isShared: false,
  });
  const id = await served.begin({ steps: 100, count: 4 });
  // What is answered between two steps is answered while the second one is computed.
  let answers = 0, last: number | undefined;
  while (answers < 20) {
    const { body } = await served.ask(`api/jobs/${id}`);
    assertEquals(body.state, "running", body.detail);
    answers = body.step !== undefined && body.step === last ? answers + 1 : 0;
    last = body.step;
  }
  const { status, body: refused } = await served.post("api/jobs", { class: "cat" });
  assertEquals(status, 422);
  assertMatch(refused.detail, /large has none/);
  const { body } = await served.ask(`api/jobs/${id}`, { method: "DELETE" });
  assertEquals(body.state, "cancelled");
  assertEquals(
    (await served.ask("api/health")).body.running,
    1,
    "it computes on, to the next step",
  );
  await served.idle();
});

Deno.test("a job in a thread of its own paints what one in the same thread does", async () => {
  const pictures: Uint8Array[] = [];
  for (const isShared of [true, false]) {
    await using served = await Served.start({ isShared });
    const id = await served.begin({ model: "c", class: "dog", steps: 3, count: 2, guidance: 2 });
    const events = await served.follow(id);
    assertEquals(events.at(-1)!.name, "done");
    pictures.push(await served.picture(id, 1));
  }
  assertEquals(pictures[0], pictures[1]);
});

/** Collects the Workers that are started until it is disposed of. */
function watchWorkers(): Disposable & { readonly all: Worker[] } {
  const { Worker } = globalThis, all: Worker[] = [];
  globalThis.Worker = class extends Worker {
    constructor(...settings: ConstructorParameters<typeof Worker>) {
      super(...settings);
      all.push(this);
    }
  };
  return { all, [Symbol.dispose]: () => void (globalThis.Worker = Worker) };
}

Deno.test("a thread that dies is told of, by its job and by health, and the next job has another", async () => {
  using workers = watchWorkers();
  await using served = await Served.start({ isShared: false });
  const slow = { model: "slow", steps: 1000, sampler: "ddpm", count: 8 };
  const health = async () => {
    const { status, detail } = (await served.ask("api/health")).body;
    return [status, detail];
  };
  assertEquals(await health(), ["ok", undefined]);
  const id = await served.begin(slow), why = /^The thread that computes failed: .*'in' operator/;
  let last: JobEvent | undefined;
  for await (const event of served.events(id)) {
    // Nothing that could be understood: what receives it throws.
    if (event.name === "step" && last?.name !== "step") workers.all[0].postMessage(null);
    last = event;
  }
  assertEquals(last!.name, "failure");
  assertMatch(last!.data.detail, why);
  const [status, detail] = await health();
  assertEquals(status, "failed");
  assertMatch(detail!, why);
  for (let i = 0; i < 2; i++) {
    const events = await served.follow(await served.begin({ model: "m", steps: 2 }));
    assertEquals(events.at(-1)!.name, "done", events.at(-1)!.data.detail);
  }
  assertEquals(await health(), ["ok", undefined]);
  assertEquals(workers.all.length, 2);
});

Deno.test("what the thread cannot open is told as what it is", async () => {
  const flags = { device: "cpu", threads: 1 };
  await assertRejects(
    () => ComputeThread.start({ places: ["nowhere"], models: new Map(), flags }),
    InputError,
    "Cannot load the model nowhere",
  );
});
