/** A source on its way through a DecodePool, and what its threads are told and tell. */
import type { ErrorCode } from '../errors/index.js';
import type { AudioStream, DecodeOptions } from './decode.js';
import type { AudioInput } from './source.js';

/** What is known before the first piece. */
export type Opened = Pick<AudioStream, 'sampleRate' | 'channels' | 'expected'>;

export type ToWorker =
  | { type: 'open'; id: number; source: AudioInput; options: DecodeOptions; credit: number }
  /** So many samples were taken: as many more may be sent. */
  | { type: 'taken'; id: number; samples: number }
  | { type: 'close'; id: number };

/** `times`: when it was decoded, in nanoseconds of process.hrtime. */
export type FromWorker =
  | { type: 'ready' }
  | ({ type: 'opened'; id: number } & Opened)
  | { type: 'piece'; id: number; samples: Float32Array }
  | { type: 'end'; id: number; duration: number; warnings: string[]; times: { begin: number; end: number } }
  | {
      type: 'error';
      id: number;
      error: { code: ErrorCode | undefined; message: string };
      times: { begin: number; end: number };
    };

/** One source on its way through a pool. */
export class Job {
  readonly opened: Promise<Opened>;
  /** Called once, when nothing more comes of it. */
  onOver: () => void = () => {};
  warnings: string[] = [];
  duration = 0;
  /** How the thread that decodes it is reached; null before and after. */
  send: ((message: ToWorker) => void) | null = null;
  private readonly ready: Float32Array[] = [];
  private ended = false;
  private failure: Error | null = null;
  private wake: () => void = () => {};
  private resolve!: (opened: Opened) => void;
  private reject!: (error: Error) => void;

  constructor(
    readonly id: number,
    readonly source: AudioInput,
    readonly options: DecodeOptions,
    readonly name: string,
    /** Samples that may lie here. */
    readonly credit: number,
  ) {
    this.opened = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.opened.catch(() => {}); // Thrown where it is awaited.
  }

  /** Whether nothing more comes of it. */
  get over(): boolean {
    return this.ended || this.failure !== null;
  }

  open(audio: Opened): void {
    this.resolve(audio);
  }

  take(samples: Float32Array): void {
    if (this.over) return;
    this.ready.push(samples);
    this.wake();
  }

  end(duration: number, warnings: readonly string[]): void {
    this.duration = duration;
    this.warnings.push(...warnings);
    this.ended = true;
    this.onOver();
    this.wake();
  }

  /** Ends it where it is: what is ready is not taken any more. */
  abandon(error: Error): void {
    this.ready.length = 0;
    this.fail(error);
  }

  fail(error: Error): void {
    if (this.over) return;
    this.failure = error;
    this.onOver();
    this.reject(error);
    this.wake();
  }

  async *pieces(): AsyncGenerator<Float32Array, void, undefined> {
    for (;;) {
      const samples = this.ready.shift();
      if (samples) {
        this.send?.({ type: 'taken', id: this.id, samples: samples.length });
        yield samples;
      } else if (this.failure) throw this.failure;
      else if (this.ended) return;
      else
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
    }
  }
}
