/**
 * A thread of the CPU device.
 *
 * @module
 */

import { Player, type ThreadSetup } from "./threads.ts";

/** What a worker's global scope has; the type checker is told of windows only. */
const scope = globalThis as unknown as {
  postMessage(message: unknown): void;
  close(): void;
};

addEventListener("message", (event) => {
  const player = new Player((event as MessageEvent<ThreadSetup>).data);
  scope.postMessage("ready");
  player.serve();
  scope.close();
});
