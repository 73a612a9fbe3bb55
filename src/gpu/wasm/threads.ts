/**
 * Threads over one shared memory. All of them play the same tape: take tasks of an entry from a
 * shared counter until none is left, meet at a barrier where the tape has one, go on to the next.
 * Nothing is posted between threads; commands and code travel through the shared memory as well,
 * since a thread that waits for work does not read messages.
 *
 * @module
 */

/** Words of the control block before its counters of tasks, whose number bounds the length of a tape. */
const COUNTERS = 16;

/** Entries of the longest tape. */
export const MAX_ENTRIES = 16384 - COUNTERS;
/** Bytes of the control block, at the start of the memory. */
export const CONTROL_BYTES = 4 * (COUNTERS + MAX_ENTRIES);

/** Words of a tape's entry before its pointers: function, first task, tasks, barrier, count. */
export const TAPE_HEAD = 5;

/** One entry of a tape. */
export interface TapeEntry {
  readonly kernel: number;
  /** The first task, and how many there are. */
  readonly first: number;
  readonly tasks: number;
  /** Whether threads wait for each other after it. */
  readonly hasBarrier: boolean;
  /** Addresses. */
  readonly pointers: readonly number[];
}

/** A tape as words: the number of entries, then each of them. */
export function encodeTape(entries: readonly TapeEntry[]): Int32Array<ArrayBuffer> {
  const words = [entries.length];
  for (const { kernel, first, tasks, hasBarrier, pointers } of entries) {
    words.push(kernel, first, tasks, hasBarrier ? 1 : 0, pointers.length, ...pointers);
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

/** What a thread is told to do. */
export interface Command {
  readonly program?: number;
  readonly address?: number;
  readonly length?: number;
  readonly scratch?: number;
}

/** A thread's side: what it knows of programs, and how it plays them. */
export interface Player {
  /** The life of a thread that is given commands: carries them out until it is told to quit. */
  serve(): void;
  /** Gives all threads a command, and carries it out as well. */
  command(what: "load" | "unload" | "play" | "quit", command: Command): void;
  /** The entry of the tape that failed since the last call, if one did. */
  takeFailure(): number | undefined;
}

/** Makes this thread one of those of a device. */
export const makePlayer = (setup: ThreadSetup): Player => play(setup, COUNTERS, CONTROL_BYTES);

/** A program for a worker that becomes a thread with the setup that it is sent. */
export const threadProgram = (): string =>
  `addEventListener("message", ({ data }) => {
    const player = (${play})(data, ${COUNTERS}, ${CONTROL_BYTES});
    postMessage("ready");
    player.serve();
    close();
  });`;

/** All of a thread. Its text is sent to workers, so that it mentions nothing outside of itself. */
function play({ memory, threads, index }: ThreadSetup, counters: number, bytes: number): Player {
  /** Words of the control block. */
  const SIGNAL = 0, COMMAND = 1, ADDRESS = 2, LENGTH = 3, PROGRAM = 4, SCRATCH = 5;
  const ARRIVED = 6, PHASE = 7, FAILED = 8;
  /** What threads are told to do. */
  const QUIT = 1, LOAD = 2, UNLOAD = 3, PLAY = 4;
  /** How often a thread looks before it sleeps: some 15 µs, longer than most barriers take. */
  const SPINS = 20000;
  /** The main thread of a browser may not sleep. */
  const maySleep = !("document" in globalThis), isAlone = threads === 1;

  /** Kernels as they come out of a module: task, pointers, scratch. */
  const programs = new Map<number, ((...args: number[]) => void)[]>();
  const controlOf = (): Int32Array<ArrayBufferLike> => new Int32Array(memory.buffer, 0, bytes / 4);
  let control = controlOf();

  /** Waits until a word is no longer `value`: looks for a while, then sleeps. */
  function waitWhile(word: number, value: number): void {
    for (let i = 0; i < SPINS; i++) if (Atomics.load(control, word) !== value) return;
    while (Atomics.load(control, word) === value) {
      if (maySleep) Atomics.wait(control as Int32Array<SharedArrayBuffer>, word, value);
    }
  }

  /** Waits until all threads have come here. */
  function barrier(): void {
    const phase = Atomics.load(control, PHASE);
    if (Atomics.add(control, ARRIVED, 1) === threads - 1) {
      Atomics.store(control, ARRIVED, 0);
      Atomics.add(control, PHASE, 1);
      Atomics.notify(control, PHASE);
    } else waitWhile(PHASE, phase);
  }

  /** Plays a tape, together with the other threads if there are any. */
  function playTape(program: number, address: number, scratch: number): void {
    const kernels = programs.get(program)!, tape = new Int32Array(memory.buffer, address);
    const args: number[] = [];
    for (let entry = 0, at = 1; entry < tape[0]; entry++) {
      const kernel = kernels[tape[at]], first = tape[at + 1], end = first + tape[at + 2];
      const hasBarrier = tape[at + 3], count = tape[at + 4];
      at += 5; // TAPE_HEAD
      args.length = count + 2;
      for (let i = 0; i < count; i++) args[i + 1] = tape[at++];
      args[count + 1] = scratch;
      for (let task = first;; task++) {
        args[0] = isAlone ? task : first + Atomics.add(control, counters + entry, 1);
        if (args[0] >= end) break;
        try {
          kernel.apply(null, args);
        } catch {
          // Others wait at the next barrier: say what happened, and go on to it.
          Atomics.store(control, FAILED, entry + 1);
        }
      }
      if (hasBarrier && !isAlone) barrier();
    }
  }

  function carryOut(
    code: number,
    program: number,
    address: number,
    length: number,
    scratch: number,
  ): void {
    if (code === PLAY) return playTape(program, address, scratch);
    if (code === UNLOAD) return void programs.delete(program);
    const module = new WebAssembly.Module(new Uint8Array(memory.buffer, address, length).slice());
    const { exports } = new WebAssembly.Instance(module, { env: { memory } });
    programs.set(program, Object.values(exports) as ((...args: number[]) => void)[]);
  }

  return {
    serve() {
      for (let signal = 0;; signal++) {
        waitWhile(SIGNAL, signal);
        // Addresses beyond 2 GiB look negative.
        const read = (word: number) => Atomics.load(control, word) >>> 0;
        const code = read(COMMAND), length = read(LENGTH), scratch = read(SCRATCH);
        if (code === QUIT) return;
        carryOut(code, read(PROGRAM), read(ADDRESS), length, scratch + index * length);
        barrier();
      }
    },
    command(what, { program = 0, address = 0, length = 0, scratch = 0 }) {
      // Memory that is not shared is another one after it has grown.
      if (control.length === 0) control = controlOf();
      const code = { quit: QUIT, load: LOAD, unload: UNLOAD, play: PLAY }[what];
      Atomics.store(control, COMMAND, code);
      Atomics.store(control, ADDRESS, address);
      Atomics.store(control, LENGTH, length);
      Atomics.store(control, PROGRAM, program);
      Atomics.store(control, SCRATCH, scratch);
      control.fill(0, counters);
      if (!isAlone) {
        Atomics.add(control, SIGNAL, 1);
        Atomics.notify(control, SIGNAL);
      }
      if (code === QUIT) return;
      carryOut(code, program, address, length, scratch);
      if (!isAlone) barrier();
    },
    takeFailure() {
      const failed = Atomics.exchange(control, FAILED, 0);
      return failed ? failed - 1 : undefined;
    },
  };
}
