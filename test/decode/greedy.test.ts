/** Greedy decoding: with caches against full forwards, suppression, limits, gates, and the recorded sequences (golden case 9). */
import test, { type ExecutionContext } from 'ava';
import { type DecodedSequence, type GreedyOptions, greedy } from '../../lib/decode/index.js';
import { LanguageExpert, Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { detectLanguage } from '../../lib/transcribe/index.js';
import { splitClsrCheckpoint, type WhisperConfig } from '../../lib/weights/index.js';
import { configOf, floats, golden, goldenJson, goldenPath, ints, type Tensors } from '../support/golden.js';
import { devices, isas, relativeL2 } from '../support/kernels.js';
import { LANGUAGES, lively, PROMPTS, sounds, upload } from '../support/lively.js';
import { refused } from '../support/weights.js';

const streams = isas.map((isa) => new Stream({ isa, threads: 2 }));
const best = streams.at(-1)!;
test.after.always(() => {
  for (const stream of streams) stream.close();
});

/** Greedy decoding of one item as the definition says it: the whole model over the whole sequence for every token. */
async function slowly(
  model: Whisper,
  sound: Float32Array,
  options: Omit<GreedyOptions, 'prompts' | 'languages'> & { prompt: readonly number[]; language: string | null },
): Promise<DecodedSequence> {
  const { stream, config } = model;
  const V = config.vocab_size;
  const { prompt, suppress = [], suppressAtBegin = [], endOfText } = options;
  const sequence = [...prompt];
  const limit = Math.min(options.maxTokens, config.max_target_positions);
  let logProbability = 0;
  let drawn = 0;
  let finished = false;
  let gateShare: number | null = null;
  while (sequence.length < limit && !finished) {
    const pass = { languages: [options.language] };
    const ids = stream.tensor(Int32Array.from(sequence), [1, sequence.length], 'i32');
    const heard = model.encode(upload(model, [sound]), pass);
    const said = model.decode(ids, heard.hidden, pass);
    const reads = [model.logits(said.hidden).floats(), ...[...heard.gates, ...said.gates].map((gate) => gate.floats())];
    stream.endStep();
    const [logits, ...gates] = (await Promise.all(reads)) as [Float32Array, ...Float32Array[]];
    const row = Float64Array.from(logits.subarray((sequence.length - 1) * V));
    for (const id of suppress) row[id] = -Infinity;
    if (drawn === 0) for (const id of suppressAtBegin) row[id] = -Infinity;
    const top = row.indexOf(Math.max(...row));
    logProbability -= Math.log(row.reduce((sum, z) => sum + Math.exp(z - row[top]!), 0));
    drawn++;
    if (gates.length > 0) {
      const all = gates.flatMap((gate) => [...gate]);
      gateShare = all.reduce((a, b) => a + b, 0) / all.length;
    }
    if (top === endOfText) finished = true;
    else sequence.push(top);
  }
  const tokens = sequence.slice(prompt.length);
  return { tokens, logProbability, averageLogProbability: logProbability / drawn, finished, gateShare };
}

function same(t: ExecutionContext, got: DecodedSequence, expected: DecodedSequence, what: string): void {
  t.deepEqual(got.tokens, expected.tokens, what);
  t.is(got.finished, expected.finished, what);
  t.true(Math.abs(got.logProbability - expected.logProbability) < 1e-4 * got.tokens.length + 1e-4, what);
  t.true(Math.abs(got.averageLogProbability - expected.averageLogProbability) < 1e-4, what);
  if (expected.gateShare === null) t.is(got.gateShare, null, what);
  else t.true(Math.abs(got.gateShare! - expected.gateShare) < 1e-6, `${what}: ${got.gateShare} ${expected.gateShare}`);
}

test.serial('a batch of several languages with caches says what each item says alone by full forwards', async (t) => {
  for (const stream of [...devices().map((device) => device.stream), ...streams]) {
    const model = await lively(stream);
    const heard = sounds(model, PROMPTS.length);
    const options = { endOfText: 20, suppress: [9], suppressAtBegin: [20, 11], maxTokens: 24, gateValues: true };
    const got = await greedy(model, upload(model, heard), { ...options, prompts: PROMPTS, languages: LANGUAGES });
    t.is(got.length, PROMPTS.length);
    for (const [i, sound] of heard.entries()) {
      const alone = await slowly(model, sound, { ...options, prompt: PROMPTS[i]!, language: LANGUAGES[i]! });
      same(t, got[i]!, alone, `${stream.isa} item ${i}`);
    }
    t.is(new Set(got.map(({ tokens }) => tokens.join(' '))).size, got.length, 'no two items say the same');
    t.deepEqual(
      got.map(({ gateShare }) => gateShare !== null),
      LANGUAGES.map((language) => language === 'catalan' || language === 'thai'),
    );
    for (const { gateShare } of got) if (gateShare !== null) t.true(gateShare > 0.05 && gateShare < 0.95);
    const unmeasured = await greedy(model, upload(model, heard), {
      ...options,
      gateValues: false,
      prompts: PROMPTS,
      languages: LANGUAGES,
    });
    t.deepEqual(
      unmeasured,
      got.map((sequence) => ({ ...sequence, gateShare: null })),
    );
    model.dispose();
  }
});

test.serial('an expert changes what its language says and nothing else', async (t) => {
  const model = await lively(best);
  const heard = sounds(model, 3);
  const prompts = PROMPTS.slice(0, 3);
  const options = { prompts, endOfText: 20, maxTokens: 24 };
  const plain = await greedy(model, upload(model, heard), options);
  const taught = await greedy(model, upload(model, heard), { ...options, languages: [null, 'catalan', null] });
  t.deepEqual(taught[0], plain[0]);
  t.deepEqual(taught[2], plain[2]);
  t.notDeepEqual(taught[1]!.tokens, plain[1]!.tokens);
  model.dispose();
});

test.serial('an item ends at the end of the text, the others go on to the decoder positions', async (t) => {
  const model = await lively(best);
  const positions = model.config.max_target_positions;
  const heard = sounds(model, 6);
  const options = { prompts: PROMPTS, languages: LANGUAGES, maxTokens: 1000 };
  const whole = await greedy(model, upload(model, heard), { ...options, endOfText: 0, suppress: [0] });
  for (const { tokens, finished } of whole) {
    t.is(tokens.length, positions - 3);
    t.false(finished);
  }
  // Something that one item says in the middle, and another never, ends the text.
  const said = whole.flatMap(({ tokens }) => tokens.slice(2, -2));
  const end = said.find((id) => whole.some(({ tokens }) => !tokens.includes(id)))!;
  const ended = await greedy(model, upload(model, heard), { ...options, endOfText: end, suppress: [0] });
  for (const [i, { tokens, finished }] of ended.entries()) {
    const at = whole[i]!.tokens.indexOf(end);
    t.is(finished, at >= 0);
    t.deepEqual(tokens, at >= 0 ? whole[i]!.tokens.slice(0, at) : whole[i]!.tokens);
  }
  t.is(new Set(ended.map(({ finished }) => finished)).size, 2);
  for (const maxTokens of [3, 4, 9]) {
    const short = await greedy(model, upload(model, heard), { ...options, endOfText: 0, suppress: [0], maxTokens });
    for (const [i, { tokens, averageLogProbability }] of short.entries()) {
      t.deepEqual(tokens, whole[i]!.tokens.slice(0, maxTokens - 3));
      if (maxTokens === 3) t.is(averageLogProbability, 0);
    }
  }
  model.dispose();
});

test.serial('what is suppressed is never said; what is suppressed at the beginning is not said first', async (t) => {
  const model = await lively(best);
  const heard = sounds(model, 6);
  const options = { prompts: PROMPTS, languages: LANGUAGES, maxTokens: 24, endOfText: 0 };
  const free = await greedy(model, upload(model, heard), options);
  const suppress = [...new Set(free.flatMap(({ tokens }) => tokens)), 0];
  const rest = await greedy(model, upload(model, heard), { ...options, suppress });
  for (const { tokens, finished } of rest) {
    t.is(tokens.length, 21);
    t.false(finished);
    t.true(tokens.every((id) => !suppress.includes(id)));
  }
  const suppressAtBegin = [...new Set(free.map(({ tokens }) => tokens[0]!))];
  const begun = await greedy(model, upload(model, heard), { ...options, suppressAtBegin });
  t.true(begun.every(({ tokens }) => !suppressAtBegin.includes(tokens[0]!)));
  t.true(begun.some(({ tokens }) => tokens.some((id) => suppressAtBegin.includes(id))));
  model.dispose();
});

test.serial(
  'wrong prompts, languages, ids, limits and features are refused by name, and nothing is poisoned',
  async (t) => {
    const model = await lively(best);
    const heard = sounds(model, 2);
    const good: GreedyOptions = { prompts: PROMPTS.slice(0, 2), endOfText: 0, maxTokens: 24 };
    const bad: [Partial<GreedyOptions>, RegExp][] = [
      [{ prompts: [[48]] }, /^prompts: expected one for each of 2 items, got 1/],
      [{ prompts: [[48], [48, 1]] }, /^prompts: expected all of one length, got 1 tokens in item 0 and 2 in item 1/],
      [{ prompts: [[], []] }, /^prompts: expected at least one token/],
      [{ prompts: [[48], [50]] }, /^prompts: expected token ids from 0 to 49, got 50/],
      [{ prompts: [Array(25).fill(1), Array(25).fill(1)] }, /^prompts: expected at most 24 tokens .*got 25/],
      [{ languages: ['catalan'] }, /^languages: expected one for each of 2 items, got 1/],
      [{ suppress: [3, -1] }, /^suppress: expected token ids from 0 to 49, got -1/],
      [{ suppressAtBegin: [0.5] }, /^suppressAtBegin: expected token ids/],
      [{ suppress: Array.from({ length: 50 }, (_, i) => i) }, /^suppress: expected to leave a token to choose/],
      [{ endOfText: 99 }, /^endOfText: expected token ids/],
      [{ maxTokens: 0 }, /^maxTokens: expected a whole number from 1, got 0/],
      [{ maxTokens: Number.NaN }, /^maxTokens: expected a whole number from 1, got NaN/],
    ];
    for (const [change, pattern] of bad)
      await refused(t, 'ERR_ARGUMENT', pattern, () => greedy(model, upload(model, heard), { ...good, ...change }));
    const narrow = best.tensor(new Float32Array(2 * 80 * 10), [2, 80, 10]);
    await refused(t, 'ERR_SHAPE', /^features: expected \[batch, 80 mel bins, 40 frames\]/, () =>
      greedy(model, narrow, good),
    );
    const nan = [heard[0]!, heard[1]!.map((x, i) => (i === 5 ? Number.NaN : x))];
    await refused(t, 'ERR_KERNEL', /NaN/, () => greedy(model, upload(model, nan), good));
    t.deepEqual(await greedy(model, upload(model, []), { ...good, prompts: [] }), []);
    t.is((await greedy(model, upload(model, heard), good)).length, 2);
    model.dispose();
  },
);

test.serial('an abort ends decoding between two tokens, and frees its caches', async (t) => {
  const model = await lively(best, { max_target_positions: 400 });
  const heard = sounds(model, 2);
  const options = { prompts: PROMPTS.slice(0, 2), endOfText: 0, suppress: [0], maxTokens: 400 };
  const already = AbortSignal.abort();
  await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
    greedy(model, upload(model, heard), { ...options, signal: already }),
  );
  const { persistent } = best.memory();
  const controller = new AbortController();
  const running = greedy(model, upload(model, heard), { ...options, signal: controller.signal });
  setTimeout(() => controller.abort(new Error('enough')), 5);
  const error = await t.throwsAsync(running, { code: 'ERR_INTERRUPTED' });
  t.is((error!.cause as Error).message, 'enough');
  t.is(best.memory().persistent, persistent);
  model.dispose();
});

test.serial('calls on one stream may overlap: each says what it says alone', async (t) => {
  const model = await lively(best);
  const heard = sounds(model, 6);
  const one = (i: number): Promise<DecodedSequence[]> =>
    greedy(model, upload(model, [heard[i]!]), {
      prompts: [PROMPTS[i]!],
      languages: [LANGUAGES[i]!],
      endOfText: 20,
      maxTokens: 24,
    });
  const alone: DecodedSequence[][] = [];
  for (const i of heard.keys()) alone.push(await one(i));
  t.deepEqual(await Promise.all(heard.map((_, i) => one(i))), alone);
  model.dispose();
});

test.serial('the language is the likeliest of the language tokens at the start token, without experts', async (t) => {
  const tokenizer = await WhisperTokenizer.fromFolder('models/pocket-student');
  const model = await lively(best, { vocab_size: tokenizer.vocabSize + 3 });
  const heard = sounds(model, 5);
  const found = await detectLanguage(model, upload(model, heard), tokenizer);
  for (const [i, sound] of heard.entries()) {
    const start = best.tensor(Int32Array.of(tokenizer.startOfTranscript), [1, 1], 'i32');
    const logits = await model.logits(model.decode(start, model.encode(upload(model, [sound])).hidden).hidden).floats();
    best.endStep();
    const row = tokenizer.languages.map((code) => Math.exp(logits[tokenizer.languageId(code)]!));
    const sum = row.reduce((a, b) => a + b, 0);
    const { language, probabilities } = found[i]!;
    t.is(language, tokenizer.languages[row.indexOf(Math.max(...row))]!);
    t.deepEqual(Object.keys(probabilities), [...tokenizer.languages]);
    for (const [l, code] of tokenizer.languages.entries())
      t.true(Math.abs(probabilities[code]! - row[l]! / sum) < 1e-5);
  }
  t.true(new Set(found.map(({ language }) => language)).size > 1);
  t.deepEqual(await detectLanguage(model, upload(model, []), tokenizer), []);

  const json = tokenizer.toJSON();
  const codes = new Set(tokenizer.languages.map((code) => `<|${code}|>`));
  const mute = WhisperTokenizer.fromJSON({
    ...json,
    added_tokens: json.added_tokens.filter(({ content }) => !codes.has(content)),
  });
  await refused(t, 'ERR_LANGUAGE', /no language tokens/, () => detectLanguage(model, upload(model, heard), mute));
  model.dispose();
});

const whenRecorded = goldenPath('case9_generate/report.json') ? test.serial : test.serial.skip;

for (const [name, language] of [
  ['base', null],
  ['clsr_catalan', 'catalan'],
  ['clsr_thai', 'thai'],
] as const) {
  whenRecorded(`the recorded greedy sequences of ${name} come out token for token`, async (t) => {
    const report = goldenJson('case9_generate/report');
    const { sequences, eos, begin_suppress } = report[name];
    const { suppress, forced, decoder_start, max_length, pad } = report.settings;
    const config = configOf(goldenJson('case1_d64/report').config);
    const prompt: number[] = [decoder_start, ...forced.map(([, id]: [number, number]) => id)];
    const features = floats(golden('case9_generate/inputs'), 'input_features');
    for (const stream of streams) {
      const model = language === null ? base(stream, config) : clsr(stream, config);
      const got = await greedy(model, stream.tensor(features, [4, 80, 3000]), {
        prompts: sequences.map(() => prompt),
        languages: sequences.map(() => language),
        suppress,
        suppressAtBegin: begin_suppress,
        endOfText: eos,
        maxTokens: max_length,
      });
      for (const [i, { tokens, finished }] of got.entries()) {
        const sequence = [...prompt, ...tokens, ...(finished ? [eos] : [])];
        const padding = Array(sequences[i].length - sequence.length).fill(pad);
        t.deepEqual([...sequence, ...padding], sequences[i], `${stream.isa} item ${i}`);
      }
      model.dispose();
    }
  });
}

whenRecorded('the recorded scores are the logits, and their log-probabilities those of the sequences', async (t) => {
  const report = goldenJson('case9_generate/report');
  const { eos, begin_suppress } = report.base;
  const { suppress, max_length } = report.settings;
  const config = configOf(goldenJson('case1_d64/report').config);
  const run = golden('case9_generate/base');
  const [sequences, scores] = [ints(run, 'sequences'), floats(run, 'processed_scores')];
  const features = floats(golden('case9_generate/inputs'), 'input_features');
  const V = config.vocab_size;
  for (const stream of streams) {
    const model = base(stream, config);
    const ids = stream.tensor(sequences, [4, 40], 'i32');
    const memory = model.encode(stream.tensor(features, [4, 80, 3000])).hidden;
    const logits = await model.logits(model.decode(ids, memory).hidden).floats();
    stream.endStep();
    const got: number[] = [];
    const expected: number[] = [];
    const totals = [0, 0, 0, 0];
    for (let b = 0; b < 4; b++) {
      for (let at = 3; at < 39; at++) {
        const row = scores.subarray((b * 39 + at) * V, (b * 39 + at + 1) * V);
        for (let id = 0; id < V; id++) {
          if (row[id]! < -1e29) continue;
          expected.push(row[id]!);
          got.push(logits[(b * 40 + at) * V + id]!);
        }
        const chosen = sequences[b * 40 + at + 1]!;
        const sum = row.reduce((total, z) => total + Math.exp(z - row[chosen]!), 0);
        totals[b]! -= Math.log(sum);
        if (chosen === eos) break;
      }
    }
    const error = relativeL2(got, expected);
    t.true(error <= 1e-5, `${stream.isa}: ${error}`);
    const decoded = await greedy(model, stream.tensor(features, [4, 80, 3000]), {
      prompts: [0, 1, 2, 3].map((b) => [...sequences.subarray(b * 40, b * 40 + 4)]),
      suppress,
      suppressAtBegin: begin_suppress,
      endOfText: eos,
      maxTokens: max_length,
    });
    for (const [b, { logProbability }] of decoded.entries())
      t.true(Math.abs(logProbability / totals[b]! - 1) <= 1e-5, `${stream.isa}: ${logProbability} ${totals[b]}`);
    model.dispose();
  }
});

function base(stream: Stream, config: WhisperConfig): Whisper {
  return Whisper.fromTensors(stream, config, golden('case9_generate/base_weights'));
}

function clsr(stream: Stream, config: WhisperConfig): Whisper {
  const tensors = golden('case2_clsr/weights');
  const { backbone, experts } = splitClsrCheckpoint(tensors.keys());
  const pick = (names: Map<string, string>): Tensors =>
    new Map([...names].map(([to, from]) => [to, tensors.get(from)!]));
  const model = Whisper.fromTensors(stream, config, pick(backbone));
  for (const [name, names] of experts)
    model.attach(LanguageExpert.load(stream, config, name, pick(names), { compute: 'fp32' }));
  return model;
}
