/**
 * Who may ask for what: names of this server, origins, the token, and sessions.
 *
 * A page of another site can make a browser ask any address, this one too, and by a name that it
 * lets point here (DNS rebinding) even read the answer. So only names that are known are answered,
 * and nothing that another origin sends.
 *
 * @module
 */

import { InputError } from "../../errors.ts";
import { HttpError } from "./http.ts";

/** Addresses and names of this machine for itself. */
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/;
/** Listening at these is listening at all addresses. */
const ANY = /^(0\.0\.0\.0|\[?::\]?)$/;
/** An address, which no one can let point elsewhere. */
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])$/i;
/** The least characters of a token. */
const LEAST = 16;

/** Whether only this machine can reach a host. */
export const isLoopback = (host: string): boolean => LOOPBACK.test(host);

/** A token that nobody guesses. */
export const makeToken = (): string =>
  crypto.getRandomValues(new Uint8Array(24)).toBase64({ alphabet: "base64url" });

/** Someone who asks. */
export interface Client {
  /** Who takes turns with others. */
  readonly id: string;
  /** The session that a page is to have from now on. */
  readonly cookie: string;
}

/** Checks requests. */
export class Guard {
  readonly #host: string;
  readonly #port: number;
  readonly #token: string | undefined;
  /** What a browser shows instead of the token, for as long as this server runs. */
  readonly #secret = makeToken();

  /**
   * @param host What the server listens at.
   * @throws {InputError} If the token is none.
   */
  constructor(host: string, port: number, token: string | undefined) {
    if (token !== undefined && !/^[\w.~+/=-]+$/.test(token) || (token?.length ?? LEAST) < LEAST) {
      throw new InputError(
        `--token must be ${LEAST} characters or more, letters, digits and -._~+/=`,
      );
    }
    this.#host = host;
    this.#port = port;
    this.#token = token;
  }

  /**
   * Lets a request pass, or not.
   *
   * @param isVisit Whether a link of another site may lead here: it shows a page, and does nothing.
   * @throws {HttpError} If it does not pass.
   */
  async check(request: Request, address: string, isVisit: boolean): Promise<Client> {
    const host = request.headers.get("host") ?? "", origin = request.headers.get("origin");
    if (!this.#isOwn(host)) {
      throw new HttpError(421, "This server is not called that: the header Host is of another one");
    }
    const site = request.headers.get("sec-fetch-site") ?? "none";
    const isForeign = origin !== null && origin !== `http://${host}` ||
      !isVisit && site !== "none" && site !== "same-origin";
    if (isForeign) throw new HttpError(403, "Pages of other sites may not ask this server");
    const [secret, session] = this.#readCookie(request);
    if (!await this.#isKnown(request, secret, isVisit)) {
      throw new HttpError(401, "A token is needed: Authorization: Bearer TOKEN, or ?token=TOKEN", {
        "WWW-Authenticate": "Bearer",
      });
    }
    const isSession = /^[\w-]{36}$/.test(session), own = isSession ? session : crypto.randomUUID();
    const shown = this.#token === undefined ? "" : this.#secret;
    return {
      // Sessions cost nothing: who comes from elsewhere has one turn, however many there are.
      id: isLoopback(address) && isSession ? `${address} ${session}` : address,
      cookie: `${this.#cookieName}=${shown}.${own}; Path=/; HttpOnly; SameSite=Strict`,
    };
  }

  get #cookieName(): string {
    return `ddpm-${this.#port}`;
  }

  #isOwn(host: string): boolean {
    const name = host.toLowerCase().replace(/:\d+$/, ""), port = host.slice(name.length + 1);
    if (Number(port || 80) !== this.#port) return false;
    if (name === this.#host.toLowerCase() || name === `[${this.#host.toLowerCase()}]`) return true;
    if (isLoopback(this.#host)) return isLoopback(name);
    return ANY.test(this.#host) && (ADDRESS.test(name) || isLoopback(name));
  }

  #readCookie(request: Request): [secret: string, session: string] {
    const name = `${this.#cookieName}=`;
    const parts = (request.headers.get("cookie") ?? "").split(";").map((part) => part.trim());
    const [secret = "", session = ""] =
      parts.find((part) => part.startsWith(name))?.slice(name.length).split(".") ?? [];
    return [secret, session];
  }

  async #isKnown(request: Request, secret: string, isVisit: boolean): Promise<boolean> {
    if (this.#token === undefined) return true;
    const [, bearer = ""] = /^Bearer +(.*)$/i.exec(request.headers.get("authorization") ?? "") ??
      [];
    const asked = isVisit && new URL(request.url).searchParams.get("token") || "";
    return await isSame(secret, this.#secret) || await isSame(bearer, this.#token) ||
      await isSame(asked, this.#token);
  }
}

/** Whether texts are the same, in a time that tells nothing of where they differ. */
async function isSame(a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all(
    [a, b].map(async (text) =>
      new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)))
    ),
  );
  return one.reduce((difference, byte, i) => difference | byte ^ other[i], 0) === 0;
}
