/**
 * Trains a pocket model from scratch on the pre-training speech that scripts/corpus/make.ts makes:
 *   npx tsx scripts/corpus/make.ts --kind pretrain --out <speech>
 *   npx tsx scripts/models/pretrain.ts --kind teacher|student --speech <speech> --run <run folder> --out models/pocket-<kind>
 * Run it again after an interruption: it goes on from its last checkpoint.
 * The student hears all languages but only a fiftieth of the target's speech, so that it is weak where the demo helps.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { readManifest } from '../../lib/data/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { AudioBatches, Trainer } from '../../lib/train/index.js';
import {
  fromFloat32,
  type HostTensor,
  parseWhisperConfig,
  weightEntries,
  writeModelFolder,
} from '../../lib/weights/index.js';

const { values: args } = parseArgs({
  options: {
    kind: { type: 'string' },
    speech: { type: 'string' },
    run: { type: 'string' },
    out: { type: 'string' },
    tokenizer: { type: 'string', default: 'models/pocket-student' },
    steps: { type: 'string' },
    threads: { type: 'string', default: '2' },
  },
});

const RECIPES = {
  teacher: {
    width: 192,
    encoder: 4,
    decoder: 2,
    learningRate: 1.5e-3,
    steps: 5000,
    targetRows: Number.POSITIVE_INFINITY,
  },
  student: { width: 128, encoder: 2, decoder: 2, learningRate: 2e-3, steps: 3500, targetRows: 80 },
};
const TARGET = 'ca';
const BATCH = 32;

const recipe = RECIPES[args.kind as keyof typeof RECIPES];
if (!recipe || !args.speech || !args.run || !args.out) throw new Error('see the head of this file for the arguments');

const tokenizer = await WhisperTokenizer.fromFolder(args.tokenizer);
const config = parseWhisperConfig(
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
    max_source_positions: 250,
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

let heard = 0;
const entries = readManifest(`${args.speech}/manifest.jsonl`, { split: 'train', checkFiles: false }).filter(
  (entry) => entry.language !== TARGET || heard++ < recipe.targetRows,
);
const steps = Number(args.steps ?? recipe.steps);
const stream = new Stream({ threads: Number(args.threads) });
const model = await Whisper.create(stream, config, { compute: 'bf16', trainable: () => true, seed: 1 });
const trainer = new Trainer({
  model,
  batches: new AudioBatches(entries, config, tokenizer, {
    batchSize: BATCH,
    seed: 1,
    dropLast: true,
    bucketBatches: 8,
    cacheBytes: 6e9,
  }),
  options: {
    steps,
    learningRate: recipe.learningRate,
    warmup: 0.05,
    betas: [0.9, 0.98],
    weightDecay: 0.01,
    maxGradientNorm: 1,
    labelSmoothing: 0.1,
    distillation: 'none',
    seed: 1,
  },
  folder: args.run,
  checkpointEvery: 250,
  onUpdate: (r) => {
    if (r.step % 50 === 0)
      console.log(
        `${new Date().toISOString().slice(11, 19)} ${r.step}/${steps} ce ${r.crossEntropy.toFixed(3)} norm ${r.gradientNorm.toFixed(2)} lr ${r.learningRate.toExponential(2)}`,
      );
  },
});
const report = await trainer.run();
console.log(report);

const tensors = new Map<string, HostTensor>();
for (const [name, parameter] of model.parameters) {
  tensors.set(name, fromFloat32(await parameter.value.floats(), parameter.shape, 'f16'));
}
await writeModelFolder(
  args.out,
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
      'tokenizer.json': readFileSync(`${args.tokenizer}/tokenizer.json`),
      'tokenizer_config.json': readFileSync(`${args.tokenizer}/tokenizer_config.json`),
    },
    tensors: weightEntries(tensors),
  },
  { replace: true },
);
stream.close();
