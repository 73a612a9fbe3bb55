/**
 * What the hub says of a repository: its commit, its files, and what its answers mean.
 *
 * @module
 */

import { z } from "zod";
import { InputError } from "../../errors.ts";
import type { Checksum } from "../data/download.ts";
import {
  Hindrance,
  readText,
  Refusal,
  request,
  Silence,
  type Wait,
  withRetries,
} from "../data/request.ts";
import { explain } from "../terminal/files.ts";
import { version } from "../terminal/version.ts";
import { COMMIT } from "./cache.ts";
import { type HubPlace, isInside } from "./place.ts";
import type { HubSettings } from "./settings.ts";

/** A file of a repository. */
export interface HubFile {
  readonly path: string;
  readonly bytes: number;
  /** What the hub calls its content, which is its checksum. */
  readonly etag: string;
  readonly checksum: Checksum;
}

/** A repository at a commit. */
export interface Repository {
  readonly commit: string;
  readonly files: ReadonlyMap<string, HubFile>;
}

/** The hub cannot be reached, or has no time: what was fetched before may do. */
export class Unreachable extends Error {}

/** More than the description of any repository of models. */
const MAX_ANSWER = 64e6;

const bytes = z.int().min(0);
const answerSchema = z.object({
  sha: z.string().regex(COMMIT),
  siblings: z.array(z.object({
    rfilename: z.string(),
    size: bytes.optional(),
    blobId: z.string().regex(/^[0-9a-f]{40}$/).optional(),
    lfs: z.object({ sha256: z.string().regex(/^[0-9a-f]{64}$/), size: bytes }).nullish(),
  })),
});

/** The headers of requests to the hub. */
export const hubHeaders = ({ token }: HubSettings): Record<string, string> => ({
  "user-agent": `ddpm/${version}; deno/${Deno.version.deno}`,
  // The rest of a packed file is no rest of the file.
  "accept-encoding": "identity",
  ...(token ? { authorization: `Bearer ${token.text}` } : {}),
});

/** The address of a file. */
export const urlOf = (
  { owner, name }: HubPlace,
  { endpoint }: HubSettings,
  commit: string,
  path: string,
): string =>
  `${endpoint}/${owner}/${name}/resolve/${commit}/${
    path.split("/").map(encodeURIComponent).join("/")
  }`;

/**
 * Asks the hub for the files of a revision.
 *
 * @throws {Unreachable} If it does not answer.
 * @throws {InputError} If there is no such model or revision, or one may not have it.
 * @throws {Error} If the answer is none.
 */
export async function describeRepository(
  place: HubPlace,
  settings: HubSettings,
  wait: Wait,
): Promise<Repository> {
  const { owner, name, revision } = place, { endpoint } = settings;
  const url = `${endpoint}/api/models/${owner}/${name}/revision/${encodeURIComponent(revision)}`;
  const ask = async () => {
    using silence = new Silence();
    const response = await request(
      { url: `${url}?blobs=true`, headers: hubHeaders(settings) },
      silence.signal,
    );
    const text = await readText(response, MAX_ANSWER, silence);
    if (!response.ok) throw explainAnswer(response, place, settings);
    return text;
  };
  let text: string;
  try {
    text = await withRetries(ask, wait);
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw explainFailure(error, place, settings);
  }
  return readAnswer(text, place, settings);
}

/** A failure of the network, or of the server, in words. */
function explainFailure(error: unknown, { place }: HubPlace, { endpoint }: HubSettings): Error {
  const { host } = new URL(endpoint), failed = `Cannot get ${place} from ${endpoint}`;
  if (error instanceof Refusal) return new Error(`${failed}: ${error.message}`);
  if (error instanceof Deno.errors.NotCapable) {
    return new Unreachable(
      `${failed}: ${
        explain(error)
      }; give it --allow-net, at least for ${host} and the hosts that ` +
        "it redirects to",
    );
  }
  if (!(error instanceof Hindrance)) {
    return new Unreachable(`${failed}: ${explain(error)}; is the network reachable?`);
  }
  const { retryAfter } = error;
  const advice = retryAfter === undefined ? "try again later" : `try again in ${retryAfter} s`;
  return new Unreachable(`${failed}: ${error.message}; ${advice}`);
}

/** What an answer that refuses means, and what can be done. */
export function explainAnswer(
  { status, headers }: Response,
  { place, owner, name, revision }: HubPlace,
  { endpoint, token }: HubSettings,
): Error {
  const refuse = (why: string) => new InputError(`Cannot get ${place}: ${why}`);
  const code = headers.get("x-error-code"), page = `${endpoint}/${owner}/${name}`;
  if (code === "GatedRepo" || (status === 403 && code === null)) {
    return refuse(
      `its owner gives it to those who accept conditions: do so at ${page}, and ` +
        (token ? `check that the token of ${token.from} may read it` : "set HF_TOKEN to a token"),
    );
  }
  if (code === "RevisionNotFound") {
    return refuse(`it has no branch, tag or commit ${revision}; ${page} lists them`);
  }
  if (status === 401 && token && code !== "RepoNotFound") {
    return refuse(`the token of ${token.from} is not valid; make a new one, or remove it`);
  }
  if (status === 401 || status === 404 || code === "RepoNotFound") {
    if (code === "EntryNotFound") return new Refusal("the server does not have it any more");
    return refuse(
      `there is no model ${owner}/${name} at ${endpoint}, or it is private: check its name, ` +
        (token
          ? `and whether the token of ${token.from} may read it`
          : "or set HF_TOKEN to a token that may read it"),
    );
  }
  return new Refusal(`the server answers ${status}`);
}

/** The files that an answer names. */
function readAnswer(text: string, { place }: HubPlace, { endpoint }: HubSettings): Repository {
  const bad = (why: string) => new Error(`Cannot use what ${endpoint} says of ${place}: ${why}`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw bad("it is no JSON");
  }
  const parsed = answerSchema.safeParse(json);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0];
    throw bad(`${path.join(".")}: ${message}`);
  }
  const files = new Map<string, HubFile>();
  for (const { rfilename: path, size, blobId, lfs } of parsed.data.siblings) {
    if (!isInside(path)) throw bad(`the path ${JSON.stringify(path)} leads out of its folder`);
    // The hub stores large files under the checksum of their own content.
    if (lfs) {
      const checksum = { kind: "SHA-256", digits: lfs.sha256 } as const;
      files.set(path, { path, bytes: lfs.size, etag: lfs.sha256, checksum });
    } else if (size !== undefined && blobId) {
      const checksum = { kind: "git SHA-1", digits: blobId } as const;
      files.set(path, { path, bytes: size, etag: blobId, checksum });
    } else throw bad(`it does not tell size and checksum of ${path}`);
  }
  return { commit: parsed.data.sha, files };
}

/**
 * Looks at what an answer says of the file that it is going to send.
 *
 * @throws {Refusal} If it is another one.
 */
export function checkEtag({ etag }: HubFile, { headers }: Response): void {
  const given = headers.get("x-linked-etag") ?? headers.get("etag");
  const found = given?.replace(/^W\//, "").replaceAll('"', "");
  // Hosts of large files have other tags of their own, which say nothing.
  if (!found || !/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(found) || found.length !== etag.length) {
    return;
  }
  if (found !== etag) throw new Refusal("it changed meanwhile; the same command tries again");
}
