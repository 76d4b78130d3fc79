/** Audio decoding off the main thread. */
import { availableParallelism } from 'node:os';
import { basename, extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { DistilWhisperError, type ErrorCode } from '../errors/index.js';
import { type EndOfWork, recording } from '../profile/index.js';
import { type DecodedAudio, type DecodeOptions, decodeAudio } from './decode.js';

export interface DecodeRequest {
  id: number;
  source: string | Uint8Array;
  name: string;
}

/** `times`: when it was decoded, in nanoseconds of process.hrtime. */
export type DecodeReply = { id: number; times: { begin: number; end: number } } & (
  | { audio: DecodedAudio }
  | { error: { code: ErrorCode | undefined; message: string } }
);

interface Job extends DecodeRequest {
  resolve(audio: DecodedAudio): void;
  reject(error: Error): void;
}

interface Thread {
  worker: Worker;
  ready: boolean;
  job: Job | undefined;
  /** Draws the job in a profile; undefined where none is taken. */
  draw: EndOfWork | undefined;
}

export interface DecodePoolOptions {
  /** Number of threads; they start with the first file. Default: a processor is left to the caller, and no more than four help. */
  size?: number;
  /** The worker's module, for bundlers that move it. */
  workerUrl?: URL;
}

/**
 * A few worker threads that decode audio. `decode` has the results and errors of `decodeAudio`; at most `size` files are decoded
 * at once and the others wait in order. Idle threads do not keep the process alive. If threads cannot start at all (for
 * instance because the TypeScript loader is not active in them), a process warning says why, once, and decoding goes on in
 * the main thread.
 */
export class DecodePool {
  readonly size: number;
  readonly #url: URL;
  readonly #threads = new Set<Thread>();
  readonly #queue: Job[] = [];
  #nextId = 0;
  #mainThread = false;
  #closed = false;

  constructor(options: DecodePoolOptions = {}) {
    const size = options.size ?? Math.max(1, Math.min(4, availableParallelism() - 1));
    if (!Number.isInteger(size) || size < 1 || size > 64)
      throw new DistilWhisperError('ERR_ARGUMENT', `DecodePool: size must be a whole number from 1 to 64, got ${size}`);
    this.size = size;
    // The worker stands beside this module with the same ending: .js when compiled, .ts when run from source.
    this.#url = options.workerUrl ?? new URL(`./worker${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
  }

  /** Threads that are running now. */
  get threads(): number {
    return this.#threads.size;
  }

  /** Like `decodeAudio`, in a worker thread. Also throws ERR_DISPOSED if the pool is closed before the file is decoded. */
  decode(source: string | Uint8Array, options: DecodeOptions = {}): Promise<DecodedAudio> {
    const name = options.name ?? (typeof source === 'string' ? source : 'the audio');
    if (this.#closed) return Promise.reject(closedError(name));
    if (this.#mainThread) return decodeAudio(source, { name });
    return new Promise((resolve, reject) => {
      this.#queue.push({ id: this.#nextId++, source, name, resolve, reject });
      this.#dispatch();
    });
  }

  /** Stops all threads. Files that wait or are being decoded are rejected with ERR_DISPOSED. Can be called again. */
  async close(): Promise<void> {
    this.#closed = true;
    const threads = [...this.#threads];
    this.#threads.clear();
    const jobs = [...threads.flatMap((thread) => thread.job ?? []), ...this.#queue.splice(0)];
    for (const job of jobs) job.reject(closedError(job.name));
    await Promise.all(threads.map((thread) => thread.worker.terminate()));
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      let thread = [...this.#threads].find((each) => !each.job);
      if (!thread && this.#threads.size < this.size) thread = this.#start();
      if (!thread) return;
      const job = this.#queue.shift()!;
      thread.job = job;
      thread.draw = recording()?.begin('audio worker');
      thread.worker.ref();
      const { id, source, name } = job;
      thread.worker.postMessage({ id, source, name } satisfies DecodeRequest);
    }
  }

  #start(): Thread | undefined {
    let thread: Thread;
    try {
      thread = { worker: startWorker(this.#url), ready: false, job: undefined, draw: undefined };
    } catch (error) {
      this.#fallBack(error as Error);
      return undefined;
    }
    this.#threads.add(thread);
    thread.worker.on('message', (reply: DecodeReply | 'ready') => {
      if (reply === 'ready') thread.ready = true;
      else this.#settle(thread, reply);
    });
    let cause: Error | undefined;
    thread.worker.on('error', (error) => {
      cause = error;
    });
    thread.worker.on('exit', (code) => this.#lost(thread, cause ?? new Error(`the thread ended with status ${code}`)));
    return thread;
  }

  #settle(thread: Thread, reply: DecodeReply): void {
    // Behind close() the thread is waited for: unref() would let the process end before.
    if (!this.#threads.has(thread)) return;
    const job = thread.job;
    thread.job = undefined;
    thread.worker.unref();
    if (job) thread.draw?.('decode', { file: basename(job.name) }, reply.times);
    if (job && 'audio' in reply) job.resolve(reply.audio);
    else if (job && 'error' in reply) {
      const { code, message } = reply.error;
      job.reject(code ? new DistilWhisperError(code, message) : new Error(message));
    }
    this.#dispatch();
  }

  #lost(thread: Thread, cause: Error): void {
    if (!this.#threads.delete(thread)) return;
    const job = thread.job;
    if (!thread.ready) {
      if (job) this.#queue.unshift(job);
      this.#fallBack(cause);
      return;
    }
    job?.reject(new Error(`${job.name}: the decoding thread died (${cause.message})`, { cause }));
    this.#dispatch();
  }

  #fallBack(cause: Error): void {
    if (!this.#mainThread)
      process.emitWarning(
        `Audio is decoded in the main thread, because a worker thread did not start: ${cause.message.split('\n')[0]}`,
        { code: 'DISTILWHISPER_DECODE_POOL' },
      );
    this.#mainThread = true;
    for (const job of this.#queue.splice(0)) decodeAudio(job.source, { name: job.name }).then(job.resolve, job.reject);
  }
}

/** Run from source, the main thread's TypeScript loader (tsx) is not active in worker threads: it is registered there first. */
function startWorker(url: URL): Worker {
  // Threads inherit node's options, and refuse this one, which belongs to a script given on the command line.
  const inherits = !process.execArgv.some((arg) => arg.startsWith('--input-type'));
  if (extname(url.pathname) !== '.ts') return new Worker(url, inherits ? {} : { execArgv: [] });
  const [loader, module] = [import.meta.resolve('tsx/esm/api'), url.href].map((href) => JSON.stringify(href));
  return new Worker(`import(${loader}).then(({ register }) => (register(), import(${module})))`, { eval: true });
}

const closedError = (name: string) =>
  new DistilWhisperError('ERR_DISPOSED', `${name}: the decode pool was closed before the file was decoded`);
