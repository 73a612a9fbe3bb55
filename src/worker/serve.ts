/**
 * A Worker that computes: whoever imports this module in a Worker makes it one of a
 * {@linkcode WorkerDevice}.
 *
 * @module
 */

import "./without_eval.ts";
import { answer, type Port } from "./channel.ts";
import { makeService } from "./service.ts";

answer(globalThis as unknown as Port, makeService());
