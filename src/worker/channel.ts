/**
 * Calls between two threads: a call may report on its way, waits until each report is taken, may ask
 * its caller something, can be aborted, and ends with a result or an error of the same class.
 *
 * @module
 */

import { withResolvers } from "../ponyfills.ts";
import { DeviceError } from "../gpu/device.ts";
import { receiveError, sendError, type SentError } from "./errors.ts";

/** To the thread that computes: a call, the end of one, or the answer to what it told or asked. */
type Request =
  | { readonly id: number; readonly name: string; readonly args: unknown }
  | { readonly id: number; readonly abort: true }
  | { readonly id: number; readonly answer: unknown };

/** From the thread that computes. */
type Reply =
  | { readonly id: number; readonly report: unknown }
  | { readonly id: number; readonly question: unknown }
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: SentError };

/** The end of a conversation. */
export interface Port {
  postMessage(message: unknown, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
}

/** Settings of a call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Takes what it reports; the call goes on when that is done. */
  readonly onReport?: (report: never) => void | Promise<void>;
  /** Answers what it asks. */
  readonly onQuestion?: ((question: never) => unknown) | undefined;
}

interface Pending {
  readonly resolve: (result: never) => void;
  readonly reject: (error: Error) => void;
  readonly options: CallOptions;
}

/** The side that calls. */
export class Caller {
  readonly #port: Port;
  readonly #pending = new Map<number, Pending>();
  #next = 0;
  #failure: Error | undefined;

  constructor(port: Port) {
    this.#port = port;
    port.addEventListener("message", ({ data }) => this.#receive(data));
  }

  /** Calls something by its name. */
  call<R>(name: string, args: unknown, options: CallOptions = {}): Promise<R> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#next++, { promise, resolve, reject } = withResolvers<R>();
    const abort = () => this.#send({ id, abort: true });
    this.#pending.set(id, { resolve, reject, options });
    this.#send({ id, name, args });
    if (options.signal?.aborted) abort();
    options.signal?.addEventListener("abort", abort);
    return promise.finally(() => options.signal?.removeEventListener("abort", abort));
  }

  /** Calls something, and yields what it reports; whoever stops listening aborts it. */
  async *stream<E, R>(
    name: string,
    args: unknown,
    { signal, onQuestion }: Pick<CallOptions, "signal" | "onQuestion"> = {},
  ): AsyncGenerator<E, R> {
    const stop = new AbortController();
    const forward = () => stop.abort();
    if (signal?.aborted) forward();
    signal?.addEventListener("abort", forward);
    let wake = withResolvers<{ report: E; taken: () => void } | undefined>();
    const result = this.call<R>(name, args, {
      ...{ signal: stop.signal, onQuestion },
      onReport: (report) => new Promise<void>((taken) => wake.resolve({ report, taken })),
    });
    let isOver = false;
    // What fails is thrown below.
    result.catch(() => {}).finally(() => {
      isOver = true;
      wake.resolve(undefined);
    });
    try {
      for (;;) {
        const next = await wake.promise;
        if (!next) return await result;
        wake = withResolvers();
        if (isOver) wake.resolve(undefined);
        next.taken();
        yield next.report;
      }
    } finally {
      signal?.removeEventListener("abort", forward);
      stop.abort();
    }
  }

  /** Everything that was called, or will be, fails. */
  fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #send(request: Request): void {
    this.#port.postMessage(request, []);
  }

  async #receive(reply: Reply): Promise<void> {
    const pending = this.#pending.get(reply.id);
    if (!pending) return;
    if ("report" in reply) {
      await pending.options.onReport?.(reply.report as never);
      return this.#send({ id: reply.id, answer: undefined });
    }
    if ("question" in reply) {
      const answer = await pending.options.onQuestion?.(reply.question as never);
      return this.#send({ id: reply.id, answer });
    }
    this.#pending.delete(reply.id);
    if ("error" in reply) pending.reject(receiveError(reply.error));
    else pending.resolve(reply.result as never);
  }
}

/** What something that is called knows of its call. */
export interface Call {
  readonly signal: AbortSignal;
  /** Tells something on the way; resolves when it was taken, or the call aborted. */
  report(report: unknown): Promise<void>;
  /** Asks the caller something; nothing is the answer where nobody answers, or the call is aborted. */
  ask(question: unknown): Promise<unknown>;
}

/** What can be called, by name. */
export type Service = Readonly<Record<string, (args: never, call: Call) => unknown>>;

/** The side that is called: answers from now on. */
export function answer(port: Port, service: Service): void {
  const calls = new Map<number, { abort: AbortController; answered: (answer?: unknown) => void }>();
  const send = (reply: Reply, value: unknown) => port.postMessage(reply, buffersIn(value));
  async function run(id: number, name: string, args: unknown): Promise<void> {
    const abort = new AbortController(), state = { abort, answered: (_?: unknown) => {} };
    calls.set(id, state);
    const say = (reply: Reply, value: unknown): Promise<unknown> => {
      if (abort.signal.aborted) return Promise.resolve();
      send(reply, value);
      return new Promise((resolve) => state.answered = resolve);
    };
    const call: Call = {
      signal: abort.signal,
      report: (report) => say({ id, report }, report) as Promise<void>,
      ask: (question) => say({ id, question }, question),
    };
    try {
      if (!Object.hasOwn(service, name)) throw new DeviceError(`Nothing is called ${name}`);
      const result = await service[name](args as never, call);
      send({ id, result }, result);
    } catch (error) {
      send({ id, error: sendError(error) }, undefined);
    } finally {
      calls.delete(id);
    }
  }
  port.addEventListener("message", ({ data }: MessageEvent<Request>) => {
    if ("name" in data) return void run(data.id, data.name, data.args);
    const state = calls.get(data.id);
    if (!state) return;
    if ("answer" in data) return state.answered(data.answer);
    state.abort.abort();
    state.answered();
  });
}

/** The memory of arrays, some levels deep, which is handed over instead of copied. */
function buffersIn(value: unknown, depth = 3): Transferable[] {
  if (ArrayBuffer.isView(value)) {
    return value.buffer instanceof ArrayBuffer && value.byteLength === value.buffer.byteLength
      ? [value.buffer]
      : [];
  }
  if (!depth || typeof value !== "object" || value === null) return [];
  return [...new Set(Object.values(value).flatMap((part) => buffersIn(part, depth - 1)))];
}
