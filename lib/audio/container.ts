/**
 * What a file is, told by its bytes, and whether it is whole. The decoders skip what they cannot read and return the rest
 * without an error (measured: a flac, mp3, ogg or opus file cut in half), so wholeness is checked here.
 */
import { DistilWhisperError } from '../errors/index.js';

export type AudioFormat = 'wav' | 'flac' | 'mp3' | 'ogg' | 'foreign' | 'unknown';

export interface Detected {
  format: AudioFormat;
  /** For people: 'MP4 (m4a)', 'text', … */
  label: string;
  /** Where the audio starts: behind ID3v2 tags. */
  offset: number;
}

const ascii = (bytes: Uint8Array, from: number, to: number) => String.fromCharCode(...bytes.subarray(from, to));
const bad = (name: string, what: string) => new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: ${what}`);

/** Length of the ID3v2 tags at the start, 0 if there are none. */
function id3Length(bytes: Uint8Array): number {
  let at = 0;
  while (ascii(bytes, at, at + 3) === 'ID3' && at + 10 <= bytes.length) {
    const [a, b, c, d] = bytes.subarray(at + 6, at + 10) as unknown as [number, number, number, number];
    at += 10 + ((a & 127) << 21) + ((b & 127) << 14) + ((c & 127) << 7) + (d & 127) + (bytes[at + 5]! & 0x10 ? 10 : 0);
  }
  return at;
}

/** The format of a file by its first bytes; the file's name is never asked. */
export function detectFormat(bytes: Uint8Array): Detected {
  const offset = id3Length(bytes);
  const is = (text: string, at = 0) => ascii(bytes, offset + at, offset + at + text.length) === text;
  const found = (format: AudioFormat, label: string): Detected => ({ format, label, offset });
  if (is('RIFF') && is('WAVE', 8)) return found('wav', 'WAV');
  if (is('fLaC')) return found('flac', 'FLAC');
  if (is('OggS')) return found('ogg', 'Ogg');
  if (is('ftyp', 4)) return found('foreign', 'MP4 (m4a)');
  if (bytes[offset] === 0x1a && is('\x45\xdf\xa3', 1)) return found('foreign', 'WebM or Matroska');
  if (is('FORM') && is('AIF', 8)) return found('foreign', 'AIFF');
  if (is('RF64') || is('BW64')) return found('foreign', 'RF64 WAV');
  if (is('riff\x2e\x91\xcf\x11')) return found('foreign', 'Wave64');
  if (is('caff')) return found('foreign', 'CAF');
  if (is('.snd')) return found('foreign', 'AU');
  if (is('#!AMR')) return found('foreign', 'AMR');
  if (is('ADIF')) return found('foreign', 'AAC');
  if (is('\x30\x26\xb2\x75\x8e\x66\xcf\x11')) return found('foreign', 'WMA');
  if (is('wvpk')) return found('foreign', 'WavPack');
  if (bytes[offset] === 0xff && (bytes[offset + 1]! & 0xf6) === 0xf0) return found('foreign', 'AAC');
  if (offset > 0 || firstMp3Frame(bytes, 0) === 0) return found('mp3', 'MP3');
  const head = bytes.subarray(0, 512);
  const text = head.every((byte) => byte >= 0x20 || byte === 9 || byte === 10 || byte === 13);
  const first = Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  return found(
    'unknown',
    text ? `text that begins ${JSON.stringify(ascii(head, 0, 24))}` : `a file that begins ${first}`,
  );
}

// ---- Ogg ----

const CRC32 = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});

export interface OggStream {
  codec: 'vorbis' | 'opus' | 'flac' | 'other';
  label: string;
  channels: number;
  sampleRate: number;
  /** Bits of an integer codec (FLAC); 0 for the others. */
  bits: number;
  /** The pages of this link of the chain. */
  bytes: Uint8Array;
}

/**
 * Walks all pages of an Ogg file (RFC 3533): checksums, page numbers and the end mark of every logical stream.
 * @returns one entry for each link of a chained file (some writers append a jingle or a silence as a second stream)
 * @throws ERR_AUDIO_FORMAT if a page is damaged or missing, or the file ends before its end-of-stream mark
 */
export function inspectOgg(bytes: Uint8Array, name: string): OggStream[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const streams: OggStream[] = [];
  let linkStart = 0;
  const open = new Map<number, number>();
  let at = 0;
  while (at < bytes.length) {
    const segments = at + 27 <= bytes.length ? bytes[at + 26]! : 0;
    if (at > 0 && open.size === 0 && bytes[at] !== 0x4f && bytes.subarray(at).every((byte) => byte === 0)) break;
    if (ascii(bytes, at, Math.min(at + 4, bytes.length)) !== 'OggS'.slice(0, bytes.length - at))
      throw bad(name, `damaged Ogg file: no page starts at byte ${at}`);
    const body = at + 27 + segments;
    let end = body;
    for (let i = at + 27; i < Math.min(body, bytes.length); i++) end += bytes[i]!;
    if (at + 27 > bytes.length || end > bytes.length)
      throw bad(name, `truncated Ogg file: its last page is cut short at byte ${bytes.length}`);
    let crc = 0;
    for (let i = at; i < end; i++) {
      const byte = i - at >= 22 && i - at < 26 ? 0 : bytes[i]!;
      crc = (crc << 8) ^ CRC32[(crc >>> 24) ^ byte]!;
    }
    if (crc >>> 0 !== view.getUint32(at + 22, true))
      throw bad(name, `damaged Ogg file: wrong checksum of the page at byte ${at}`);
    const flags = bytes[at + 5]!;
    const serial = view.getUint32(at + 14, true);
    const number = view.getUint32(at + 18, true);
    if (flags & 2) {
      const stream = oggStream(bytes.subarray(body, end), name);
      if (open.size > 0) streams.push({ ...stream, codec: 'other', label: 'Ogg with several streams at once' });
      else streams.push(stream);
    } else if (open.get(serial) !== number) {
      throw bad(name, `damaged Ogg file: pages are missing before byte ${at}`);
    }
    open.set(serial, number + 1);
    if (flags & 4) open.delete(serial);
    at = end;
    if (open.size === 0) {
      streams[streams.length - 1]!.bytes = bytes.subarray(linkStart, end);
      linkStart = end;
    }
  }
  if (open.size > 0) throw bad(name, 'truncated Ogg file: it ends without the end-of-stream mark');
  return streams;
}

function oggStream(packet: Uint8Array, name: string): OggStream {
  const bytes = new Uint8Array(0);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  if (ascii(packet, 1, 7) === 'vorbis' && packet.length >= 30)
    return {
      codec: 'vorbis',
      label: 'Vorbis',
      channels: packet[11]!,
      sampleRate: view.getUint32(12, true),
      bits: 0,
      bytes,
    };
  if (ascii(packet, 0, 8) === 'OpusHead' && packet.length >= 19)
    return { codec: 'opus', label: 'Opus', channels: packet[9]!, sampleRate: 48000, bits: 0, bytes };
  if (ascii(packet, 1, 5) === 'FLAC' && packet.length >= 51) {
    const info = flacInfo(packet.subarray(9), name);
    return {
      codec: 'flac',
      label: 'FLAC',
      channels: info.channels,
      sampleRate: info.sampleRate,
      bits: info.bits,
      bytes,
    };
  }
  const label = ascii(packet, 0, 5) === 'Speex' ? 'Speex' : 'an unknown codec';
  return { codec: 'other', label: `Ogg with ${label}`, channels: 0, sampleRate: 0, bits: 0, bytes };
}

// ---- FLAC ----

export interface FlacInfo {
  sampleRate: number;
  channels: number;
  bits: number;
  /** Samples of one channel; 0 when the encoder did not know. */
  total: number;
}

/** STREAMINFO of a native FLAC stream. @throws ERR_AUDIO_FORMAT if it is cut short or contradicts itself */
export function flacInfo(bytes: Uint8Array, name: string): FlacInfo {
  if (bytes.length < 42) throw bad(name, `truncated FLAC: ${bytes.length} bytes are shorter than its header`);
  if ((bytes[4]! & 127) !== 0) throw bad(name, 'damaged FLAC: it does not begin with its stream information');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    sampleRate: view.getUint32(18) >>> 12,
    channels: ((bytes[20]! >> 1) & 7) + 1,
    bits: ((bytes[20]! & 1) << 4) + (bytes[21]! >> 4) + 1,
    total: (bytes[21]! & 15) * 2 ** 32 + view.getUint32(22),
  };
}

const CRC16 = Uint16Array.from({ length: 256 }, (_, i) => {
  let crc = i << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x8005 : crc << 1;
  return crc & 0xffff;
});

/** For FLAC that does not announce its length: true if some frame ends exactly at the end of the file (its checksum comes out 0). */
export function flacEndsWhole(bytes: Uint8Array): boolean {
  for (let at = bytes.length - 6; at >= 42; at--) {
    if (bytes[at] !== 0xff || (bytes[at + 1]! & 0xfe) !== 0xf8) continue;
    let crc = 0;
    for (let i = at; i < bytes.length; i++) crc = ((crc << 8) & 0xffff) ^ CRC16[(crc >> 8) ^ bytes[i]!]!;
    if (crc === 0) return true;
  }
  return false;
}

// ---- MPEG audio ----

interface Mp3Frame {
  length: number;
  channels: number;
  sampleRate: number;
  /** Offset of a Xing/Info tag in a layer III frame. */
  tagAt: number;
  version: number;
}

const KBPS: Record<string, readonly number[]> = {
  '1.2': [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
  '1.3': [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  '2': [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};

/** Reads the 4-byte header of an ISO 11172-3 / 13818-3 (or 2.5) frame; undefined if it is none, of layer I or of free bit rate. */
function mp3Frame(bytes: Uint8Array, at: number): Mp3Frame | undefined {
  if (at + 4 > bytes.length || bytes[at] !== 0xff || (bytes[at + 1]! & 0xe0) !== 0xe0) return undefined;
  const [, b1, b2, b3] = bytes.subarray(at, at + 4) as unknown as [number, number, number, number];
  const version = [2.5, 0, 2, 1][(b1 >> 3) & 3]!;
  const layer = [0, 3, 2, 0][(b1 >> 1) & 3]!;
  const rate = [44100, 48000, 32000, 0][(b2 >> 2) & 3]!;
  const kbps = KBPS[version === 1 ? `1.${layer}` : '2']?.[b2 >> 4];
  if (!version || !layer || !rate || !kbps) return undefined;
  const sampleRate = rate / (version === 2.5 ? 4 : version);
  const padding = (b2 >> 1) & 1;
  const perByte = layer === 3 && version !== 1 ? 72 : 144;
  const length = Math.floor((perByte * kbps * 1000) / sampleRate) + padding;
  const channels = b3 >> 6 === 3 ? 1 : 2;
  const side = version === 1 ? (channels === 1 ? 17 : 32) : channels === 1 ? 9 : 17;
  return { length, channels, sampleRate, tagAt: 4 + side, version };
}

/** The first frame at or behind `at` that is followed by a like one, by a tag or by the end; -1 if there is none within 64 KiB. */
function firstMp3Frame(bytes: Uint8Array, at: number): number {
  for (const last = Math.min(bytes.length - 4, at + 65536); at <= last; at++) {
    const frame = mp3Frame(bytes, at);
    if (!frame) continue;
    const after = at + frame.length;
    const next = mp3Frame(bytes, after);
    if (after === bytes.length || (next && next.sampleRate === frame.sampleRate && next.version === frame.version))
      return at;
    if (after > bytes.length || isTag(bytes, after)) return at;
  }
  return -1;
}

const isTag = (bytes: Uint8Array, at: number) =>
  ascii(bytes, at, at + 3) === 'TAG' || ['APETAGEX', 'LYRICSBE'].includes(ascii(bytes, at, at + 8));

export interface Mp3Info {
  channels: number;
  sampleRate: number;
  /** The bytes from the first frame to the end of the last. */
  frames: Uint8Array;
}

/**
 * Walks all frames of an MPEG audio file.
 * @throws ERR_AUDIO_FORMAT if the last frame is cut short, if the Xing/Info tag announces more frames than there are, or if much
 * of the file is no audio frame. A constant-rate file without such a tag that is cut exactly between frames cannot be told apart.
 */
export function inspectMp3(bytes: Uint8Array, offset: number, name: string): Mp3Info {
  if (offset >= bytes.length) throw bad(name, 'truncated MP3: it ends within its ID3 tag');
  const start = firstMp3Frame(bytes, offset);
  if (start < 0) throw bad(name, 'no MPEG audio frame was found');
  const first = mp3Frame(bytes, start)!;
  let at = start;
  let count = 0;
  let junk = 0;
  while (at < bytes.length && !isTag(bytes, at)) {
    const frame = mp3Frame(bytes, at);
    if (frame && frame.sampleRate === first.sampleRate && frame.version === first.version) {
      if (at + frame.length > bytes.length)
        throw bad(name, `truncated MP3: its last frame is ${frame.length} bytes long and ${bytes.length - at} follow`);
      at += frame.length;
      count++;
      continue;
    }
    if (bytes[at] === 0xff && bytes.length - at < 4) throw bad(name, 'truncated MP3: its last frame is cut short');
    const next = firstMp3Frame(bytes, at + 1);
    if (next < 0) break;
    junk += next - at;
    if (junk > 4096) throw bad(name, `damaged MP3: more than ${junk} bytes before byte ${next} are no audio frames`);
    at = next;
  }
  const tail = bytes.subarray(at);
  if (!isTag(bytes, at) && tail.length > 4096 && tail.some((byte) => byte !== 0))
    throw bad(name, `damaged MP3: the ${tail.length} bytes from byte ${at} on are no audio frames`);
  const tag = start + first.tagAt;
  if (['Xing', 'Info'].includes(ascii(bytes, tag, tag + 4)) && bytes[tag + 7]! & 1) {
    const announced = new DataView(bytes.buffer, bytes.byteOffset).getUint32(tag + 8);
    // The tag's own frame is not in its count; writers that do count it are forgiven.
    if (count < announced)
      throw bad(name, `truncated MP3: it announces ${announced} frames and ${count - 1} are there`);
  }
  return { channels: first.channels, sampleRate: first.sampleRate, frames: bytes.subarray(start, at) };
}
