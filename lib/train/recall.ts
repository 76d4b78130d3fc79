/** Micro-batches with what a teacher has said of them before. */
import { Prefetcher } from '../data/index.js';
import type { BatchSource, TrainBatch } from './batch.js';
import type { TeacherCache } from './teacher-cache.js';

/** Batches whose rows are read ahead. */
const LOOK_AHEAD = 2;

interface Coming {
  /** The first update that asks the teacher for it. */
  update: number;
  said: Promise<void>;
  tell(): void;
}

/**
 * Joins the batches of a source with the rows of a cache. An utterance's rows come from the cache from the update on behind the first
 * one that has it: when that is hangs on the order of the batches alone, not on how fast the disk is, so that a run has the same
 * numbers each time, and when it goes on from a checkpoint.
 */
export class RecallingBatches implements BatchSource {
  private readonly coming = new Map<string, Coming>();

  /** `keys`: of the utterances that batches name by their number; `accumulation`: batches of an update. */
  constructor(
    private readonly source: BatchSource,
    private readonly cache: TeacherCache,
    private readonly keys: readonly string[],
    private readonly accumulation: number,
  ) {}

  async *stream(from: number): AsyncGenerator<TrainBatch, void, undefined> {
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const ahead = new Prefetcher(this.recalled(from, ended), { lookAhead: LOOK_AHEAD, wait: 'teacher rows' });
    try {
      yield* ahead;
    } finally {
      // A wait for rows that nobody will say any more.
      end();
      await ahead.close();
    }
  }

  private async *recalled(from: number, ended: Promise<void>): AsyncGenerator<TrainBatch, void, undefined> {
    let isOver = false;
    ended.then(() => {
      isOver = true;
    });
    let micro = from;
    for await (const batch of this.source.stream(from)) {
      const update = Math.floor(micro++ / this.accumulation);
      const keys = batch.utterances!.map((i) => this.keys[i]!);
      const known = keys.every((key) => this.isSaidBefore(key, update));
      if (known) {
        await Promise.race([Promise.all(keys.map((key) => this.coming.get(key)?.said)), ended]);
        if (isOver) return;
      } else {
        for (const key of keys) this.expect(key, update);
      }
      const rows = known
        ? await Promise.all(keys.map((key, i) => this.cache.rows(key, batch.labels[i]!.length)))
        : null;
      yield {
        ...batch,
        recalled: keys.map((key, i) => ({ rows: rows?.[i] ?? null, keep: (said) => this.keep(key, said) })),
      };
    }
  }

  private isSaidBefore(key: string, update: number): boolean {
    const coming = this.coming.get(key);
    return coming ? coming.update < update : this.cache.has(key);
  }

  private expect(key: string, update: number): void {
    if (this.coming.has(key) || this.cache.has(key)) return;
    let tell = (): void => {};
    const said = new Promise<void>((resolve) => {
      tell = resolve;
    });
    this.coming.set(key, { update, said, tell });
  }

  private keep(key: string, rows: Promise<Uint16Array>): void {
    this.cache.add(key, rows);
    this.coming.get(key)?.tell();
  }
}
