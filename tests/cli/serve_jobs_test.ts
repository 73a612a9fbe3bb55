import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { paint } from "../../src/cli/serve/compute.ts";
import { Engine } from "../../src/cli/serve/engine.ts";
import { FairQueue } from "../../src/cli/serve/fair_queue.ts";
import { HttpError } from "../../src/cli/serve/http.ts";
import { Jobs, type Paint } from "../../src/cli/serve/jobs.ts";
import type { Plan } from "../../src/cli/serve/plan.ts";
import type { JobRequest } from "../../src/cli/serve/schemas.ts";
import { type Device, DeviceError, LimitError } from "../../src/gpu/device.ts";
import type { Samples } from "../../src/sample/options.ts";

const patience = { left: 60_000, asked: 60_000 };
const picture: Samples = { count: 1, shape: [2, 2, 1], data: new Float32Array(4) };

/** A device that only knows whether it lives. */
const fakeDevice = () => {
  const state = {
    isGone: false,
    name: "nothing",
    [Symbol.dispose]: () => void (state.isGone = true),
  };
  return state;
};

/** A plan whose painter is told of in a log, and waits for a gate. */
function fakePlan(
  key: string,
  log: string[],
  { gate = Promise.resolve(), bytes = 1, error }: {
    readonly gate?: Promise<void>;
    readonly bytes?: number;
    readonly error?: Error;
  } = {},
): Plan {
  return {
    ...{ count: 1, key, weights: 0, options: {}, finish: (images) => images },
    provenance: () => ({}),
    compile() {
      log.push(`compile ${key}`);
      return Promise.resolve({
        ...{ steps: 1, memory: bytes },
        async *stream() {
          log.push(`run ${key}`);
          await gate;
          if (error) throw error;
          yield { index: 0, step: 1, steps: 1, noisy: picture, sample: picture };
          return picture;
        },
        [Symbol.dispose]: () => void log.push(`free ${key}`),
      });
    },
  };
}

/** Plans by their requests, which say nothing. */
const plans = new WeakMap<JobRequest, Plan>();

/** A request that is planned so. */
function asked(plan: Plan): JobRequest {
  const request: JobRequest = { count: plan.count, seed: 0 };
  plans.set(request, plan);
  return request;
}

/** Paints by what was planned. */
const painting = (engine: Engine): Paint => (request, ...rest) =>
  paint(engine, plans.get(request)!, ...rest);

const open = () => Promise.resolve(fakeDevice() as unknown as Device);

Deno.test("owners take turns, however much one of them asks for", () => {
  const queue = new FairQueue<string>();
  for (const thing of ["a1", "a2", "a3", "b1", "c1", "b2"]) queue.push(thing[0], thing);
  assertEquals([...queue], ["a1", "b1", "c1", "a2", "b2", "a3"]);
  assertEquals([queue.size, queue.countOf("a"), queue.countOf("z")], [6, 3, 0]);
  assertEquals(queue.shift(), "a1");
  // A newcomer is not behind all that others wait for.
  queue.push("d", "d1");
  assertEquals([...queue], ["b1", "c1", "a2", "d1", "b2", "a3"]);
  queue.remove("b1");
  queue.remove("c1");
  const order = [...queue], taken: (string | undefined)[] = [];
  while (queue.size) taken.push(queue.shift());
  assertEquals(taken, order);
  assertEquals(queue.shift(), undefined);
});

Deno.test("jobs of several clients are done one at a time, in turns, and each is told its place", async () => {
  const log: string[] = [], gate = Promise.withResolvers<void>();
  using engine = await Engine.create(open);
  await using jobs = new Jobs(painting(engine), { queue: 16, patience });
  const add = (owner: string, key: string) =>
    jobs.add(owner, asked(fakePlan(key, log, { gate: gate.promise })));
  const all = ["a1", "a2", "a3", "b1", "c1"].map((key) => add(key[0], key));
  assertEquals(all.map(({ state }) => state.position), [1, 4, 5, 2, 3]);
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(all.map(({ state }) => state.position), [undefined, 3, 4, 1, 2]);
  assertEquals(log, ["compile a1", "run a1"]);
  gate.resolve();
  await Promise.all(all.map(({ ended }) => ended));
  const runs = log.filter((line) => line.startsWith("run"));
  assertEquals(runs, ["run a1", "run b1", "run c1", "run a2", "run a3"]);
  assertEquals(all.map(({ state }) => state.state), all.map(() => "done"));
});

Deno.test("a job that fails says why, and the next one is done", async () => {
  const log: string[] = [];
  using engine = await Engine.create(open);
  await using jobs = new Jobs(painting(engine), { queue: 4, patience });
  const bad = jobs.add(
    "a",
    asked(fakePlan("x", log, { error: new Error("--guidance went wrong") })),
  );
  const good = jobs.add("b", asked(fakePlan("y", log)));
  await Promise.all([bad.ended, good.ended]);
  assertEquals([bad.state.state, bad.state.detail], ["failed", "guidance went wrong"]);
  assertEquals(good.state.state, "done");
});

Deno.test("a device that is lost is opened again, one that has no room is kept", async () => {
  const log: string[] = [], devices: ReturnType<typeof fakeDevice>[] = [];
  using engine = await Engine.create(() => {
    devices.push(fakeDevice());
    return Promise.resolve(devices.at(-1) as unknown as Device);
  });
  await using jobs = new Jobs(painting(engine), { queue: 4, patience });
  const full = jobs.add(
    "a",
    asked(fakePlan("x", log, { error: new LimitError("too large", 2, 1) })),
  );
  await full.ended;
  assertEquals([full.state.state, devices.length], ["failed", 1]);
  const lost = jobs.add("a", asked(fakePlan("y", log, { error: new DeviceError("it is lost") })));
  await lost.ended;
  const next = jobs.add("a", asked(fakePlan("x", log)));
  await next.ended;
  assertEquals([next.state.state, devices.length, devices[0].isGone], ["done", 2, true]);
  // What was compiled for the lost one is of no use.
  assertEquals(log.filter((line) => line === "compile x").length, 2);
});

Deno.test("what was compiled is kept by settings, as far as there is room", async () => {
  const log: string[] = [], half = 0.6 * 2 ** 30;
  using engine = await Engine.create(open);
  await using jobs = new Jobs(painting(engine), { queue: 64, patience });
  const run = async (key: string, bytes: number) =>
    await jobs.add("a", asked(fakePlan(key, log, { bytes }))).ended;
  for (const key of ["x", "x", "y", "x"]) await run(key, 1);
  assertEquals(log, ["compile x", "run x", "run x", "compile y", "run y", "run x"]);
  log.length = 0;
  await run("large", half);
  assertEquals(log, ["compile large", "run large"]);
  // The least recently used make room, even for what is too large by itself.
  await run("larger", half);
  assertEquals(log.slice(2), ["compile larger", "free y", "free x", "free large", "run larger"]);
  log.length = 0;
  for (let i = 0; i < 9; i++) await run(`small ${i}`, 1);
  assertEquals(log.filter((line) => line.startsWith("free")), ["free larger", "free small 0"]);
});

Deno.test("a queue that ends takes nothing, and cancels what it has", async () => {
  const log: string[] = [], gate = Promise.withResolvers<void>();
  using engine = await Engine.create(open);
  const jobs = new Jobs(painting(engine), { queue: 4, patience });
  const running = jobs.add("a", asked(fakePlan("x", log, { gate: gate.promise })));
  const waiting = jobs.add("b", asked(fakePlan("y", log)));
  await new Promise((resolve) => setTimeout(resolve));
  const ended = jobs[Symbol.asyncDispose]();
  assertThrows(() => jobs.add("c", asked(fakePlan("z", log))), HttpError, "about to end");
  gate.resolve();
  await ended;
  assertEquals([running, waiting].map(({ state }) => state.state), ["cancelled", "cancelled"]);
  assert(!log.includes("run y"));
});

/** A painter of so many steps, which says of each what it is about to do. */
function stepPlan(steps: number, log: string[], next = (_: number) => Promise.resolve()): Plan {
  const plan = fakePlan("x", log), { compile } = plan;
  return {
    ...plan,
    async compile(device: Device) {
      const painter = await compile(device);
      return {
        ...{ ...painter, steps },
        async *stream() {
          for (let step = 1; step <= steps; step++) {
            await next(step);
            yield {
              ...{ index: 0, step, steps, noisy: picture, sample: picture },
              pictures() {
                log.push(`draw ${step}`);
                return Promise.resolve(picture);
              },
            };
          }
          return picture;
        },
      };
    },
  };
}

Deno.test("steps are drawn for those who watch, or look from time to time, and for nobody else", async () => {
  const log: string[] = [];
  using engine = await Engine.create(open);
  await using jobs = new Jobs(painting(engine), { queue: 4, patience });
  const told: string[] = [];
  let reading = Promise.resolve();
  const job = jobs.add(
    "a",
    asked(stepPlan(6, log, async (step) => {
      if (step === 2) assertEquals(job.look(), undefined);
      if (step === 4) assert(job.look());
      if (step !== 6) return;
      const stream = job.watch(), reader = stream.getReader(), decoder = new TextDecoder();
      // What comes first is how far it is now, without a picture of long ago.
      const { value } = await reader.read();
      told.push(decoder.decode(value));
      reading = (async () => {
        for (let part = await reader.read(); !part.done; part = await reader.read()) {
          told.push(decoder.decode(part.value));
        }
      })();
    })),
  );
  await job.ended;
  await reading;
  assertEquals(log.filter((line) => line.startsWith("draw")), ["draw 2", "draw 4", "draw 6"]);
  const events = told.map((text) => JSON.parse(text.split("data: ")[1]));
  assertEquals(events.map(({ step, preview }) => [step, preview !== undefined]), [
    ...[[5, false], [6, true], [undefined, false]],
  ]);
});

Deno.test("watchers that do not read hold no more than some events", async () => {
  const log: string[] = [];
  using engine = await Engine.create(open);
  await using jobs = new Jobs(painting(engine), { queue: 4, patience });
  const job = jobs.add("a", asked(stepPlan(500, log))), stream = job.watch();
  await job.ended;
  const text = await new Response(stream).text();
  const events = text.split("\n\n").filter(Boolean);
  assert(events.length <= 66, `${events.length} events`);
  assert(events.at(-1)!.startsWith("event: done"));
  assert(text.includes('"step":500'));
  await assertRejects(() => new Response(job.watch()).json());
});
