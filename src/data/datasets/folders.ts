/**
 * Classes of files by the folders that they are in.
 *
 * @module
 */

/**
 * The class of each file: the name of its folder, of nested ones of the outermost; `undefined` where it
 * is in none.
 *
 * @param paths Names with their folders, and `/` between them.
 * @param isWrapped Whether folders that hold all of it mean nothing, as the only one in an archive.
 */
export function classesOfFolders(
  paths: readonly string[],
  isWrapped: boolean,
): (string | undefined)[] {
  const folders = paths.map((path) => path.split("/").slice(0, -1));
  const isShared = (depth: number) =>
    folders.every((f) => f.length > depth + 1 && f[depth] === folders[0][depth]);
  let depth = 0;
  while (isWrapped && isShared(depth)) depth++;
  return folders.map((f) => f[depth]);
}

/** Classes in the order of their names, and the number of each of those given. */
export function numberClasses(names: readonly string[]): { classes: string[]; labels: number[] } {
  const classes = [...new Set(names)].sort(), numbers = new Map(classes.map((c, i) => [c, i]));
  return { classes, labels: names.map((name) => numbers.get(name)!) };
}
