/**
 * The search as OpenAI's Whisper writes it (whisper/decoding.py), over the logits of whole sequences, without caches: the oracle
 * of beam search, with and without timestamps.
 */
import type { BeamSearchOptions } from '../../lib/decode/index.js';
import type { Whisper } from '../../lib/model/index.js';
import { upload } from './lively.js';

export type Search = Omit<BeamSearchOptions, 'prompts' | 'languages'>;
/** Changes the logits of what follows `said`, as a LogitFilter does. */
export type Filter = (logits: Float64Array, said: readonly number[]) => void;
export interface Heard {
  sound: Float32Array;
  prompt: readonly number[];
  language: string | null;
}

/** Log-probabilities, after suppression, of what follows each of the sequences (all of one length), by the whole model. */
export async function following(
  model: Whisper,
  { sound, prompt, language }: Heard,
  sequences: readonly (readonly number[])[],
  { suppress = [], suppressAtBegin = [] }: Search,
  filter: Filter = () => {},
): Promise<Float64Array[]> {
  const { stream, config } = model;
  const [count, length, V] = [sequences.length, prompt.length + sequences[0]!.length, config.vocab_size];
  const pass = { languages: Array(count).fill(language) };
  const ids = stream.tensor(Int32Array.from(sequences.flatMap((s) => [...prompt, ...s])), [count, length], 'i32');
  const { hidden: memory } = model.encode(upload(model, Array(count).fill(sound)), pass);
  const reading = model.logits(model.decode(ids, memory, pass).hidden).floats();
  stream.endStep();
  const logits = await reading;
  return sequences.map((said, i) => {
    const at = (i + 1) * length - 1;
    const row = Float64Array.from(logits.subarray(at * V, (at + 1) * V));
    for (const id of [...suppress, ...(said.length === 0 ? suppressAtBegin : [])]) row[id] = -Infinity;
    filter(row, said);
    const top = Math.max(...row);
    const lse = top + Math.log(row.reduce((sum, z) => sum + Math.exp(z - top), 0));
    return row.map((z) => z - lse);
  });
}

export interface Found {
  tokens: number[];
  logProbability: number;
  finished: boolean;
}

/** The ranker: length without prompt and end. */
export function likeliest(found: readonly Found[], lengthPenalty?: number): Found {
  const scores = found.map(({ tokens: { length }, logProbability }) =>
    lengthPenalty === undefined ? logProbability / length : logProbability / ((5 + length) / 6) ** lengthPenalty,
  );
  return found[scores.indexOf(Math.max(...scores))]!;
}

export const lengthLimit = (model: Whisper, { maxTokens }: Search, { prompt }: Heard): number =>
  Math.min(maxTokens, model.config.max_target_positions) - prompt.length;

/** BeamSearchDecoder and its loop for one utterance; all beams begin alike, and dictionaries merge what is the same. */
export async function byHand(model: Whisper, heard: Heard, options: Search, filter?: Filter): Promise<Found> {
  const { beamSize, patience = 1, endOfText } = options;
  const capacity = Math.round(beamSize * patience);
  let beams: Found[] = Array(beamSize).fill({ tokens: [], logProbability: 0, finished: false });
  const finished = new Map<string, Found>();
  for (let n = lengthLimit(model, options, heard); n > 0 && finished.size < capacity; n--) {
    const rows = await following(
      model,
      heard,
      beams.map(({ tokens }) => tokens),
      options,
      filter,
    );
    const candidates = new Map<string, Found>();
    for (const [b, { tokens, logProbability }] of beams.entries()) {
      const row = rows[b]!;
      const order = [...row.keys()].sort((i, j) => row[j]! - row[i]!).slice(0, beamSize + 1);
      for (const id of order) {
        const next = { tokens: [...tokens, id], logProbability: logProbability + row[id]!, finished: id === endOfText };
        if (next.logProbability > -Infinity) candidates.set(next.tokens.join(' '), next);
      }
    }
    beams = [];
    for (const next of [...candidates.values()].sort((a, b) => b.logProbability - a.logProbability)) {
      if (next.finished) {
        const ended = { ...next, tokens: next.tokens.slice(0, -1) };
        if (finished.size < capacity) finished.set(ended.tokens.join(' '), ended);
      } else if (beams.push(next) === beamSize) break;
    }
  }
  const all = [...finished.values()];
  if (all.length < capacity) all.push(...beams.slice(0, Math.max(0, beamSize - all.length)));
  return likeliest(all, options.lengthPenalty);
}
