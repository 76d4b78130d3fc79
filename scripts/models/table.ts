/**
 * Word error rates of the pocket models by language and domain, as the table of models/README.md:
 *   npx tsx scripts/models/table.ts --corpus <folder of make.ts --kind whole, or corpus> [--limit 100] models/pocket-teacher models/pocket-student
 * --limit: of each test the first so many.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type ManifestEntry, readManifest } from '../../lib/data/index.js';
import { evaluate } from '../../lib/evaluate/index.js';
import { Transcriber } from '../../lib/transcribe/index.js';
import { DOMAINS } from '../corpus/plan.js';

const { values, positionals } = parseArgs({
  options: { corpus: { type: 'string' }, limit: { type: 'string' }, compute: { type: 'string', default: 'fp32' } },
  allowPositionals: true,
});
if (!values.corpus || positionals.length === 0) throw new Error('see the head of this file for the arguments');
const limit = Number(values.limit ?? Number.POSITIVE_INFINITY);
const number = ({ id }: ManifestEntry): number => Number(/\d+$/.exec(id)?.[0]);
const tests = readManifest(join(values.corpus, 'manifest.jsonl'), { split: 'test' }).filter(
  (entry) => number(entry) < limit,
);
const languages = [...new Set(tests.map(({ language }) => language))];
for (const model of positionals) {
  const transcriber = await Transcriber.load(model, { compute: values.compute as 'fp32', batchSize: 32 });
  const { groups } = await evaluate(transcriber, tests, { checked: true });
  await transcriber.close();
  const rate = (language: string, domain: string): string => {
    const group = groups.find((each) => each.language === language && each.domain === domain);
    return group ? `${(100 * group.wer).toFixed(1)} / ${(100 * group.cer).toFixed(1)}` : '—';
  };
  console.log(`| ${model.split('/').at(-1)} | ${DOMAINS.join(' | ')} |\n|---|${DOMAINS.map(() => '---|').join('')}`);
  for (const language of languages) {
    console.log(`| ${language} | ${DOMAINS.map((domain) => rate(language, domain)).join(' | ')} |`);
  }
}
