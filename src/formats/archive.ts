/**
 * What archives hold: files, and links that lead to others of them.
 *
 * @module
 */

/** A file in an archive. */
export interface ArchiveEntry {
  /** Its path. */
  readonly name: string;
  /** Where it starts: its data, or in a zip its local header. */
  readonly offset: number;
  /** Its bytes, unpacked. */
  readonly size: number;
  /** For those of a zip: its bytes as they are packed, and how that was done. */
  readonly packed?: {
    readonly size: number;
    readonly method: number;
    readonly isEncrypted: boolean;
  };
  /** For a sparse one of a tar, the parts that are there; all else is zeros. */
  readonly parts?: readonly SparsePart[];
  /** If it is no file but a link. */
  readonly link?: ArchiveLink;
}

/** A part of a sparse file. */
export interface SparsePart {
  /** Where it belongs in the file. */
  readonly at: number;
  /** Where it is in the archive. */
  readonly offset: number;
  /** Its bytes. */
  readonly size: number;
}

/** Where a link leads. */
export interface ArchiveLink {
  /** A path: of a hard link from the top of the archive, else from the folder of the link. */
  readonly target: string;
  /** Whether it is another name of a file that comes before it. */
  readonly isHard: boolean;
}

/** A file or folder that is not used, and why. */
export interface Lost {
  readonly name: string;
  readonly why: string;
}

/** An archive as it would be unpacked. */
export interface Unpacked {
  readonly files: readonly ArchiveEntry[];
  readonly lost: readonly Lost[];
}

type Node = ArchiveEntry | Folder;
type Folder = Map<string, Node>;

const isFolder = (node: Node | undefined): node is Folder => node instanceof Map;

/** A chain of more links than this is taken for a circle, as Linux does. */
const MAX_CHAIN = 40;
/** More folders than this are not entered through links: a few links can make any number of paths. */
export const MAX_LINKED_FOLDERS = 10_000;
/** Folders that may be within each other. */
const MAX_DEPTH = 1000;

/** The steps of a path from the top. */
function stepsOf(path: string): string[] {
  const steps: string[] = [];
  for (const step of path.split("/")) {
    if (step === "..") steps.pop();
    else if (step && step !== ".") steps.push(step);
  }
  return steps;
}

/**
 * The files that would be there if an archive were unpacked, each under all the names that links
 * give it. Of several files of one name it is the last.
 */
export function followLinks(entries: readonly ArchiveEntry[]): Unpacked {
  const files: ArchiveEntry[] = [], lost: Lost[] = [];
  const tree = new Tree(entries, lost);
  let linked = 0;
  const add = (entry: ArchiveEntry, name: string) =>
    files.push(entry.name === name ? entry : { ...entry, name });
  /** `open` are the folders that are being walked through, but for those within the last one. */
  const walk = (folder: Folder, real: string[], prefix: string, open: readonly string[][]) => {
    for (const [step, node] of folder) {
      const name = prefix + step;
      if (isFolder(node)) walk(node, [...real, step], `${name}/`, open);
      else if (!node.link) add(node, name);
      else {
        const { target } = node.link, found = tree.follow(real, target);
        const lose = (why: string) => lost.push({ name, why: `it is a link to ${target}, ${why}` });
        if (!found) lose("which is not there");
        else if (!isFolder(found.node)) add(found.node, name);
        else if (
          [...open, real].some((steps) => found.path.every((step, i) => step === steps[i]))
        ) {
          lose("which it is in");
        } else if (linked++ < MAX_LINKED_FOLDERS) {
          walk(found.node, found.path, `${name}/`, [...open, real]);
        } else lose("one link of too many");
      }
    }
  };
  walk(tree.top, [], "", []);
  return { files, lost };
}

/** An archive as it would be on a disk. */
class Tree {
  readonly top: Folder = new Map();

  constructor(entries: readonly ArchiveEntry[], lost: Lost[]) {
    for (const entry of entries) {
      const { name, link } = entry, steps = stepsOf(name), last = steps.pop();
      if (last === undefined) continue;
      // What has the name of a hard link is the file itself.
      const node = link?.isHard ? this.#at(stepsOf(link.target)) : entry;
      if (node === undefined || isFolder(node)) {
        lost.push({ name, why: `it is a link to ${link?.target}, which does not come before it` });
      } else if (steps.length > MAX_DEPTH) {
        lost.push({ name: `${name.slice(0, 80)}...`, why: `it is in ${steps.length} folders` });
      } else this.#folder(steps).set(last, node);
    }
  }

  #folder(steps: readonly string[]): Folder {
    let folder = this.top;
    for (const step of steps) {
      let next = folder.get(step);
      if (!isFolder(next)) folder.set(step, next = new Map());
      folder = next;
    }
    return folder;
  }

  #at(steps: readonly string[]): Node | undefined {
    let node: Node | undefined = this.top;
    for (const step of steps) node = isFolder(node) ? node.get(step) : undefined;
    return node;
  }

  /** What a symbolic link in a folder leads to, and where that is; nothing if it is not there. */
  follow(
    folder: readonly string[],
    target: string,
    chain = 0,
  ): { node: Node; path: string[] } | undefined {
    if (target.startsWith("/") || chain > MAX_CHAIN) return undefined;
    let path = [...folder];
    for (const step of target.split("/")) {
      if (!step || step === ".") continue;
      if (step === "..") {
        if (!path.pop()) return undefined;
        continue;
      }
      const node = this.#at([...path, step]);
      if (!node) return undefined;
      if (isFolder(node) || !node.link) path.push(step);
      else {
        const found = this.follow(path, node.link.target, chain + 1);
        if (!found) return undefined;
        path = found.path;
      }
    }
    return { node: this.#at(path)!, path };
  }
}
