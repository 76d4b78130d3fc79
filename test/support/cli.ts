/** Runs the command line as a user does: the compiled program, in a process of its own. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readManifest } from '../../lib/data/index.js';
import type { JsonObject } from '../../lib/files/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type TokenizerJSON, WhisperTokenizer } from '../../lib/text/index.js';
import { fromFloat32, type WhisperConfig, writeModelFolder } from '../../lib/weights/index.js';
import { tinyConfig } from './tiny.js';

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const main = join(root, 'dist', 'cli', 'main.js');

const newest = (folder: string): number =>
  Math.max(
    ...readdirSync(folder, { withFileTypes: true }).map((entry) =>
      entry.isDirectory() ? newest(join(folder, entry.name)) : statSync(join(folder, entry.name)).mtimeMs,
    ),
  );
const built = (): number => {
  try {
    return statSync(main).mtimeMs;
  } catch {
    return 0;
  }
};
// After scripts/setup.mjs this is so; a test file that is run alone may find an older build.
if (built() < newest(join(root, 'lib'))) {
  execFileSync(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', root]);
}

export interface CliResult {
  code: number | null;
  /** What ended it, where it did not end itself. */
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  program?: string;
  /** Called with all of standard error so far; may send signals. */
  onStderr?: (text: string, kill: (signal: NodeJS.Signals) => void) => void;
}

const AT_ONCE = 2;
let running = 0;
const waiting: (() => void)[] = [];

export async function cli(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  running++;
  try {
    return await new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [options.program ?? main, ...args], {
        cwd: options.cwd ?? root,
        env: { ...process.env, NODE_OPTIONS: '', ...options.env },
        stdio: ['ignore', 'pipe', 'pipe'],
        // One that hangs is a failure, not a process that stays behind.
        timeout: 300_000,
        killSignal: 'SIGKILL',
      });
      let [stdout, stderr] = ['', ''];
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        stdout += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
        options.onStderr?.(stderr, (signal) => child.kill(signal));
      });
      child.on('error', reject);
      child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
    });
  } finally {
    running--;
    waiting.shift()?.();
  }
}

/** A temporary folder; `remove` when the tests are done. */
export function scratchFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'distilwhisper-cli-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/**
 * Writes a model folder with random weights and the pocket tokenizer, or another's `tokenizerJson`: width 16, 1 + 1 layers, a
 * window of 5 s.
 */
export async function writeTinyModel(
  path: string,
  seed: number,
  changes: Partial<WhisperConfig> = {},
  { tokenizerJson, generation }: { tokenizerJson?: TokenizerJSON; generation?: JsonObject } = {},
): Promise<WhisperConfig> {
  const files = join(root, 'models', 'pocket-student');
  const json = tokenizerJson ? JSON.stringify(tokenizerJson) : readFileSync(join(files, 'tokenizer.json'), 'utf8');
  const tokenizer = WhisperTokenizer.fromJSON(JSON.parse(json));
  const config = tinyConfig({
    vocab_size: tokenizer.vocabSize,
    max_source_positions: 250,
    max_target_positions: 64,
    decoder_start_token_id: tokenizer.startOfTranscript,
    pad_token_id: tokenizer.endOfText,
    bos_token_id: tokenizer.endOfText,
    eos_token_id: tokenizer.endOfText,
    ...changes,
  });
  const stream = new Stream({ threads: 1 });
  const model = await Whisper.create(stream, config, { seed });
  const tensors = await Promise.all(
    Array.from(model.parameters, async ([name, p]) => {
      const { dtype, shape, data } = fromFloat32(await p.value.floats(), p.shape, 'f32');
      return { name, dtype, shape, data };
    }),
  );
  stream.close();
  await writeModelFolder(path, {
    config,
    // Short answers: what an untrained model says goes on to the limit.
    generationConfig: { max_length: 12, ...generation },
    files: {
      'tokenizer.json': Buffer.from(json),
      'tokenizer_config.json': readFileSync(join(files, 'tokenizer_config.json')),
    },
    tensors,
  });
  return config;
}

/** Writes a manifest of JSON lines. */
export function writeRows(path: string, rows: readonly object[]): string {
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return path;
}

export interface Row {
  id: string;
  audio: string;
  text: string;
  language: string;
  split: string;
  domain: string;
}

/** The first utterances of a part of the embedded corpus, with absolute audio paths. */
export function corpusRows(language: string, split: string, domain: string, count: number, as = split): Row[] {
  const manifest = join(root, 'corpus', 'manifest.jsonl');
  return readManifest(manifest, { language, split, domain, checkFiles: false })
    .slice(0, count)
    .map(({ id, audio, text }) => ({ id, audio, text, language, split: as, domain }));
}
