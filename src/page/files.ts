/**
 * Files that are dropped on the page, or chosen.
 *
 * @module
 */

import { InputError } from "../errors.ts";
import { findSeal } from "../formats/sealed.ts";
import { readTexts } from "../formats/png_texts.ts";
import { type Provenance, provenanceIn } from "../sample/provenance.ts";
import { element } from "./settings.ts";
import { explain, warn } from "./status.ts";

/** Bytes in which the checksum of a training is. */
const HEAD = 4096;

/** A file, and its name with the folders that it is in. */
export interface FoundFile {
  readonly file: File;
  readonly path: string;
}

/** Files that were chosen, of a folder or by themselves. */
export const chosenFiles = ({ files }: HTMLInputElement): FoundFile[] =>
  [...files ?? []].map((file) => ({ file, path: file.webkitRelativePath || file.name }))
    .filter(({ path }) => !path.split("/").some(isHidden));

/** Whether a file or a folder is none of the user's, as programs leave them everywhere. */
const isHidden = (name: string) => name.startsWith(".");

/** Who takes files. */
export interface Takers {
  takeModel(files: readonly File[]): Promise<void>;
  /** Takes a training that was saved. */
  takeTraining(file: File): Promise<void>;
  /** Takes pictures to learn from. */
  takeExamples(files: readonly FoundFile[]): Promise<void>;
  /** Takes the settings of a picture. */
  takeSettings(about: Provenance): Promise<void>;
  takePicture(picture: ImageBitmap): void;
}

/** Hands files to who takes them, from now on. */
export function listenForFiles(takers: Takers): void {
  const curtain = element("drop");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    curtain.hidden = false;
  });
  addEventListener("dragleave", ({ relatedTarget }) => curtain.hidden = relatedTarget === null);
  addEventListener("drop", (event) => {
    event.preventDefault();
    curtain.hidden = true;
    const files = [...event.dataTransfer?.files ?? []], { target } = event;
    const isHere = target instanceof Node && element("train").contains(target);
    // Entries are there only as long as the event.
    const entries = [...event.dataTransfer?.items ?? []].map((item) => item.webkitGetAsEntry?.());
    const folders = entries.filter((entry) => entry?.isDirectory);
    if (folders.length) tellFailure(filesOf(entries).then((all) => takers.takeExamples(all)));
    else if (files.length) tellFailure(handOver(files, takers, isHere));
  });
  const chosen = element<HTMLInputElement>("files");
  chosen.addEventListener("change", () => {
    if (chosen.files?.length) tellFailure(handOver([...chosen.files], takers, false));
    chosen.value = "";
  });
}

const tellFailure = (work: Promise<void>) => work.catch((error) => warn(explain(error)));

/** Several pictures, and those that are dropped where one trains, are there to learn from. */
async function handOver(
  files: readonly File[],
  takers: Takers,
  isToLearn: boolean,
): Promise<void> {
  const [file] = files, isPictures = files.every(({ type }) => type.startsWith("image/"));
  if (isPictures && (isToLearn || files.length > 1)) {
    return await takers.takeExamples(files.map((file) => ({ file, path: file.name })));
  }
  if (!isPictures) {
    const isTraining =
      findSeal(new Uint8Array(await file.slice(0, HEAD).arrayBuffer())) !== undefined;
    return isTraining ? await takers.takeTraining(file) : await takers.takeModel(files);
  }
  const about = provenanceIn(await readTexts(new Uint8Array(await file.arrayBuffer())));
  if (about) return await takers.takeSettings(about);
  const picture = await createImageBitmap(file).catch(() => {
    throw new InputError(`Cannot read ${file.name}: it is damaged, or no picture for this browser`);
  });
  takers.takePicture(picture);
}

/** All files of what was dropped, also in folders, by their names. */
async function filesOf(
  entries: readonly (FileSystemEntry | null | undefined)[],
): Promise<FoundFile[]> {
  const files: FoundFile[] = [];
  for (const entry of entries) {
    if (!entry || isHidden(entry.name)) continue;
    if (entry.isFile) {
      const file = await new Promise<File>((...ends) =>
        (entry as FileSystemFileEntry).file(...ends)
      );
      files.push({ file, path: entry.fullPath.slice(1) });
    }
    if (!entry.isDirectory) continue;
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    const inside: FileSystemEntry[] = [];
    for (;;) {
      // A browser gives a hundred at a time.
      const some = await new Promise<FileSystemEntry[]>((...ends) => reader.readEntries(...ends));
      if (!some.length) break;
      inside.push(...some);
    }
    files.push(...await filesOf(inside.sort((a, b) => a.name < b.name ? -1 : 1)));
  }
  return files;
}
