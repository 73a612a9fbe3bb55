/**
 * A server within the test, of models that compute in no time, and clients.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { ComputeThread } from "../../src/cli/serve/compute_thread.ts";
import { openModels } from "../../src/cli/serve/models.ts";
import { type ServerOptions, startServer } from "../../src/cli/serve/server.ts";
import { initializeModel, serializeModel } from "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { classModel, Folder, tinyModelFile, tinyUNet } from "./cli.ts";

/** A model that takes up to a thousand steps. */
export function slowModelFile(): Uint8Array<ArrayBuffer> {
  const network = parseNetwork({ ...tinyUNet, sample_size: 8, in_channels: 1, out_channels: 1 });
  return serializeModel(initializeModel(network, { num_train_timesteps: 1000 }, 0));
}

/** A model that reads, of pictures of a size, or of any. */
export function readingModelFile(size?: number): Uint8Array<ArrayBuffer> {
  const network = parseNetwork({
    ...{ _class_name: "TextUNet2DModel", in_channels: 3, out_channels: 3 },
    ...(size === undefined ? {} : { sample_size: size }),
    ...{ block_out_channels: [8, 16], layers_per_block: 1, norm_num_groups: 4 },
    down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types: ["CrossAttnUpBlock2D", "UpBlock2D"],
    text_encoder: { max_length: 8, width: 16, layers: 1, heads: 2 },
  });
  const model = initializeModel(network, { num_train_timesteps: 10 }, 0);
  const parameters = model.parameters.map((x, i) => x + 0.1 * Math.sin(i));
  return serializeModel({ ...model, parameters });
}

/** What answers and events hold, each of them some of it. */
export interface Told {
  readonly error: string;
  readonly detail: string;
  readonly id: string;
  readonly state: string;
  readonly status: string;
  readonly position: number;
  readonly step: number;
  readonly steps: number;
  readonly running: number;
  readonly queued: number;
  readonly device: string;
  readonly preview: {
    readonly png: string;
    readonly noisy: string;
    readonly columns: number;
    readonly first: number;
    readonly count: number;
  };
  readonly images: readonly string[];
  readonly withheld: Readonly<Record<string, string>>;
  readonly info: string;
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** An answer: its status, and its JSON. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Told;
}

/** An event of a job. */
export interface JobEvent {
  readonly name: string;
  readonly data: Told;
}

/** Settings of a server in a test. */
export interface ServedOptions extends Partial<ServerOptions> {
  /** Models to serve instead of its own. */
  readonly places?: readonly string[];
  /** Whether it computes in the thread of the test, which starts faster. @default {true} */
  readonly isShared?: boolean;
  /** Whether safety checkers are left out. */
  readonly isUnchecked?: boolean;
}

/** A running server, in a folder with its models. */
export class Served implements AsyncDisposable {
  readonly folder: Folder;
  readonly url: string;
  readonly errors: string[];
  readonly #end: () => Promise<void>;

  private constructor(folder: Folder, url: string, errors: string[], end: () => Promise<void>) {
    this.folder = folder;
    this.url = url;
    this.errors = errors;
    this.#end = end;
  }

  /** Serves `m`, `slow`, and `c`, which knows cats, dogs and none. */
  static async start(
    { places, isShared = true, isUnchecked = false, ...options }: ServedOptions = {},
  ): Promise<Served> {
    const folder = await Folder.make(), errors: string[] = [];
    await folder.write("m.safetensors", tinyModelFile());
    await folder.write("slow.safetensors", slowModelFile());
    await folder.write("c.safetensors", serializeModel(classModel(["cat", "dog"])));
    const own = ["m", "slow", "c"].map((name) => folder.at(`${name}.safetensors`));
    const setup = { places: places ?? own, isUnchecked, flags: { device: "cpu", threads: 1 } };
    const models = await openModels(setup.places, isUnchecked);
    const server = await startServer({
      ...{ host: "127.0.0.1", port: 0, queue: 16, models },
      limits: { images: 8, steps: 1000 },
      start: () => ComputeThread.start({ ...setup, models, isShared }),
      onError: (message) => errors.push(message),
      ...options,
    });
    return new Served(folder, server.url, errors, async () => {
      await server[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    });
  }

  async ask(path: string, options: RequestInit = {}): Promise<Answer> {
    const response = await fetch(this.url + path, options), { status, headers } = response;
    const text = await response.text();
    const isJson = headers.get("content-type")?.startsWith("application/json");
    return { status, headers, body: isJson ? JSON.parse(text) : {} };
  }

  async post(path: string, body: unknown, options: RequestInit = {}): Promise<Answer> {
    return await this.ask(path, {
      ...{ method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) },
      ...options,
      headers: { "Content-Type": "application/json", ...options.headers },
    });
  }

  /** Asks for a job, which must be taken; returns its id. */
  async begin(job: unknown, options: RequestInit = {}): Promise<string> {
    const { status, body } = await this.post("api/jobs", job, options);
    assertEquals(status, 201, body.detail);
    return body.id;
  }

  /** Follows a job to its end. */
  async follow(id: string): Promise<JobEvent[]> {
    const all: JobEvent[] = [];
    for await (const event of this.events(id)) all.push(event);
    return all;
  }

  /** The events of a job. */
  async *events(id: string, signal?: AbortSignal): AsyncGenerator<JobEvent> {
    const response = await fetch(`${this.url}api/jobs/${id}/events`, signal ? { signal } : {});
    assertEquals(response.status, 200);
    let text = "";
    for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
      text += part;
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const found = /^event: (\w+)\ndata: (.*)$/.exec(text.slice(0, end));
        if (found) yield { name: found[1], data: JSON.parse(found[2]) };
      }
    }
  }

  /** A picture of a job. */
  async picture(id: string, k = 0): Promise<Uint8Array<ArrayBuffer>> {
    const response = await fetch(`${this.url}api/jobs/${id}/images/${k}`);
    assertEquals(response.status, 200);
    return new Uint8Array(await response.arrayBuffer());
  }

  /** Waits until nothing is computed, and nothing waits. */
  async idle(): Promise<void> {
    for (let i = 0; i < 1000; i++) {
      const { body } = await this.ask("api/health");
      if (!body.running && !body.queued) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert(false, "the server is still busy");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }
}
