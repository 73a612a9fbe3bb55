/**
 * Threads over one shared memory. All of them play the same tape: take tasks of an entry from a
 * shared counter until none is left, meet at a barrier where the tape has one, go on to the next.
 * Nothing is posted between threads; commands and code travel through the shared memory as well,
 * since a thread that waits for work does not read messages.
 *
 * @module
 */

/** A kernel as it comes out of a module: task, pointers, scratch. */
type Kernel = (...args: number[]) => void;

/** Words of the control block. */
const SIGNAL = 0, COMMAND = 1, ADDRESS = 2, LENGTH = 3, PROGRAM = 4, SCRATCH = 5;
const ARRIVED = 6, PHASE = 7, FAILED = 8;
/** Counters of tasks follow; their number bounds the length of a tape. */
const COUNTERS = 16;

/** Entries of the longest tape. */
export const MAX_ENTRIES = 16384 - COUNTERS;
/** Bytes of the control block, at the start of the memory. */
export const CONTROL_BYTES = 4 * (COUNTERS + MAX_ENTRIES);

/** What threads are told to do. */
const QUIT = 1, LOAD = 2, UNLOAD = 3, PLAY = 4;

/** How often a thread looks before it sleeps: some 15 µs, longer than most barriers take. */
const SPINS = 20000;

/** Words of a tape's entry before its pointers: function, tasks, whether a barrier follows, count. */
export const TAPE_HEAD = 4;

/** One entry of a tape. */
export interface TapeEntry {
  readonly kernel: number;
  readonly tasks: number;
  readonly hasBarrier: boolean;
  /** Addresses. */
  readonly pointers: readonly number[];
}

/** A tape as words: the number of entries, then each of them. */
export function encodeTape(entries: readonly TapeEntry[]): Int32Array<ArrayBuffer> {
  const words = [entries.length];
  for (const { kernel, tasks, hasBarrier, pointers } of entries) {
    words.push(kernel, tasks, hasBarrier ? 1 : 0, pointers.length, ...pointers);
  }
  return Int32Array.from(words);
}

/** What a thread is started with. */
export interface ThreadSetup {
  readonly memory: WebAssembly.Memory;
  /** Number of threads, and which one this is; the one that gives commands is 0. */
  readonly threads: number;
  readonly index: number;
}

/** The main thread of a browser may not sleep. */
const maySleep = !("document" in globalThis);

/** A thread's side: what it knows of programs, and how it plays them. */
export class Player {
  readonly #setup: ThreadSetup;
  #control: Int32Array<ArrayBufferLike>;
  readonly #programs = new Map<number, Kernel[]>();

  constructor(setup: ThreadSetup) {
    this.#setup = setup;
    this.#control = controlOf(setup);
  }

  /** Makes a module's functions callable. */
  load(program: number, module: WebAssembly.Module): void {
    const { exports } = new WebAssembly.Instance(module, { env: { memory: this.#setup.memory } });
    this.#programs.set(program, Object.values(exports) as Kernel[]);
  }

  unload(program: number): void {
    this.#programs.delete(program);
  }

  /** Plays a tape, together with the other threads if there are any. */
  play(program: number, address: number, scratch: number): void {
    const kernels = this.#programs.get(program)!, control = this.#control;
    const tape = new Int32Array(this.#setup.memory.buffer, address), args: number[] = [];
    const isAlone = this.#setup.threads === 1;
    for (let entry = 0, at = 1; entry < tape[0]; entry++) {
      const kernel = kernels[tape[at]], tasks = tape[at + 1], hasBarrier = tape[at + 2];
      const count = tape[at + 3];
      at += TAPE_HEAD;
      args.length = count + 2;
      for (let i = 0; i < count; i++) args[i + 1] = tape[at++];
      args[count + 1] = scratch;
      for (let task = 0;; task++) {
        args[0] = isAlone ? task : Atomics.add(control, COUNTERS + entry, 1);
        if (args[0] >= tasks) break;
        try {
          kernel.apply(null, args);
        } catch {
          // Others wait at the next barrier: say what happened, and go on to it.
          Atomics.store(control, FAILED, entry + 1);
        }
      }
      if (hasBarrier && !isAlone) this.barrier();
    }
  }

  /** Waits until all threads have come here. */
  barrier(): void {
    const control = this.#control, phase = Atomics.load(control, PHASE);
    if (Atomics.add(control, ARRIVED, 1) === this.#setup.threads - 1) {
      Atomics.store(control, ARRIVED, 0);
      Atomics.add(control, PHASE, 1);
      Atomics.notify(control, PHASE);
    } else this.#waitWhile(PHASE, phase);
  }

  /** Waits until a word is no longer `value`: looks for a while, then sleeps. */
  #waitWhile(word: number, value: number): void {
    const control = this.#control;
    for (let i = 0; i < SPINS; i++) if (Atomics.load(control, word) !== value) return;
    while (Atomics.load(control, word) === value) {
      if (maySleep) Atomics.wait(control as Int32Array<SharedArrayBuffer>, word, value);
    }
  }

  /** The life of a thread that is given commands: carries them out until it is told to quit. */
  serve(): void {
    const { memory, index } = this.#setup, control = this.#control;
    for (let signal = 0;; signal++) {
      this.#waitWhile(SIGNAL, signal);
      // Addresses beyond 2 GiB look negative.
      const [command, address, length, program, scratch] = [
        ...[COMMAND, ADDRESS, LENGTH, PROGRAM, SCRATCH],
      ].map((word) => Atomics.load(control, word) >>> 0);
      if (command === QUIT) return;
      if (command === PLAY) this.play(program, address, scratch + index * length);
      else if (command === UNLOAD) this.unload(program);
      else this.load(program, new WebAssembly.Module(copyBytes(memory, address, length)));
      this.barrier();
    }
  }

  /** Gives all threads a command, and carries it out as well. */
  command(
    what: "load" | "unload" | "play" | "quit",
    { program = 0, address = 0, length = 0, scratch = 0 },
  ): void {
    // Memory that is not shared is another one after it has grown.
    if (this.#control.length === 0) this.#control = controlOf(this.#setup);
    const control = this.#control, { memory, threads } = this.#setup;
    const code = { quit: QUIT, load: LOAD, unload: UNLOAD, play: PLAY }[what];
    const words = [[COMMAND, code], [ADDRESS, address], [LENGTH, length], [PROGRAM, program], [
      SCRATCH,
      scratch,
    ]];
    for (const [word, value] of words) Atomics.store(control, word, value);
    control.fill(0, COUNTERS);
    if (threads > 1) {
      Atomics.add(control, SIGNAL, 1);
      Atomics.notify(control, SIGNAL);
    }
    if (what === "quit") return;
    if (what === "play") this.play(program, address, scratch);
    else if (what === "unload") this.unload(program);
    else this.load(program, new WebAssembly.Module(copyBytes(memory, address, length)));
    if (threads > 1) this.barrier();
  }

  /** The entry of the tape that failed since the last call, if one did. */
  takeFailure(): number | undefined {
    const failed = Atomics.exchange(this.#control, FAILED, 0);
    return failed ? failed - 1 : undefined;
  }
}

const controlOf = ({ memory }: ThreadSetup) => new Int32Array(memory.buffer, 0, CONTROL_BYTES / 4);

const copyBytes = (memory: WebAssembly.Memory, address: number, length: number) =>
  new Uint8Array(memory.buffer, address, length).slice();
