/**
 * npx tsx scripts/real-shapes.ts [--student small --teacher large-v2 --steps 2 --batch-size 2]: what a person with the real models
 * would run, without a network. Folders of random weights in the real shapes, with the listing of the real repositories, are served
 * by the hub of the tests; then the commands train, which pulls them, and transcribe. Prints each command's time and the most memory that
 * it held. Needs the disk for the weights twice (small and large-v2 in fp32: 15 GB), and ../shared/tokenizer/multilingual.tiktoken.
 */
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import {
  type FloatDtype,
  fromFloat32,
  tokenizerFromTiktoken,
  type WhisperConfig,
  type WhisperSize,
  whisperPreset,
  whisperTensorShapes,
  writeModelFolder,
} from '../lib/index.js';
import { HubServer } from '../test/support/hub-server.js';

const { values } = parseArgs({
  options: {
    student: { type: 'string', default: 'small' },
    teacher: { type: 'string', default: 'large-v2' },
    steps: { type: 'string', default: '2' },
    'batch-size': { type: 'string', default: '2' },
    /** As the real repositories store their weights. */
    dtype: { type: 'string', default: 'f32' },
    /** Further options of train, in one word. */
    train: { type: 'string', default: '' },
    /** Where folders and cache lie. */
    scratch: { type: 'string', default: tmpdir() },
  },
});
const root = fileURLToPath(new URL('..', import.meta.url));
const ranks = join(root, '..', 'shared', 'tokenizer', 'multilingual.tiktoken');
const CLIPS = 16;

/** Values that look like weights; each tensor reads them from another place. */
const noise = Float32Array.from({ length: 1_000_003 }, () => 0.04 * (Math.random() - 0.5));

function weightsOf(name: string, size: number): Float32Array {
  if (/layer_norm\.weight$/.test(name)) return new Float32Array(size).fill(1);
  const all = new Float32Array(size);
  let from = (name.length * 7919) % noise.length;
  for (let at = 0; at < size; ) {
    const part = noise.subarray(from, from + size - at);
    all.set(part, at);
    at += part.length;
    from = 0;
  }
  return all;
}

async function writeModel(path: string, size: WhisperSize, dtype: FloatDtype): Promise<WhisperConfig> {
  const config = whisperPreset(size);
  const languages = config.vocab_size > 51865 ? 100 : 99;
  const tokenizer = tokenizerFromTiktoken(readFileSync(ranks, 'utf8'), { languages });
  const bytes = dtype === 'f32' ? 4 : 2;
  const total = [...whisperTensorShapes(config).values()].reduce(
    (sum, shape) => sum + shape.reduce((a, b) => a * b, bytes),
    0,
  );
  await writeModelFolder(
    path,
    {
      config,
      generationConfig: { max_length: 16, is_multilingual: true },
      preprocessorConfig: { feature_size: config.num_mel_bins, sampling_rate: 16000, hop_length: 160, n_fft: 400 },
      files: {
        'tokenizer.json': Buffer.from(JSON.stringify(tokenizer)),
        'tokenizer_config.json': Buffer.from('{"tokenizer_class": "WhisperTokenizer"}'),
        'README.md': Buffer.from('# Whisper\n'),
        // Of the real listing what must not be fetched; their sizes are of no use here.
        'pytorch_model.bin': Buffer.from('x'),
        'flax_model.msgpack': Buffer.from('x'),
        'tf_model.h5': Buffer.from('x'),
      },
      tensors: [...whisperTensorShapes(config)].map(([name, shape]) => {
        const size = shape.reduce((a, b) => a * b, 1);
        return { name, dtype, shape, data: () => fromFloat32(weightsOf(name, size), shape, dtype).data };
      }),
    },
    { maxShardBytes: Number.POSITIVE_INFINITY },
  );
  console.log(`${size}: ${(total / 1e9).toFixed(2)} GB of weights in ${dtype}`);
  return config;
}

/** The most memory that a process has held, in bytes; 0 where the system does not say. */
function peakOf(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

async function command(args: readonly string[], cwd: string, env: Record<string, string>): Promise<void> {
  console.log(`\n$ distilwhisper ${args.join(' ')}`);
  const begin = performance.now();
  const child = spawn(process.execPath, [join(root, 'dist', 'cli', 'main.js'), ...args], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, peakOf(child.pid ?? 0));
  }, 100);
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  clearInterval(timer);
  console.log(
    `${((performance.now() - begin) / 1000).toFixed(1)} s, at most ${(peak / 2 ** 30).toFixed(2)} GiB (pages of mapped weights included)`,
  );
  if (code !== 0) throw new Error(`it ended with ${code}`);
}

/** Clips and a table as Common Voice ships them. */
function writeCorpus(folder: string): void {
  mkdirSync(join(folder, 'clips'), { recursive: true });
  const rows = Array.from({ length: CLIPS }, (_, i) => {
    const clip = `common_voice_ca_${1000 + i}.mp3`;
    copyFileSync(join(root, 'test', 'fixtures', 'audio', 'mono-info.mp3'), join(folder, 'clips', clip));
    return `c0ffee${i}\t${clip}\tBon dia a tothom, avui és el dia número ${i}.\t2\t0\t\t\t\t\tca\t`;
  });
  const header = 'client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment';
  writeFileSync(join(folder, 'train.tsv'), `${[header, ...rows].join('\n')}\n`);
}

if (!existsSync(ranks)) throw new Error(`this needs the ranks of Whisper's vocabulary, ${ranks}`);
const scratch = mkdtempSync(join(values.scratch, 'real-shapes-'));
const hub = await HubServer.start();
try {
  for (const size of new Set([values.student, values.teacher])) {
    const folder = join(scratch, 'models', size);
    mkdirSync(join(folder, '..'), { recursive: true });
    await writeModel(folder, size as WhisperSize, values.dtype as FloatDtype);
    const files = Object.fromEntries(readdirSync(folder).map((name) => [name, { file: join(folder, name) }]));
    await hub.commit(`openai/whisper-${size}`, files);
  }
  writeCorpus(join(scratch, 'cv', 'ca'));
  const env = { HF_ENDPOINT: hub.url, HF_HOME: join(scratch, 'hf') };
  const { student, teacher, steps } = values;
  const data = ['--manifest', 'cv/ca/train.tsv', '--language', 'ca'];
  const train = [
    'train',
    '--model',
    student,
    '--teacher',
    teacher,
    ...data,
    '--compute-type',
    'bf16',
    '--steps',
    steps,
  ];
  await command(
    [...train, '--batch-size', values['batch-size'], '--output', 'run', ...values.train.split(' ').filter(Boolean)],
    scratch,
    env,
  );
  const talk = join('cv', 'ca', 'clips', 'common_voice_ca_1000.mp3');
  await command(
    ['transcribe', talk, '--model', student, '--expert', 'run', '--language', 'ca', '--offline'],
    scratch,
    env,
  );
  const fetched = hub.asked('cdn').length;
  console.log(`\n${fetched} files came from the CDN; the hub was asked ${hub.requests.length} times`);
  console.log(`the expert has ${statSync(join(scratch, 'run', 'expert.catalan.safetensors')).size} bytes`);
} finally {
  await hub.close();
  rmSync(scratch, { recursive: true, force: true });
}
