/**
 * What the environment says of the hub, by the variables that Python's huggingface_hub knows.
 *
 * @module
 */

import { join } from "@std/path";
import { InputError } from "../../errors.ts";
import { environment } from "../terminal/environment.ts";

/** How the hub is used. */
export interface HubSettings {
  /** The URL of the hub, without a slash at its end. */
  readonly endpoint: string;
  /** The folder with what was fetched. */
  readonly cache: string;
  /** What proves who one is, and where it is from. */
  readonly token?: { readonly text: string; readonly from: string };
  /** Whether nothing is to be asked of the hub. */
  readonly isOffline: boolean;
}

/** As huggingface_hub reads switches. */
const isOn = (name: string) => /^(1|on|yes|true)$/i.test(environment(name) ?? "");

/** With variables and the home folder put in. */
const expand = (path: string, home: string | undefined) =>
  path.replace(/^~(?=[/\\]|$)/, home ?? "~")
    .replace(/\$(\w+)|\$\{(\w+)\}/g, (text, name, braced) => environment(name ?? braced) ?? text);

/**
 * Reads the environment, and the file with the token that `hf auth login` writes.
 *
 * @throws {InputError} If nothing tells where the cache is, or a variable is no URL.
 */
export function readSettings(): HubSettings {
  const home = environment("HOME") ?? environment("USERPROFILE");
  const above = environment("XDG_CACHE_HOME") ?? (home && join(home, ".cache"));
  const given = environment("HF_HOME") ?? (above && join(above, "huggingface"));
  const hub = given && expand(given, home);
  const cache = environment("HF_HUB_CACHE") ?? environment("HUGGINGFACE_HUB_CACHE") ??
    (hub && join(hub, "hub"));
  if (!cache) {
    throw new InputError(
      "Cannot use the hub: nothing tells where its cache is; set HF_HUB_CACHE to a folder, and give " +
        "Deno --allow-env",
    );
  }
  const endpoint = (environment("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:$/.test(URL.parse(endpoint)?.protocol ?? "")) {
    throw new InputError(`Cannot use the hub: HF_ENDPOINT must be a URL, not ${endpoint}`);
  }
  const path = environment("HF_TOKEN_PATH") ?? (hub && join(hub, "token"));
  const token = isOn("HF_HUB_DISABLE_IMPLICIT_TOKEN")
    ? undefined
    : tokenOf("HF_TOKEN") ?? tokenOf("HUGGING_FACE_HUB_TOKEN") ??
      (path ? tokenIn(expand(path, home)) : undefined);
  return {
    ...{ endpoint, cache: expand(cache, home) },
    ...(token ? { token } : {}),
    isOffline: isOn("HF_HUB_OFFLINE") || isOn("TRANSFORMERS_OFFLINE"),
  };
}

const clean = (text: string, from: string) => {
  const trimmed = text.trim();
  if (!trimmed) return undefined;
  if (/^[\x21-\x7e]+$/.test(trimmed)) return { text: trimmed, from };
  throw new InputError(`Cannot use the hub: ${from} holds no token, which is one word`);
};

const tokenOf = (name: string) => clean(environment(name) ?? "", name);

function tokenIn(path: string) {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch {
    // There is none, or Deno may not look.
    return undefined;
  }
  return clean(text, path);
}
