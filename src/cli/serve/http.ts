/**
 * Requests and answers: errors with a status, JSON, and bodies with limits.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { concat } from "../../formats/bytes.ts";
import { formatBytes } from "../../units.ts";

/** Bytes that the body of a request may have. */
export const MAX_BODY = 16 * 2 ** 20;
/** Bytes that bodies of all requests may take together. */
const MAX_BODIES = 4 * MAX_BODY;
/** How long a body may take to arrive. */
const BODY_MS = 20_000;

/** An answer that refuses. */
export class HttpError extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** Words for what programs tell apart. */
const CODES: Readonly<Record<number, string>> = {
  ...{ 400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found" },
  ...{ 405: "method_not_allowed", 408: "timeout", 409: "not_ready", 413: "too_large" },
  ...{ 414: "too_large", 415: "unsupported_type", 421: "wrong_host", 422: "invalid" },
  ...{ 429: "busy", 431: "too_large", 500: "failed", 503: "busy" },
};

/** An error as an answer. */
export function failure(error: unknown): Response {
  const { status, headers } = error instanceof HttpError
    ? error
    : { status: error instanceof InputError ? 422 : 500, headers: {} };
  return Response.json(
    { error: CODES[status] ?? "failed", detail: messageOf(error) },
    { status, headers },
  );
}

/** An error in words, in which flags are the fields that they stand for. */
export const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replace(/--(?=[a-z])/g, "");

/** The body of a request, which counts until it is disposed of. */
export interface Body extends Disposable {
  readonly json: unknown;
}

/** Reads bodies, as far as there is room for them. */
export class Bodies {
  readonly #patience: number;
  #held = 0;

  constructor(patience: number = BODY_MS) {
    this.#patience = patience;
  }

  /**
   * Reads JSON.
   *
   * @throws {HttpError} If it is something else, too large, or too slow.
   */
  async read(request: Request): Promise<Body> {
    const type = request.headers.get("content-type")?.split(";")[0].trim().toLowerCase();
    if (type !== "application/json") {
      throw new HttpError(415, "The body must be JSON, with Content-Type: application/json");
    }
    let held = 0;
    const hold = (bytes: number) => {
      held += bytes;
      this.#held += bytes;
      if (held > MAX_BODY) {
        throw new HttpError(413, `The body is larger than ${formatBytes(MAX_BODY)}`);
      }
      if (this.#held > MAX_BODIES) {
        throw new HttpError(503, "Too much is sent at a time: try again", { "Retry-After": "2" });
      }
    };
    const release = () => {
      this.#held -= held;
      held = 0;
    };
    try {
      if (Number(request.headers.get("content-length")) > MAX_BODY) hold(MAX_BODY + 1);
      return { json: parse(await this.#receive(request, hold)), [Symbol.dispose]: release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #receive(
    request: Request,
    hold: (bytes: number) => void,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let isLate = false, reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>> | undefined;
    const timer = setTimeout(() => {
      isLate = true;
      reader?.cancel().catch(() => {});
    }, this.#patience);
    try {
      reader = request.body?.getReader();
      for (;;) {
        const { done, value } = await reader?.read() ?? { done: true };
        if (isLate) throw new HttpError(408, "The body did not arrive in time");
        if (done) return concat(parts);
        hold(value!.length);
        parts.push(value!);
      }
    } catch (error) {
      // Whoever sent it is gone.
      throw error instanceof HttpError ? error : new HttpError(400, "The body broke off");
    } finally {
      clearTimeout(timer);
      reader?.cancel().catch(() => {});
    }
  }
}

function parse(bytes: Uint8Array<ArrayBuffer>): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new HttpError(400, `The body is no JSON: ${(error as Error).message}`);
  }
}
