/**
 * What browsers withhold from pages that came over a plain connection: WebGPU and shared memory.
 *
 * @module
 */

/** Why they do so here; `undefined` where they do not, as outside of browsers. */
export const whyInsecure = (): string | undefined =>
  Reflect.get(globalThis, "isSecureContext") === false
    ? "the page is no secure context, which takes https: or localhost"
    : undefined;
