/**
 * Starts the command line.
 *
 * @module
 */

import { main } from "../cli.ts";

Deno.exitCode = await main(Deno.args);
