/**
 * A model of the hub as a folder whose files come when they are asked for.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { formatBytes } from "../../units.ts";
import { download } from "../data/download.ts";
import { Hindrance, sleep, type Wait } from "../data/request.ts";
import { printError, Progress } from "../terminal/progress.ts";
import type { ModelFolder } from "../run/model_folder.ts";
import { RepositoryCache } from "./cache.ts";
import { type HubPlace, parseHubPlace } from "./place.ts";
import {
  checkEtag,
  describeRepository,
  explainAnswer,
  type HubFile,
  hubHeaders,
  type Repository,
  Unreachable,
  urlOf,
} from "./repository.ts";
import { type HubSettings, readSettings } from "./settings.ts";

/** Files of this size are worth a line, in bytes. */
const LARGE = 1e6;

/** A folder in a repository, and the file that was named in it. */
export interface HubModel {
  readonly folder: ModelFolder;
  readonly file?: string;
}

/**
 * Opens a model of the hub. Of what it consists is asked of the hub, if that can be; what was fetched
 * before, by this program or by Python, is not fetched again.
 *
 * @throws {InputError} If there is none, or one may not have it.
 * @throws {Error} If the hub cannot be reached and nothing was fetched before.
 */
export async function openHub(
  text: string,
  settings: HubSettings = readSettings(),
  wait: Wait = sleep,
): Promise<HubModel> {
  const place = parseHubPlace(text), { path } = place;
  const source = await openSource(place, settings, wait);
  const paths = await source.list();
  if (paths.includes(path)) {
    return { folder: folderAt(source, parentOf(text), parentOf(path)), file: nameOf(path) };
  }
  if (path === "" || paths.some((other) => other.startsWith(`${path}/`))) {
    return { folder: folderAt(source, text, path) };
  }
  const top = new Set(paths.map((other) => other.split("/")[0]));
  throw new InputError(
    `Cannot load the model ${text}: there is no ${path} in it, but ${[...top].sort().join(", ")}` +
      (source.isPartial ? ", of what was fetched before" : ""),
  );
}

/** Where files are from. */
interface Source {
  /** Whether these are only the files that were fetched before. */
  readonly isPartial: boolean;
  list(): Promise<readonly string[]>;
  /** The path of a file on the disk. */
  find(path: string): Promise<string | undefined>;
}

async function openSource(place: HubPlace, settings: HubSettings, wait: Wait): Promise<Source> {
  const { revision } = place, cache = new RepositoryCache(settings.cache, place.owner, place.name);
  const fetched = async (): Promise<Source | undefined> => {
    const commit = await cache.commitOf(revision), paths = commit ? await cache.list(commit) : [];
    if (!commit || !paths.length) return undefined;
    return {
      ...{ isPartial: true, list: () => Promise.resolve(paths) },
      find: (path) => cache.find(commit, path),
    };
  };
  if (settings.isOffline) {
    const source = await fetched();
    if (source) return source;
    throw new InputError(
      `Cannot load the model ${place.place}: HF_HUB_OFFLINE is set, and nothing of ${revision} is in ` +
        `${settings.cache}; fetch it once without HF_HUB_OFFLINE`,
    );
  }
  let repository: Repository;
  try {
    repository = await describeRepository(place, settings, wait);
  } catch (error) {
    const source = error instanceof Unreachable ? await fetched() : undefined;
    if (!source) throw error;
    printError(`taking what was fetched before: ${(error as Error).message}`);
    return source;
  }
  const { commit, files } = repository;
  return {
    ...{ isPartial: false, list: () => Promise.resolve([...files.keys()]) },
    async find(path) {
      const file = files.get(path);
      if (!file) return undefined;
      const there = await cache.find(commit, path, file.bytes);
      if (there) return there;
      await cache.setCommit(revision, commit);
      using progress = new Progress();
      return await cache.add(commit, file, progress, async (part) => {
        await fetchFile(file, place, settings, commit, part, progress, wait);
      });
    },
  };
}

async function fetchFile(
  file: HubFile,
  place: HubPlace,
  settings: HubSettings,
  commit: string,
  part: string,
  progress: Progress,
  wait: Wait,
): Promise<void> {
  const url = urlOf(place, settings, commit, file.path);
  if (file.bytes >= LARGE) progress.say(`downloading ${url}, ${formatBytes(file.bytes)}`);
  const check = (response: Response) => {
    const { status, url } = response;
    if (status >= 400 && status < 500 && status !== 429) {
      // Addresses of the hosts that the hub redirects to hold for a while only.
      if (url.startsWith(settings.endpoint)) throw explainAnswer(response, place, settings);
      throw new Hindrance(`${new URL(url).host} answers ${status}`);
    }
    checkEtag(file, response);
  };
  const headers = hubHeaders(settings);
  await download({ ...file, url, name: file.path, headers, check }, part, progress, wait);
}

/** A folder of a repository. */
function folderAt(source: Source, place: string, path: string): ModelFolder {
  return {
    place,
    async list(folder) {
      const above = resolveIn(path, folder);
      return (await source.list()).filter((other) => parentOf(other) === above).map(nameOf).sort();
    },
    async find(relative) {
      const at = resolveIn(path, relative);
      return at === undefined ? undefined : await source.find(at);
    },
  };
}

/** A path in a repository, by one relative to a folder of it; `undefined` if it leads out of it. */
function resolveIn(folder: string, path: string): string | undefined {
  const parts: string[] = [];
  for (const part of `${folder}/${path}`.split("/").filter((part) => part !== "")) {
    if (part !== "..") parts.push(part);
    else if (!parts.pop()) return undefined;
  }
  return parts.join("/");
}

/** What is before the last slash, and behind it. */
const parentOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
const nameOf = (path: string) => path.slice(path.lastIndexOf("/") + 1);
