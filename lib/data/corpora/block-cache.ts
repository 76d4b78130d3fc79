/** Blocks of rows' audio that were read and may be asked for again soon. */
import { MIXED_BYTES } from '../block-order.js';

export interface Block {
  /** Audio of the block's rows, from its first one on. */
  audio: readonly (Uint8Array | Error)[];
  bytes: number;
}

/**
 * What the caches of one data set hold together: of an epoch as `blockOrder` deals it, the blocks that are mixed and the ones that come next.
 * The one that was not used for longest goes first.
 */
export class BlockMemory {
  private readonly held = new Map<Block, () => void>();
  private bytes = 0;

  /** Keeps a block, until `drop` is called for it. */
  add(block: Block, drop: () => void): void {
    this.held.set(block, drop);
    this.bytes += block.bytes;
    for (const oldest of this.held.keys()) {
      // The last one is asked for again in any case.
      if (this.bytes <= 2 * MIXED_BYTES || oldest === block) return;
      this.remove(oldest)?.();
    }
  }

  touch(block: Block): void {
    const drop = this.held.get(block);
    if (!drop) return;
    this.held.delete(block);
    this.held.set(block, drop);
  }

  remove(block: Block): (() => void) | undefined {
    const drop = this.held.get(block);
    if (drop && this.held.delete(block)) this.bytes -= block.bytes;
    return drop;
  }
}

/**
 * Loads blocks one at a time and keeps the last ones. `load` gives the block that is asked for, and others that it came across.
 */
export class BlockCache {
  private readonly blocks = new Map<number, Block>();
  private last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly load: (block: number) => Promise<ReadonlyMap<number, Block>>,
    private readonly memory: BlockMemory,
  ) {}

  async get(number: number): Promise<Block> {
    const here = this.touch(number);
    if (here) return here;
    const loaded = this.last.then(async () => {
      const meanwhile = this.touch(number);
      if (meanwhile) return meanwhile;
      const fresh = await this.load(number);
      for (const [key, block] of fresh) {
        const old = this.blocks.get(key);
        if (old) this.memory.remove(old);
        this.blocks.set(key, block);
        this.memory.add(block, () => this.blocks.delete(key));
      }
      return fresh.get(number)!;
    });
    this.last = loaded.catch(() => {});
    return loaded;
  }

  /** Waits for what is under way, and forgets all. */
  async close(): Promise<void> {
    await this.last;
    for (const block of this.blocks.values()) this.memory.remove(block);
    this.blocks.clear();
  }

  private touch(number: number): Block | undefined {
    const block = this.blocks.get(number);
    if (block) this.memory.touch(block);
    return block;
  }
}
