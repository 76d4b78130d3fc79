/**
 * What a training run leaves on disk:
 *   run.json                     what is trained, with every option: a resumed run must ask for the same, but for its length
 *   run.lock                     which process works here, while it does
 *   log.jsonl                    one line an update or validation
 *   tensorboard/                 the same as curves, where they are asked for
 *   checkpoints/step-00000120/   state.json, state.safetensors: parameters, moments; the last two are kept
 *   best/                        parameters.safetensors of the best validation so far
 *   teacher-cache/               what the teacher said (teacher-cache.ts), where the run keeps it
 * A checkpoint is written beside, synced and renamed: a process killed at any moment leaves whole ones only.
 */
import { mkdir, open, readdir, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { DistilWhisperError, fileReadError, fileWriteError } from '../errors/index.js';
import {
  FolderLock,
  ifThere,
  isRemnant,
  proveFolder,
  readJsonObject,
  readWhole,
  removeFolderAtomic,
  writeFileAtomic,
  writeFolderAtomic,
} from '../files/index.js';
import type { DType, Tensor } from '../tensor/index.js';
import { openSafetensors, type WeightEntry, writeSafetensors } from '../weights/index.js';
import { type Extension, FORMAT, lengthOf, sameRun } from './run-identity.js';

export interface RunState {
  /** Updates done. */
  step: number;
  /** AdamW's updates of each parameter. */
  optimizerSteps: Record<string, number>;
  /** Best validation score so far (lower is better) and the step it belongs to. */
  best: { score: number; step: number } | null;
  /** Step of the last validation. */
  validated: number;
  /** Length of log.jsonl at this step: what a later, lost part of the run wrote behind it is cut off on resume. */
  logBytes: number;
}

const CHECKPOINT = /^step-(\d{8})$/;
const KEPT = 2;
/** The part that a run may leave which ended before it began. */
export const TEACHER_CACHE = 'teacher-cache';
/** Event files. */
export const CURVES = 'tensorboard';
const PARTS = {
  'run.json': 'file',
  'log.jsonl': 'file',
  'report.json': 'file',
  checkpoints: 'folder',
  best: 'folder',
  [TEACHER_CACHE]: 'folder',
  [CURVES]: 'folder',
};
const LOCK = 'run.lock';
const checkpointName = (step: number): string => `step-${String(step).padStart(8, '0')}`;

const lines = (value: unknown): Uint8Array => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);

const refuse = (what: string): never => {
  throw new DistilWhisperError('ERR_RUN', what);
};

/** What is in the folder: a run, or nothing but what a run leaves that ended before it began, or no folder at all. */
async function contentOf(path: string): Promise<'run' | 'nothing'> {
  let names: string[];
  try {
    const kind = await ifThere(stat(path));
    if (!kind) return 'nothing';
    if (!kind.isDirectory()) return refuse(`run folder ${path}: expected a folder, got a file`);
    names = await readdir(path);
    for (const [name, what] of Object.entries(PARTS)) {
      const part = await ifThere(stat(join(path, name)));
      if (part && part.isDirectory() !== (what === 'folder')) {
        return refuse(
          `run folder ${path}: expected ${name} to be a ${what}, got ${what === 'file' ? 'a folder' : 'a file'}`,
        );
      }
    }
    if (names.includes('run.json')) return 'run';
    const empty = await ifThere(readdir(join(path, 'checkpoints')).then((inside) => inside.length === 0));
    names = names.filter(
      (name) => name !== LOCK && name !== TEACHER_CACHE && !isRemnant(name) && !(name === 'checkpoints' && empty),
    );
  } catch (error) {
    throw fileReadError(error, path);
  }
  if (names.length === 0) return 'nothing';
  return refuse(`run folder ${path}: expected an empty folder or a run, got other files, such as ${names[0]}`);
}

async function namesIn(path: string, part: string): Promise<string[]> {
  try {
    return (await ifThere(readdir(join(path, part)))) ?? [];
  } catch (error) {
    throw fileReadError(error, join(path, part));
  }
}

async function checkpointsIn(path: string): Promise<number[]> {
  const names = await namesIn(path, 'checkpoints');
  const steps = names.flatMap((name) => (CHECKPOINT.test(name) ? [Number(CHECKPOINT.exec(name)![1])] : []));
  return steps.sort((a, b) => b - a);
}

/** Updates of the last checkpoint. */
const updatesIn = async (path: string): Promise<number> => (await checkpointsIn(path))[0] ?? 0;

/** The folder of one run, held by this process until `close`. */
export class RunFolder {
  /** Where the run that was here had another length. */
  extension: Extension | null = null;

  private constructor(
    readonly path: string,
    private readonly lock: FolderLock,
  ) {}

  /**
   * Refuses what `open` would refuse whatever the run is, before the work begins: a folder with other files or in use by another
   * process (ERR_RUN), or one that cannot be written (ERR_FILE_WRITE, ERR_DISK_FULL). Leaves nothing behind. Returns whether
   * there is a run.
   */
  static async check(path: string): Promise<boolean> {
    const content = await contentOf(path);
    await FolderLock.refuseIfHeld(path, LOCK);
    await proveFolder(path);
    return content === 'run';
  }

  /**
   * Opens the folder of a run, or makes it. `identity` says what the run is; an existing folder must hold the same, but for its
   * length, options.steps: the run goes on with the new one. Errors: ERR_RUN (the folder holds something else, or a run with other
   * options, or one that has done more updates, or is in use by another process), ERR_FILE_WRITE, ERR_DISK_FULL.
   */
  static async open(path: string, identity: Record<string, unknown>): Promise<RunFolder> {
    await contentOf(path);
    try {
      await mkdir(path, { recursive: true });
    } catch (error) {
      throw fileWriteError(error, path);
    }
    const folder = new RunFolder(path, await FolderLock.take(path, LOCK));
    try {
      const now = JSON.parse(JSON.stringify({ format: FORMAT, ...identity })) as Record<string, unknown>;
      const file = join(path, 'run.json');
      // Again, now that nobody else can change it.
      const isRun = (await contentOf(path)) === 'run';
      const same = isRun ? await sameRun(path, file, now, await updatesIn(path)) : null;
      folder.extension = same?.extension ?? null;
      if (!same || same.changes) await writeFileAtomic(file, (sink) => sink.append(lines(same?.run ?? now)));
      return folder;
    } catch (error) {
      await folder.close();
      throw error;
    }
  }

  /** Length of the run in a folder, and the updates of its last checkpoint; null where there is none, or it does not say. Errors: ERR_RUN, ERR_FILE_READ. */
  static async length(path: string): Promise<{ steps: number; updates: number } | null> {
    if ((await contentOf(path)) !== 'run') return null;
    const steps = lengthOf(await readJsonObject(join(path, 'run.json'), 'ERR_RUN'));
    return steps === null ? null : { steps, updates: await updatesIn(path) };
  }

  /** Lets other processes use the folder. */
  async close(): Promise<void> {
    await this.lock.release();
  }

  /** Steps of the whole checkpoints here, latest first. */
  checkpoints(): Promise<number[]> {
    return checkpointsIn(this.path);
  }

  /** Writes a checkpoint, then removes those that are no longer needed. Errors: ERR_DISK_FULL, ERR_FILE_WRITE. */
  async save(state: Omit<RunState, 'logBytes'>, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    const folder = join(this.path, 'checkpoints', checkpointName(state.step));
    // The checkpoint counts on so much of the log: it is on the disk first.
    const logBytes = await this.syncLog();
    await writeFolderAtomic(
      folder,
      async (temporary) => {
        await writeSafetensors(join(temporary, 'state.safetensors'), tensorEntries(tensors));
        await writeFileAtomic(join(temporary, 'state.json'), (sink) => sink.append(lines({ ...state, logBytes })));
      },
      { replace: true },
    );
    await this.sweep();
  }

  /**
   * Loads the latest checkpoint into `tensors` (in place) and cuts the log behind it; null when there is none. The checkpoint is
   * input like any other: `steps` and the names of `parameters` are what it must fit. Errors: ERR_RUN, ERR_SAFETENSORS, naming
   * the file.
   */
  async restore(
    tensors: ReadonlyMap<string, Tensor>,
    { steps, parameters }: { steps: number; parameters: readonly string[] },
  ): Promise<RunState | null> {
    await this.sweep();
    const [step] = await this.checkpoints();
    if (step === undefined) {
      await this.onLog(() => rm(this.logFile, { force: true }));
      return null;
    }
    const folder = join(this.path, 'checkpoints', checkpointName(step));
    const file = join(folder, 'state.json');
    const state = checkedState(await readJsonObject(file, 'ERR_RUN'), file, { step, steps, parameters });
    const size = (await this.onLog(() => ifThere(stat(this.logFile))))?.size ?? 0;
    if (state.logBytes > size) {
      refuse(`${file}: expected logBytes of at most ${size}, the length of ${this.logFile}, got ${state.logBytes}`);
    }
    await loadTensors(join(folder, 'state.safetensors'), tensors);
    if (size > state.logBytes) await this.onLog(() => truncate(this.logFile, state.logBytes));
    return state;
  }

  /** Keeps the parameters as the best so far. */
  async saveBest(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    try {
      await mkdir(join(this.path, 'best'), { recursive: true });
    } catch (error) {
      throw fileWriteError(error, join(this.path, 'best'));
    }
    await writeSafetensors(this.bestFile, tensorEntries(tensors));
  }

  /** Loads the best parameters in place. */
  async loadBest(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    await loadTensors(this.bestFile, tensors);
  }

  /** Appends a line to the log. */
  async log(entry: Record<string, unknown>): Promise<void> {
    await this.onLog(async () => {
      const file = await open(this.logFile, 'a');
      try {
        await file.appendFile(`${JSON.stringify(entry)}\n`);
      } finally {
        await file.close();
      }
    });
  }

  /** The log's entries; a last line that a killed process did not end is left out. */
  async entries(): Promise<Record<string, unknown>[]> {
    if (!(await this.onLog(() => ifThere(stat(this.logFile))))) return [];
    const text = new TextDecoder().decode(await readWhole(this.logFile));
    return text
      .slice(0, text.lastIndexOf('\n') + 1)
      .split('\n')
      .filter((line) => line !== '')
      .map((line, i) => {
        try {
          return JSON.parse(line) as Record<string, unknown>;
        } catch (cause) {
          throw new DistilWhisperError('ERR_RUN', `${this.logFile}: line ${i + 1} is no JSON`, { cause });
        }
      });
  }

  private get logFile(): string {
    return join(this.path, 'log.jsonl');
  }

  private get bestFile(): string {
    return join(this.path, 'best', 'parameters.safetensors');
  }

  private async onLog<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw fileWriteError(error, this.logFile);
    }
  }

  /** Has the log on the disk, and returns its length. */
  private syncLog(): Promise<number> {
    return this.onLog(async () => {
      const file = await ifThere(open(this.logFile, 'r+'));
      if (!file) return 0;
      try {
        await file.datasync();
        return (await file.stat()).size;
      } finally {
        await file.close();
      }
    });
  }

  /**
   * Removes the checkpoints that are no longer needed, and what a killed process left half-written: what of that cannot be removed
   * is in nobody's way, and tried again next time.
   */
  private async sweep(): Promise<void> {
    for (const step of (await this.checkpoints()).slice(KEPT)) {
      await removeFolderAtomic(join(this.path, 'checkpoints', checkpointName(step)));
    }
    for (const part of ['.', 'checkpoints', 'best']) {
      for (const name of await namesIn(this.path, part)) {
        if (isRemnant(name)) await rm(join(this.path, part, name), { recursive: true, force: true }).catch(() => {});
      }
    }
  }
}

/** The fields of state.json, each held against what it can be. */
function checkedState(
  json: Record<string, unknown>,
  file: string,
  { step, steps, parameters }: { step: number; steps: number; parameters: readonly string[] },
): RunState {
  const whole = (name: string, value: unknown, most: number): number => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= most) return value;
    return refuse(`${file}: expected ${name} to be a whole number from 0 to ${most}, got ${JSON.stringify(value)}`);
  };
  const object = (name: string, value: unknown): Record<string, unknown> => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    return refuse(`${file}: expected ${name} to be an object, got ${JSON.stringify(value)}`);
  };
  if (whole('step', json.step, steps) !== step) refuse(`${file}: expected step ${step}, got ${json.step}`);
  const counts = object('optimizerSteps', json.optimizerSteps);
  const optimizerSteps: Record<string, number> = {};
  for (const name of parameters) optimizerSteps[name] = whole(`optimizerSteps of ${name}`, counts[name], step);
  let best: RunState['best'] = null;
  if (json.best !== null) {
    const { score, step: at } = object('best', json.best);
    if (typeof score !== 'number') refuse(`${file}: expected best.score to be a number, got ${JSON.stringify(score)}`);
    best = { score: score as number, step: whole('best.step', at, step) };
  }
  return {
    step,
    optimizerSteps,
    best,
    validated: whole('validated', json.validated, step),
    logBytes: whole('logBytes', json.logBytes, Number.MAX_SAFE_INTEGER),
  };
}

const HOST_TYPES: Record<Exclude<DType, 'f64' | 'q8'>, 'f32' | 'bf16' | 'i32'> = {
  f32: 'f32',
  bf16: 'bf16',
  i32: 'i32',
};

function tensorEntries(tensors: ReadonlyMap<string, Tensor>): WeightEntry[] {
  return Array.from(tensors, ([name, tensor]) => ({
    name,
    dtype: HOST_TYPES[tensor.dtype as 'f32'],
    shape: tensor.shape,
    data: async () => {
      const values = await tensor.read();
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    },
  }));
}

async function loadTensors(path: string, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
  const file = await openSafetensors(path);
  try {
    for (const [name, tensor] of tensors) {
      const { shape, dtype } = file.info(name);
      if (String(shape) !== String(tensor.shape) || dtype !== tensor.dtype) {
        refuse(`${path}: expected ${name} as ${tensor.dtype} [${tensor.shape}], got ${dtype} [${shape}]`);
      }
      tensor.write((await file.read(name)).data);
    }
  } finally {
    await file.close();
  }
}
