/**
 * What `convert` writes, loaded by the programs that it is written for: the same greedy ids, and logits beside ours.
 *
 *   npx tsx scripts/exports/check.ts MODEL… [--python PYTHON] [--whisper-cpp FOLDER] [--ctranslate2 FOLDER] [--steps N]
 *
 * MODEL: model folders with a tokenizer, or .pt files of OpenAI's behind --tokenizer. PYTHON: one that has transformers.
 * FOLDERs: a source tree of whisper.cpp built in build/ as static libraries; CTranslate2 as `cmake --install` leaves it.
 * With --record FILE the model is that of test/support/exports.ts, and hashes of what was loaded go there, with ids.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { convert, type ModelFormat, Stream, type WeightType, Whisper, WhisperTokenizer } from '../../lib/index.js';
import { exportHashes, writeExportModel } from '../../test/support/exports.js';

const { values: options, positionals: models } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string' },
    'whisper-cpp': { type: 'string' },
    ctranslate2: { type: 'string' },
    tokenizer: { type: 'string' },
    record: { type: 'string' },
    steps: { type: 'string', default: '8' },
  },
});
const here = fileURLToPath(new URL('.', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-exports-'));
const steps = Number(options.steps);

interface Said {
  ids: number[];
  logits: Float32Array;
}

/** What ours says of features behind a prompt: greedy, nothing suppressed. */
async function ours(folder: string, features: Float32Array, prompt: readonly number[]): Promise<Said> {
  const stream = new Stream({ threads: 1 });
  const model = await Whisper.load(stream, folder);
  const { num_mel_bins, max_source_positions, d_model, vocab_size } = model.config;
  const ids = [...prompt];
  const logits = new Float32Array(steps * vocab_size);
  for (let step = 0; step < steps; step++) {
    const memory = model.encode(stream.tensor(features, [1, num_mel_bins, 2 * max_source_positions])).hidden;
    const { hidden } = model.decode(stream.tensor(Int32Array.from(ids), [1, ids.length], 'i32'), memory);
    const read = model.logits(hidden.reshape([ids.length, d_model])).floats();
    stream.endStep();
    const last = (await read).subarray((ids.length - 1) * vocab_size);
    logits.set(last, step * vocab_size);
    ids.push(last.indexOf(last.reduce((a, b) => Math.max(a, b))));
  }
  model.dispose();
  stream.close();
  return { ids: ids.slice(prompt.length), logits };
}

type Peer = (model: string, args: readonly string[]) => string;
const run = (program: string, args: readonly string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

function compiled(source: string, flags: readonly string[]): string {
  const program = join(scratch, basename(source, '.cc'));
  run('g++', ['-std=c++17', '-O1', join(here, source), '-o', program, ...flags]);
  return program;
}

/** The peers that were named, with what is written for each: its format and types. */
function peers(): { format: ModelFormat; types: WeightType[]; run: Peer }[] {
  const found: { format: ModelFormat; types: WeightType[]; run: Peer }[] = [];
  const { python, ctranslate2, 'whisper-cpp': tree } = options;
  if (python) {
    const script = join(here, 'transformers_peer.py');
    found.push({
      format: 'hf',
      types: ['fp32', 'bf16', 'fp16'],
      run: (model, args) => run(python, [script, model, ...args]),
    });
  }
  if (tree) {
    const at = (path: string): string => join(tree, path);
    const libraries = ['src/libwhisper.a', 'ggml/src/libggml.a', 'ggml/src/libggml-cpu.a', 'ggml/src/libggml-base.a'];
    const flags = [`-I${at('include')}`, `-I${at('ggml/include')}`, ...libraries.map((name) => at(`build/${name}`))];
    const program = compiled('whisper_cpp.cc', [...flags, '-pthread', '-ldl']);
    found.push({
      format: 'ggml',
      types: ['fp32', 'fp16', 'int8'],
      run: (model, args) => run(program, [model, ...args]),
    });
  }
  if (ctranslate2) {
    const lib = join(ctranslate2, 'lib');
    const flags = [`-I${join(ctranslate2, 'include')}`, `-L${lib}`, `-Wl,-rpath,${lib}`, '-lctranslate2'];
    const program = compiled('ctranslate2.cc', flags);
    const types: WeightType[] = ['fp32', 'bf16', 'fp16', 'int8'];
    found.push({ format: 'ctranslate2', types, run: (model, args) => run(program, [model, ...args]) });
  }
  return found;
}

function relative(got: Float32Array, wanted: Float32Array): number {
  let [error, size] = [0, 0];
  for (const [i, value] of wanted.entries()) {
    error += (got[i]! - value) ** 2;
    size += value ** 2;
  }
  return Math.sqrt(error / size);
}

/** Features of no sound, in the range of those of speech. */
const features = (mels: number, frames: number): Float32Array =>
  Float32Array.from({ length: mels * frames }, (_, i) => Math.sin(i * 0.37 + (i % mels)) * 0.7);

interface Beside {
  ids: number[];
  equal: boolean;
  off: number;
}

/** What a peer says of `output` beside what ours says of the folder `own`. */
async function beside(own: string, output: string, run: Peer): Promise<Beside> {
  const config = JSON.parse(readFileSync(join(own, 'config.json'), 'utf8'));
  const [mels, frames] = [config.num_mel_bins, 2 * config.max_source_positions];
  const [input, out] = [join(scratch, 'features'), join(scratch, 'logits')];
  const given = features(mels, frames);
  writeFileSync(input, given);
  const prompt = (await WhisperTokenizer.fromFolder(own)).prompt({ language: 'en' });
  const wanted = await ours(own, given, prompt);
  const ids = run(output, [input, ...[mels, frames, steps].map(String), out, ...prompt.map(String)])
    .trim()
    .split(/\s+/)
    .map(Number);
  const logits = new Float32Array(new Uint8Array(readFileSync(out)).buffer);
  const equal = ids.length > 0 && ids.every((id, i) => id === wanted.ids[i]);
  return { ids, equal, off: relative(logits, wanted.logits.subarray(0, logits.length)) };
}

function say(model: string, format: string, dtype: string, { ids, equal, off }: Beside): void {
  const row = [basename(model), format, dtype, equal ? 'ids equal' : 'ids DIFFER', `${ids.length} steps`];
  console.log([...row, `logits relative L2 ${off.toExponential(1)}`].join(' | '));
}

/** Every format and type of each model; ours has the same rounded weights, but for int8 the weights themselves. */
async function check(): Promise<void> {
  const all = peers();
  for (const [m, model] of models.entries()) {
    for (const { format, types, run } of all) {
      for (const dtype of types) {
        const plain = join(scratch, `${m}-hf-${dtype}`);
        const output = format === 'hf' ? plain : join(scratch, `${m}-${format}-${dtype}`);
        try {
          const { tokenizer } = options;
          await convert(model, { to: plain, dtype: dtype === 'int8' ? undefined : dtype, tokenizer, replace: true });
          if (format !== 'hf') await convert(plain, { to: output, format, dtype, replace: true });
          const found = await beside(plain, output, run);
          say(model, format, dtype, found);
          // In int8 the programs round rows in ways of their own.
          if (!found.equal && dtype !== 'int8') process.exitCode = 1;
        } catch (error) {
          process.exitCode = 1;
          const { stderr, message } = error as { stderr?: string; message: string };
          const last = (stderr || message).trim().split('\n').slice(-3).join(' ');
          console.log([basename(model), format, dtype, last].join(' | '));
        }
      }
    }
  }
}

/** Hashes of what the peers have loaded, with what they said. */
async function record(file: string): Promise<void> {
  const model = join(scratch, 'recorded');
  await writeExportModel(model);
  const sha256: Record<string, string> = {};
  const said: Record<string, Beside> = {};
  for (const { format, types, run } of peers()) {
    for (const dtype of types) {
      const output = join(scratch, `${format}-${dtype}`);
      await convert(model, { to: output, format, dtype });
      const found = await beside(model, output, run);
      say(model, format, dtype, found);
      said[`${format}/${dtype}`] = found;
      for (const [key, hash] of await exportHashes(output, format, dtype)) sha256[key] = hash;
    }
  }
  writeFileSync(file, `${JSON.stringify({ sha256, said }, undefined, 1)}\n`);
}

try {
  await (options.record === undefined ? check() : record(options.record));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
