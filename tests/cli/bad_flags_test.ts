import { assertEquals, assertMatch } from "@std/assert";
import { Folder } from "./cli.ts";

/** Runs each command line, which must be refused with the message beside it. */
function refuses(name: string, cases: readonly [string, RegExp][]): void {
  Deno.test(name, async () => {
    await using folder = await Folder.make();
    for (const [line, message] of cases) {
      await folder.refuse(line === "" ? [] : line.split(" "), message);
    }
  });
}

refuses("an unknown command is refused, and the nearest is named", [
  ["", /Give a command: sample, interpolate, upscale, restore, train, eval, export, .*info/],
  ["smaple", /Unknown command smaple; did you mean sample\?/],
  ["trian --data mnist", /did you mean train\?/],
  ["xyzzyxyzzy", /Unknown command xyzzyxyzzy$/m],
  ["--seed 1", /Unknown flag --seed/],
]);

refuses("an unknown flag is refused, and the nearest is named", [
  ["sample --cuont 3", /Unknown flag --cuont; did you mean --count\?/],
  ["sample --stpes=3", /Unknown flag --stpes; did you mean --steps\?/],
  ["sample -seed 3", /Unknown flag -seed; did you mean --seed\?/],
  ["sample --no-seed", /Unknown flag --no-seed/],
  ["sample --seed.x 3", /Unknown flag --seed\.x/],
  ["sample --__proto__ 3", /Unknown flag --__proto__/],
  ["train --batchsize 8", /did you mean --batch-size\?/],
  ["info --jsno", /did you mean --json\?/],
]);

refuses("a number that is none, or out of range, is refused", [
  ["sample --count many", /--count must be a whole number from 1 to 1000000, not many/],
  ["sample --count 0", /--count must be .*, not 0/],
  ["sample --count 2.5", /--count must be a whole number/],
  ["sample --count 1e99", /--count must be a whole number/],
  ["sample --seed -1", /--seed must be a whole number .*, not -1/],
  ["sample --seed 9007199254740992", /--seed must be/],
  ["sample --eta 1.5", /--eta must be a number from 0 to 1, not 1\.5/],
  ["sample --eta NaN", /--eta must be a number/],
  ["sample --steps 0x10", /--steps must be a whole number/],
  ["train --learning-rate -.1", /--learning-rate must be .*, not -\.1/],
  ["train --log-every 100000", /--log-every must be/],
  ["info --threads 0", /--threads must be a whole number from 1 to 256, not 0/],
]);

refuses("a value that is missing, or where none belongs, is refused", [
  ["sample --count", /--count needs a value/],
  ["sample --out --seed 1", /--out needs a value/],
  ["sample --seed=", /--seed needs a value/],
  ["train --resume=yes --out x", /--resume takes no value/],
  ["sample mnist", /sample takes flags only, not mnist/],
  ["train ./photos", /train takes flags only, not \.\/photos/],
  ["info a b", /info takes one model or picture, not a and b/],
]);

refuses("16-bit floats are refused on the CPU", [
  ["sample --precision f16 --device cpu", /--precision f16 is for a GPU, not for --device cpu/],
  ["train --precision f16 --wide --out x", /--precision f16 is for a GPU, not for --wide/],
  ["sample --precision f16 --threads 2", /needs an adapter with the feature shader-f16/],
]);

refuses("a choice that does not exist is refused, and the nearest is named", [
  ["train --precision f15", /--precision must be one of f32, f16, not f15; did you mean f\d+\?/],
  [
    "sample --sampler ddmp",
    /--sampler must be one of ddpm, ddim, .*, not ddmp; did you mean ddpm\?/,
  ],
  ["sample --device gup", /--device must be one of auto, gpu, cpu, not gup/],
]);

refuses("flags that contradict each other or the model are refused", [
  ["sample --device gpu --threads 2", /--threads is for the CPU/],
  ["train --out x --data mnist --device gpu --wide", /--wide is for the CPU/],
  ["sample --eta 0.5", /Cannot sample by dpmpp_2m_sde with eta: that is for ddim/],
  ["sample --sampler lms --churn 1", /by lms with churn: that is for heun, edm/],
  ["sample --sampler ddim --sigmas karras", /ddim over karras noise levels: .* lms, euler/],
  ["sample --sampler plms --timesteps 9,3", /plms by hand: its steps are even; .* ddpm, ddim/],
  ["sample --sampler ddim --timesteps 9,30", /timesteps 9, 30: they must fall, from 999 to 0/],
  ["sample --timesteps 9,x", /--timesteps must be numbers with commas, .*, not 9,x/],
  ["sample --timesteps 9,3 --steps 3", /in 3 steps: 2 timesteps are given/],
  ["sample --steps 1001", /Cannot sample in 1001 steps: .* 1 to 1000/],
  ["sample --model mnist-unconditional --label 3", /for models with classes: mnist-.* has none/],
  ["sample --count 65 --out x.gif", /Cannot make 65 images: an animation shows 64 at most/],
  ["sample --count 100000", /Cannot make 100000 images: one \.png cannot hold them/],
  ["sample --count 1000000 --out x.safetensors", /they take more than 2 GiB/],
]);

refuses("a training without data or folder is refused", [
  ["train", /train needs --out FOLDER/],
  ["train --out x", /train needs --data/],
]);

Deno.test("control characters in an argument reach neither the terminal nor a second line", async () => {
  await using folder = await Folder.make();
  await folder.refuse(["sample", "--model", "a\nb"], /Cannot load the model a b/);
  await folder.refuse(["info", "a\x1b[2Jb"], /the model a \[2Jb/);
});

Deno.test("help and version go to stdout", async () => {
  await using folder = await Folder.make();
  const help = await folder.succeed("--help");
  for (const command of ["sample", "train", "info"]) {
    assertMatch(help, new RegExp(`^  ${command} `, "m"));
    const own = await folder.succeed(command, "--help");
    assertMatch(own, new RegExp(`Usage: .* ${command}`));
    assertMatch(own, /^ {2}--device KIND +gpu/m);
  }
  const { version } = JSON.parse(
    await Deno.readTextFile(new URL("../../deno.json", import.meta.url)),
  );
  assertEquals(await folder.succeed("--version"), `${version}\n`);
  assertEquals(await folder.list(), []);
});
