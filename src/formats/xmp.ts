/**
 * XMP metadata that say by what kind of source a picture is, in the terms of the IPTC.
 *
 * @module
 */

/** The keyword of the chunk of PNG that holds XMP. */
export const XMP = "XML:com.adobe.xmp";

/** Where the terms are defined. */
const TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/";

/** The packet of a picture that a model made, alone or of another picture. */
export function xmpOf(isComposite: boolean): string {
  const type = isComposite ? "compositeWithTrainedAlgorithmicMedia" : "trainedAlgorithmicMedia";
  return [
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">',
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">',
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"',
    ` Iptc4xmpExt:DigitalSourceType="${TERMS}${type}"/>`,
    "</rdf:RDF></x:xmpmeta>",
    '<?xpacket end="w"?>',
  ].join("\n");
}

/** The term in a packet, whoever wrote it. */
export const sourceTypeIn = (xmp: string): string | undefined =>
  /DigitalSourceType(?:="|>)[^"<]*\/digitalsourcetype\/(\w+)/i.exec(xmp)?.[1];
