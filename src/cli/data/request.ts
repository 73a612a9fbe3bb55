/**
 * Requests over the network: redirects, which never take along what is meant for one host, and tries
 * after failures that may pass.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { formatBytes } from "../../units.ts";

/** An error that trying again does not mend. */
export class Refusal extends Error {}

/** Whether trying again would not help: it was refused, or Deno has no permission. */
const isFinal = (error: unknown) =>
  [Refusal, InputError, Deno.errors.NotCapable].some((kind) => error instanceof kind);

/** A failure that may pass. */
export class Hindrance extends Error {
  /** How long the server asks to wait, in seconds, if it does. */
  readonly retryAfter: number | undefined;

  constructor(message: string, retryAfter?: number) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/** Waits for so many milliseconds. */
export type Wait = (ms: number) => Promise<unknown>;

/** Waits by the clock. */
export const sleep: Wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Attempts without progress before giving up. */
const TRIES = 4;
/** The wait after the first failure; it doubles with each one. */
const FIRST_WAIT_MS = 2000;
/** Who asks to wait for longer than this is not waited for, in seconds. */
const MAX_RETRY_AFTER = 120;
/** A connection without data for this long is aborted. */
const SILENCE_MS = 60_000;
const MAX_REDIRECTS = 10;

/**
 * Tries until it works, some attempts fail in a row, or one is refused.
 *
 * @param hasProgressed Whether the attempt that failed did a part of the work.
 */
export async function withRetries<T>(
  attempt: () => Promise<T>,
  wait: Wait,
  hasProgressed: () => Promise<boolean> = () => Promise.resolve(false),
): Promise<T> {
  for (let failures = 0;;) {
    try {
      return await attempt();
    } catch (error) {
      if (isFinal(error)) throw error;
      failures = await hasProgressed() ? 1 : failures + 1;
      const { retryAfter } = error instanceof Hindrance ? error : { retryAfter: undefined };
      if (failures >= TRIES || (retryAfter ?? 0) > MAX_RETRY_AFTER) throw error;
      await wait(
        retryAfter === undefined ? FIRST_WAIT_MS * 2 ** (failures - 1) : 1000 * retryAfter,
      );
    }
  }
}

/** What is asked for. */
export interface Request {
  readonly url: string;
  /** Not sent to other hosts, but the range. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Looks at every answer, redirects too. */
  readonly check?: ((response: Response) => void) | undefined;
}

/** Aborts a connection when it has been silent for too long. */
export class Silence implements Disposable {
  readonly #abort = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.heard();
  }

  /** Something came. */
  heard(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.#abort.abort(new Error(`no data for ${SILENCE_MS / 1000} s`)),
      SILENCE_MS,
    );
  }

  /** Aborts after a silence. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

/**
 * The answer to a request, behind all redirects.
 *
 * @throws {Hindrance} If the server is overloaded or fails.
 * @throws {Refusal} If a redirect leads nowhere, or from encryption to none.
 */
export async function request(
  { url, headers = {}, check }: Request,
  signal: AbortSignal,
): Promise<Response> {
  let at = new URL(url), sent = headers;
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    const response = await fetch(at, { headers: sent, redirect: "manual", signal });
    const { status } = response, location = response.headers.get("location");
    try {
      check?.(response);
      if (status === 429 || status >= 500) {
        const seconds = Number(response.headers.get("retry-after") ?? NaN);
        throw new Hindrance(
          `the server answers ${status}`,
          Number.isFinite(seconds) ? Math.max(0, seconds) : undefined,
        );
      }
    } catch (error) {
      await response.body?.cancel();
      throw error;
    }
    if (status < 300 || status >= 400 || location === null) return response;
    await response.body?.cancel();
    const next = URL.parse(location, at), isWeb = /^https?:$/.test(next?.protocol ?? "");
    if (!next || !isWeb || (at.protocol === "https:" && next.protocol !== "https:")) {
      throw new Refusal(`the server redirects to ${location}, which is not followed`);
    }
    if (next.origin !== at.origin) {
      sent = Object.fromEntries(Object.entries(sent).filter(([name]) => name === "range"));
    }
    at = next;
  }
  throw new Refusal(`the server redirects more than ${MAX_REDIRECTS} times`);
}

/**
 * The text of an answer.
 *
 * @throws {Refusal} If it is longer than the limit.
 */
export async function readText(
  { body }: Response,
  limit: number,
  silence: Silence,
): Promise<string> {
  const decoder = new TextDecoder();
  let text = "", bytes = 0;
  for await (const chunk of body ?? []) {
    silence.heard();
    bytes += chunk.length;
    if (bytes > limit) throw new Refusal(`its answer has more than ${formatBytes(limit)}`);
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}
