import { assertEquals } from "@std/assert";
import { writeSealed } from "../../src/cli/run/state_file.ts";
import { readSafetensors, toFloat32 } from "../../src/formats/safetensors.ts";
import type { ParameterLayout } from "../../src/model/parameters.ts";
import "../../src/model/model.ts";
import { parseNetwork } from "../../src/model/network.ts";
import { sizeOf } from "../../src/shape.ts";
import { type Folder, tinyUNet } from "./cli.ts";
import { makeFolder, readLog, readState, train } from "./training.ts";

const cpu = ["--device", "cpu"];
const network = parseNetwork({ ...tinyUNet, in_channels: 1, out_channels: 1 });

/** Flat parameters as the first states had them: in the order of use, dense layers `[in, out]`. */
function toFirstLayout({ specs, offsets }: ParameterLayout, flat: Float32Array): Float32Array {
  const out: number[] = [];
  specs.forEach(({ shape, order }, i) => {
    while (out.length % 64) out.push(0);
    const values = flat.subarray(offsets[i], offsets[i] + sizeOf(shape)), [rows, columns] = shape;
    for (let k = 0; k < values.length; k++) {
      out.push(values[order === "linear" ? k % rows * columns + Math.floor(k / rows) : k]);
    }
  });
  while (out.length % 64) out.push(0);
  return Float32Array.from(out);
}

/** Changes the arrays and the metadata of a state, whose checksum is right again. */
async function rewriteState(
  folder: Folder,
  change: (name: string, values: Float32Array) => Float32Array,
  { layout }: { layout?: string },
): Promise<void> {
  const path = folder.at("a/state.safetensors");
  const { tensors, metadata } = readSafetensors(await Deno.readFile(path), path);
  const { sha256: _, layout: __, ...rest } = metadata;
  const buffers = [...tensors].map(([name, tensor]) => {
    const values = Float32Array.from(change(name, toFloat32(tensor)));
    const read = (from = 0, count = values.length) =>
      Promise.resolve(values.slice(from, from + count));
    return [name, { length: values.length, read }];
  });
  await writeSealed(path, Object.fromEntries(buffers), { ...rest, ...(layout ? { layout } : {}) });
}

Deno.test("a training goes on from a state of the first layout of parameters, bit by bit", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("b", 9, ...cpu));
  await folder.succeed(...train("a", 5, ...cpu));
  const { layout } = network, flat = ["parameters", "moment1", "moment2", "ema"];
  let changed = 0;
  await rewriteState(folder, (name, values) => {
    if (!flat.includes(name)) return values;
    const first = toFirstLayout(layout, values);
    if (first.some((x, i) => x !== values[i])) changed++;
    return first;
  }, {});
  assertEquals(changed, 4, "the layouts differ");
  await folder.succeed(...train("a", 9, ...cpu, "--resume"));
  assertEquals(await readState(folder, "a"), await readState(folder, "b"));
  assertEquals((await readLog(folder, "a")).at(-1), (await readLog(folder, "b")).at(-1));
});

Deno.test("a state of a later layout of parameters is refused, not taken for another", async () => {
  await using folder = await makeFolder();
  await folder.succeed(...train("a", 4, ...cpu));
  await rewriteState(folder, (_, values) => values, { layout: "3" });
  await folder.refuse(
    train("a", 9, ...cpu, "--resume"),
    /Cannot resume: a.state\.safetensors has its parameters in layout 3, but this version knows 2/,
  );
});
