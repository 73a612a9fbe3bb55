/**
 * Package name and version, from deno.json.
 *
 * @module
 */

import manifest from "../../../deno.json" with { type: "json" };

/** The package's name. */
export const packageName: string = manifest.name;

/** The package's version. */
export const version: string = manifest.version;

/** What wrote a file. */
export const software: string = `${packageName} ${version}`;
