/** Audio decoding off the main thread. */
import { availableParallelism } from 'node:os';
import { basename, extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { type EndOfWork, recording } from '../trace/index.js';
import {
  type AudioStream,
  collect,
  type DecodedAudio,
  type DecodeOptions,
  disposed,
  interrupted,
  nameOf,
  openAudio,
} from './decode.js';
import { type FromWorker, Job, type ToWorker } from './job.js';
import type { AudioInput } from './source.js';

export interface DecodePoolOptions {
  /** Number of threads; they start with the first file. Default: a processor is left to the caller, and no more than four help. */
  size?: number | undefined;
  /** The worker's module, for bundlers that move it. */
  workerUrl?: URL | undefined;
}

/** Samples that are decoded ahead of who takes them: a minute at Whisper's rate. */
const AHEAD = 60 * 16000;
/** Milliseconds that a thread is given to end the program that it decodes with. */
const GRACE = 500;

interface Thread {
  worker: Worker;
  ready: boolean;
  job: Job | undefined;
  /** Draws the job in a profile; undefined where none is taken. */
  draw: EndOfWork | undefined;
}

/**
 * A few worker threads that decode audio, at most `size` sources at once; the others wait in order. Idle threads do not keep the
 * process alive. If threads cannot start at all (for instance because the TypeScript loader is not active in them), a process
 * warning says why, once, and decoding goes on in the main thread.
 */
export class DecodePool {
  readonly size: number;
  /** null where a bundle does not say where its modules are. */
  readonly #url: URL | null;
  readonly #threads = new Set<Thread>();
  readonly #queue: Job[] = [];
  readonly #onMain = new Set<AudioStream>();
  #nextId = 0;
  #mainThread = false;
  #closed = false;

  constructor(options: DecodePoolOptions = {}) {
    checkOptions('DecodePool', options, { size: true, workerUrl: true });
    const size = options.size ?? Math.max(1, Math.min(4, availableParallelism() - 1));
    if (!Number.isInteger(size) || size < 1 || size > 64)
      throw new DistilWhisperError('ERR_ARGUMENT', `DecodePool: size must be a whole number from 1 to 64, got ${size}`);
    this.size = size;
    this.#url = options.workerUrl ?? ownWorker();
  }

  /** Threads that are running now. */
  get threads(): number {
    return this.#threads.size;
  }

  /** Like `decodeAudio`, in a worker thread. Also throws ERR_DISPOSED if the pool is closed before the file is decoded. */
  async decode(source: AudioInput, options: DecodeOptions = {}): Promise<DecodedAudio> {
    return collect(await this.#open(source, options, Number.POSITIVE_INFINITY));
  }

  /**
   * Like `openAudio`, in a worker thread that is this source's until its pieces have ended or it is closed; a minute is decoded
   * ahead. Also throws ERR_DISPOSED if the pool is closed before.
   */
  open(source: AudioInput, options: DecodeOptions = {}): Promise<AudioStream> {
    return this.#open(source, options, AHEAD);
  }

  /** Stops all threads. Sources that wait or are being decoded are rejected with ERR_DISPOSED. Can be called again. */
  async close(): Promise<void> {
    this.#closed = true;
    const threads = [...this.#threads];
    this.#threads.clear();
    for (const job of this.#queue.splice(0)) job.abandon(closedError(job.name));
    const ending = threads.map(async ({ worker, job }) => {
      if (job) {
        job.abandon(closedError(job.name));
        const replied = new Promise<void>((resolve) => {
          worker.on('message', ({ type }: FromWorker) => {
            if (type === 'end' || type === 'error') resolve();
          });
        });
        worker.postMessage({ type: 'close', id: job.id } satisfies ToWorker);
        // A thread that is told to close ends its ffmpeg; one that does not come to hear it is ended all the same.
        await Promise.race([replied, new Promise((resolve) => setTimeout(resolve, GRACE).unref())]);
      }
      await worker.terminate();
    });
    await Promise.all([...ending, ...[...this.#onMain].map((audio) => audio.close())]);
  }

  async #open(source: AudioInput, options: DecodeOptions, credit: number): Promise<AudioStream> {
    const name = nameOf(source, options);
    if (this.#closed) throw closedError(name);
    if (this.#mainThread) return this.#openHere(source, options);
    const { signal, ...sent } = options;
    const job = new Job(this.#nextId++, source, sent, name, credit);
    const drop = (): void => this.#drop(job, interrupted(name));
    if (signal?.aborted) throw interrupted(name);
    signal?.addEventListener('abort', drop, { once: true });
    job.onOver = () => signal?.removeEventListener('abort', drop);
    this.#queue.push(job);
    this.#dispatch();
    const { sampleRate, channels, expected } = await job.opened;
    return {
      sampleRate,
      channels,
      expected,
      warnings: job.warnings,
      pieces: job.pieces(),
      get duration() {
        return job.duration;
      },
      close: async () => this.#drop(job, disposed(name)),
    };
  }

  async #openHere(source: AudioInput, options: DecodeOptions): Promise<AudioStream> {
    const audio = await openAudio(source, options);
    this.#onMain.add(audio);
    const close = async (): Promise<void> => {
      this.#onMain.delete(audio);
      await audio.close();
    };
    if (this.#closed) await close();
    return Object.create(audio, { close: { value: close } }) as AudioStream;
  }

  /** Nobody takes the rest of it. */
  #drop(job: Job, why: DistilWhisperError): void {
    if (job.over) return;
    job.abandon(why);
    const at = this.#queue.indexOf(job);
    if (at >= 0) this.#queue.splice(at, 1);
    job.send?.({ type: 'close', id: job.id });
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      let thread = [...this.#threads].find((each) => !each.job);
      if (!thread && this.#threads.size < this.size) thread = this.#start();
      if (!thread) return;
      const { worker } = thread;
      const job = this.#queue.shift()!;
      thread.job = job;
      thread.draw = recording()?.begin('audio worker');
      worker.ref();
      job.send = (message) => worker.postMessage(message);
      const { id, source, options, credit } = job;
      try {
        job.send({ type: 'open', id, source, options, credit });
      } catch (error) {
        // What cannot be sent to a thread: the thread is still free.
        thread.job = undefined;
        worker.unref();
        job.fail(error as Error);
      }
    }
  }

  #start(): Thread | undefined {
    let thread: Thread;
    try {
      if (!this.#url) throw new Error('this bundle does not say where its modules are (workerUrl may)');
      thread = { worker: startWorker(this.#url), ready: false, job: undefined, draw: undefined };
    } catch (error) {
      this.#fallBack(error as Error);
      return undefined;
    }
    this.#threads.add(thread);
    thread.worker.on('message', (message: FromWorker) => this.#hear(thread, message));
    let cause: Error | undefined;
    thread.worker.on('error', (error) => {
      cause = error;
    });
    thread.worker.on('exit', (code) => this.#lost(thread, cause ?? new Error(`the thread ended with status ${code}`)));
    return thread;
  }

  #hear(thread: Thread, message: FromWorker): void {
    if (message.type === 'ready') {
      thread.ready = true;
      return;
    }
    const { job } = thread;
    // Behind close() the thread is waited for: unref() would let the process end before.
    if (job?.id !== message.id || !this.#threads.has(thread)) return;
    if (message.type === 'opened') job.open(message);
    else if (message.type === 'piece') job.take(message.samples);
    else this.#finish(thread, job, message);
  }

  #finish(thread: Thread, job: Job, message: FromWorker & { type: 'end' | 'error' }): void {
    thread.job = undefined;
    job.send = null;
    thread.worker.unref();
    thread.draw?.('decode', { file: basename(job.name) }, message.times);
    if (message.type === 'end') job.end(message.duration, message.warnings);
    else {
      const { code, message: text } = message.error;
      job.fail(code ? new DistilWhisperError(code, text) : new Error(text));
    }
    this.#dispatch();
  }

  #lost(thread: Thread, cause: Error): void {
    if (!this.#threads.delete(thread)) return;
    const { job } = thread;
    if (!thread.ready) {
      if (job) this.#queue.unshift(job);
      this.#fallBack(cause);
      return;
    }
    job?.fail(new Error(`${job.name}: the decoding thread died (${cause.message})`, { cause }));
    this.#dispatch();
  }

  #fallBack(cause: Error): void {
    if (!this.#mainThread)
      process.emitWarning(
        `Audio is decoded in the main thread, because a worker thread did not start: ${cause.message.split('\n')[0]}`,
        { code: 'DISTILWHISPER_DECODE_POOL' },
      );
    this.#mainThread = true;
    for (const job of this.#queue.splice(0)) void this.#decodeHere(job);
  }

  async #decodeHere(job: Job): Promise<void> {
    job.send = null;
    try {
      const audio = await this.#openHere(job.source, job.options);
      job.open(audio);
      try {
        for await (const piece of audio.pieces) {
          if (job.over) break;
          job.take(piece);
        }
        job.end(audio.duration, audio.warnings);
      } finally {
        await audio.close();
      }
    } catch (error) {
      job.fail(error as Error);
    }
  }
}

/** The worker stands beside this module with the same ending: .js when compiled, .ts when run from source. */
function ownWorker(): URL | null {
  try {
    return new URL(`./worker${extname(new URL(import.meta.url).pathname)}`, import.meta.url);
  } catch {
    return null;
  }
}

/** Run from source, the main thread's TypeScript loader (tsx) is not active in worker threads: it is registered there first. */
function startWorker(url: URL): Worker {
  // Threads inherit node's options, and refuse this one, which belongs to a script given on the command line.
  const inherits = !process.execArgv.some((arg) => arg.startsWith('--input-type'));
  // A pipe's descriptor is closed by its socket, not by the file system's functions.
  const options = { trackUnmanagedFds: false };
  if (extname(url.pathname) !== '.ts') return new Worker(url, inherits ? options : { ...options, execArgv: [] });
  const [loader, module] = [import.meta.resolve('tsx/esm/api'), url.href].map((href) => JSON.stringify(href));
  return new Worker(`import(${loader}).then(({ register }) => (register(), import(${module})))`, {
    ...options,
    eval: true,
  });
}

const closedError = (name: string) =>
  new DistilWhisperError('ERR_DISPOSED', `${name}: the decode pool was closed before the file was decoded`);
