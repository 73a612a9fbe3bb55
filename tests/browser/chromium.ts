/**
 * Chromium without a window, driven by its own protocol.
 *
 * @module
 */

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

const FLAGS = [
  ...["--headless=new", "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"],
  "--hide-scrollbars",
];

/** Gives headless Chromium a WebGPU adapter, in software. */
export const GPU_FLAGS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

type Fields = Record<string, unknown>;

/** Seconds that anything may take, on a machine that does other things too. */
const PATIENCE = 300;
/** Characters of an expression that are told when it does not end. */
const SHOWN = 300;

/** A running Chromium. */
export class Chromium implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #folder: string;
  readonly #socket: WebSocket;
  readonly #answers = new Map<number, PromiseWithResolvers<Fields>>();
  readonly #listeners = new Set<(session: string, method: string, params: Fields) => void>();
  #next = 0;

  private constructor(process: Deno.ChildProcess, folder: string, socket: WebSocket) {
    this.#process = process;
    this.#folder = folder;
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const { id, result, error, sessionId, method, params } = JSON.parse(data);
      if (id === undefined) {
        for (const listener of this.#listeners) listener(sessionId, method, params);
        return;
      }
      if (error) this.#answers.get(id)?.reject(new Error(error.message));
      else this.#answers.get(id)?.resolve(result);
      this.#answers.delete(id);
    };
    socket.onclose = () => {
      for (const { reject } of this.#answers.values()) reject(new Error("Chromium has ended"));
    };
  }

  /**
   * Starts it.
   *
   * @throws {Error} If it is not installed.
   */
  static async start(flags: readonly string[] = []): Promise<Chromium> {
    const path = Deno.env.get("CHROMIUM") ?? PLACES.find(exists);
    if (!path) {
      throw new Error(
        "These tests need Chromium, and it is not installed: apt-get install chromium, or tell " +
          "where it is by the variable CHROMIUM",
      );
    }
    const folder = await Deno.makeTempDir({ prefix: "ddpm-chromium-" });
    const process = new Deno.Command(path, {
      args: [...FLAGS, ...flags, `--user-data-dir=${folder}`, "about:blank"],
      ...{ stdin: "null", stdout: "null", stderr: "piped" },
    }).spawn();
    try {
      const url = await within("Chromium tells its address", addressIn(process.stderr));
      const socket = new WebSocket(url);
      const connected = new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = reject;
      });
      await within("Chromium takes a connection", connected);
      return new Chromium(process, folder, socket);
    } catch (error) {
      process.kill("SIGKILL");
      throw error;
    }
  }

  /** Asks for something; fails if there is no answer in time. */
  async send(method: string, params: Fields = {}, sessionId?: string): Promise<Fields> {
    if (this.#socket.readyState !== WebSocket.OPEN) throw new Error("Chromium has ended");
    const id = this.#next++, answer = Promise.withResolvers<Fields>();
    this.#answers.set(id, answer);
    this.#socket.send(JSON.stringify({ id, method, params, ...(sessionId ? { sessionId } : {}) }));
    const what = String(params.expression ?? JSON.stringify(params)).slice(0, SHOWN);
    return await within(`${method} of ${what}`, answer.promise);
  }

  /** Opens a tab of such a size. */
  async open(
    { width = 1200, height = 900, scheme = "light", before = "" }: {
      readonly width?: number;
      readonly height?: number;
      readonly scheme?: "light" | "dark";
      /** A script that runs before those of any page. */
      readonly before?: string;
    } = {},
  ): Promise<Tab> {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const attached = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const tab = new Tab(this, targetId as string, attached.sessionId as string);
    for (const domain of ["Page", "Runtime", "DOM"]) await tab.send(`${domain}.enable`);
    const mobile = width < 600;
    await tab.send("Emulation.setDeviceMetricsOverride", {
      ...{ width, height, deviceScaleFactor: 1, mobile },
    });
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await tab.send("Emulation.setEmulatedMedia", { features });
    if (before) await tab.send("Page.addScriptToEvaluateOnNewDocument", { source: before });
    this.#listeners.add((session, method, params) => {
      if (session !== attached.sessionId || method !== "Runtime.exceptionThrown") return;
      const { exception, text } = params.exceptionDetails as Fields & { exception?: Fields };
      tab.errors.push(String(exception?.description ?? text));
    });
    return tab;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    this.#process.kill("SIGKILL");
    await this.#process.status;
    // Its children may write on for a moment.
    for (let i = 0; i < 20; i++) {
      try {
        return await Deno.remove(this.#folder, { recursive: true });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }
}

/** A tab. */
export class Tab implements AsyncDisposable {
  /** What was thrown and not caught. */
  readonly errors: string[] = [];
  readonly #browser: Chromium;
  readonly #target: string;
  readonly #session: string;

  constructor(browser: Chromium, target: string, session: string) {
    this.#browser = browser;
    this.#target = target;
    this.#session = session;
  }

  send(method: string, params: Fields = {}): Promise<Fields> {
    return this.#browser.send(method, params, this.#session);
  }

  /** Goes to a page; returns before its scripts have run. */
  async go(url: string): Promise<void> {
    const { errorText } = await this.send("Page.navigate", { url });
    if (errorText) throw new Error(`Cannot open ${url}: ${errorText}`);
  }

  /** The value of an expression in the page, of a promise too. */
  async run<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      ...{ expression, awaitPromise: true, returnByValue: true, userGesture: true },
    }) as { result: { value: T }; exceptionDetails?: { exception?: { description?: string } } };
    if (!exceptionDetails) return result.value;
    throw new Error(exceptionDetails.exception?.description ?? JSON.stringify(exceptionDetails));
  }

  /** Chooses files, or a folder, in the input that an expression is. */
  async pick(input: string, ...files: string[]): Promise<void> {
    const { result } = await this.send("Runtime.evaluate", { expression: input }) as {
      result: { objectId: string };
    };
    await this.send("DOM.setFileInputFiles", { files, objectId: result.objectId });
  }

  /** Waits until an expression is true; fails at once if the page throws something. */
  async until(expression: string): Promise<void> {
    for (const end = Date.now() + 1000 * PATIENCE; Date.now() < end && !this.errors.length;) {
      if (await this.run(`!!(${expression})`)) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const text = await this.run(
      `(document.getElementById("status") ?? document.body).innerText.slice(0, ${SHOWN})`,
    );
    throw new Error(
      `${expression} is not true, ` +
        (this.errors.length ? `as the page threw ${this.errors}` : `${PATIENCE} s later`) +
        `; the page says ${text}`,
    );
  }

  /**
   * Does something, and tells the most milliseconds that the main thread computed between two looks
   * meanwhile: none of its tasks took longer. What other programs take does not count.
   */
  async busiest(work: () => Promise<void>): Promise<number> {
    await this.send("Performance.enable", { timeDomain: "threadTicks" });
    const look = async () => {
      const { metrics } = await this.send("Performance.getMetrics") as {
        metrics: { name: string; value: number }[];
      };
      return 1000 * metrics.find(({ name }) => name === "TaskDuration")!.value;
    };
    let isOver = false, longest = 0, before = await look();
    const working = work().finally(() => isOver = true);
    while (!isOver) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      const now = await look();
      longest = Math.max(longest, now - before);
      before = now;
    }
    await working;
    return Math.round(longest);
  }

  /** A picture of all of the page. */
  async screenshot(path: string): Promise<void> {
    const params = { captureBeyondViewport: true };
    const { data } = await this.send("Page.captureScreenshot", params);
    await Deno.writeFile(path, Uint8Array.fromBase64(data as string));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#browser.send("Target.closeTarget", { targetId: this.#target });
  }
}

/** What is promised, or an error in words if it takes too long. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () => late.reject(new Error(`${PATIENCE} s were not enough: ${what}`)),
    1000 * PATIENCE,
  );
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** The address that Chromium tells. */
async function addressIn(output: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<string> {
  let text = "";
  const lines = output.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await lines.read();
    if (done) throw new Error(`Chromium did not start: ${text}`);
    const address = (text += value).match(/ws:\/\/\S+/)?.[0];
    if (!address) continue;
    // Nobody reads the rest, which must go somewhere.
    (async () => {
      while (!(await lines.read()).done);
    })().catch(() => {});
    return address;
  }
}
