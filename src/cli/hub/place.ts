/**
 * How models of the hub are named: `hf:owner/name`, `hf:owner/name@revision/subfolder`.
 *
 * @module
 */

import { InputError } from "../../errors.ts";

/** What such names start with. */
const PREFIX = "hf:";

/** Where a model is in the hub. */
export interface HubPlace {
  /** As it was given. */
  readonly place: string;
  readonly owner: string;
  readonly name: string;
  /** A branch, a tag, or a commit. */
  readonly revision: string;
  /** A folder or a file in the repository; "" for all of it. */
  readonly path: string;
}

/** Whether it names something in the hub. */
export const isHubPlace = (place: string): boolean => place.startsWith(PREFIX);

/** Owners and names: what becomes a part of a URL and of a path on the disk. */
const NAME = /^(?!.*(--|\.\.))[\p{L}\d_][\p{L}\d._-]{0,95}$/u;
/** Revisions with a slash in them. */
const LONG_REVISION = /^(refs\/(pr\/\d+|convert\/[\w.-]+))(?:\/|$)/;

/**
 * Takes a name apart.
 *
 * @throws {InputError} If it is none.
 */
export function parseHubPlace(place: string): HubPlace {
  const bad = (why: string) =>
    new InputError(
      `Cannot load the model ${place}: ${why}; models of the hub are hf:owner/name, ` +
        "hf:owner/name@revision or hf:owner/name@revision/subfolder",
    );
  const [owner = "", rest = "", ...more] = place.slice(PREFIX.length).split("/");
  const at = rest.indexOf("@"), name = at < 0 ? rest : rest.slice(0, at);
  if (!NAME.test(owner)) throw bad(`"${owner}" is no owner`);
  if (!NAME.test(name)) throw bad(`"${name}" is no name of a model`);
  let revision = "main", path = more;
  if (at >= 0) {
    const text = [rest.slice(at + 1), ...more].join("/");
    revision = LONG_REVISION.exec(text)?.[1] ?? decode(rest.slice(at + 1));
    path = text.slice(LONG_REVISION.test(text) ? revision.length : rest.length - at - 1)
      .replace(/^\//, "").split("/");
  }
  if (!isInside(revision)) throw bad(`"${revision}" is no revision`);
  while (path.at(-1) === "") path = path.slice(0, -1);
  if (path.length && !isInside(path.join("/"))) throw bad(`"${path.join("/")}" is no path in it`);
  return { place, owner, name, revision, path: path.join("/") };
}

/** Slashes in names of branches are written %2F. */
const decode = (text: string) => text.replace(/%2f/gi, "/");

/**
 * Whether a path with slashes stays within the folder that it is relative to, on every system: it is
 * not absolute, nor of another drive, and never goes up.
 */
export const isInside = (path: string): boolean =>
  path.split("/").every((part) => part !== "" && !/^\.+$/.test(part) && !/[\\:\p{Cc}]/u.test(part));
