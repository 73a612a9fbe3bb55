import { makeGraph } from "../../src/gpu/graph.ts";
import { resizeBilinear } from "../../src/gpu/ops/resample.ts";
import { input } from "../../src/gpu/tensor.ts";
import { assertClose } from "../close.ts";
import { devices } from "../device.ts";

const fixture = new URL("../fixtures/inception/resize.json", import.meta.url);
const { small }: { small: Record<string, number[][]> } = JSON.parse(
  await Deno.readTextFile(fixture),
);

for (const [kind, open] of Object.entries(devices)) {
  Deno.test(`images are resized linearly as PyTorch does, on ${kind}`, async () => {
    using device = await open();
    const { input: from } = small,
      h = from.length,
      w = from[0].length,
      x = input("x", [2, h, w, 3]);
    // Channels and images are multiples of one picture.
    const scales = [1, -2, 0.5, 3, 1, 4];
    const values = scales.slice(0, 2).flatMap((_, n) =>
      from.flatMap((row) => row.flatMap((v) => [0, 1, 2].map((c) => v * scales[3 * n + c])))
    );
    for (const [height, width] of [[5, 7], [2, 2], [6, 8]]) {
      const expected = [0, 1].flatMap((n) =>
        small[`half_pixel_${height}x${width}`].flatMap((row) =>
          row.flatMap((v) => [0, 1, 2].map((c) => v * scales[3 * n + c]))
        )
      );
      using program = await device.compile(makeGraph({ y: resizeBilinear(x, height, width) }));
      program.buffers.x.write(values);
      program.run();
      assertClose(await program.buffers.y.read(), expected, 1e-6, `${height}x${width}`);
    }
  });
}
