/**
 * The cleaning that the authors of Wan do to a prompt before tokenising it: Unicode repair (what ftfy.fix_text does by
 * default), HTML references replaced twice, white space collapsed and trimmed. Models were trained on cleaned text only.
 */
import { decodeHTML } from 'entities';

/** Cleans a prompt. Of ftfy's repairs, text that is broken only in part is left as it is. */
export function cleanPrompt(text: string): string {
  return decodeHTML(decodeHTML(repairText(text)))
    .replace(/\s+/gu, ' ')
    .trim();
}

/** Repairs until nothing changes any more, as one repair can uncover another. */
function repairText(text: string): string {
  const repaired = repairOnce(text);
  return repaired === text ? text : repairText(repaired);
}

function repairOnce(text: string): string {
  const repaired = repairMojibake(text.includes('<') ? text : decodeHTML(text))
    .replace(terminalEscapes, '')
    .replace(ligatures, (ligature) => ligature.normalize('NFKC'))
    .replace(wideCharacters, (wide) => wide.normalize('NFKC'))
    .replace(/[ʼ‘-‛]/gu, "'")
    .replace(/[“-‟]/gu, '"')
    .replace(/\r\n?|[\u2028\u2029\u0085]/gu, '\n')
    .replace(controlCharacters, '');
  return repaired.toWellFormed().normalize('NFC');
}

// eslint-disable-next-line no-control-regex -- these are what is looked for
const terminalEscapes = /\u001b\[[\d;]*[a-zA-Z]/gu;
// eslint-disable-next-line no-control-regex -- these are what is looked for
const controlCharacters = /[\u0000-\u0008\u000b\u000e-\u001f\u007f\u206a-\u206f\ufeff\ufff9-\ufffc]/gu;
/** Latin ligatures and digraphs that no keyboard has. */
const ligatures = /[Ĳĳŉ\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]/gu;
/** Full-width and half-width forms, and the ideographic space. */
const wideCharacters = /[\u3000\uff01-\uffef]/gu;

/** Undoes UTF-8 that was read as Windows-1252 (or Latin-1), once; the caller repeats. */
function repairMojibake(text: string): string {
  const bytes = toWindows1252(text);
  if (!bytes?.some((byte) => byte >= 0x80)) return text;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return text; // it was no UTF-8: the text meant its characters
  }
}

/** Windows-1252 by character; bytes it leaves undefined stand for themselves, as in Latin-1. */
const windows1252 = new Map(
  [...new TextDecoder('windows-1252').decode(Uint8Array.from({ length: 256 }, (_, byte) => byte))].flatMap(
    (character, byte): [string, number][] => [
      [String.fromCharCode(byte), byte],
      [character, byte],
    ],
  ),
);

function toWindows1252(text: string): Uint8Array | null {
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) {
    const byte = windows1252.get(text.charAt(at));
    if (byte === undefined) return null;
    bytes[at] = byte;
  }
  return bytes;
}
