/**
 * What can be asked for: paths with what they take and answer. Requests are led by it, and the OpenAPI
 * document is made of it.
 *
 * @module
 */

import { z } from "zod";
import { parseWith } from "../../config.ts";
import { version } from "../terminal/version.ts";
import type { Client } from "./guard.ts";
import { type Bodies, HttpError } from "./http.ts";
import { errorSchema } from "./schemas.ts";

/** A request that was let pass. */
export interface Call<B = undefined> {
  readonly client: Client;
  /** What stands for the names in braces of the path. */
  readonly parts: Readonly<Record<string, string>>;
  /** What was sent, by the schema. */
  readonly body: B;
}

/** Something that can be asked for. */
export interface Route<B = unknown> {
  readonly method: "GET" | "POST" | "DELETE";
  /** As in `/api/jobs/{id}`. */
  readonly path: string;
  readonly summary: string;
  readonly body?: z.ZodType<B>;
  readonly status?: number;
  /** The type of the answer, and the schema where it is JSON. */
  readonly type?: string;
  readonly answer?: z.ZodType;
  handle(call: Call<B>): Response | Promise<Response>;
}

/** A route whose handler knows what its body is. */
export const route = <B = undefined>(route: Route<B>): Route => route as unknown as Route;

/** The parts of a path that a route's leaves open; `undefined` if it is another path. */
function match(path: string, pattern: string): Record<string, string> | undefined {
  const names = pattern.split("/"), given = path.split("/"), parts: Record<string, string> = {};
  if (names.length !== given.length) return undefined;
  for (const [i, name] of names.entries()) {
    if (name.startsWith("{")) parts[name.slice(1, -1)] = given[i];
    else if (name !== given[i]) return undefined;
  }
  return parts;
}

/**
 * Leads a request where it belongs.
 *
 * @throws {HttpError} If nothing is there, or it takes something else.
 */
export async function lead(
  routes: readonly Route[],
  request: Request,
  client: Client,
  bodies: Bodies,
): Promise<Response> {
  const { pathname } = new URL(request.url);
  const here = routes.filter(({ path }) => match(pathname, path));
  if (!here.length) throw new HttpError(404, `There is nothing at ${pathname}`);
  const method = request.method === "HEAD" ? "GET" : request.method;
  const found = here.find((route) => route.method === method);
  if (!found) {
    const allowed = here.map(({ method }) => method).join(", ");
    throw new HttpError(405, `${pathname} takes ${allowed}`, { Allow: allowed });
  }
  const parts = match(pathname, found.path)!;
  if (!found.body) return await found.handle({ client, parts, body: undefined });
  using sent = await bodies.read(request);
  const body = parseWith(found.body, sent.json, "request");
  return await found.handle({ client, parts, body });
}

/** The OpenAPI document of routes. */
export function describeRoutes(routes: readonly Route[]): unknown {
  const paths: Record<string, Record<string, unknown>> = {};
  const json = (schema: z.ZodType, io: "input" | "output") => ({
    "application/json": { schema: withoutDialect(z.toJSONSchema(schema, { io })) },
  });
  for (const { method, path, summary, body, answer, type, status = 200 } of routes) {
    const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    paths[path] ??= {};
    paths[path][method.toLowerCase()] = {
      summary,
      ...(names.length
        ? {
          parameters: names.map((name) => ({
            ...{ name, in: "path", required: true, schema: { type: "string" } },
          })),
        }
        : {}),
      ...(body ? { requestBody: { required: true, content: json(body, "input") } } : {}),
      responses: {
        [status]: {
          description: summary,
          ...(type && answer
            ? { content: { [type]: { schema: withoutDialect(z.toJSONSchema(answer)) } } }
            : type
            ? { content: { [type]: {} } }
            : answer
            ? { content: json(answer, "output") }
            : {}),
        },
        default: { description: "What is wrong", content: json(errorSchema, "output") },
      },
    };
  }
  return {
    openapi: "3.1.0",
    info: { title: "ddpm serve", version },
    components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
    security: [{}, { token: [] }],
    paths,
  };
}

/** A schema within a document, which says once of what dialect all are. */
const withoutDialect = ({ $schema: _, ...schema }: Record<string, unknown>) => schema;
