/**
 * Compiles with inputs that are kept transformed, where these have room.
 *
 * @module
 */

import { type CompileOptions, type Device, LimitError, type Program } from "./device.ts";
import type { Graph } from "./graph.ts";

/**
 * Compiles a graph, without constants if it does not fit with them: transformed weights take four times
 * their memory, those of Stable Diffusion's UNet 13 GB.
 *
 * @throws {LimitError} If it does not fit without them either.
 */
export async function compilePrepared(
  device: Device,
  graph: Graph,
  { constant = [], ...options }: CompileOptions,
): Promise<Program> {
  try {
    return await device.compile(graph, { ...options, constant });
  } catch (error) {
    if (!(error instanceof LimitError) || !constant.length) throw error;
    return await device.compile(graph, options);
  }
}
