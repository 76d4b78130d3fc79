/**
 * What a training run leaves on disk:
 *   run.json                     what is trained, with every option: a resumed run must ask for the same
 *   log.jsonl                    one line an update or validation
 *   checkpoints/step-00000120/   state.json, state.safetensors: parameters, moments; the last two are kept
 *   best/                        parameters.safetensors of the best validation so far
 * A checkpoint is written beside, synced and renamed: a process killed at any moment leaves whole ones only.
 */
import { mkdir, open, readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { DistilWhisperError, fileWriteError } from '../errors/index.js';
import { readJsonObject } from '../files/index.js';
import type { DType, Tensor } from '../tensor/index.js';
import {
  openSafetensors,
  type WeightEntry,
  writeFileAtomic,
  writeFolderAtomic,
  writeSafetensors,
} from '../weights/index.js';

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
const checkpointName = (step: number): string => `step-${String(step).padStart(8, '0')}`;

const lines = (value: unknown): Uint8Array => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);

/** The first field in which two JSON objects differ, as "options.steps = 10, got 20"; null when they are equal. */
function difference(earlier: object, now: object, at = ''): string | null {
  const [a, b] = [new Map(Object.entries(earlier)), new Map(Object.entries(now))];
  const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;
  for (const key of new Set([...a.keys(), ...b.keys()])) {
    const [x, y] = [a.get(key), b.get(key)];
    if (JSON.stringify(x) === JSON.stringify(y)) continue;
    const nested = isObject(x) && isObject(y) && !Array.isArray(x);
    const found = nested
      ? difference(x, y, `${at}${key}.`)
      : `${at}${key} = ${JSON.stringify(x)}, got ${JSON.stringify(y)}`;
    if (found !== null) return found;
  }
  return null;
}

/** The folder of one run. */
export class RunFolder {
  private constructor(readonly path: string) {}

  /**
   * Opens the folder of a run, or makes it. `identity` says what the run is; an existing folder must hold the same.
   * Errors: ERR_RUN (the folder holds something else, or a run with other options), ERR_FILE_WRITE, ERR_DISK_FULL.
   */
  static async open(path: string, identity: Record<string, unknown>): Promise<RunFolder> {
    const folder = new RunFolder(path);
    const file = join(path, 'run.json');
    const kind = await stat(path).catch(() => null);
    if (kind && !kind.isDirectory())
      throw new DistilWhisperError('ERR_RUN', `run folder ${path}: expected a folder, got a file`);
    if (kind && (await readdir(path)).length > 0) {
      if (!(await stat(file).catch(() => null))) {
        throw new DistilWhisperError(
          'ERR_RUN',
          `run folder ${path}: expected an empty folder or a run, got other files`,
        );
      }
      const earlier = await readJsonObject(file, 'ERR_RUN');
      const now = JSON.parse(JSON.stringify(identity)) as Record<string, unknown>;
      const changed = difference(earlier, now);
      if (changed !== null) {
        throw new DistilWhisperError(
          'ERR_RUN',
          `run folder ${path}: it holds a run with ${changed}; use another folder`,
        );
      }
      return folder;
    }
    try {
      await mkdir(join(path, 'checkpoints'), { recursive: true });
    } catch (error) {
      throw fileWriteError(error, path);
    }
    await writeFileAtomic(file, (sink) => sink.append(lines(identity)));
    return folder;
  }

  /** Steps of the whole checkpoints here, latest first. */
  async checkpoints(): Promise<number[]> {
    const names = await readdir(join(this.path, 'checkpoints')).catch(() => []);
    const steps = names.flatMap((name) => (CHECKPOINT.test(name) ? [Number(CHECKPOINT.exec(name)![1])] : []));
    return steps.sort((a, b) => b - a);
  }

  /** Writes a checkpoint, then removes those that are no longer needed. Errors: ERR_DISK_FULL, ERR_FILE_WRITE. */
  async save(state: Omit<RunState, 'logBytes'>, tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    const folder = join(this.path, 'checkpoints', checkpointName(state.step));
    const log = await stat(this.logFile).catch(() => null);
    await writeFolderAtomic(
      folder,
      async (temporary) => {
        await writeSafetensors(join(temporary, 'state.safetensors'), tensorEntries(tensors));
        await writeFileAtomic(join(temporary, 'state.json'), (sink) =>
          sink.append(lines({ ...state, logBytes: log?.size ?? 0 })),
        );
      },
      { replace: true },
    );
    for (const step of (await this.checkpoints()).slice(KEPT)) {
      await rm(join(this.path, 'checkpoints', checkpointName(step)), { recursive: true, force: true });
    }
    await this.sweep();
  }

  /** Loads the latest checkpoint into `tensors` (in place) and cuts the log behind it; null when there is none. */
  async restore(tensors: ReadonlyMap<string, Tensor>): Promise<RunState | null> {
    await this.sweep();
    const [step] = await this.checkpoints();
    if (step === undefined) {
      await rm(this.logFile, { force: true });
      return null;
    }
    const folder = join(this.path, 'checkpoints', checkpointName(step));
    const state = (await readJsonObject(join(folder, 'state.json'), 'ERR_RUN')) as unknown as RunState;
    await loadTensors(join(folder, 'state.safetensors'), tensors);
    if (await stat(this.logFile).catch(() => null)) await truncate(this.logFile, state.logBytes);
    return state;
  }

  /** Keeps the parameters as the best so far. */
  async saveBest(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    await mkdir(join(this.path, 'best'), { recursive: true });
    await writeSafetensors(this.bestFile, tensorEntries(tensors));
  }

  /** Loads the best parameters in place. */
  async loadBest(tensors: ReadonlyMap<string, Tensor>): Promise<void> {
    await loadTensors(this.bestFile, tensors);
  }

  /** Appends a line to the log. */
  async log(entry: Record<string, unknown>): Promise<void> {
    try {
      const file = await open(this.logFile, 'a');
      try {
        await file.appendFile(`${JSON.stringify(entry)}\n`);
      } finally {
        await file.close();
      }
    } catch (error) {
      throw fileWriteError(error, this.logFile);
    }
  }

  /** The log's entries. */
  async entries(): Promise<Record<string, unknown>[]> {
    const text = await readFile(this.logFile, 'utf8').catch(() => '');
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  private get logFile(): string {
    return join(this.path, 'log.jsonl');
  }

  private get bestFile(): string {
    return join(this.path, 'best', 'parameters.safetensors');
  }

  /** Removes what a killed process left half-written. */
  private async sweep(): Promise<void> {
    for (const part of ['.', 'checkpoints', 'best']) {
      for (const name of await readdir(join(this.path, part)).catch(() => [])) {
        if (/\.[0-9a-f]{12}\.(tmp|old)$/.test(name))
          await rm(join(this.path, part, name), { recursive: true, force: true });
      }
    }
  }
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
      const { shape, data } = await file.read(name);
      if (String(shape) !== String(tensor.shape)) {
        throw new DistilWhisperError('ERR_RUN', `${path}: expected ${name} of shape [${tensor.shape}], got [${shape}]`);
      }
      tensor.write(data);
    }
  } finally {
    await file.close();
  }
}
