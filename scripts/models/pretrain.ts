/**
 * Trains a pocket model from scratch on the pre-training speech that scripts/corpus/make.ts makes:
 *   npx tsx scripts/corpus/make.ts --kind pretrain --out <speech>
 *   npx tsx scripts/models/pretrain.ts --kind teacher|student --speech <speech> --run <run folder> --out models/pocket-<kind>
 * First words, then sentences, in windows that grow (recipes.ts), and at the end the learning rate falls. Words in a
 * window of a second teach in minutes how sounds are written, which sentences in one of five hardly teach in hours.
 * Run it again after an interruption: it goes on from its last checkpoint. --until says how many updates the last stage has: with more
 * of them it goes on where it ended with fewer. --cooldown 0 writes the model as it is then.
 * --compute fp32: for a processor without products of bf16.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type ManifestEntry, readManifest } from '../../lib/data/index.js';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { AudioBatches, Trainer, type TrainingOptions } from '../../lib/train/index.js';
import {
  fromFloat32,
  type HostTensor,
  openSafetensors,
  parseWhisperConfig,
  toFloat32,
  type WhisperConfig,
  weightEntries,
  whisperTensorShapes,
  writeModelFolder,
} from '../../lib/weights/index.js';
import { LENGTHS, type Length, TARGETS } from '../corpus/plan.js';
import { RECIPES, type Recipe } from './recipes.js';

const { values: args } = parseArgs({
  options: {
    kind: { type: 'string' },
    speech: { type: 'string' },
    run: { type: 'string' },
    out: { type: 'string' },
    tokenizer: { type: 'string', default: 'models/pocket-student' },
    until: { type: 'string' },
    cooldown: { type: 'string' },
    threads: { type: 'string', default: '2' },
    compute: { type: 'string', default: 'bf16' },
  },
});
const { kind, speech, run, out, compute } = args;
if (
  (kind !== 'teacher' && kind !== 'student') ||
  !speech ||
  !run ||
  !out ||
  (compute !== 'fp32' && compute !== 'bf16')
) {
  throw new Error('see the head of this file for the arguments');
}
const recipe: Recipe = RECIPES[kind];
const cooldown = Number(args.cooldown ?? recipe.cooldown);

/** More updates than a stage will have: its length is in no option, and its warm-up a share of them. */
const ENDLESS = 100_000;
const WARM_UP = { first: 500, later: 100 };
const CHECKPOINT_EVERY = 250;
const REPORT_EVERY = 50;
const POSITIONS = 'model.encoder.embed_positions.weight';
/** Features that are kept in memory; where they do not fit they are made again in every epoch. */
const FEATURE_BYTES = 5e9;

const tokenizer = await WhisperTokenizer.fromFolder(args.tokenizer);
const configOf = (positions: number): WhisperConfig =>
  parseWhisperConfig(
    {
      model_type: 'whisper',
      vocab_size: tokenizer.vocabSize,
      num_mel_bins: 80,
      d_model: recipe.width,
      encoder_layers: recipe.encoder,
      encoder_attention_heads: recipe.width / 64,
      encoder_ffn_dim: 4 * recipe.width,
      decoder_layers: recipe.decoder,
      decoder_attention_heads: recipe.width / 64,
      decoder_ffn_dim: 4 * recipe.width,
      max_source_positions: positions,
      max_target_positions: 64,
      decoder_start_token_id: tokenizer.startOfTranscript,
      pad_token_id: tokenizer.endOfText,
      bos_token_id: tokenizer.endOfText,
      eos_token_id: tokenizer.endOfText,
      suppress_tokens: [],
      begin_suppress_tokens: [tokenizer.endOfText],
      activation_function: 'gelu',
    },
    'the recipe',
  );

const isTarget = (language: string): boolean => TARGETS.some((target) => target === language);

/** The utterances of a length that the model hears, and the share of each language. */
function speechOf(length: Length): { entries: ManifestEntry[]; languageWeights: Record<string, number> } {
  const all = readManifest(join(speech as string, `${length}.jsonl`), { split: 'train', checkFiles: false });
  const entries: ManifestEntry[] = [];
  const languageWeights: Record<string, number> = {};
  for (const language of new Set(all.map((entry) => entry.language))) {
    const own = all.filter((entry) => entry.language === language);
    const heard = isTarget(language) ? own.slice(0, Math.round(recipe.targetShare * own.length)) : own;
    entries.push(...heard);
    languageWeights[language] = heard.length * (isTarget(language) ? recipe.targetWeight : 1);
  }
  return { entries, languageWeights };
}

type Weights = Map<string, Float32Array>;

/** The last checkpoint of a part. */
function lastCheckpoint(folder: string): { step: number; folder: string } {
  const checkpoints = join(folder, 'checkpoints');
  const names = existsSync(checkpoints) ? readdirSync(checkpoints).filter((name) => /^step-\d+$/.test(name)) : [];
  const name = names.sort().at(-1);
  return name === undefined
    ? { step: 0, folder: '' }
    : { step: Number(name.slice(5)), folder: join(checkpoints, name) };
}

interface Course {
  folder: string;
  length: Length;
  batch: number;
  seed: number;
  /** Its last update. */
  last: number;
  options: Partial<TrainingOptions> & { steps: number };
}

/** Trains from `weights` (null: random ones) and gives what is at the end. Windows may grow. */
async function train(course: Course, weights: Weights | null): Promise<Weights> {
  const { folder, length, last } = course;
  const stream = new Stream({ threads: Number(args.threads) });
  const config = configOf(LENGTHS[length].positions);
  const model = await Whisper.create(stream, config, {
    compute: compute as 'fp32' | 'bf16',
    // Sinusoids, as Whisper's: those that a longer window adds are no others.
    trainable: (name) => name !== POSITIONS,
    seed: 1,
  });
  for (const [name, { value, trainable }] of model.parameters) {
    if (weights && trainable) value.write(bytesOf(weights.get(name)!));
  }
  const stop = new AbortController();
  if (lastCheckpoint(folder).step < last) {
    const { entries, languageWeights } = speechOf(length);
    const start = performance.now();
    let updates = 0;
    const trainer = new Trainer({
      model,
      batches: new AudioBatches(entries, config, tokenizer, {
        batchSize: course.batch,
        seed: course.seed,
        dropLast: true,
        bucketBatches: 8,
        languageWeights,
        cacheBytes: FEATURE_BYTES,
      }),
      options: {
        learningRate: recipe.learningRate,
        betas: [0.9, 0.98],
        weightDecay: 0.01,
        maxGradientNorm: 1,
        // A teacher that was taught smoothed labels has less to tell.
        labelSmoothing: 0,
        distillation: 'none',
        seed: course.seed,
        ...course.options,
      },
      folder,
      checkpointEvery: CHECKPOINT_EVERY,
      signal: stop.signal,
      onUpdate: ({ step, crossEntropy, gradientNorm }) => {
        updates++;
        if (step % REPORT_EVERY === 0) {
          const rate = (1000 * updates) / (performance.now() - start);
          const numbers = `ce ${crossEntropy.toFixed(3)} norm ${gradientNorm.toFixed(2)}, ${rate.toFixed(2)} updates/s`;
          console.log(`${new Date().toISOString().slice(11, 19)} ${length} ${step}/${last} ${numbers}`);
        }
        if (step >= last) stop.abort();
      },
    });
    try {
      await trainer.run();
    } catch (error) {
      if (!(stop.signal.aborted && isDistilWhisperError(error) && error.code === 'ERR_INTERRUPTED')) throw error;
    }
    trainer.dispose();
  }
  const file = await openSafetensors(join(lastCheckpoint(folder).folder, 'state.safetensors'));
  const trained: Weights = new Map();
  for (const [name, { value, trainable }] of model.parameters) {
    trained.set(name, trainable ? toFloat32(await file.read(name)) : await value.floats());
  }
  await file.close();
  stream.close();
  return trained;
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

let weights: Weights | null = null;
let reached = '';
for (const [i, stage] of recipe.stages.entries()) {
  const last = args.until !== undefined && i === recipe.stages.length - 1 ? Number(args.until) : stage.updates;
  const warmUp = i === 0 ? WARM_UP.first : WARM_UP.later;
  const options = { steps: ENDLESS, schedule: 'constant' as const, warmup: warmUp / ENDLESS };
  weights = await train({ ...stage, folder: join(run, stage.length), seed: i + 1, last, options }, weights);
  reached = `${stage.length} ${lastCheckpoint(join(run, stage.length)).step}`;
}
if (cooldown > 0) {
  const { length, batch } = recipe.stages.at(-1)!;
  const folder = join(run, `cooldown-${reached.replace(' ', '-')}`);
  const options = { steps: cooldown, schedule: 'linear' as const, warmup: 0.02 };
  weights = await train({ folder, length, batch, seed: 100, last: cooldown, options }, weights);
}

const config = configOf(LENGTHS[recipe.stages.at(-1)!.length].positions);
const shapes = whisperTensorShapes(config);
const tensors = new Map<string, HostTensor>();
for (const [name, values] of weights!) tensors.set(name, fromFloat32(values, shapes.get(name)!, 'f16'));
await writeModelFolder(
  out,
  {
    config,
    configExtra: { architectures: ['WhisperForConditionalGeneration'], model_type: 'whisper', torch_dtype: 'float16' },
    generationConfig: {
      decoder_start_token_id: config.decoder_start_token_id,
      eos_token_id: config.eos_token_id,
      pad_token_id: config.pad_token_id,
      bos_token_id: config.bos_token_id,
      suppress_tokens: [],
      begin_suppress_tokens: config.begin_suppress_tokens,
      max_length: config.max_target_positions,
    },
    preprocessorConfig: {
      feature_extractor_type: 'WhisperFeatureExtractor',
      feature_size: 80,
      sampling_rate: 16000,
      hop_length: 160,
      n_fft: 400,
      chunk_length: 5,
      n_samples: 80000,
      nb_max_frames: 500,
    },
    files: {
      'tokenizer.json': readFileSync(join(args.tokenizer, 'tokenizer.json')),
      'tokenizer_config.json': readFileSync(join(args.tokenizer, 'tokenizer_config.json')),
    },
    tensors: weightEntries(tensors),
  },
  { replace: true },
);
console.log(`${out}: ${reached}${cooldown > 0 ? ` and ${cooldown} of cooling down` : ''}`);
