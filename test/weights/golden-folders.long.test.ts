/**
 * Model folders as today's transformers writes them, and what it computes with them (case 12 of the recorded numbers). Needs
 * ../shared; without it these tests are skipped, and model-variants has the same layouts made small.
 */
import { copyFileSync, cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  beamSearch,
  decodeAudio,
  FeatureExtractor,
  greedy,
  openModelFolder,
  Stream,
  suppressTokens,
  Transcriber,
  tokenizerFromTiktoken,
  Whisper,
  WhisperTokenizer,
} from '../../lib/index.js';
import { floats, golden, goldenJson, ints, shared } from '../support/golden.js';
import { readNpy } from '../support/npy.js';
import { refused, scratch } from '../support/weights.js';

const cases = join(shared, 'golden', 'case12_hf');
const recorded = existsSync(cases) ? test : test.skip;
const LANGUAGE = 'ca';

// biome-ignore lint/suspicious/noExplicitAny: recorded JSON of many shapes
const readJson = (path: string): any => JSON.parse(readFileSync(path, 'utf8'));
const ranks = (): string => readFileSync(join(shared, 'tokenizer', 'multilingual.tiktoken'), 'utf8');

/** A copy of a recorded folder with the tokenizer that it was written with. */
async function folder(t: ExecutionContext, name: string): Promise<string> {
  const path = join(await scratch(t), 'model');
  cpSync(join(cases, name), path, { recursive: true });
  if (name === 'trainer_checkpoint') return path;
  const own = {
    large_v3: () => tokenizerFromTiktoken(ranks(), { languages: 100 }),
    english_only: () => tokenizerFromTiktoken(ranks().split('\n').slice(0, 50_256).join('\n')),
  }[name];
  if (own) writeFileSync(join(path, 'tokenizer.json'), JSON.stringify(own()));
  else copyFileSync(join(cases, 'tokenizer', 'tokenizer.json'), join(path, 'tokenizer.json'));
  return path;
}

const jfk = () => ({ samples: readNpy(join(shared, 'golden', 'case4_mel', 'jfk_pcm16.npy')).data, sampleRate: 16_000 });
/** Features of a clip for a model, cut to its window. */
async function heard(transcriber: Transcriber, audio = jfk()) {
  const { config, stream } = transcriber.model;
  const frames = 2 * config.max_source_positions;
  const extractor = new FeatureExtractor({ mels: config.num_mel_bins, frames });
  const features = await extractor.extract(audio, { cut: true });
  extractor.close();
  return () => stream.tensor(features, [1, config.num_mel_bins, frames]);
}

/** What a generation configuration suppresses. */
function suppression(path: string, tokenizer: WhisperTokenizer): { suppress: number[]; suppressAtBegin: number[] } {
  const { suppress_tokens, begin_suppress_tokens } = readJson(join(path, 'generation_config.json'));
  const all: number[] = suppress_tokens ?? [];
  return {
    suppress: all.includes(-1) ? suppressTokens(tokenizer) : all,
    suppressAtBegin: begin_suppress_tokens ?? [],
  };
}

const near = (t: ExecutionContext, got: ArrayLike<number>, wanted: ArrayLike<number>, most: number, what: string) => {
  let off = 0;
  for (let i = 0; i < wanted.length; i++) off = Math.max(off, Math.abs(wanted[i]! - got[i]!));
  t.true(off <= most, `${what}: ${off} off`);
};
function relative(got: Float32Array, wanted: Float32Array): number {
  let [error, size] = [0, 0];
  for (const [i, value] of wanted.entries()) {
    error += (got[i]! - value) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(error / size);
}

/** The recorded encoder rows, ids and text of a folder, by the model, the search and the transcriber. */
async function holds(t: ExecutionContext, path: string, name: string): Promise<Transcriber> {
  const expected = goldenJson('case12_hf/expected')[name];
  const transcriber = await Transcriber.load(path, { compute: 'fp32' });
  t.teardown(() => transcriber.close());
  const { model, tokenizer } = transcriber;
  const features = await heard(transcriber);
  const memory = model.encode(features()).hidden;
  const read = memory.floats();
  model.stream.endStep();
  const rows = await read;
  const width = model.config.d_model;
  near(t, rows.subarray(0, width), expected.encoder_row0, 1e-5, `${name}, row 0`);
  near(t, rows.subarray(700 * width, 701 * width), expected.encoder_row700, 1e-5, `${name}, row 700`);
  const prompt = tokenizer.prompt({ ...(tokenizer.multilingual && { language: LANGUAGE }) });
  const maxTokens = prompt.length + 24;
  const options = { prompts: [prompt], endOfText: tokenizer.endOfText, ...suppression(path, tokenizer), maxTokens };
  const [said] = await greedy(model, features(), options);
  const ids = [...prompt, ...said!.tokens, ...(said!.finished ? [tokenizer.endOfText] : [])];
  t.deepEqual(ids, expected.greedy_ids, name);
  const language = tokenizer.multilingual ? LANGUAGE : undefined;
  const transcript = await transcriber.transcribe(jfk(), { language, maxTokens });
  t.is(transcript.text, tokenizer.decode(expected.greedy_ids).trim());
  return transcriber;
}

for (const name of ['sharded', 'bf16', 'fp16', 'large_v3', 'english_only', 'trainer_checkpoint']) {
  recorded(`${name}: the recorded encoder rows and ids, and their text from transcribe`, async (t) => {
    const transcriber = await holds(t, await folder(t, name), name);
    if (name === 'english_only') {
      t.deepEqual(transcriber.tokenizer.prompt(), goldenJson('case12_hf/expected').english_only.prompt);
      t.deepEqual(transcriber.languages, ['en']);
      await refused(t, 'ERR_LANGUAGE', /English-only/, () => transcriber.transcribe(jfk(), { language: LANGUAGE }));
    }
    if (name === 'large_v3') t.is(transcriber.languages.length, 100);
    t.deepEqual(transcriber.warnings, []);
  });
}

/** Settings of a generation configuration that are not followed, by the file that has them. */
const UNFOLLOWED: Record<string, readonly RegExp[]> = {
  beams: [/num_beams 3/, /length_penalty 0.8/],
  eos_list: [/eos_token_id \[50257,50256\]/],
  max_new_tokens: [/max_new_tokens 12/],
  no_repeat: [/repetition_penalty 1.2/, /no_repeat_ngram_size 3/],
};
for (const name of existsSync(cases)
  ? ['suppress_tokens_empty', 'suppress_minus1', 'no_lists', 'max_length_null', 'max_new_tokens', 'eos_list']
  : []) {
  recorded(`generation_config.json with ${name}: the recorded ids`, async (t) => {
    const path = await folder(t, 'bf16');
    const variant = `generation_configs/${name}`;
    copyFileSync(join(cases, `${variant}.json`), join(path, 'generation_config.json'));
    const transcriber = await holds(t, path, variant);
    told(t, transcriber.warnings, name);
  });
}

function told(t: ExecutionContext, warnings: readonly string[], name: string): void {
  const patterns = UNFOLLOWED[name] ?? [];
  t.is(warnings.length, patterns.length, warnings.join('\n'));
  for (const pattern of patterns)
    t.true(
      warnings.some((warning) => pattern.test(warning)),
      `${pattern}`,
    );
}

recorded(
  'generation_config.json that asks for beams or against repetition is told by name, not followed',
  async (t) => {
    const path = await folder(t, 'bf16');
    for (const name of ['beams', 'no_repeat']) {
      copyFileSync(join(cases, 'generation_configs', `${name}.json`), join(path, 'generation_config.json'));
      const opened = await openModelFolder(path);
      await opened.close();
      told(t, opened.warnings, name);
    }
  },
);

recorded('tokenizer.json, and vocab.json with merges.txt, give the recorded ids and texts', async (t) => {
  const whole = await WhisperTokenizer.fromFolder(join(cases, 'tokenizer'));
  const parts = await WhisperTokenizer.fromFolder(join(cases, 'trainer_checkpoint'));
  const own = WhisperTokenizer.fromJSON(tokenizerFromTiktoken(ranks()));
  // Older tokenizers leave the timestamps unlisted.
  t.deepEqual([whole.vocabSize, parts.vocabSize, own.vocabSize], [51_865, 50_364, 51_865]);
  for (const { timestampTokens } of [whole, parts, own]) {
    t.deepEqual(timestampTokens, { begin: 50_364, end: 51_865, noTimestamps: 50_363 });
  }
  const texts = readJson(join(cases, 'tokenizer', 'expected.json'));
  t.is(texts.length, 12);
  for (const { text, ids, ids_from_vocab_and_merges, decoded } of texts) {
    for (const tokenizer of [whole, parts, own]) {
      t.is(tokenizer.decode(ids, { skipSpecial: false }), decoded);
      // Text that looks like a special token is text here.
      if (text.includes('<|')) t.is(tokenizer.decode(tokenizer.encode(text)), text);
      else t.deepEqual(tokenizer.encode(text), tokenizer === parts ? ids_from_vocab_and_merges : ids, text);
    }
  }
});

recorded('numbers: features, encoder and decoder rows and logits as in float64', async (t) => {
  const path = await folder(t, 'numbers/fp32');
  const outputs = golden('case12_hf/numbers/outputs_f64');
  const stream = new Stream({ threads: 1 });
  const model = await Whisper.load(stream, path);
  t.teardown(() => stream.close());
  const extractor = new FeatureExtractor({ mels: 80, frames: 3000, stream });
  const decoded = await decodeAudio(join(cases, 'numbers', 'short.flac'));
  const features = await extractor.extract(decoded, { cut: true });
  near(t, features, floats(outputs, 'input_features'), 1e-4, 'features');
  const given = stream.tensor(floats(outputs, 'input_features'), [1, 80, 3000]);
  const memory = model.encode(given).hidden;
  const ids = stream.tensor(ints(outputs, 'decoder_input_ids'), [1, 10], 'i32');
  const { hidden } = model.decode(ids, memory);
  const logits = model.logits(hidden.reshape([10, model.config.d_model]));
  const reads = Promise.all([memory.floats(), hidden.floats(), logits.floats()]);
  stream.endStep();
  const names = ['encoder_last_hidden_state', 'decoder_last_hidden_state', 'logits'];
  for (const [i, values] of (await reads).entries()) {
    const off = relative(values, floats(outputs, names[i]!));
    t.log(`${names[i]}: relative L2 ${off.toExponential(1)}`);
    t.true(off < 1e-5, `${names[i]}: ${off}`);
  }
  model.dispose();
});

interface GenerateOptions {
  language: string | null;
  task: 'transcribe' | 'translate';
  max_new_tokens?: number;
  max_length?: number;
  prompt_ids?: number[];
  suppress_tokens?: null;
  timestamps?: boolean;
  return_timestamps?: boolean;
  beam_size?: number;
  patience?: number;
  length_penalty?: number | null;
}

/** Prompt, suppression and length of a recorded call. */
function asked(options: GenerateOptions, path: string, tokenizer: WhisperTokenizer, detected: string) {
  const { language, task, max_new_tokens, max_length, prompt_ids = [] } = options;
  const timestamps = options.timestamps ?? options.return_timestamps ?? false;
  const start = tokenizer.prompt({ language: language ?? detected, task, timestamps });
  const prompt = [...prompt_ids, ...start];
  return {
    prompt,
    settings: {
      prompts: [prompt],
      endOfText: tokenizer.endOfText,
      ...(options.suppress_tokens === null ? {} : suppression(path, tokenizer)),
      // transformers counts a Whisper's max_length from the start token on.
      maxTokens: max_length === undefined ? prompt.length + max_new_tokens! : max_length + prompt.length - 1,
      ...(timestamps && { timestamps: tokenizer.timestampTokens }),
    },
  };
}

recorded(
  'numbers: greedy decoding by language, task, detection, prompt, suppression and length gives the recorded ids',
  async (t) => {
    const path = await folder(t, 'numbers/fp32');
    const transcriber = await Transcriber.load(path, { compute: 'fp32' });
    t.teardown(() => transcriber.close());
    const { model, tokenizer } = transcriber;
    const audio = await decodeAudio(join(cases, 'numbers', 'short.flac'));
    const features = await heard(transcriber, audio);
    const report = goldenJson('case12_hf/numbers/report');
    const [found] = await transcriber.detectLanguage([audio]);
    t.is(tokenizer.languageId(found!.language), report.detected_language_token);
    const names = ['greedy', 'greedy_en', 'greedy_translate', 'greedy_autodetect', 'greedy_no_suppression'];
    names.push('prompt_ids', 'max_length_20', 'window_timestamps_greedy');
    for (const name of names) {
      const { options, ids } = report.generate[name];
      const { prompt, settings } = asked(options, path, tokenizer, found!.language);
      const [said] = await greedy(model, features(), settings);
      const got = [...prompt, ...said!.tokens, ...(said!.finished ? [tokenizer.endOfText] : [])];
      t.deepEqual(got, ids, name);
    }
  },
);

recorded("numbers: beam search by the rules of OpenAI's decoder gives the recorded tokens and sums", async (t) => {
  const path = await folder(t, 'numbers/fp32');
  const transcriber = await Transcriber.load(path, { compute: 'fp32' });
  t.teardown(() => transcriber.close());
  const { model, tokenizer } = transcriber;
  const features = await heard(transcriber, await decodeAudio(join(cases, 'numbers', 'short.flac')));
  const all = goldenJson('case12_hf/numbers/beam_openai_rules') as Record<
    string,
    { options: GenerateOptions; tokens: number[]; sum_log_probability: number }
  >;
  for (const [name, { options, tokens, sum_log_probability: sum }] of Object.entries(all)) {
    const { settings } = asked(options, path, tokenizer, LANGUAGE);
    const beams = {
      beamSize: options.beam_size!,
      patience: options.patience,
      lengthPenalty: options.length_penalty ?? undefined,
    };
    const [said] = await beamSearch(model, features(), { ...settings, ...beams });
    t.deepEqual(said!.tokens, tokens, name);
    t.true(Math.abs(said!.logProbability / sum - 1) < 2e-5, `${name}: ${said!.logProbability}, ${sum}`);
  }
});
