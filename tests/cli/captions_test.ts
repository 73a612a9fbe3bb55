import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { withCaptions } from "../../src/cli/data/captions.ts";
import { listImages } from "../../src/cli/data/image_files.ts";
import { InputError } from "../../src/errors.ts";

/** A folder with files; images are not looked into. */
async function folderWith(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await Deno.makeTempDir();
  for (const [name, text] of Object.entries(files)) {
    await Deno.mkdir(join(folder, name, ".."), { recursive: true });
    await Deno.writeTextFile(join(folder, name), text);
  }
  return folder;
}

const read = async (files: Readonly<Record<string, string>>) =>
  await withCaptions(await listImages(await folderWith(files), "none"));

const refused = async (files: Readonly<Record<string, string>>, message: string) =>
  await assertRejects(() => read(files), InputError, message);

Deno.test("captions are the lines of the text files beside images", async () => {
  const set = await read({
    ...{ "cats/b.png": "", "cats/b.txt": "a cat\n\n a black cat \n", "a.v2.jpg": "" },
    ...{ "a.v2.txt": "a dog", "notes.md": "" },
  });
  assertEquals(set.captions, [["a dog"], ["a cat", "a black cat"]]);
  assertEquals(set.others, 1);
});

Deno.test("captions are those of metadata.jsonl, if there is one", async () => {
  const rows = [
    { file_name: "b.png", text: "second", width: 3 },
    { file_name: "a.png", text: ["first", "one"] },
    { file_name: "gone.png", text: "gone" },
  ];
  const metadata = rows.map((row) => JSON.stringify(row)).join("\n") + "\n";
  const set = await read({ "a.png": "", "b.png": "", "a.txt": "no", "metadata.jsonl": metadata });
  assertEquals(set.captions, [["first", "one"], ["second"]]);
});

Deno.test("an image without a caption is named, and so is a line that is none", async () => {
  await refused({ "a.png": "", "b.png": "", "a.txt": "x" }, "b.png has none in a text file beside");
  await refused(
    { "a.png": "", "b.png": "", "c.png": "", "c.txt": "" },
    "a.png and 2 more have none",
  );
  const table = (text: string) => ({ "a.png": "", "metadata.jsonl": text });
  await refused(table(`{"file_name":"b.png","text":"x"}`), "a.png has none in metadata.jsonl");
  await refused(table(`\n{"file_name"`), "metadata.jsonl, line 2");
  await refused(table(`{"file_name":"a.png"}`), "line 1: text");
});

Deno.test("pictures that are no files have captions of their own, or none", async () => {
  const pictures = {
    ...{ name: "animals", count: 1, captions: [["cat"]] },
    picture: () => ({ width: 1, height: 1, channels: 1 as const, data: new Uint8Array(1) }),
  };
  assertEquals(await withCaptions(pictures), pictures);
  const { captions: _, ...silent } = pictures;
  await assertRejects(
    () => withCaptions(silent),
    InputError,
    "captions of animals: it has none",
  );
});
