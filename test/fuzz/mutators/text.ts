/** Texts: every script, marks, halves of pairs, brackets, and one thing repeated so often that only linear work ends in time. */
import type { Random } from '../random.js';

const LONGEST = 200_000;

const PARTS = [
  'hola',
  'Bon dia, què tal?',
  "L'Hospitalet de l'Infant",
  'dzień dobry',
  'สวัสดี',
  'வணக்கம்',
  '你好',
  'こんにちは',
  '안녕',
  'مرحبا',
  'Straße ﬁ Ⅷ ½ ǅ İ ı',
  'é\u0301\u0301',
  '\u{1f468}\u200d\u{1f469}\u200d\u{1f467}',
  '\u{10ffff}',
  '\ud800',
  '\udc00',
  '\0',
  '\u0085',
  '\ufeff',
  '\u2028',
  '\u200b',
  '\u202e',
  '\x1b[31m',
  '<|endoftext|>',
  '<|0.00|>',
  '(',
  ')',
  '[',
  ']',
  '<',
  '>',
  '"',
  "'",
  '&',
  '-->',
  '\n',
  '\r\n',
  '\n\n',
  '\t',
  ' ',
  '    ',
  '1234567890',
  '３.１４',
  '$1,000.50',
  'ᄀ각',
  'ﷺ',
  '\u0300',
  '\u0e33',
  '_',
  '.',
  'a',
];

/** A text of a few parts, of at most `most` characters. */
export function someText(random: Random, most: number): string {
  let text = '';
  for (let parts = random.count(30); parts > 0 && text.length < most; parts--) {
    if (random.chance(0.1)) text += String.fromCharCode(random.below(65536));
    else if (random.chance(0.05)) text += String.fromCodePoint(random.below(0x110000));
    else text += random.pick(PARTS);
    if (random.chance(0.4)) text += ' ';
  }
  return text.slice(0, most);
}

/** As `someText`, but now and then one or two parts over and over, up to 200,000 characters. */
export function longText(random: Random, longest = LONGEST): string {
  if (!random.chance(0.006)) return someText(random, 2000);
  const unit = random.pick(PARTS) + (random.chance(0.4) ? random.pick(PARTS) : '');
  const length = random.chance(0.1) ? longest : random.count(longest / 4);
  const body = unit.repeat(Math.ceil(length / unit.length)).slice(0, length);
  return someText(random, 50) + body + (random.chance(0.5) ? someText(random, 50) : '');
}

/** Texts travel as UTF-16, so that halves of pairs come through. */
export function packText(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'utf16le'));
}

export function unpackText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength & ~1).toString('utf16le');
}
