/** What bf16, int8 and caches in int8 cost in word errors, on the embedded models and speech. */
import { join } from 'node:path';
import test from 'ava';
import { type DecodedAudio, decodeAudio } from '../../lib/audio/index.js';
import { readManifest } from '../../lib/data/index.js';
import { defaultNormalizer } from '../../lib/evaluate/index.js';
import { wer } from '../../lib/text/index.js';
import { Transcriber } from '../../lib/transcribe/index.js';
import { root } from '../support/cli.js';
import { cpus } from '../support/kernels.js';

const models = ['pocket-student', 'pocket-teacher'].map((name) => join(root, 'models', name));
const heard = readManifest(join(root, 'corpus', 'manifest.jsonl'), { split: 'test', domain: 'in' });
const { stream } = cpus().at(-1)!;
const languages = [...new Set(heard.map(({ language }) => language))];

/** The word error rate of all utterances; their audio was decoded once, for all models. */
async function errorRate(transcriber: Transcriber, samples: ReadonlyMap<string, DecodedAudio>): Promise<number> {
  const said = new Map<string, string>();
  for (const language of languages) {
    const rows = heard.filter((row) => row.language === language);
    const transcripts = await transcriber.transcribe(
      rows.map(({ id }) => samples.get(id)!),
      { language },
    );
    for (const [i, { id }] of rows.entries()) said.set(id, transcripts[i]!.text);
  }
  return wer(
    heard.map(({ text }) => defaultNormalizer(text)),
    heard.map(({ id }) => defaultNormalizer(said.get(id)!)),
  ).rate;
}

test.serial(
  'in domain, the word error rates of bf16 and int8, and of either kind of cache, are those of fp32 to 0.3 points',
  async (t) => {
    const samples = new Map<string, DecodedAudio>();
    for (const { id, audio } of heard) samples.set(id, await decodeAudio(audio));
    for (const model of models) {
      const rates: Record<string, number> = {};
      for (const [compute, cache] of [
        ['fp32', 'auto'],
        ['bf16', 'auto'],
        ['bf16', 'compute'],
        ['fp32', 'int8'],
        ['int8', 'auto'],
        ['int8', 'compute'],
      ] as const) {
        const transcriber = await Transcriber.load(model, { stream, compute, cache, batchSize: 40 });
        rates[cache === 'auto' ? compute : `${compute}, cache ${cache}`] = await errorRate(transcriber, samples);
        await transcriber.close();
      }
      t.log(
        `${model.split('/').at(-1)}: ${Object.entries(rates).map(([type, wer]) => `${type} ${(100 * wer).toFixed(2)}%`)}`,
      );
      for (const [type, rate] of Object.entries(rates)) t.true(Math.abs(rate - rates.fp32!) <= 0.003, type);
    }
  },
);
