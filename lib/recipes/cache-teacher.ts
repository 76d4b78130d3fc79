/** What a teacher says of every utterance, kept on disk: paid once, for as many runs as one likes. */
import type { BadRow } from '../data/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { resolveModel } from '../hub/index.js';
import { Whisper } from '../model/index.js';
import { type FloatName, Stream } from '../tensor/index.js';
import { resolveLanguage, WhisperTokenizer } from '../text/index.js';
import { AudioBatches, fillCache, planStream, TeacherCache, teacherKeys } from '../train/index.js';
import { type ModelFolder, openModelFolder } from '../weights/index.js';
import { checkValues, typesOf } from './checks.js';
import { Closers } from './closers.js';
import { digestOfWeights } from './identity.js';
import { longest, roomOf } from './plan.js';
import { gibibytes, recipeDefaults, type TrainRecipe } from './recipe.js';
import { cacheSource } from './teacher.js';
import { checkRows, openTrainingRows, ROWS, type RowsRecipe, timestampShareOf } from './training-rows.js';

/** Utterances that the teacher hears at once, where memory allows it. */
const AT_ONCE = 8;

export interface CacheTeacherRecipe
  extends RowsRecipe,
    Pick<TrainRecipe, 'copyWeights' | 'compute' | 'maxMemory' | 'device' | 'stream'> {
  /** The teacher: a model folder, or a name; its tokenizer makes the labels. */
  teacher: string;
  /** Folder of the cache: a new one, or one to which is added what it lacks. */
  output: string;
  onStart?: ((plan: CacheTeacherPlan) => void | Promise<void>) | undefined;
  /** Utterances of those that were missing. */
  onProgress?: ((done: number, total: number) => void | Promise<void>) | undefined;
}

const RECIPE: Record<keyof CacheTeacherRecipe, true> = {
  ...ROWS,
  teacher: true,
  output: true,
  copyWeights: true,
  compute: true,
  maxMemory: true,
  device: true,
  stream: true,
  onStart: true,
  onProgress: true,
};

export interface CacheTeacherPlan {
  utterances: number;
  /** Those whose rows are not there yet. */
  missing: number;
  /** Of all audio; null where it was neither decoded nor its table tells. */
  hours: number | null;
  /** Bytes of the rows that are missing. */
  bytes: number;
  /** Utterances that the teacher hears at once. */
  batchSize: number;
  /** Rows that cannot be used and were left out; splits of tests or validation that were asked for. */
  badRows: readonly BadRow[];
  heldOut: readonly string[];
}

export interface CacheTeacherResult extends CacheTeacherPlan {
  /** Folder of the cache. */
  cache: string;
  seconds: number;
}

/**
 * Fills a teacher cache: the teacher's last hidden rows, in bf16, for every label position of the data's utterances. What is there
 * already is left as it is; interrupted or killed, the same call goes on. Errors: ERR_ARGUMENT; those of `resolveModel`, model
 * folders, `openDataset` (BadRowsError) and `TeacherCache.open`; ERR_MEMORY; ERR_DISK_FULL; ERR_INTERRUPTED.
 */
export async function cacheTeacher(recipe: CacheTeacherRecipe): Promise<CacheTeacherResult> {
  checkOptions('cacheTeacher', recipe, RECIPE);
  checkValues(recipe);
  const closers = new Closers();
  try {
    const result = await fill(recipe, closers);
    await closers.close();
    return result;
  } catch (error) {
    // What the end of it says besides follows from this.
    await closers.close().catch(() => {});
    throw error;
  }
}

async function fill(recipe: CacheTeacherRecipe, closers: Closers): Promise<CacheTeacherResult> {
  const start = performance.now();
  const { signal, output, copyWeights = false, strict, onWarning } = recipe;
  const { compute = recipeDefaults.compute } = typesOf(recipe);
  const language = recipe.language === undefined ? null : resolveLanguage(recipe.language);
  const path = await resolveModel(recipe.teacher, { signal, ...recipe.hub });
  const tokenizer = await WhisperTokenizer.fromFolder(path);
  const rows = await openTrainingRows(recipe, { language: language?.code, tokenizer, closers });
  const folder = await openModelFolder(path);
  closers.add(() => folder.close());
  if (language) tokenizer.checkLanguage(language.code);
  const stream = recipe.stream ?? new Stream({ device: recipe.device ?? 'cpu' });
  closers.add(() => (recipe.stream ? recipe.stream.endStep() : stream.close()));
  const { batches, bad } = await checkRows(rows, recipe, tokenizer, (data, onBadRow) => {
    const timestampShare = timestampShareOf(recipe);
    const options = { batchSize: 1, timestampShare, strict, onWarning, onBadRow };
    return new AudioBatches(data, folder.config, tokenizer, options);
  });
  const keys = await teacherKeys(batches, folder.config.decoder_start_token_id, {
    signal,
    onProgress: (done) => recipe.onCheck?.(done, batches.length),
  });
  const batchSize = await planBatch(recipe, folder, stream, batches, compute);
  const source = cacheSource(folder, await digestOfWeights(folder, signal), compute);
  const cache = await TeacherCache.open(output, source, { adds: true });
  closers.add(() => cache.close());
  const asked = new Set<string>();
  const missing = keys.flatMap((key, i) => {
    if (cache.has(key) || asked.has(key)) return [];
    asked.add(key);
    return [i];
  });
  const bytes = missing.reduce((sum, i) => sum + 2 * folder.config.d_model * batches.labelCount(i), 0);
  const { seconds } = batches;
  const plan: CacheTeacherPlan = {
    utterances: batches.length,
    missing: missing.length,
    hours: seconds === null ? null : seconds / 3600,
    bytes,
    batchSize,
    badRows: bad,
    heldOut: rows.heldOut,
  };
  await recipe.onStart?.(plan);
  if (missing.length > 0) {
    const teacher = await Whisper.fromFolder(stream, folder, { compute, copyWeights });
    closers.add(() => teacher.dispose());
    await fillCache(teacher, cache, batches.of(missing, batchSize), keys, {
      signal,
      onProgress: (done) => recipe.onProgress?.(done, missing.length),
    });
  }
  return { ...plan, cache: output, seconds: (performance.now() - start) / 1000 };
}

/** The most utterances at once that fit. Errors: ERR_MEMORY. */
async function planBatch(
  recipe: CacheTeacherRecipe,
  folder: ModelFolder,
  like: Stream,
  batches: AudioBatches,
  compute: FloatName,
): Promise<number> {
  const { config } = folder;
  const room = roomOf({ recipe, stream: like });
  const stream = planStream(like);
  try {
    const teacher = await Whisper.fromFolder(stream, folder, { compute, copyWeights: recipe.copyWeights ?? false });
    const labels = longest(batches);
    let fits = 0;
    let needed = 0;
    for (let size = 1; size <= AT_ONCE; size *= 2) {
      const features = stream.tensor(new Float32Array(size * config.num_mel_bins * 2 * config.max_source_positions), [
        size,
        config.num_mel_bins,
        2 * config.max_source_positions,
      ]);
      const ids = stream.tensor(new Int32Array(size * labels), [size, labels], 'i32');
      stream.tidy(() => teacher.decode(ids, teacher.encode(features).hidden).hidden);
      stream.endStep();
      await stream.sync();
      const { persistent, stepReserved, packed, scratch, mapped } = stream.memory();
      // A GPU has copies of what is mapped here, and none of what only the processor makes.
      needed = persistent + stepReserved + (like.device === 'cpu' ? packed + scratch + batches.cachedBytes : mapped);
      if (needed > room.bytes) break;
      fits = size;
    }
    if (fits > 0) return fits;
    throw new DistilWhisperError(
      'ERR_MEMORY',
      `memory: the teacher needs ${gibibytes(needed)} for one utterance, and ${gibibytes(room.bytes)} is there (${room.what}); ` +
        'one that is stored in bf16, or --compute-type bf16, takes less',
    );
  } finally {
    stream.close();
  }
}
