/** Ogg (RFC 3533): pages, their checksums and numbers, and the packets of one logical stream after another. */
import { type ByteReader, concat } from './bytes.js';
import { ascii, copy, type ReaderContext, refusal, UnknownCodec } from './reader.js';

const CRC32 = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});

const HEADER = 27;
/** 255 segments of 255 bytes. */
const LONGEST_PAGE = HEADER + 255 + 255 * 255;
/** No codec that is read here makes packets of audio as long as that. */
const LONGEST_PACKET = 4 << 20;

export interface OggPage {
  /** Offset in the file. */
  position: number;
  begins: boolean;
  ends: boolean;
  /** Whether the first packet goes on from the page before. */
  continued: boolean;
  serial: number;
  number: number;
  /** The codec's count of samples behind this page; undefined where no packet ends in it. */
  granule: number | undefined;
  /** The packets, and whether the last of them goes on in the next page. */
  parts: Uint8Array[];
  continues: boolean;
}

/** Length of the page at the start of `bytes`: 0 if none begins here, NaN if it is cut short. */
function pageLength(bytes: Uint8Array): number {
  const magic = ascii(bytes, 0, Math.min(4, bytes.length));
  if (magic !== 'OggS'.slice(0, bytes.length) || magic === '') return 0;
  const segments = bytes[26];
  if (segments === undefined || bytes.length < HEADER + segments) return Number.NaN;
  let length = HEADER + segments;
  for (let i = HEADER; i < HEADER + segments; i++) length += bytes[i]!;
  return length > bytes.length ? Number.NaN : length;
}

function checksumIsRight(page: Uint8Array): boolean {
  let crc = 0;
  for (let i = 0; i < page.length; i++) crc = (crc << 8) ^ CRC32[(crc >>> 24) ^ (i >= 22 && i < 26 ? 0 : page[i]!)]!;
  return crc >>> 0 === new DataView(page.buffer, page.byteOffset, page.byteLength).getUint32(22, true);
}

/** The first whole page with a right checksum that begins in `from` to `to`; `to` if there is none. */
function findPage(bytes: Uint8Array, from: number, to: number): number {
  for (let at = from; at < to; at++) {
    if (bytes[at] !== 0x4f || ascii(bytes, at, at + 5) !== 'OggS\0') continue;
    const length = pageLength(bytes.subarray(at));
    if (length > 0 && checksumIsRight(bytes.subarray(at, at + length))) return at;
  }
  return to;
}

function parsePage(page: Uint8Array, position: number): OggPage {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const flags = page[5]!;
  const segments = page[26]!;
  const parts: Uint8Array[] = [];
  let from = HEADER + segments;
  let to = from;
  let continues = false;
  for (let i = HEADER; i < HEADER + segments; i++) {
    to += page[i]!;
    continues = page[i] === 255;
    if (continues && i < HEADER + segments - 1) continue;
    parts.push(copy(page.subarray(from, to)));
    from = to;
  }
  const granule = view.getBigInt64(6, true);
  return {
    position,
    begins: (flags & 2) !== 0,
    ends: (flags & 4) !== 0,
    continued: (flags & 1) !== 0,
    serial: view.getUint32(14, true),
    number: view.getUint32(18, true),
    granule: granule < 0n ? undefined : Number(granule),
    parts,
    continues,
  };
}

/** The pages of a file in order. What is no page ends or damages it, see `next`. */
class OggPages {
  constructor(
    private readonly reader: ByteReader,
    private readonly context: ReaderContext,
  ) {}

  /**
   * The next page; undefined at the end of the file. Bytes before the first page, behind a stream's last one and between
   * joined files are passed over with a warning; so is a last page that is cut short.
   * @throws ERR_AUDIO_FORMAT if a page is damaged, or if bytes lie between the pages of one stream
   */
  async next(within: boolean): Promise<OggPage | undefined> {
    const { reader, context } = this;
    const position = reader.position;
    const bytes = await reader.peek(LONGEST_PAGE);
    if (bytes.length === 0) return undefined;
    const length = pageLength(bytes);
    if (Number.isNaN(length)) {
      if (findPage(bytes, 1, bytes.length) < bytes.length)
        throw refusal(context, `damaged Ogg file: the page at byte ${position} has no end`);
      context.warn(`the last Ogg page is cut short after ${bytes.length} bytes and was ignored`);
      await reader.skip(bytes.length);
      return undefined;
    }
    if (length > 0) {
      if (!checksumIsRight(bytes.subarray(0, length)))
        throw refusal(context, `damaged Ogg file: wrong checksum of the page at byte ${position}`);
      return parsePage(await reader.take(length), position);
    }
    const zeros = await this.goToNextPage();
    const next = await reader.peek(LONGEST_PAGE);
    if (next.length > 0 && within && !(next[5]! & 2))
      throw refusal(context, `damaged Ogg file: no page starts at byte ${position}`);
    if (next.length > 0 || !zeros)
      context.warn(`${reader.position - position} bytes from byte ${position} on are no Ogg pages and were ignored`);
    return next.length === 0 ? undefined : this.next(false);
  }

  /** Skips to the next whole page, or to the end; returns whether all skipped bytes were zero. */
  private async goToNextPage(): Promise<boolean> {
    let zeros = true;
    for (;;) {
      const bytes = await this.reader.peek(2 * LONGEST_PAGE);
      if (bytes.length === 0) return zeros;
      // Behind `to` a page may not lie whole in these bytes, unless they are the file's last.
      const to = bytes.length >= 2 * LONGEST_PAGE ? LONGEST_PAGE : bytes.length;
      const at = findPage(bytes, 0, to);
      for (let i = 0; zeros && i < at; i++) zeros = bytes[i] === 0;
      await this.reader.skip(at);
      if (at < to) return zeros;
    }
  }
}

/** A packet, and what its page tells of it. */
export interface OggPacket {
  bytes: Uint8Array;
  /** The first of a logical stream: it names the codec. */
  begins: boolean;
  /** Whether it is the last packet that ends in its page; then `granule` is the page's. */
  endsPage: boolean;
  granule: number | undefined;
}

/**
 * The packets of an Ogg file whose streams follow one another (a chain).
 * @returns at last, whether the file ends with an end mark
 * @throws ERR_AUDIO_FORMAT if pages are damaged or missing, or if several streams run at once
 */
export async function* oggPackets(reader: ByteReader, context: ReaderContext): AsyncGenerator<OggPacket, boolean> {
  const pages = new OggPages(reader, context);
  let serial: number | undefined;
  let number = 0;
  let ended = true;
  let earlyEnd = false;
  let joined = false;
  /** Pages of the stream so far; parts of a packet that goes on. */
  let count = 0;
  let open: Uint8Array[] = [];
  let openLength = 0;
  for (let page = await pages.next(false); page; page = await pages.next(!ended)) {
    if (page.begins) {
      if (!ended && count === 1) throw new UnknownCodec(context, 'Ogg with several streams at once');
      if (!ended) joined = true;
      serial = page.serial;
      count = 0;
      open = [];
      openLength = 0;
    } else if (page.serial !== serial || page.number !== number)
      throw refusal(
        context,
        serial === undefined
          ? 'damaged Ogg file: the first page of its stream is missing'
          : page.serial === serial
            ? `damaged Ogg file: pages are missing before byte ${page.position}`
            : `damaged Ogg file: the page at byte ${page.position} is of a stream without a first page`,
      );
    else if (ended) earlyEnd = true;
    if (page.continued !== open.length > 0 && count > 0)
      throw refusal(context, `damaged Ogg file: a packet is torn at byte ${page.position}`);
    number = (page.number + 1) >>> 0;
    ended = page.ends;
    const complete = page.parts.length - (page.continues ? 1 : 0);
    for (const [i, part] of page.parts.entries()) {
      open.push(part);
      openLength += part.length;
      if (i >= complete) break;
      const bytes = open.length === 1 ? part : concat(open);
      open = [];
      openLength = 0;
      const endsPage = i === complete - 1;
      yield { bytes, begins: count === 0 && i === 0, endsPage, granule: endsPage ? page.granule : undefined };
    }
    if (openLength > LONGEST_PACKET) {
      // Only comments with pictures are longer, and they are not needed.
      open = [open[0]!.subarray(0, 16)];
      openLength = 16;
    }
    count++;
  }
  if (open.length > 0 && serial !== undefined) context.warn('the last Ogg packet is cut short and was ignored');
  if (joined) context.warn('an Ogg stream without end mark is followed by another');
  if (earlyEnd) context.warn('an Ogg stream goes on behind its end mark');
  if (!ended) context.warn('the Ogg file ends without an end mark');
  return ended;
}
