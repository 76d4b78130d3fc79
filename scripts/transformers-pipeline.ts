/**
 * Our exports in the pipeline that people run: `tsx scripts/transformers-pipeline.ts FOLDER`, FOLDER being where
 * @huggingface/transformers is installed. Prints what its automatic-speech-recognition says of utterances of the corpus beside what
 * `transcribe` says of them, by the pocket student and by the same with an expert; fails where fp32 says something else. The expert is
 * the demo's in its shape only: near the shared FFN, with gates that are open for some rows.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { SAMPLE_RATE } from '../lib/audio/index.js';
import {
  decodeAudio,
  embedded,
  exportOnnx,
  fromFloat32,
  type ManifestEntry,
  readManifest,
  Stream,
  Transcriber,
  Whisper,
  writeExpert,
} from '../lib/index.js';
import { packageRoot } from '../lib/native/index.js';
import type { HostTensor } from '../lib/weights/index.js';
import { normals, random } from '../test/support/random.js';

/** As much as is used of @huggingface/transformers. */
interface Transformers {
  env: { allowRemoteModels: boolean; localModelPath: string };
  pipeline(
    task: 'automatic-speech-recognition',
    model: string,
    options: { dtype: string; device: string },
  ): Promise<(audio: Float32Array, options: { language: string; task: string }) => Promise<{ text: string }>>;
}

const OF_EACH_LANGUAGE = 2;
const EXPERT_LANGUAGE = 'ca';
const from = process.argv[2];
if (from === undefined) throw new Error('expected the folder where @huggingface/transformers is installed');
const path = createRequire(join(resolve(from), 'package.json')).resolve('@huggingface/transformers');
const { env, pipeline } = (await import(pathToFileURL(path).href)) as Transformers;
const model = embedded().student;
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-pipeline-'));
env.allowRemoteModels = false;
env.localModelPath = scratch;

/** An expert file whose FFNs are the shared ones with noise. */
async function writeNoisyExpert(): Promise<string> {
  const stream = new Stream({ threads: 1 });
  const student = await Whisper.load(stream, model);
  const { language, parameters } = await student.addExpert('catalan', { seed: 1, compat: 'reference' });
  const next = random(1);
  const tensors = new Map<string, HostTensor>();
  for (const [name, { value, shape }] of parameters) {
    const values = await value.floats();
    const noise = normals(values.length, next, name.includes('.proj.') ? 0.01 : 0.1);
    tensors.set(
      name,
      fromFloat32(
        values.map((x, i) => x + noise[i]!),
        shape,
        'f32',
      ),
    );
  }
  await writeExpert(join(scratch, 'expert.safetensors'), student.config, language, tensors);
  stream.close();
  return join(scratch, 'expert.safetensors');
}

/** Utterances of which both say something else. */
async function compare(name: string, expert: string | undefined, dtypes: readonly string[]): Promise<number> {
  const transcriber = await Transcriber.load(model, { compute: 'fp32', experts: expert === undefined ? [] : [expert] });
  await exportOnnx({ model, expert, output: join(scratch, name), dtypes: ['fp32', 'int8'] });
  const languages = expert === undefined ? transcriber.languages : [EXPERT_LANGUAGE];
  const rows: ManifestEntry[] = languages.flatMap((language) =>
    readManifest(join(packageRoot(), 'corpus', 'manifest.jsonl'), { language, split: 'test', domain: 'in' }).slice(
      0,
      OF_EACH_LANGUAGE,
    ),
  );
  let different = 0;
  for (const dtype of dtypes) {
    const recognize = await pipeline('automatic-speech-recognition', name, { dtype, device: 'cpu' });
    for (const { audio, language } of rows) {
      const { samples } = await decodeAudio(audio, { sampleRate: SAMPLE_RATE });
      const { text: theirs } = await recognize(samples, { language, task: 'transcribe' });
      const [ours] = await transcriber.transcribe([audio], { language });
      const same = theirs.trim() === ours!.text.trim();
      if (dtype === 'fp32' && !same) different++;
      const gates = ours!.gateShare === null ? '' : `, gates open ${ours!.gateShare.toFixed(2)}`;
      console.log(
        `${name} ${dtype} ${language}${gates} ${same ? '=' : '≠'} ${theirs.trim()}${same ? '' : ` (ours: ${ours!.text})`}`,
      );
    }
  }
  await transcriber.close();
  return different;
}

try {
  const different =
    (await compare('plain', undefined, ['fp32', 'q8'])) + (await compare('expert', await writeNoisyExpert(), ['fp32']));
  console.log(different === 0 ? 'fp32: every transcript is ours' : `fp32: ${different} transcripts are not ours`);
  process.exitCode = different === 0 ? 0 : 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
