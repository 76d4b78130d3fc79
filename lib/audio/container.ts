/** What a file is, told by its first bytes; its name is never asked. */
import { firstMp3Frame, id3Length, isFreeFormat } from './mp3.js';
import { ascii } from './reader.js';

export type AudioFormat = 'wav' | 'flac' | 'mp3' | 'ogg' | 'tagged' | 'foreign' | 'unknown';

export interface Detected {
  format: AudioFormat;
  /** For people: 'MP4 (m4a)', 'text', … */
  label: string;
  /** Where to look again: behind the ID3v2 tags of a 'tagged' file (beyond `head` where they hold pictures), else 0. */
  offset: number;
}

/** Formats that ffmpeg reads, by what stands where in their first bytes. */
const FOREIGN: [at: number, text: string, label: string][] = [
  [4, 'ftyp', 'MP4 (m4a)'],
  [4, 'moov', 'QuickTime'],
  [4, 'mdat', 'QuickTime'],
  [0, '\x1a\x45\xdf\xa3', 'WebM or Matroska'],
  [8, 'AIFF', 'AIFF'],
  [8, 'AIFC', 'AIFF'],
  [8, 'AVI ', 'AVI'],
  [0, 'riff\x2e\x91\xcf\x11', 'Wave64'],
  [0, 'caff', 'CAF'],
  [0, '.snd', 'AU'],
  [0, '#!AMR', 'AMR'],
  [0, 'ADIF', 'AAC'],
  [0, '\x30\x26\xb2\x75\x8e\x66\xcf\x11', 'WMA'],
  [0, 'wvpk', 'WavPack'],
  [0, 'TTA1', 'True Audio'],
  [0, 'MAC ', "Monkey's Audio"],
  [0, 'FLV\x01', 'FLV'],
  [0, 'NIST_1A', 'NIST SPHERE'],
  [0, 'Creative Voice File', 'VOC'],
  [0, '\x0b\x77', 'AC-3'],
];

/** @param head the first bytes: 64 KiB where the file has as many */
export function detectFormat(head: Uint8Array): Detected {
  const is = (text: string, at = 0) => ascii(head, at, at + text.length) === text;
  const found = (format: AudioFormat, label: string, offset = 0): Detected => ({ format, label, offset });
  let offset = 0;
  for (let length = id3Length(head, 0); length > 0; length = id3Length(head, offset)) offset += length;
  if (offset > 0) return found('tagged', 'a file with an ID3 tag', offset);
  if (['RIFF', 'RIFX', 'RF64', 'BW64'].some((kind) => is(kind)) && is('WAVE', 8)) return found('wav', 'WAV');
  if (is('fLaC')) return found('flac', 'FLAC');
  if (is('OggS')) return found('ogg', 'Ogg');
  const foreign = FOREIGN.find(([at, text]) => is(text, at));
  if (foreign) return found('foreign', foreign[2]);
  if (head[0] === 0xff && (head[1]! & 0xf6) === 0xf0) return found('foreign', 'AAC');
  const frame = firstMp3Frame(head, 0);
  if (frame === 0 || isFreeFormat(head, 0)) return found('mp3', 'MP3');
  // Something before the audio: a first page of Ogg, or three MPEG frames that follow one another.
  if (firstPage(head) > 0) return found('ogg', 'Ogg');
  if (frame > 0) return found('mp3', 'MP3');
  const text = head.subarray(0, 512).every((byte) => byte >= 0x20 || byte === 9 || byte === 10 || byte === 13);
  const first = Array.from(head.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return found(
    'unknown',
    text
      ? `text that begins ${JSON.stringify(ascii(head, 0, Math.min(24, head.length)))}`
      : `a file that begins ${first}`,
  );
}

/** Where a page stands that begins an Ogg stream; -1 where none does. */
function firstPage(head: Uint8Array): number {
  for (let at = head.indexOf(0x4f); at >= 0; at = head.indexOf(0x4f, at + 1))
    if (ascii(head, at, at + 6) === 'OggS\0\x02') return at;
  return -1;
}
