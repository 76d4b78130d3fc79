/** Beam search. The oracle is the search as OpenAI's Whisper writes it, by hand. */
import test, { type ExecutionContext } from 'ava';
import { beamSearch, type DecodedSequence, greedy } from '../../lib/decode/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { cpus, devices, onEmulated, streamOn } from '../support/kernels.js';
import { LANGUAGES, lively, PROMPTS, sounds, upload } from '../support/lively.js';
import {
  byHand,
  type Found,
  following,
  type Heard,
  lengthLimit,
  likeliest,
  type Search,
} from '../support/search-by-hand.js';
import { tinyConfig } from '../support/tiny.js';
import { refused } from '../support/weights.js';

const places = () => [...cpus(), ...devices()].map(({ stream }) => stream);
const best = cpus().at(-1)!.stream;

/** Share of the gates open in one forward over the sequence, its last choice left out. */
async function gatesOf(model: Whisper, { sound, prompt, language }: Heard, said: DecodedSequence): Promise<number> {
  const pass = { languages: [language] };
  const ids = [...prompt, ...(said.finished ? said.tokens : said.tokens.slice(0, -1))];
  const encoded = model.encode(upload(model, [sound]), pass);
  const tokens = model.stream.tensor(Int32Array.from(ids), [1, ids.length], 'i32');
  const decoded = model.decode(tokens, encoded.hidden, pass);
  const reads = Promise.all([...encoded.gates, ...decoded.gates].map((gate) => gate.floats()));
  model.stream.endStep();
  const gates = (await reads).flatMap((values) => [...values]);
  return gates.reduce((a, b) => a + b, 0) / gates.length;
}

function same(t: ExecutionContext, got: DecodedSequence, expected: Found, what: string): void {
  t.deepEqual(got.tokens, expected.tokens, what);
  t.is(got.finished, expected.finished, what);
  t.true(Math.abs(got.logProbability - expected.logProbability) < 1e-4 * got.tokens.length + 1e-4, what);
  const chosen = got.tokens.length + (got.finished ? 1 : 0);
  t.is(got.averageLogProbability, got.logProbability / chosen, what);
}

const hearing = (model: Whisper): Heard[] =>
  sounds(model, PROMPTS.length).map((sound, i) => ({ sound, prompt: PROMPTS[i]!, language: LANGUAGES[i]! }));
/** What the search says to all of them in one call. */
const together = (model: Whisper, heard: readonly Heard[], options: Search): Promise<DecodedSequence[]> =>
  beamSearch(
    model,
    upload(
      model,
      heard.map(({ sound }) => sound),
    ),
    { ...options, prompts: heard.map(({ prompt }) => prompt), languages: heard.map(({ language }) => language) },
  );

const settings = { endOfText: 31, suppress: [9], suppressAtBegin: [31, 11], maxTokens: 24 };

test.serial('a beam of 1 is greedy decoding, on every path', async (t) => {
  for (const stream of places()) {
    const model = await lively(stream);
    const heard = hearing(model);
    for (const change of [{}, { maxTokens: 4 }, { endOfText: 0, suppress: [0] }, { gateValues: true }]) {
      const options = { ...settings, ...change, prompts: PROMPTS, languages: LANGUAGES };
      const items = heard.map(({ sound }) => sound);
      const got = await beamSearch(model, upload(model, items), { ...options, beamSize: 1 });
      t.deepEqual(got, await greedy(model, upload(model, items), options), `${stream.isa}: ${JSON.stringify(change)}`);
    }
    model.dispose();
  }
});

test.serial('a batch of several languages says what the search by hand says of each item', async (t) => {
  const model = await lively(best);
  const heard = hearing(model);
  let [finished, otherThanGreedy] = [0, 0];
  const straight = await together(model, heard, { ...settings, beamSize: 1 });
  for (const beamSize of [2, 3, 5])
    for (const patience of [1, 2])
      for (const lengthPenalty of [undefined, 0.6]) {
        const options = { ...settings, beamSize, patience, ...(lengthPenalty !== undefined && { lengthPenalty }) };
        const got = await together(model, heard, { ...options, gateValues: true });
        for (const [i, one] of heard.entries()) {
          const what = `beam ${beamSize}, patience ${patience}, penalty ${lengthPenalty}, item ${i}`;
          same(t, got[i]!, await byHand(model, one, options), what);
          const gated = one.language !== null && model.experts.has(one.language);
          if (gated) t.true(Math.abs(got[i]!.gateShare! - (await gatesOf(model, one, got[i]!))) < 1e-6, what);
          else t.is(got[i]!.gateShare, null, what);
          finished += got[i]!.finished ? 1 : 0;
          otherThanGreedy += got[i]!.tokens.join() === straight[i]!.tokens.join() ? 0 : 1;
        }
        t.deepEqual(
          await together(model, heard, options),
          got.map((sequence) => ({ ...sequence, gateShare: null })),
        );
      }
  t.log(`of ${12 * heard.length} sequences ${finished} end, and ${otherThanGreedy} are not what greedy decoding says`);
  t.true(finished > 10 && finished < 62 && otherThanGreedy > 20);
  model.dispose();
});

test.serial('every path and type says what it says of each utterance alone', async (t) => {
  for (const stream of places()) {
    const model = await lively(stream);
    const heard = hearing(model);
    const options = { ...settings, beamSize: 5, gateValues: true };
    const got = await together(model, heard, options);
    for (const [i, one] of heard.entries()) {
      const [alone] = await together(model, [one], options);
      same(t, got[i]!, alone!, `${stream.isa}, item ${i}`);
      t.is(got[i]!.gateShare === null, alone!.gateShare === null);
    }
    same(t, got[2]!, await byHand(model, heard[2]!, options), stream.isa);
    model.dispose();
  }
});

test.serial('a beam as wide as the tree finds the best of all sequences', async (t) => {
  const model = await lively(best);
  // Three words and the end: 3 to 27 beams.
  const words = [5, 15, 47];
  const suppress = Array.from({ length: 50 }, (_, id) => id).filter((id) => ![...words, 31].includes(id));
  const options = { endOfText: 31, suppress, suppressAtBegin: [31], maxTokens: 6, beamSize: 27, patience: 2 };
  let ended = 0;
  for (const lengthPenalty of [undefined, 0, 1])
    for (const heard of hearing(model)) {
      const all: Found[] = [];
      let open: Found[] = [{ tokens: [], logProbability: 0, finished: false }];
      for (let n = lengthLimit(model, options, heard); n > 0; n--) {
        const rows = await following(
          model,
          heard,
          open.map(({ tokens }) => tokens),
          options,
        );
        const next = (id: number, i: number): Found => ({
          tokens: id === 31 ? open[i]!.tokens : [...open[i]!.tokens, id],
          logProbability: open[i]!.logProbability + rows[i]![id]!,
          finished: id === 31,
        });
        all.push(...open.map((_, i) => next(31, i)).filter(({ tokens }) => tokens.length > 0));
        open = open.flatMap((_, i) => words.map((id) => next(id, i)));
      }
      t.is(all.length, 12);
      const expected = likeliest([...all, ...open], lengthPenalty);
      const penalty = lengthPenalty === undefined ? {} : { lengthPenalty };
      const [got] = await together(model, [heard], { ...options, ...penalty });
      same(t, got!, expected, `penalty ${lengthPenalty}`);
      ended += got!.finished ? 1 : 0;
    }
  t.true(ended > 0 && ended < 18, `${ended} of 18 end`);
  model.dispose();
});

test.serial('equal sequences: the lower ids come first', async (t) => {
  // Logits that are all zero: every token is as likely as every other.
  const model = await Whisper.create(best, tinyConfig({ init_std: 1e-30 }), { seed: 1 });
  const [heard] = hearing(model).map((one) => ({ ...one, language: null }));
  const options = { endOfText: 20, suppress: [0, 2], maxTokens: 8, beamSize: 4 };
  const [got] = await together(model, [heard!], options);
  t.deepEqual(got!.tokens, [1, 1, 1, 1, 1]);
  t.true(Math.abs(got!.averageLogProbability + Math.log(48)) < 1e-5);
  const [first] = await together(model, [heard!], { ...options, endOfText: 3 });
  // 1, 3 (the end), 4 come first behind the prompt: the ends fill the list, and the first of equal scores is taken.
  t.deepEqual([first!.tokens, first!.finished], [[], true]);
  model.dispose();
});

test.serial('fewer tokens to choose from than beams, and none but the end', async (t) => {
  const model = await lively(best);
  const heard = hearing(model);
  const all = Array.from({ length: 50 }, (_, id) => id);
  const only = (...ids: number[]) => ({ ...settings, suppress: all.filter((id) => !ids.includes(id)), beamSize: 5 });
  for (const { tokens, finished, logProbability } of await together(model, heard, {
    ...only(31),
    suppressAtBegin: [],
  })) {
    t.deepEqual([tokens, finished], [[], true]);
    t.true(Math.abs(logProbability) < 1e-6);
  }
  for (const { tokens, finished, logProbability } of await together(model, heard, only(6))) {
    t.deepEqual([tokens, finished], [Array(21).fill(6), false]);
    t.true(Math.abs(logProbability) < 1e-6);
  }
  for (const { tokens } of await together(model, heard, only(6, 15, 31)))
    t.true(tokens.length > 0 && tokens.every((id) => id === 6 || id === 15));
  // As many proposals as there are words.
  const few = await Whisper.create(best, tinyConfig({ vocab_size: 50, init_std: 0.4 }), { seed: 3 });
  const wide = { ...settings, beamSize: 31 };
  const [got] = await together(few, [{ ...heard[0]!, language: null }], wide);
  same(t, got!, await byHand(few, { ...heard[0]!, language: null }, wide), 'beam 31');
  for (const { tokens, averageLogProbability } of await together(model, heard, { ...only(6), maxTokens: 3 }))
    t.deepEqual([tokens, averageLogProbability], [[], 0]);
  model.dispose();
  few.dispose();
});

test.serial('wrong beams, patience and penalties are refused by name, and what greedy decoding refuses', async (t) => {
  const model = await lively(best);
  const heard = hearing(model).slice(0, 2);
  const good: Search = { endOfText: 0, maxTokens: 24, beamSize: 2 };
  const bad: [Partial<Search>, RegExp][] = [
    ...[0, 32, 1.5, Number.NaN].map((beamSize): [Partial<Search>, RegExp] => [
      { beamSize },
      new RegExp(`^beamSize: expected a whole number from 1 to 31, got ${beamSize}$`),
    ]),
    ...[0, -1, 0.2, Number.NaN, Number.POSITIVE_INFINITY].map((patience): [Partial<Search>, RegExp] => [
      { patience },
      new RegExp(
        `^patience: expected a finite number with a round\\(beamSize · patience\\) of at least 1, got ${patience}$`,
      ),
    ]),
    ...[-0.1, 1.1, Number.NaN].map((lengthPenalty): [Partial<Search>, RegExp] => [
      { lengthPenalty },
      new RegExp(`^lengthPenalty: expected a number from 0 to 1, got ${lengthPenalty}$`),
    ]),
    [{ suppress: [3, -1] }, /^suppress: expected token ids from 0 to 49, got -1/],
    [{ maxTokens: 0 }, /^maxTokens: expected a whole number from 1, got 0/],
  ];
  const { persistent } = best.memory();
  for (const [change, pattern] of bad)
    await refused(t, 'ERR_ARGUMENT', pattern, () => together(model, heard, { ...good, ...change }));
  const nan = { ...heard[1]!, sound: heard[1]!.sound.map((x, i) => (i === 5 ? Number.NaN : x)) };
  await refused(t, 'ERR_KERNEL', /NaN/, () => together(model, [heard[0]!, nan], good));
  await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
    together(model, heard, { ...good, signal: AbortSignal.abort() }),
  );
  t.deepEqual(await beamSearch(model, upload(model, []), { ...good, prompts: [] }), []);
  t.is(best.memory().persistent, persistent);
  model.dispose();
});

test.serial('an abort ends the search between two tokens, and frees its caches; calls may overlap', async (t) => {
  const model = await lively(best, { max_target_positions: 400 });
  const heard = hearing(model);
  const long = { endOfText: 0, suppress: [0], maxTokens: 400, beamSize: 3 };
  const { persistent } = best.memory();
  const controller = new AbortController();
  const running = together(model, heard, { ...long, signal: controller.signal });
  setTimeout(() => controller.abort(new Error('enough')), 20);
  const error = await t.throwsAsync(running, { code: 'ERR_INTERRUPTED' });
  t.is((error!.cause as Error).message, 'enough');
  t.is(best.memory().persistent, persistent);
  const one = (i: number) => together(model, [heard[i]!], { ...settings, beamSize: 2 + i });
  const alone: DecodedSequence[][] = [];
  for (const i of heard.keys()) alone.push(await one(i));
  t.deepEqual(await Promise.all(heard.map((_, i) => one(i))), alone);
  model.dispose();
});

test.serial(
  'with CUDA graphs and without it says the same, to the bit',
  onEmulated(async (t, plugin) => {
    const streams = [streamOn(plugin), streamOn(plugin, { graphs: false })];
    const models = await Promise.all(streams.map((stream) => lively(stream, { max_target_positions: 150 })));
    for (const [items, change] of [
      [3, { beamSize: 3, gateValues: true }],
      [3, { beamSize: 5, patience: 2, lengthPenalty: 0.5 }],
      [1, { beamSize: 2, endOfText: 0, suppress: [0], suppressAtBegin: [5], maxTokens: 150 }],
    ] as const) {
      const [got, want] = await Promise.all(
        models.map((model) => together(model, hearing(model).slice(0, items), { ...settings, ...change })),
      );
      t.deepEqual(got, want, JSON.stringify(change));
    }
    for (const stream of streams) stream.close();
  }),
);

test.serial('bf16 and int8 search too', async (t) => {
  const stream = new Stream({ threads: 2 });
  for (const compute of ['bf16', 'int8'] as const) {
    const model = await Whisper.create(stream, tinyConfig({ init_std: 0.4 }), { seed: 5, compute });
    const heard = hearing(model).map((one) => ({ ...one, language: null }));
    const got = await together(model, heard, { ...settings, beamSize: 4 });
    t.true(got.every(({ tokens, logProbability }) => tokens.length > 0 && logProbability < 0));
    const one = await together(model, heard, { ...settings, beamSize: 1 });
    t.notDeepEqual(
      one.map(({ tokens }) => tokens),
      got.map(({ tokens }) => tokens),
    );
    model.dispose();
  }
  stream.close();
});
