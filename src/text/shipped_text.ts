/**
 * Texts that come with the package, compressed.
 *
 * @module
 */

/**
 * Loads a text of the folder `data`.
 *
 * @param name Of the file, without `.txt.gz`: bundlers take all files along that it may be.
 * @throws {TypeError} If it cannot be reached.
 */
export async function fetchShippedText(name: string): Promise<string> {
  const url = new URL(`../../data/${name}.txt.gz`, import.meta.url);
  const response = await fetch(url);
  if (!response.ok) throw new TypeError(`Cannot load ${url}: the answer is ${response.status}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  // A server may say that the file is compressed, and fetch unpacks it.
  const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
  if (!isPacked) return new TextDecoder().decode(bytes);
  const unpacked = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(unpacked).text();
}
