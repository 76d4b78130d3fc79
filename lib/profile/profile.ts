/** Taking a profile: where the time of everything between `start` and `stop` goes, as a trace on disk. */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { constants, type PerformanceEntry, PerformanceObserver } from 'node:perf_hooks';
import { DistilWhisperError } from '../errors/index.js';
import { cudaDeviceNumber, cudaReport, packageRoot } from '../native/index.js';
import { Recorder, recording, setRecorder, TraceFile } from '../trace/index.js';
import { type CeilingOptions, measureCeilings } from './ceilings.js';

/** Milliseconds between two looks at how much the streams have recorded. */
const LOOK_EVERY = 100;

/** Names of the events with what the whole trace is about. */
export const HEAD = 'distilwhisper';
export const END = 'distilwhisper end';
/** Of the head: what reads another one does not know this. */
export const FORMAT = 1;

/** Of which device, or threads and instructions, the ceilings are measured that the trace is held against. */
export type ProfileOptions = CeilingOptions;

const GC_KINDS: Record<number, string> = {
  [constants.NODE_PERFORMANCE_GC_MINOR]: 'minor',
  [constants.NODE_PERFORMANCE_GC_MAJOR]: 'major',
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL]: 'incremental',
  [constants.NODE_PERFORMANCE_GC_WEAKCB]: 'weak callbacks',
};

let starting = false;

/**
 * A profile under way. It covers every stream of this thread of JavaScript, those that exist and those still to be made, the
 * thread itself, the loaders and the audio workers. Perfetto (https://ui.perfetto.dev) and chrome://tracing show the file;
 * `readProfile` sums it up. Memory is bounded however long it runs: what has run is written once a second, or sooner where it is much, and what a
 * killed process has written so far is a trace too.
 */
export class Profile {
  private readonly timer: NodeJS.Timeout;
  private readonly garbage: PerformanceObserver;
  private readonly atExit = (): void => {
    try {
      this.stop();
    } catch {
      // The process ends; the trace ends early.
    }
  };
  private stopped = false;

  private constructor(
    private readonly file: TraceFile,
    private readonly recorder: Recorder,
  ) {
    setRecorder(recorder);
    this.timer = setInterval(() => recorder.tick(), LOOK_EVERY).unref();
    this.garbage = new PerformanceObserver((list) => this.collected(list.getEntries()));
    this.garbage.observe({ entryTypes: ['gc'] });
    process.on('exit', this.atExit);
  }

  /**
   * Measures the machine's ceilings, which takes a second, opens the trace, replacing a file of that name, and begins.
   * Errors: ERR_ARGUMENT (device, threads, instruction set, or a profile is being taken already); those of `measureCeilings`;
   * ERR_FILE_WRITE (a folder, no permission, no such folder), ERR_DISK_FULL.
   */
  static async start(path: string, options: ProfileOptions = {}): Promise<Profile> {
    if (starting || recording()) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `${path}: expected one profile at a time, got one that is being taken`,
      );
    }
    starting = true;
    try {
      // Before the file is touched: there may be no such device.
      const ceilings = await measureCeilings(options);
      const file = new TraceFile(path);
      try {
        const { version } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as {
          version: string;
        };
        const gpu = ceilings.isa === 'cuda' ? cudaReport().devices[cudaDeviceNumber(ceilings.device)]?.name : undefined;
        const machine = {
          cpu: cpus()[0]?.model.trim() ?? 'unknown',
          processors: cpus().length,
          gpu,
          node: process.version,
        };
        const started = new Date().toISOString();
        const args = { format: FORMAT, version, started, machine, ceilings };
        file.add(JSON.stringify({ ph: 'M', pid: 1, name: HEAD, args }));
        return new Profile(file, new Recorder(file));
      } catch (error) {
        file.close();
        throw error;
      }
    } finally {
      starting = false;
    }
  }

  /**
   * Writes the rest and ends the trace. Calls that are still queued are not in it: `sync()` or close their stream first. Can
   * be called again. Errors: ERR_DISK_FULL, ERR_FILE_WRITE: the trace ends where the disk refused it.
   */
  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    process.off('exit', this.atExit);
    clearInterval(this.timer);
    this.collected(this.garbage.takeRecords());
    this.garbage.disconnect();
    const { recorder, file } = this;
    recorder.drain();
    recorder.end();
    setRecorder(null);
    const args = { seconds: recorder.now() / 1e6, lost: recorder.lost };
    file.add(JSON.stringify({ ph: 'M', pid: 1, name: END, args }));
    file.close();
  }

  private collected(entries: readonly (PerformanceEntry & { detail?: unknown })[]): void {
    for (const { startTime, duration, detail } of entries) {
      const begin = this.recorder.fromPerformance(startTime);
      const kind = GC_KINDS[(detail as { kind: number }).kind] ?? 'other';
      if (begin >= 0) this.recorder.onThread('garbage collection', begin, begin + duration * 1e3, { kind });
    }
  }
}
