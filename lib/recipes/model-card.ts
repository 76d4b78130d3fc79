/** The README.md of a repository of the hub that holds what a run has made. */
import { SIZES } from '../hub/index.js';
import { resolveLanguage } from '../text/index.js';
import { plain, table } from './markdown.js';

/** Error rates of an evaluation, as `evaluate --json` prints them. */
export interface CardRow {
  language: string;
  domain: string;
  utterances: number;
  /** Fractions. */
  wer: number;
  cer: number;
}

export interface CardContent {
  /** "org/name" */
  repository: string;
  /** Codes of the languages that were taught, where they were named. */
  languages: readonly string[];
  /** What it is: experts of these languages, a LoRA adapter, or a whole model. */
  kind: 'experts' | 'adapter' | 'model';
  /** The model that it belongs to, by its repository; null where it came from a folder. */
  baseModel: string | null;
  sources: { model: string; teacher: string | null; data: readonly string[] };
  /** Options of the training, as run.json has them. */
  options: Readonly<Record<string, unknown>>;
  batchSize: number;
  compute: string;
  utterances: number;
  updates: number;
  trainable: number;
  parameters: number;
  best: { score: number; step: number } | null;
  evaluation: readonly CardRow[] | null;
}

const count = (n: number): string => n.toLocaleString('en');
const percent = (rate: number): string => (100 * rate).toFixed(1);
/** The last part of a path: folders of the machine that it was made on are nobody's business. */
const lastOf = (path: string): string =>
  path
    .replace(/[/\\]+$/, '')
    .split(/[/\\]/)
    .at(-1) ?? path;
/** A name of two parts, and a release of Common Voice with its language (cv-corpus-13.0/ca), as they are; of other paths the last part. */
function nameOfData(data: string): string {
  if (/\.(jsonl?|tsv|csv|parquet)$/.test(data)) return lastOf(data);
  const kept = /^(?:\w+:)?([^:/\\]+[/\\][^/\\]+)$/.exec(data) ?? /(cv-corpus[^/\\]*[/\\][^/\\]+)$/.exec(data);
  return kept?.[1] ?? lastOf(data);
}
/** JSON is YAML. */
function metadata({ languages, baseModel, kind }: CardContent): string {
  const own = { experts: ['language-expert'], adapter: ['lora'], model: [] }[kind];
  const tags = ['distilwhisper', 'whisper', 'automatic-speech-recognition', ...own];
  const lines = [
    `library_name: ${kind === 'adapter' ? 'peft' : 'distilwhisper'}`,
    'pipeline_tag: automatic-speech-recognition',
    `tags: ${JSON.stringify(tags)}`,
    ...(languages.length === 0
      ? []
      : [`language: ${JSON.stringify(languages.length === 1 ? languages[0] : languages)}`]),
    ...(baseModel === null ? [] : [`base_model: ${JSON.stringify(baseModel)}`]),
    ...(baseModel === null ? [] : [`base_model_relation: ${kind === 'model' ? 'finetune' : 'adapter'}`]),
  ];
  return `---\n${lines.join('\n')}\n---\n`;
}

/** The card: what it is, how it was made, what it hears, how to use it. */
export function modelCard(content: CardContent): string {
  const { repository, languages, kind, baseModel, sources, best, evaluation } = content;
  const [language] = languages;
  const spoken = languages.map((code) => resolveLanguage(code).name);
  const names = spoken.map((name) => `${name[0]!.toUpperCase()}${name.slice(1)}`).join(', ');
  const base = baseModel ?? lastOf(sources.model);
  const size = Object.entries(SIZES).find(([, full]) => full === baseModel)?.[0];
  const model = size ?? baseModel ?? 'path/to/the/model';
  const what = {
    experts: `${spoken.length > 1 ? 'Language experts' : 'A language expert'} for ${names} of ${base}: gates and feed-forward blocks beside the model's frozen ones, which they take the place of where a gate says so. Other languages stay exactly as they are.`,
    adapter: `A LoRA adapter of ${base}, as PEFT writes it: low-rank matrices that are added to its linear layers.`,
    model: `${base}, all of whose parameters were trained further.`,
  }[kind];
  const teacher = sources.teacher === null ? null : lastOf(sources.teacher);
  const taught = teacher ? ` with distillation from ${plain(teacher)}` : '';
  const method = {
    experts: `[DistilWhisper](https://arxiv.org/abs/2311.01070): only gates and ${spoken.length > 1 ? 'experts' : 'expert'} train, by speech recognition fine-tuning${teacher ? ` and distillation from ${plain(teacher)}` : ', without a teacher'}.`,
    adapter: `Fine-tuning of the adapter alone${taught}.`,
    model: `Fine-tuning of all parameters${taught}.`,
  }[kind];
  const settings = Object.entries({
    updates: count(content.updates),
    'batch size': count(content.batchSize),
    'parameters that train': `${count(content.trainable)} of ${count(content.parameters)}`,
    compute: content.compute,
    ...Object.fromEntries(
      Object.entries(content.options)
        .filter(([key]) => !['steps', 'workspace'].includes(key))
        .map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
    ),
  });
  const heard = evaluation
    ? `${table(
        ['language', 'domain', 'utterances', 'WER %', 'CER %'],
        evaluation.map((row) => [
          row.language,
          row.domain || '-',
          count(row.utterances),
          percent(row.wer),
          percent(row.cer),
        ]),
      )}\n`
    : best
      ? `Word error rate of the best validation: ${percent(best.score)}% after update ${count(best.step)}.\n`
      : 'Not evaluated yet.\n';
  const [flags, load] = {
    experts: [`${model} --expert ${repository}`, `'${model}', { experts: ['${repository}'] }`],
    adapter: [`${model} --adapter ${repository}`, `'${model}', { adapter: '${repository}' }`],
    model: [repository, `'${repository}'`],
  }[kind] as [string, string];
  const command = `npx distilwhisper transcribe talk.mp3 --model ${flags}${language === undefined ? '' : ` --language ${language}`}`;
  return `${metadata(content)}
# ${repository.split('/')[1]}

${what}

## How it was made

${method} Data: ${plain(sources.data.map(nameOfData).join(', ') || 'unknown')}, ${count(content.utterances)} utterances.

${table(['setting', 'value'], settings)}

## What it hears

${heard}
## How to use it

With [distilwhisper](https://www.npmjs.com/package/distilwhisper):

    npm install distilwhisper
    ${command}

\`\`\`js
import { Transcriber } from 'distilwhisper';

const transcriber = await Transcriber.load(${load});
const { text } = await transcriber.transcribe('talk.mp3', { language: '${language ?? 'auto'}' });
await transcriber.close();
\`\`\`
`;
}
