/**
 * Files that are dropped on the page, or chosen.
 *
 * @module
 */

import { readTexts } from "./png_texts.ts";
import { element } from "./settings.ts";

/** Who takes files. */
export interface Takers {
  takeModel(files: readonly File[]): Promise<void>;
  /** Whether these are settings. */
  takeTexts(texts: Readonly<Record<string, string>>): boolean;
  takePicture(picture: ImageBitmap): void;
}

/** Hands files to who takes them, from now on. */
export function listenForFiles(takers: Takers): void {
  const take = (files: FileList | null) => {
    if (files?.length) handOver([...files], takers);
  };
  const curtain = element("drop");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    curtain.hidden = false;
  });
  addEventListener("dragleave", ({ relatedTarget }) => curtain.hidden = relatedTarget === null);
  addEventListener("drop", (event) => {
    event.preventDefault();
    curtain.hidden = true;
    take(event.dataTransfer?.files ?? null);
  });
  const chosen = element<HTMLInputElement>("files");
  chosen.addEventListener("change", () => {
    take(chosen.files);
    chosen.value = "";
  });
}

async function handOver(files: readonly File[], takers: Takers): Promise<void> {
  const [file] = files;
  if (!file.type.startsWith("image/")) return await takers.takeModel(files);
  if (takers.takeTexts(await readTexts(file))) return;
  takers.takePicture(await createImageBitmap(file));
}
