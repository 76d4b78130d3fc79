/** Audio inside a tar archive, plain or gzipped, which is read forward and never unpacked. */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { pipeline, type Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { DistilWhisperError, fileReadError, isDistilWhisperError, systemCode } from '../../errors/index.js';
import { BLOCK_BYTES, blockOf, blocksOf, MIXED_BYTES, type SourceBlocks } from '../block-order.js';
import { checkRelative } from '../confined.js';
import type { RowSource } from '../dataset.js';
import type { RowStore } from '../row-store.js';
import { type Block, BlockCache, type BlockMemory } from './block-cache.js';
import { throwIfAborted } from './corpus.js';

/** An hour of 16 kHz float samples has 230 MB. */
const MAX_MEMBER_BYTES = 2 ** 28;
const MAX_MEMBERS = 2 ** 21;

export interface Member {
  /** Its place among the members that are files or links. */
  number: number;
  name: string;
  size: number;
  /** Why it is not taken; null where it is. */
  refused: string | null;
}

interface OpenMember extends Member {
  body: Readable;
}

/** The members of an archive, in order; each body is to be read before the next one is asked for, or is passed over. */
async function* membersOf(path: string): AsyncGenerator<OpenMember, void, undefined> {
  const { extract } = await import('tar-stream');
  const unpacked = extract();
  const file = createReadStream(path, { highWaterMark: 2 ** 20 });
  let failure: unknown;
  const failed = (error: unknown): void => {
    failure ??= error;
  };
  const gzipped = await startsWith(path, [0x1f, 0x8b]);
  // The types of two kinds of streams that understand each other.
  const sink = unpacked as unknown as NodeJS.WritableStream;
  if (gzipped) pipeline(file, createGunzip(), sink, failed);
  else pipeline(file, sink, failed);
  let number = 0;
  try {
    for await (const entry of unpacked) {
      const { name, type, size = 0 } = entry.header;
      const body = entry as unknown as Readable;
      if (type === 'directory') {
        body.resume();
        continue;
      }
      if (number === MAX_MEMBERS)
        throw new DistilWhisperError('ERR_MANIFEST', `${path}: expected at most ${MAX_MEMBERS} members`);
      yield { number: number++, name, size, refused: reasonAgainst(name, type ?? 'file', size), body };
      // What nobody read is passed over.
      body.resume();
    }
  } catch (error) {
    if (isDistilWhisperError(error)) throw error;
    const cause = failure ?? error;
    if (systemCode(cause) !== undefined && (cause as NodeJS.ErrnoException).syscall !== undefined)
      throw fileReadError(cause, path);
    throw damaged(path, number, cause);
  } finally {
    unpacked.destroy();
    file.destroy();
  }
}

const damaged = (path: string, number: number, cause: unknown): DistilWhisperError =>
  new DistilWhisperError(
    'ERR_MANIFEST',
    `${path}: the archive is damaged in or behind its file ${number} (${cause instanceof Error ? cause.message : String(cause)})`,
    { cause },
  );

function reasonAgainst(name: string, type: string, size: number): string | null {
  const shown = JSON.stringify(name.slice(0, 120));
  if (type !== 'file' && type !== 'contiguous-file') return `${shown} is a ${type} in the archive, expected a file`;
  if (size > MAX_MEMBER_BYTES) return `${shown} has ${size} bytes, expected at most ${MAX_MEMBER_BYTES}`;
  try {
    checkRelative(name);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

async function startsWith(path: string, magic: readonly number[]): Promise<boolean> {
  try {
    const file = await open(path);
    try {
      const { buffer } = await file.read(Buffer.alloc(magic.length), 0, magic.length, 0);
      return magic.every((byte, i) => buffer[i] === byte);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fileReadError(error, path);
  }
}

/** What is in an archive, which is read through for it. Errors: ERR_MANIFEST (damaged), ERR_FILE_READ, ERR_INTERRUPTED. */
export async function readMembers(path: string, signal: AbortSignal | undefined): Promise<Member[]> {
  const members: Member[] = [];
  for await (const { body: _, ...member } of membersOf(path)) {
    throwIfAborted(signal);
    members.push(member);
  }
  return members;
}

async function bytesOf(body: Readable, size: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(size);
  let at = 0;
  for await (const piece of body as AsyncIterable<Uint8Array>) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes.subarray(0, at);
}

/** Rows whose audio are members of one archive, in its order. The place of a row: its member's number and size. */
export class ArchiveSource implements RowSource {
  weight = 1;
  set = 0;
  readonly blocks: SourceBlocks;
  private readonly cache: BlockCache;
  private stream: AsyncGenerator<OpenMember, void, undefined> | null = null;
  /** The block that the stream stands before. */
  private next = 0;

  constructor(
    private readonly path: string,
    readonly rows: RowStore,
    memory: BlockMemory,
  ) {
    this.cache = new BlockCache((block) => this.load(block), memory);
    this.blocks = { ...blocksOf(rows.length, (row) => rows.get(row).place[1]!), sequential: true };
  }

  async audio(row: number): Promise<Uint8Array> {
    const number = blockOf(this.blocks, row);
    const audio = (await this.cache.get(number)).audio[row - this.blocks.starts[number]!];
    if (audio instanceof Uint8Array) return audio;
    throw audio ?? new DistilWhisperError('ERR_MANIFEST', `${this.path}: the archive ends before row ${row}`);
  }

  identity(row: number): readonly [string, number] {
    const { entry, place } = this.rows.get(row);
    return [basename(entry.audio), place[1]!];
  }

  async close(): Promise<void> {
    await this.cache.close();
    await this.stream?.return();
    this.stream = null;
  }

  /** Reads on to the block, from the start where the archive was read past it; what is passed on the way is kept too. */
  private async load(block: number): Promise<ReadonlyMap<number, Block>> {
    if (!this.stream || block < this.next) {
      await this.stream?.return();
      this.stream = membersOf(this.path);
      this.next = 0;
    }
    const loaded = new Map<number, Block>();
    try {
      for (; this.next <= block; this.next++) {
        loaded.set(this.next, await this.readBlock(this.next));
        // Of a long way only what may be mixed with it is kept.
        loaded.delete(this.next - MIXED_BYTES / BLOCK_BYTES);
      }
    } catch (error) {
      const { stream } = this;
      this.stream = null;
      await stream?.return();
      const number = this.rows.get(this.blocks.starts[this.next]!).place[0]!;
      throw isDistilWhisperError(error) ? error : damaged(this.path, number, error);
    }
    return loaded;
  }

  private async readBlock(block: number): Promise<Block> {
    const { starts, bytes } = this.blocks;
    const audio: Uint8Array[] = [];
    for (let row = starts[block]!; row < (starts[block + 1] ?? this.rows.length); row++) {
      const wanted = this.rows.get(row).place[0]!;
      for (;;) {
        const { done, value } = await this.stream!.next();
        if (done)
          throw new DistilWhisperError(
            'ERR_MANIFEST',
            `${this.path}: the archive has changed, it ends before its file ${wanted}`,
          );
        if (value.number !== wanted) continue;
        audio.push(await bytesOf(value.body, value.size));
        break;
      }
    }
    return { audio, bytes: bytes[block]! };
  }
}
