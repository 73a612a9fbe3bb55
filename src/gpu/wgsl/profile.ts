/**
 * How long the dispatches of a program take, one by one: by timestamps where the adapter has them,
 * else by waiting for each.
 *
 * @module
 */

import type { GpuDevice } from "./device.ts";
import { type Dispatch, encode } from "./dispatch.ts";

/** Timestamps that one query set may have, two a dispatch. */
const MAX_QUERIES = 4096;
/** Waits for nothing, whose time is taken off those for something. */
const EMPTY_WAITS = 5;

/** Runs dispatches in order; returns the milliseconds of each. */
export async function timeDispatches(
  device: GpuDevice,
  label: string,
  dispatches: readonly Dispatch[],
): Promise<number[]> {
  const times: number[] = [];
  if (!device.device.features.has("timestamp-query")) {
    const wait = await emptyWait(device);
    for (const dispatch of dispatches) {
      const start = performance.now();
      device.guard(`profiling ${label}`, () => {
        const encoder = device.device.createCommandEncoder();
        encodeAlone(encoder, dispatch);
        device.device.queue.submit([encoder.finish()]);
      });
      await device.idle();
      times.push(Math.max(0, performance.now() - start - wait));
    }
    return times;
  }
  for (let i = 0; i < dispatches.length; i += MAX_QUERIES / 2) {
    times.push(...await timeByQueries(device, label, dispatches.slice(i, i + MAX_QUERIES / 2)));
  }
  return times;
}

function encodeAlone(
  encoder: GPUCommandEncoder,
  dispatch: Dispatch,
  timestampWrites?: GPUComputePassTimestampWrites,
): void {
  const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
  encode(pass, [dispatch]);
  pass.end();
}

async function timeByQueries(
  device: GpuDevice,
  label: string,
  dispatches: readonly Dispatch[],
): Promise<number[]> {
  const gpu = device.device, count = 2 * dispatches.length, bytes = 8 * count;
  const querySet = gpu.createQuerySet({ type: "timestamp", count });
  const { QUERY_RESOLVE, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
  const resolved = device.allocate("timestamps", bytes, QUERY_RESOLVE | COPY_SRC);
  const staging = device.allocate("timestamps", bytes, COPY_DST | MAP_READ);
  try {
    const { done } = device.guard(`profiling ${label}`, () => {
      const encoder = gpu.createCommandEncoder();
      // A pass for each, since times are taken where passes begin and end.
      dispatches.forEach((dispatch, i) =>
        encodeAlone(encoder, dispatch, {
          querySet,
          beginningOfPassWriteIndex: 2 * i,
          endOfPassWriteIndex: 2 * i + 1,
        })
      );
      encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, staging, 0, bytes);
      gpu.queue.submit([encoder.finish()]);
    });
    await done;
    device.check();
    await staging.mapAsync(GPUMapMode.READ, 0, bytes);
    const stamps = new BigUint64Array(staging.getMappedRange(0, bytes).slice(0));
    // Devices may give up counting in between, which looks like an end before the beginning.
    return dispatches.map((_, i) =>
      Math.max(0, Number(BigInt.asIntN(64, stamps[2 * i + 1] - stamps[2 * i]))) / 1e6
    );
  } finally {
    querySet.destroy();
    resolved.destroy();
    staging.destroy();
  }
}

/** Milliseconds of a wait for nothing, as Deno looks for completion every 10 ms only. */
async function emptyWait(device: GpuDevice): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < EMPTY_WAITS; i++) {
    const start = performance.now();
    await device.idle();
    times.push(performance.now() - start);
  }
  return Math.min(...times);
}
