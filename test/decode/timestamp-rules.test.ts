/** The rules of timestamps in both searches, against those of OpenAI's Whisper over the logits of whole sequences. */
import test, { type ExecutionContext } from 'ava';
import { beamSearch, type DecodedSequence, type GreedyOptions, greedy } from '../../lib/decode/index.js';
import { TimestampRules } from '../../lib/decode/timestamp-rules.js';
import type { Whisper } from '../../lib/model/index.js';
import type { Stream } from '../../lib/tensor/index.js';
import { cpus, devices, onEmulated, random, streamOn } from '../support/kernels.js';
import { LANGUAGES, lively, PROMPTS, sounds, upload } from '../support/lively.js';
import { byHand, type Filter, type Found, following, type Heard, lengthLimit } from '../support/search-by-hand.js';
import { refused } from '../support/weights.js';

const places = () => [...cpus(), ...devices()].map(({ stream }) => stream);
const best = cpus().at(-1)!.stream;

/** 62 words, special tokens, 1.3 s of timestamps. */
const [endOfText, noTimestamps, begin, end] = [62, 85, 86, 151];
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const timestamps = { begin, end, noTimestamps };
const settings = {
  endOfText,
  timestamps,
  suppress: [9, ...range(endOfText + 1, noTimestamps)],
  suppressAtBegin: [5, endOfText],
  maxTokens: 40,
};
const talking = (stream: Stream): Promise<Whisper> => lively(stream, { vocab_size: end, max_target_positions: 40 });

/** ApplyTimestampRules, but for its last rule. */
const masked: Filter = (logits, said) => {
  logits[noTimestamps] = -Infinity;
  const lastWasTimestamp = said.length >= 1 && said.at(-1)! >= begin;
  const penultimateWasTimestamp = said.length < 2 || said.at(-2)! >= begin;
  if (lastWasTimestamp) {
    if (penultimateWasTimestamp) logits.fill(-Infinity, begin);
    else logits.fill(-Infinity, 0, endOfText);
  }
  const times = said.filter((id) => id >= begin);
  if (times.length > 0) {
    const last = times.at(-1)!;
    logits.fill(-Infinity, begin, lastWasTimestamp && !penultimateWasTimestamp ? last : last + 1);
  }
  if (said.length === 0) {
    logits.fill(-Infinity, 0, begin);
    logits.fill(-Infinity, begin + Math.round(1 / 0.02) + 1);
  }
};

/** How often text and timestamps were both allowed, and how often the last rule then took the text away. */
const decided = { both: 0, timestamps: 0 };
/** The last rule: timestamps that are likelier together than every other token leave no other. */
const filtered: Filter = (logits, said) => {
  masked(logits, said);
  const sum = logits.slice(begin).reduce((total, z) => total + Math.exp(z), 0);
  const text = Math.max(...logits.subarray(0, begin));
  if (sum > 0 && text > -Infinity) decided.both++;
  if (!(Math.log(sum) > text)) return;
  if (text > -Infinity) decided.timestamps++;
  logits.fill(-Infinity, 0, begin);
};

/** The likeliest token each time. */
async function greedily(model: Whisper, heard: Heard, options: typeof settings): Promise<Found> {
  const found: Found = { tokens: [], logProbability: 0, finished: false };
  for (let n = lengthLimit(model, { ...options, beamSize: 1 }, heard); n > 0 && !found.finished; n--) {
    const [row] = await following(model, heard, [found.tokens], { ...options, beamSize: 1 }, filtered);
    const id = row!.indexOf(Math.max(...row!));
    found.logProbability += row![id]!;
    if (id === endOfText) found.finished = true;
    else found.tokens.push(id);
  }
  return found;
}

function same(t: ExecutionContext, got: DecodedSequence, expected: Found, what: string): void {
  t.deepEqual(got.tokens, expected.tokens, what);
  t.is(got.finished, expected.finished, what);
  t.true(Math.abs(got.logProbability - expected.logProbability) < 1e-4 * got.tokens.length + 1e-4, what);
}

/** Begins with a timestamp of the first second; pairs, but before the end; never falling, and rising within a segment. */
function follows(t: ExecutionContext, tokens: readonly number[], what: string): void {
  const isTime = (id: number | undefined) => id !== undefined && id >= begin && id < end;
  t.true(isTime(tokens[0]) && tokens[0]! <= begin + 50, what);
  t.false(tokens.includes(noTimestamps), what);
  // s: a segment begins, e: it ends.
  const shape = tokens.map((id, i) => (!isTime(id) ? 'w' : i === 0 || isTime(tokens[i - 1]) ? 's' : 'e')).join('');
  t.regex(shape, /^(sw+e)*(s|sw+)?$/, what);
  const times = tokens.filter(isTime);
  for (const [i, time] of times.entries()) t.true(i === 0 || time - times[i - 1]! >= i % 2, `${what}: ${times}`);
}

const hearing = (model: Whisper): Heard[] =>
  sounds(model, PROMPTS.length).map((heard, i) => ({ sound: heard, prompt: PROMPTS[i]!, language: LANGUAGES[i]! }));
const items = (heard: readonly Heard[]) => ({
  prompts: heard.map(({ prompt }) => prompt),
  languages: heard.map(({ language }) => language),
});
const features = (model: Whisper, heard: readonly Heard[]) =>
  upload(
    model,
    heard.map((one) => one.sound),
  );

test('what may follow any history is what ApplyTimestampRules leaves of the logits', (t) => {
  const rules = new TimestampRules(timestamps, endOfText);
  const next = random(41);
  const histories: number[][] = [[]];
  for (const kinds of ['', 't', 'w', 'tt', 'tw', 'wt', 'ww', 'twt', 'twtt', 'twttw', 'wtww', 'ttt', 'wwww', 'twttwt'])
    for (let n = 0; n < 20; n++)
      histories.push(
        [...kinds].map((kind) => Math.floor(kind === 't' ? begin + next() * (end - begin) : next() * endOfText)),
      );
  histories.push([end - 1], [end - 1, 4], [end - 1, 4, end - 1], [begin, 4], [begin, 4, begin]);
  for (const said of histories) {
    const logits = new Float64Array(end);
    masked(logits, said);
    const [text, textEnd, times, timesEnd] = rules.allowed(said);
    t.true(0 <= text && text <= textEnd && textEnd <= times && times <= timesEnd && timesEnd <= end, said.join());
    for (const [id, z] of logits.entries()) {
      const allowed = (id >= text && id < textEnd) || (id >= times && id < timesEnd);
      // It is among what is suppressed.
      if (id !== noTimestamps) t.is(allowed, z === 0, `${said.join()}: ${id}`);
    }
  }
});

test.serial('greedily every path says of a batch what the rules say of each item over full logits', async (t) => {
  for (const [p, stream] of places().entries()) {
    const model = await talking(stream);
    const heard = hearing(model);
    const got = await greedy(model, features(model, heard), { ...settings, ...items(heard) });
    for (const [i, one] of heard.entries()) {
      follows(t, got[i]!.tokens, `${stream.isa} item ${i}`);
      if (p < 2 || i === 0) same(t, got[i]!, await greedily(model, one, settings), `${stream.isa} item ${i}`);
      const [alone] = await greedy(model, features(model, [one]), { ...settings, ...items([one]) });
      same(t, alone!, got[i]!, `${stream.isa} item ${i} alone`);
    }
    t.true(new Set(got.map(({ tokens }) => tokens.join())).size > 3);
    model.dispose();
  }
  t.log(`of ${decided.both} choices between text and timestamps ${decided.timestamps} are by the sum of probabilities`);
  t.true(decided.timestamps > 20 && decided.both - decided.timestamps > 20);
});

test.serial('each beam has its own history: a batch says what the search by hand says of each item', async (t) => {
  const model = await talking(best);
  const heard = hearing(model);
  let finished = 0;
  for (const [beamSize, patience] of [
    [1, 1],
    [2, 2],
    [4, 1],
  ] as const) {
    const options = { ...settings, beamSize, patience };
    const got = await beamSearch(model, features(model, heard), { ...options, ...items(heard) });
    for (const [i, one] of heard.entries()) {
      const what = `beam ${beamSize}, item ${i}`;
      follows(t, got[i]!.tokens, what);
      same(t, got[i]!, await byHand(model, one, options, filtered), what);
      finished += got[i]!.finished ? 1 : 0;
    }
    if (beamSize === 1) t.deepEqual(got, await greedy(model, features(model, heard), { ...settings, ...items(heard) }));
  }
  t.log(`${finished} of ${3 * heard.length} end`);
  t.true(finished > 4);
  for (const { stream } of devices()) {
    const other = await talking(stream);
    const options = { ...settings, beamSize: 4, ...items(heard) };
    const want = await beamSearch(model, features(model, heard), options);
    for (const [i, got] of (await beamSearch(other, features(other, heard), options)).entries())
      same(t, got, want[i]!, `${stream.isa} item ${i}`);
    other.dispose();
  }
  model.dispose();
});

test.serial(
  'with CUDA graphs and without the same is said, to the last bit',
  onEmulated(async (t, plugin) => {
    const streams = [streamOn(plugin), streamOn(plugin, { graphs: false })];
    t.deepEqual(
      streams.map(({ graphs }) => graphs),
      [true, false],
    );
    const models = await Promise.all(streams.map(talking));
    const heard = hearing(models[0]!);
    for (const beamSize of [0, 3]) {
      const [got, want] = await Promise.all(
        models.map((model) => {
          const options = { ...settings, ...items(heard), gateValues: true };
          return beamSize > 0
            ? beamSearch(model, features(model, heard), { ...options, beamSize })
            : greedy(model, features(model, heard), options);
        }),
      );
      t.deepEqual(got, want, `beam ${beamSize}`);
      for (const { tokens } of got!) follows(t, tokens, `beam ${beamSize}`);
    }
    for (const stream of streams) stream.close();
  }),
);

test.serial(
  'timestamps that do not fit the vocabulary, or of which none may come first, are refused by name',
  async (t) => {
    const model = await talking(best);
    const heard = hearing(model).slice(0, 2);
    const bad: [Partial<GreedyOptions>, RegExp][] = [
      ...[
        { begin, end: end + 1, noTimestamps },
        { begin: end, end, noTimestamps },
        { begin: endOfText, end, noTimestamps: 3 },
        { begin, end, noTimestamps: begin },
        { begin, end, noTimestamps: -1 },
        { begin: begin + 0.5, end, noTimestamps },
      ].map((wrong): [Partial<GreedyOptions>, RegExp] => [
        { timestamps: wrong },
        /^timestamps: expected noTimestamps and endOfText \(62\) < begin < end ≤ 151, got \{"begin":/,
      ]),
      [
        { suppress: range(begin, begin + 40), suppressAtBegin: range(begin + 40, begin + 51) },
        /^suppress: expected to leave a timestamp to begin with, got all from 86 to 136$/,
      ],
      [{ suppress: range(0, 85) }, /^suppress: expected to leave text to choose, got all ids below 86/],
    ];
    for (const [change, pattern] of bad) {
      const options = { ...settings, ...items(heard), ...change };
      await refused(t, 'ERR_ARGUMENT', pattern, () => greedy(model, features(model, heard), options));
      await refused(t, 'ERR_ARGUMENT', pattern, () =>
        beamSearch(model, features(model, heard), { ...options, beamSize: 2 }),
      );
    }
    model.dispose();
  },
);
