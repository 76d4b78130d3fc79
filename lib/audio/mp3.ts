/** MPEG audio, layers II and III. Frames are found and checked here; mpg123 gets whole frames only. */
import { decoder } from '@audio/decode-mp3';
import { type ByteReader, concat } from './bytes.js';
import { type AudioPieces, ascii, copy, decoded, mean, pieces, type ReaderContext, refusal } from './reader.js';

interface Mp3Frame {
  length: number;
  /** Samples of one channel. */
  samples: number;
  channels: number;
  /** In Hz. */
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

/** Bytes in which the first frame, or the next one behind something else, is looked for. */
const SEARCH = 65536;
/** Bytes between frames, neither tags nor zeros, beyond which a file is damaged. */
const MOST_JUNK = 4096;
/** Frames that mpg123 gets at once: up to 64,512 samples of one channel. */
const BATCH = 56;

/** Reads the 4-byte header of an ISO 11172-3 / 13818-3 (or 2.5) frame; undefined if it is none, of layer I or of free bit rate. */
function mp3Frame(bytes: Uint8Array, at: number): Mp3Frame | undefined {
  if (at + 4 > bytes.length || bytes[at] !== 0xff || (bytes[at + 1]! & 0xe0) !== 0xe0) return undefined;
  const [b1, b2, b3] = [bytes[at + 1]!, bytes[at + 2]!, bytes[at + 3]!];
  const version = [2.5, 0, 2, 1][(b1 >> 3) & 3]!;
  const layer = [0, 3, 2, 0][(b1 >> 1) & 3]!;
  const rate = [44100, 48000, 32000, 0][(b2 >> 2) & 3]!;
  const kbps = KBPS[version === 1 ? `1.${layer}` : '2']?.[b2 >> 4];
  if (!version || !layer || !rate || !kbps) return undefined;
  const sampleRate = rate / (version === 2.5 ? 4 : version);
  const samples = layer === 3 && version !== 1 ? 576 : 1152;
  const length = Math.floor((samples * kbps * 125) / sampleRate) + ((b2 >> 1) & 1);
  const channels = b3 >> 6 === 3 ? 1 : 2;
  const side = version === 1 ? (channels === 1 ? 17 : 32) : channels === 1 ? 9 : 17;
  return { length, samples, channels, sampleRate, tagAt: 4 + side, version };
}

const alike = (a: Mp3Frame, b: Mp3Frame) => a.sampleRate === b.sampleRate && a.version === b.version;

/**
 * The first frame at or behind `at` with two like ones behind it, or fewer before a tag or the end; -1 if there is none within
 * 64 KiB. What is not where a frame was expected needs at least one like frame behind it.
 */
export function firstMp3Frame(bytes: Uint8Array, from: number): number {
  for (let at = from, last = Math.min(bytes.length - 4, from + SEARCH); at <= last; at++) {
    const frame = mp3Frame(bytes, at);
    if (!frame) continue;
    let behind = 0;
    let end = at + frame.length;
    for (let next = mp3Frame(bytes, end); next && alike(next, frame) && behind < 2; next = mp3Frame(bytes, end)) {
      behind++;
      end += next.length;
    }
    if (behind === 2 || ((at === 0 || behind > 0) && (end >= bytes.length || tagIn(bytes, end)))) return at;
  }
  return -1;
}

/** Whether a layer II or III header of free bit rate stands here: the length of such frames is not told by the header. */
export function isFreeFormat(bytes: Uint8Array, at: number): boolean {
  return (
    bytes[at] === 0xff &&
    bytes[at + 1]! >> 5 === 7 &&
    (bytes[at + 2]! & 0xf0) === 0 &&
    mp3Frame(Uint8Array.of(0xff, bytes[at + 1]!, bytes[at + 2]! | 0x10, bytes[at + 3]!), 0) !== undefined
  );
}

/** A tag that begins here: its kind, and its length in bytes as far as it is told. */
function tagIn(bytes: Uint8Array, at: number): { kind: string; length: number } | undefined {
  const is = (text: string) => ascii(bytes, at, at + text.length) === text;
  const id3 = id3Length(bytes, at);
  if (id3 > 0) return { kind: 'ID3v2', length: id3 };
  if (is('TAG+')) return { kind: 'ID3v1', length: 227 };
  if (is('TAG')) return { kind: 'ID3v1', length: 128 };
  if (is('APETAGEX') && at + 32 <= bytes.length) {
    const view = new DataView(bytes.buffer, bytes.byteOffset + at, 32);
    const isHeader = (view.getUint32(20, true) & 0x20000000) !== 0;
    // The size counts the items and the footer; a footer that stands alone ends the tag.
    return { kind: 'APE', length: 32 + (isHeader ? view.getUint32(12, true) : 0) };
  }
  if (is('LYRICSBEGIN')) {
    for (let i = at + 11; i + 9 <= bytes.length; i++)
      if (['LYRICS200', 'LYRICSEND'].includes(ascii(bytes, i, i + 9))) return { kind: 'Lyrics3', length: i + 9 - at };
    return { kind: 'Lyrics3', length: bytes.length - at };
  }
  return undefined;
}

/** Length of the ID3v2 tag that begins at `at`, 0 if none does. */
export function id3Length(bytes: Uint8Array, at: number): number {
  if (ascii(bytes, at, at + 3) !== 'ID3' || at + 10 > bytes.length) return 0;
  const [a, b, c, d] = [bytes[at + 6]!, bytes[at + 7]!, bytes[at + 8]!, bytes[at + 9]!];
  if (bytes[at + 3] === 0xff || (a | b | c | d) & 0x80) return 0;
  return 10 + (a << 21) + (b << 14) + (c << 7) + d + (bytes[at + 5]! & 0x10 ? 10 : 0);
}

/**
 * Opens an MPEG audio file. Zeros and junk before the first frame and tags between frames (joined files) are passed over, and a
 * last frame that is cut short is left out, with a warning.
 * @throws ERR_AUDIO_FORMAT if there is no frame; its `pieces` throw it if the Xing/Info tag announces more frames than there
 * are, if much of the file is no audio frame, or if the sample rate changes. A file of constant bit rate without such a tag
 * that is cut exactly between frames cannot be told apart.
 */
export async function openMp3(reader: ByteReader, context: ReaderContext): Promise<AudioPieces> {
  for (let tag = tagIn(await reader.peek(SEARCH), 0); tag; tag = tagIn(await reader.peek(SEARCH), 0))
    if ((await reader.skip(tag.length)) < tag.length)
      throw refusal(context, `truncated MP3: it ends within its ${tag.kind} tag`);
  const head = await reader.peek(2 * SEARCH);
  if (head.length === 0) throw refusal(context, 'truncated MP3: it ends behind its tags');
  const start = firstMp3Frame(head, 0);
  if (start < 0)
    throw refusal(
      context,
      isFreeFormat(head, 0) ? 'MPEG audio of free bit rate is not read' : 'no MPEG audio frame was found',
    );
  if (start > 0) context.warn(`${start} bytes before the first MPEG audio frame were ignored`);
  const frame = mp3Frame(head, start)!;
  const { sampleRate, channels } = frame;
  // A little more than there will be: what the encoder's delay and padding take is not told apart here.
  const length = (announcedFrames(head.subarray(start, start + frame.length), frame) ?? 0) * frame.samples;
  await reader.skip(start);
  return { sampleRate, channels, length: length > 0 ? length : undefined, pieces: mp3Pieces(reader, frame, context) };
}

/** What the frames of one file, of several that may be joined, were found to be. */
interface Link {
  /** Of the Xing/Info tag; 0 without one. */
  announced: number;
  /** With the tag's own frame. */
  count: number;
}

async function* mp3Pieces(
  reader: ByteReader,
  first: Mp3Frame,
  context: ReaderContext,
): AsyncGenerator<Float32Array[], void> {
  let mpg123 = await decoder();
  let stereo = first.channels === 2;
  let any = false;
  try {
    const walk = batches(reader, first, context);
    let next = await walk.next();
    for (; !next.done; next = await walk.next()) {
      const { frames, begins, channels } = next.value;
      if (begins) {
        mpg123.free();
        mpg123 = await decoder();
      }
      stereo ||= channels === 2;
      const { channelData } = await decoded(context, () => mpg123.decode(frames));
      // mpg123 gives two channels always. Where stereo follows mono, both are mixed as one; of mono that changes nothing.
      const [left, right] = channelData as [Float32Array, Float32Array];
      any ||= left.length > 0;
      yield* pieces(first.channels === 2 ? [left, right] : [stereo ? mean([left, right]) : left]);
    }
    // The first frames may hold no more than the encoder's delay.
    if (next.value && !any) throw refusal(context, 'truncated MP3: its first frames are cut short');
  } finally {
    mpg123.free();
  }
}

interface Batch {
  frames: Uint8Array;
  /** Whether a file begins that was joined to the one before. */
  begins: boolean;
  /** The most that a frame of it has. */
  channels: number;
}

/**
 * Walks the frames to the end of the file and checks what lies between them.
 * @returns at last, whether the last frame is cut short
 */
async function* batches(reader: ByteReader, first: Mp3Frame, context: ReaderContext): AsyncGenerator<Batch, boolean> {
  let link: Link = { announced: 0, count: 0 };
  let frames: Uint8Array[] = [];
  let channels = 1;
  let begins = false;
  let junk = 0;
  let joined = false;
  let cut = false;
  /** A tag between frames is the seam of two files; one behind all frames is where tags belong. */
  let seam = false;
  const batch = (): Batch => {
    const all = { frames: concat(frames), begins, channels };
    frames = [];
    begins = false;
    channels = 1;
    return all;
  };
  const endLink = (warning: string) => {
    // The tag's own frame is not in its count; writers that do count it are forgiven.
    if (link.count >= link.announced) return warning;
    const found = `announces ${link.announced} frames and ${link.count - 1} whole ones are there`;
    if (!warning) throw refusal(context, `truncated MP3: it ${found}`);
    return `${warning}; it ${found}`;
  };
  for (;;) {
    let bytes = await reader.peek(SEARCH);
    const frame = mp3Frame(bytes, 0);
    if (frame && alike(frame, first) && frame.length <= bytes.length) {
      const announced = announcedFrames(bytes, frame);
      if (announced !== undefined) {
        if (link.count > 0) {
          endLink('');
          if (frames.length > 0) yield batch();
          begins = true;
          seam = true;
        }
        link = { announced, count: 0 };
      }
      joined ||= seam;
      frames.push(copy(await reader.take(frame.length)));
      channels = Math.max(channels, frame.channels);
      link.count++;
      if (frames.length === BATCH) yield batch();
      continue;
    }
    if (frames.length > 0) yield batch();
    const position = reader.position;
    if (bytes.length === 0) break;
    if ((frame && alike(frame, first)) || (bytes[0] === 0xff && bytes.length < 4)) {
      const length = frame ? `of ${frame.length} bytes ` : '';
      context.warn(endLink(`the last MP3 frame ${length}is cut short after ${bytes.length} bytes and was ignored`));
      cut = true;
      break;
    }
    const tag = tagIn(bytes, 0);
    if (tag) {
      await reader.skip(tag.length);
      seam = true;
      continue;
    }
    const zeros = bytes.findIndex((byte) => byte !== 0);
    if (zeros !== 0) {
      await reader.skip(zeros < 0 ? bytes.length : zeros);
      continue;
    }
    bytes = await reader.peek(2 * SEARCH);
    const follower = frame && mp3Frame(bytes, frame.length);
    if (frame && follower && alike(frame, follower))
      throw refusal(context, `the MP3 changes from ${first.sampleRate} to ${frame.sampleRate} Hz at byte ${position}`);
    const next = firstMp3Frame(bytes, 1);
    const between = next < 0 ? bytes.length : next;
    junk += between;
    if (junk > MOST_JUNK)
      throw refusal(context, `damaged MP3: the ${between} bytes from byte ${position} on are no audio frames`);
    await reader.skip(between);
  }
  if (!cut) endLink('');
  if (joined) context.warn('several MP3 files were joined');
  if (junk > 0) context.warn(`${junk} bytes between or behind the MP3 frames were ignored`);
  return cut;
}

/** The count of frames in a Xing/Info tag: undefined without a tag, 0 where it tells none. */
function announcedFrames(bytes: Uint8Array, frame: Mp3Frame): number | undefined {
  const at = frame.tagAt;
  if (at + 12 > frame.length || !['Xing', 'Info'].includes(ascii(bytes, at, at + 4))) return undefined;
  return bytes[at + 7]! & 1 ? new DataView(bytes.buffer, bytes.byteOffset + at + 8, 4).getUint32(0) : 0;
}
