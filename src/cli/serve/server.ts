/**
 * The server: requests are checked, led where they belong, and answered.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { Mutex } from "../../mutex.ts";
import { formatBytes } from "../../units.ts";
import { explain } from "../terminal/files.ts";
import { apiRoutes, type Studio } from "./api.ts";
import type { ComputeThread } from "./compute_thread.ts";
import { Guard } from "./guard.ts";
import { Bodies, failure, HttpError } from "./http.ts";
import type { Patience } from "./job.ts";
import { Jobs } from "./jobs.ts";
import type { Served } from "./models.ts";
import { describeRoutes, lead, type Route, route } from "./routes.ts";
import type { Limits } from "./schemas.ts";
import { sdRoutes } from "./sdapi.ts";
import { openSite, siteRoutes, usualHeaders } from "./site.ts";

/** Characters of an address, and of all headers, at most. */
const MAX_URL = 2048, MAX_HEADERS = 16_384;
/** How long requests may take to end when the server ends. */
const FAREWELL_MS = 2000;

/** Settings of a server. */
export interface ServerOptions {
  readonly host: string;
  /** 0 is any that is free. */
  readonly port: number;
  readonly token?: string | undefined;
  readonly models: ReadonlyMap<string, Served>;
  /** How many jobs may wait. */
  readonly queue: number;
  readonly limits: Limits;
  readonly patience?: Patience;
  /** How long the body of a request may take, in milliseconds. */
  readonly bodyPatience?: number;
  /** Starts what computes. */
  readonly start: () => Promise<ComputeThread>;
  /** Takes what clients cannot be told. */
  readonly onError?: (message: string) => void;
}

/** A server that listens. */
export interface Server extends AsyncDisposable {
  readonly url: string;
  readonly device: string;
}

/**
 * Starts a server.
 *
 * @throws {InputError} If it cannot listen there.
 */
export async function startServer(options: ServerOptions): Promise<Server> {
  const { host, models, queue, limits, patience = { left: 5000, asked: 30_000 } } = options;
  // The token is looked at before a device is opened.
  new Guard(host, options.port, options.token);
  const site = await openSite([...models.keys()]);
  await using starting = new AsyncDisposableStack();
  const thread = starting.use(await options.start());
  const jobs = starting.use(new Jobs((...job) => thread.paint(...job), { queue, patience }));
  const studio: Studio = { thread, jobs, models, limits, queue, planning: new Mutex() };
  const routes = withDocument([...siteRoutes(site), ...apiRoutes(studio), ...sdRoutes(studio)]);
  const bodies = new Bodies(options.bodyPatience);
  const server = listen(options, async (request, { remoteAddr }) => {
    let response: Response;
    try {
      checkSize(request);
      const { pathname } = new URL(request.url), isVisit = pathname === "/";
      const address = "hostname" in remoteAddr ? remoteAddr.hostname : "";
      const client = await guard.check(request, address, isVisit);
      response = await lead(routes, request, client, bodies);
    } catch (error) {
      response = failure(error);
      if (response.status === 500) options.onError?.(String(error));
    }
    for (const [name, value] of Object.entries(usualHeaders)) {
      if (!response.headers.has(name)) response.headers.set(name, value);
    }
    return response;
  });
  const guard = new Guard(host, server.addr.port, options.token);
  const owned = starting.move();
  const name = host.includes(":") ? `[${host}]` : host;
  return {
    ...{ url: `http://${name}:${server.addr.port}/`, device: thread.name },
    async [Symbol.asyncDispose]() {
      await owned.disposeAsync();
      // Who does not take the end of an answer is not waited for.
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<void>((resolve) => timer = setTimeout(resolve, FAREWELL_MS));
      await Promise.race([server.shutdown(), late]);
      clearTimeout(timer);
    },
  };
}

/** Routes, and their description. */
function withDocument(routes: readonly Route[]): Route[] {
  const own = route({
    ...{ method: "GET", path: "/openapi.json", summary: "This document" },
    handle: () => Response.json(document),
  });
  const all = [...routes, own], document = describeRoutes(all);
  return all;
}

/** @throws {HttpError} If an address or headers are longer than any that make sense. */
function checkSize({ url, headers }: Request): void {
  if (url.length > MAX_URL) {
    throw new HttpError(414, `An address has ${MAX_URL} characters at most`);
  }
  const size = [...headers].reduce((n, [name, value]) => n + name.length + value.length, 0);
  if (size > MAX_HEADERS) {
    throw new HttpError(431, `Headers have ${formatBytes(MAX_HEADERS)} at most`);
  }
}

/** @throws {InputError} If it may not or cannot listen there. */
function listen(
  { host, port, onError }: ServerOptions,
  handle: Deno.ServeHandler<Deno.NetAddr>,
): Deno.HttpServer<Deno.NetAddr> {
  const onFailure = (error: unknown) => {
    onError?.(String(error));
    return failure(error);
  };
  try {
    return Deno.serve({ hostname: host, port, onListen() {}, onError: onFailure }, handle);
  } catch (error) {
    const refuse = (why: string) => new InputError(`Cannot listen at ${host}:${port}: ${why}`);
    if (error instanceof Deno.errors.AddrInUse) {
      throw refuse("the port is in use; give another one by --port, or 0 for any that is free");
    }
    if (error instanceof Deno.errors.AddrNotAvailable) {
      throw refuse("this machine has no such address");
    }
    throw refuse(explain(error));
  }
}
