/**
 * A hub, a cache for what is fetched from it, and what goes wrong between them.
 *
 * @module
 */

import { assert, assertRejects } from "@std/assert";
import { openHub } from "../../src/cli/hub/hub_folder.ts";
import type { HubSettings } from "../../src/cli/hub/settings.ts";
import { loadFolder } from "../../src/cli/run/model_folder.ts";
import { readParameter } from "../../src/model/parameters.ts";
import { Folder, tinyModel } from "./cli.ts";
import { type Fault, HubServer, WEIGHTS } from "./hub_server.ts";

/** The repository by its name, and where it is in the cache. */
export const PLACE = "hf:google/tiny";
export const REPOSITORY = "cache/models--google--tiny";
/** What is needed of a checkpoint; weights come last. */
export const NEEDED = [
  ...["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"],
  WEIGHTS,
];

/** A hub, and a cache for what is fetched from it. */
export class HubScene implements AsyncDisposable {
  readonly hub = new HubServer();
  /** How long waits between tries were, in milliseconds. */
  readonly waits: number[] = [];
  readonly folder: Folder;

  private constructor(folder: Folder) {
    this.folder = folder;
    Object.assign(folder.env, {
      ...{ HF_ENDPOINT: this.hub.endpoint, HF_HUB_CACHE: folder.at("cache"), HF_HUB_OFFLINE: "" },
      ...{ HF_TOKEN: "", HF_TOKEN_PATH: folder.at("token") },
    });
  }

  static make = async () => new HubScene(await Folder.make());

  settings(changes: Partial<HubSettings> = {}): HubSettings {
    const cache = this.folder.at("cache");
    return { endpoint: this.hub.endpoint, cache, isOffline: false, ...changes };
  }

  /** Loads the model, and reads a weight. */
  async load(place = PLACE, changes: Partial<HubSettings> = {}): Promise<number> {
    const wait = (ms: number) => Promise.resolve(this.waits.push(ms));
    const { folder } = await openHub(place, this.settings(changes), wait);
    const { network, parameters } = await loadFolder(folder);
    return readParameter(network.layout, parameters, 0)[0];
  }

  /** The message of an error of loading, which is one line. */
  async fail(changes: Partial<HubSettings> = {}): Promise<string> {
    const { message } = await assertRejects(() => this.load(PLACE, changes), Error);
    assert(!message.includes("\n"), message);
    return message;
  }

  read = (path: string) => Deno.readFile(this.folder.at(`${REPOSITORY}/${path}`));
  readText = (path: string) => Deno.readTextFile(this.folder.at(`${REPOSITORY}/${path}`));

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub[Symbol.asyncDispose]();
    await this.folder[Symbol.asyncDispose]();
  }
}

/** A weight of the model. */
export const first: number = (() => {
  const { network, parameters } = tinyModel();
  return readParameter(network.layout, parameters, 0)[0];
})();

/** A fault for what the store is asked. */
export const ofStore = (answer: (count: number) => Response | undefined): Fault => {
  let count = 0;
  return ({ host }) => host === "store" ? answer(++count) : undefined;
};
/** A fault for everything. */
export const always = (status: number, headers: Record<string, string> = {}): Fault => () =>
  new Response("", { status, headers });
