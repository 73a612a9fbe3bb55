/**
 * A hub on this machine, with one repository, that misbehaves where a test wants it to.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { nameTensors } from "../../src/model/tensors.ts";
import { formatNetwork } from "../../src/model/network.ts";
import { tinyModel } from "./cli.ts";

/** The commit of the repository. */
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";

/** What came to the hub, or to the host that it keeps large files on. */
export interface Asked {
  readonly host: "hub" | "store";
  readonly path: string;
  readonly token: string | null;
  readonly range: string | null;
}

/** Answers a request in another way than usual; `undefined` for the usual one. */
export type Fault = (asked: Asked, count: number) => Response | undefined;

const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** A checkpoint as diffusers publishes it: what matters, and what is not needed. */
export function checkpoint(): Map<string, Uint8Array<ArrayBuffer>> {
  const { network, parameters } = tinyModel();
  const weights = writeSafetensors(nameTensors(network.layout, parameters), { format: "pt" });
  return new Map([
    ["README.md", new TextEncoder().encode("---\nlicense: apache-2.0\n---\n# Tiny\n")],
    [
      "model_index.json",
      json({
        _class_name: "DDPMPipeline",
        scheduler: ["diffusers", "DDPMScheduler"],
        unet: ["diffusers", "UNet2DModel"],
      }),
    ],
    ["unet/config.json", json(formatNetwork(network))],
    ["unet/diffusion_pytorch_model.bin", new Uint8Array(1000)],
    ["unet/diffusion_pytorch_model.safetensors", weights],
    [
      "scheduler/scheduler_config.json",
      json({ _class_name: "DDPMScheduler", num_train_timesteps: 10 }),
    ],
    ["samples/picture.png", new Uint8Array(2000)],
  ]);
}

/** Where the weights are in it. */
export const WEIGHTS = "unet/diffusion_pytorch_model.safetensors";

/** The checksum that git gives a file, by which the hub calls it. */
export const gitSha1 = (bytes: Uint8Array): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** The checksum of large files. */
export const sha256 = (bytes: Uint8Array): string =>
  createHash("sha256").update(bytes).digest("hex");

const isLarge = (path: string) => /\.(safetensors|bin)$/.test(path);

/** What the hub calls a file. */
export const etagOf = (path: string, bytes: Uint8Array): string =>
  isLarge(path) ? sha256(bytes) : gitSha1(bytes);

/** The hub. */
export class HubServer implements AsyncDisposable {
  /** All requests so far. */
  readonly asked: Asked[] = [];
  /** What is sent instead of the content of a file. */
  readonly content = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly files: Map<string, Uint8Array<ArrayBuffer>>;
  fault: Fault = () => undefined;
  /** Changes what the hub says of the repository. */
  describe: (answer: Record<string, unknown>) => unknown = (answer) => answer;
  readonly #hub: Deno.HttpServer<Deno.NetAddr>;
  readonly #store: Deno.HttpServer<Deno.NetAddr>;

  constructor(files = checkpoint()) {
    this.files = files;
    const options = {
      port: 0,
      hostname: "127.0.0.1",
      onListen() {},
      onError: () => new Response(),
    };
    this.#hub = Deno.serve(options, (request) => this.#take("hub", request));
    this.#store = Deno.serve(options, (request) => this.#take("store", request));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.addr.port}`;
  }

  /** The paths of files that were asked for. */
  get fetched(): string[] {
    return this.asked.filter(({ host, path }) => host === "hub" && path.includes("/resolve/"))
      .map(({ path }) => path.split(`${COMMIT}/`)[1]);
  }

  #take(host: Asked["host"], request: Request): Response {
    const { pathname } = new URL(request.url), { headers } = request;
    const asked: Asked = {
      ...{ host, path: decodeURIComponent(pathname) },
      ...{ token: headers.get("authorization"), range: headers.get("range") },
    };
    this.asked.push(asked);
    return this.fault(asked, this.asked.length) ?? this.#answer(asked);
  }

  #answer({ host, path, range }: Asked): Response {
    if (host === "store") return this.#send(path.slice(1), range);
    if (/^\/api\/models\/google\/tiny\/revision\/(main|v1|refs\/pr\/1|[0-9a-f]{40})$/.test(path)) {
      const siblings = [...this.files].map(([rfilename, bytes]) => ({
        ...{ rfilename, size: bytes.length, blobId: gitSha1(bytes) },
        ...(isLarge(rfilename) ? { lfs: { sha256: sha256(bytes), size: bytes.length } } : {}),
      }));
      return Response.json(this.describe({ sha: COMMIT, siblings }));
    }
    const name = path.match(/^\/google\/tiny\/resolve\/[0-9a-f]{40}\/(.*)$/)?.[1];
    const bytes = name && this.files.get(name);
    if (!bytes) {
      return new Response("", { status: 404, headers: { "x-error-code": "RepoNotFound" } });
    }
    if (!isLarge(name)) return this.#send(name, range);
    const location = `http://127.0.0.1:${this.#store.addr.port}/${name}`;
    return new Response("", {
      status: 302,
      headers: { location, etag: '"of the redirect"', "x-linked-etag": `"${sha256(bytes)}"` },
    });
  }

  #send(name: string, range: string | null): Response {
    const bytes = this.content.get(name) ?? this.files.get(name)!;
    const from = Number(range?.match(/^bytes=(\d+)-$/)?.[1] ?? 0);
    return new Response(bytes.slice(from), {
      status: range ? 206 : 200,
      headers: {
        ...(range ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#hub.shutdown(), this.#store.shutdown()]);
  }
}

/** The beginning of bytes, after which the connection is cut. */
export function cut(bytes: Uint8Array<ArrayBuffer>): Response {
  const parts = [bytes];
  return new Response(
    new ReadableStream({
      pull(controller) {
        const part = parts.pop();
        if (part) controller.enqueue(part);
        else controller.error(new Error("cut"));
      },
    }),
  );
}
