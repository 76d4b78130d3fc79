/** Where a run's teacher comes from: a model beside the student, graphs that onnxruntime runs, or what it has said before. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FEATURES_VERSION } from '../audio/index.js';
import { DistilWhisperError, shown } from '../errors/index.js';
import { ifThere } from '../files/index.js';
import { loadOutputTable, Whisper } from '../model/index.js';
import type { FloatName, Stream } from '../tensor/index.js';
import {
  type AudioBatches,
  type CacheSource,
  cachedTeacher,
  noTeacher,
  OnnxTeacher,
  type OnnxTeacherFiles,
  onnxFilesOf,
  TEACHER_CACHE,
  type Teacher,
  TeacherCache,
  teacherKeys,
} from '../train/index.js';
import type { ModelFolder, WhisperConfig } from '../weights/index.js';
import { digestOfFiles, digestOfWeights } from './identity.js';
import type { TeacherKind, TrainRecipe } from './recipe.js';

/** A teacher before it is loaded. */
export interface ChosenTeacher {
  kind: TeacherKind;
  /** Sizes of its model; null: there is none. */
  config: WhisperConfig | null;
  folder: ModelFolder | null;
  /** Instead of a folder: graphs that onnxruntime runs. */
  graphs: OnnxTeacherFiles | null;
  /** Bytes of the graphs' files: about what a runtime beside the stream holds. */
  graphBytes: number;
  /** Digest of its weights. */
  weights: string | null;
  /** Where its cache is; null without one. */
  cache: string | null;
  /** Key of each utterance's rows; empty without a cache. */
  keys: readonly string[];
  /** Utterances whose rows the cache lacks. */
  missing: number;
}

/** Of a cache by this teacher. */
export const cacheSource = ({ config }: ModelFolder, weights: string, compute: FloatName): CacheSource => ({
  teacher: weights,
  width: config.d_model,
  features: FEATURES_VERSION,
  mels: config.num_mel_bins,
  frames: 2 * config.max_source_positions,
  compute,
});

/**
 * Decides how the teacher is asked, by what its cache has of the utterances. Errors: those of `TeacherCache.open`; ERR_TEACHER_CACHE for one
 * that was named and lacks utterances; ERR_INTERRUPTED.
 */
export async function chooseTeacher(
  recipe: Pick<TrainRecipe, 'teacherCache' | 'output' | 'options' | 'signal' | 'onCheck'>,
  { folder, graphs }: { folder: ModelFolder | null; graphs: OnnxTeacherFiles | null },
  student: WhisperConfig,
  batches: AudioBatches,
): Promise<ChosenTeacher> {
  const config = (folder ?? graphs)?.config ?? null;
  const none = { config, folder, graphs, graphBytes: 0, cache: null, keys: [], missing: 0 };
  const { signal, teacherCache } = recipe;
  if (graphs) {
    if (teacherCache !== undefined)
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `teacherCache: expected a model folder as the teacher, got graphs of ONNX (${shown(graphs.decoder)})`,
      );
    const files = await onnxFilesOf(graphs);
    const weights = await digestOfFiles(files, signal);
    if (recipe.options?.distillation === 'none') return { ...none, kind: 'unheard', weights };
    const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
    return { ...none, kind: 'runtime', weights, graphBytes: sizes.reduce((a, b) => a + b, 0) };
  }
  if (!folder) return { ...none, kind: 'none', weights: null };
  const weights = await digestOfWeights(folder, signal);
  if (recipe.options?.distillation === 'none') return { ...none, kind: 'unheard', weights };
  if (teacherCache === undefined) return { ...none, kind: 'live', weights };
  const path = teacherCache === 'auto' ? join(recipe.output, TEACHER_CACHE) : teacherCache;
  const keys = await teacherKeys(batches, student.decoder_start_token_id, {
    signal,
    onProgress: (done) => recipe.onCheck?.(done, batches.length),
  });
  if (teacherCache === 'auto' && !(await ifThere(stat(path)))) {
    return { ...none, kind: 'filling', weights, cache: path, keys, missing: new Set(keys).size };
  }
  const cache = await TeacherCache.open(path, cacheSource(folder, weights, 'fp32'), { adds: false });
  try {
    const lacking = keys.flatMap((key, i) => (cache.has(key) ? [] : [i]));
    if (lacking.length > 0 && teacherCache !== 'auto') {
      const { id, manifest, line } = batches.entry(lacking[0]!);
      throw new DistilWhisperError(
        'ERR_TEACHER_CACHE',
        `teacher cache ${path}: it lacks ${lacking.length} of ${keys.length} utterances (their audio or labels are others, or were never ` +
          `there), such as ${shown(id, 60)} (${manifest} line ${line}); 'distilwhisper cache-teacher' adds them`,
      );
    }
    return {
      ...none,
      kind: lacking.length > 0 ? 'filling' : 'cached',
      weights,
      cache: path,
      keys,
      missing: new Set(lacking.map((i) => keys[i]!)).size,
    };
  } finally {
    await cache.close();
  }
}

/** A teacher that is loaded. */
export interface LoadedTeacher {
  teacher: Teacher | Whisper | null;
  cache: TeacherCache | null;
  /** Where it runs beside the stream. */
  runtime: OnnxTeacher | null;
  /** Lets go of its weights and files. */
  close(): Promise<void>;
}

/**
 * Loads what of a teacher a run needs. `adds`: a cache that lacks utterances is opened to be filled; otherwise, for a rehearsal, the
 * teacher runs without it. Errors: those of model folders, of `TeacherCache.open` and `OnnxTeacher.open`.
 */
export async function loadTeacher(
  { kind, config, folder, graphs, weights, cache: path }: ChosenTeacher,
  stream: Stream,
  { compute, copyWeights, adds }: { compute: FloatName; copyWeights?: boolean | undefined; adds: boolean },
): Promise<LoadedTeacher> {
  const none = { cache: null, runtime: null, close: async () => {} };
  if (kind === 'unheard') return { ...none, teacher: noTeacher(config) };
  if (graphs) {
    const runtime = await OnnxTeacher.open(stream, graphs, compute);
    return { ...none, teacher: runtime, runtime, close: () => runtime.close() };
  }
  if (!folder) return { ...none, teacher: null };
  const options = { compute, copyWeights: copyWeights ?? false };
  if (kind === 'live' || (kind === 'filling' && !adds)) {
    const live = await Whisper.fromFolder(stream, folder, options);
    return { ...none, teacher: live, close: async () => live.dispose() };
  }
  const cache = await TeacherCache.open(path!, cacheSource(folder, weights!, compute), { adds: kind === 'filling' });
  try {
    if (kind === 'cached') {
      const head = await loadOutputTable(stream, folder, options);
      const teacher = cachedTeacher(cache, folder.config, head, null);
      const close = async (): Promise<void> => {
        head.dispose();
        await cache.close();
      };
      return { ...none, teacher, cache, close };
    }
    const live = await Whisper.fromFolder(stream, folder, options);
    const teacher = cachedTeacher(cache, folder.config, live.embeddingTable, live);
    const close = async (): Promise<void> => {
      try {
        await cache.close();
      } finally {
        live.dispose();
      }
    };
    return { ...none, teacher, cache, close };
  } catch (error) {
    await cache.close().catch(() => {});
    throw error;
  }
}
