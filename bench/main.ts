/** Speed, measured: `npm run bench -- --help`. */
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { DistilWhisperError, isDistilWhisperError } from '../lib/errors/index.js';
import type { ComputeType } from '../lib/model/index.js';
import { cudaDeviceNumber, cudaReport, packageRoot } from '../lib/native/index.js';
import { Stream } from '../lib/tensor/index.js';
import { attention } from './attention.js';
import { ceilings } from './ceilings.js';
import { corpora } from './corpora.js';
import { TYPES } from './data.js';
import { decode } from './decode.js';
import { encoder } from './encoder.js';
import { gatedFfn } from './gated-ffn.js';
import { gemm } from './gemm.js';
import type { Question, Table } from './harness.js';
import { loss } from './loss.js';
import { describeMachine, type Machine } from './machine.js';
import { mel } from './mel.js';
import { overhead } from './overhead.js';
import { findPeers, NO_PEERS, peerVersions } from './peers.js';
import { profile } from './profile.js';
import { cost, scaling } from './scaling.js';
import { step } from './step.js';
import { render } from './table.js';
import { window } from './window.js';

const QUESTIONS: readonly Question[] = [
  ceilings,
  gemm,
  gatedFfn,
  attention,
  loss,
  mel,
  corpora,
  step,
  encoder,
  decode,
  overhead,
  window,
  scaling,
  cost,
  profile,
];

/** What can be asked of a GPU too; the others are the processor's. */
const OF_A_GPU: readonly Question[] = [gemm, gatedFfn, attention, loss, step, encoder, decode];

const ALL_TYPES: readonly ComputeType[] = [...TYPES, 'int8'];

const HELP = `npm run bench -- [options]

  --only a,b       these questions only (default: all)
  --device NAME    cpu (default), cuda or cuda:N: ${OF_A_GPU.map((q) => q.name).join(', ')}
  --threads N      threads of the kernels (default: the processors that this process may use)
  --types a,b      of fp32, bf16 and int8 (default: all)
  --repeats N      samples of every case (default: 7)
  --json FILE      write everything as JSON
  --out FOLDER     write <date>-<commit>.json and .md there
  --peers          run beside what is there of the following, and say what is not
    --peer SCRIPT, --python PATH             PyTorch (or DISTILWHISPER_PEER, DISTILWHISPER_PEER_PYTHON)
    --peers-from FOLDER                      onnxruntime-node and @huggingface/transformers, as installed in FOLDER (default: here)
    --whisper-cpp PATH [--whisper-cpp-model FILE]   whisper-cli, and a ggml model (default: the same weights in f16)

Questions
${QUESTIONS.map((q) => `  ${q.name.padEnd(16)} ${q.question}`).join('\n')}
`;

interface Options {
  questions: readonly Question[];
  device: string;
  threads: number | undefined;
  types: readonly ComputeType[];
  repeats: number;
  json: string | undefined;
  out: string | undefined;
  peers: boolean;
  peer: string | undefined;
  python: string | undefined;
  'peers-from': string | undefined;
  'whisper-cpp': string | undefined;
  'whisper-cpp-model': string | undefined;
}

interface Answer {
  question: string;
  tables: Table[];
}

function refuse(sentence: string): never {
  throw new DistilWhisperError('ERR_ARGUMENT', sentence);
}

function options(argv: string[]): Options | null {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const known = {
    only: text,
    device: text,
    threads: text,
    types: text,
    repeats: text,
    json: text,
    out: text,
    peers: flag,
    peer: text,
    python: text,
    'peers-from': text,
    'whisper-cpp': text,
    'whisper-cpp-model': text,
    help: flag,
  };
  let values: ReturnType<typeof parseArgs<{ options: typeof known }>>['values'];
  try {
    ({ values } = parseArgs({ args: argv, options: known }));
  } catch (error) {
    return refuse(`${(error as Error).message}; --help lists the options`);
  }
  if (values.help) return null;
  const whole = (name: 'threads' | 'repeats', most: number): number | undefined => {
    const value = values[name];
    if (value === undefined) return undefined;
    const n = Number(value);
    if (!/^\d+$/.test(value) || n < 1 || n > most)
      refuse(`--${name}: expected a whole number from 1 to ${most}, got '${value}'`);
    return n;
  };
  const asked = values.types?.split(',').map((name) => name.trim());
  for (const name of asked ?? [])
    if (!ALL_TYPES.some((type) => type === name))
      refuse(`--types: expected some of ${ALL_TYPES.join(', ')}, got '${name}'`);
  const types = ALL_TYPES.filter((type) => asked?.includes(type) ?? true);
  const names = values.only?.split(',').map((name) => name.trim());
  const device = values.device ?? 'cpu';
  if (device !== 'cpu') cudaDeviceNumber(device);
  const possible = device === 'cpu' ? QUESTIONS : OF_A_GPU;
  const questions =
    names?.map(
      (name) =>
        possible.find((q) => q.name === name) ??
        refuse(`--only: expected some of ${possible.map((q) => q.name).join(', ')} on ${device}, got '${name}'`),
    ) ?? possible;
  for (const name of ['peer', 'python', 'peers-from', 'whisper-cpp', 'whisper-cpp-model'] as const) {
    if (values[name] !== undefined && !values.peers) refuse(`--${name}: expected --peers with it, got --${name} alone`);
  }
  const { json, out, peer, python } = values;
  if (values['whisper-cpp-model'] !== undefined && values['whisper-cpp'] === undefined)
    refuse('--whisper-cpp-model: expected --whisper-cpp with it');
  checkPlaces(json, out);
  return {
    questions,
    device,
    threads: whole('threads', 1024),
    types,
    repeats: whole('repeats', 10000) ?? 7,
    json,
    out,
    peers: values.peers ?? false,
    peer,
    python,
    'peers-from': values['peers-from'],
    'whisper-cpp': values['whisper-cpp'],
    'whisper-cpp-model': values['whisper-cpp-model'],
  };
}

/** An hour of measuring must not end in a folder that is not there. */
function checkPlaces(json: string | undefined, out: string | undefined): void {
  const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  if (json !== undefined && (isFolder(json) || !isFolder(dirname(json))))
    refuse(`--json: expected a file in a folder that exists, got '${json}'`);
  if (out !== undefined && statSync(out, { throwIfNoEntry: false })?.isFile())
    refuse(`--out: expected a folder, got the file '${out}'`);
}

interface Results {
  machine: Machine;
  peers: string[];
  answers: Answer[];
}

/** `keep` gets the results after every table: an hour of measuring may be interrupted. */
async function measure(given: Options, keep: (results: Results) => void): Promise<void> {
  const say = (line: string): void => console.log(line);
  const probe = new Stream(given.threads === undefined ? {} : { threads: given.threads });
  const { threads, isa } = probe;
  probe.close();
  const { device } = given;
  const gpu = device === 'cpu' ? null : cudaReport().devices.find(({ index }) => index === cudaDeviceNumber(device));
  const kernels = device === 'cpu' ? isa : `${device} (${gpu?.name ?? 'not found'})`;
  const machine = describeMachine(kernels, threads);
  say(
    `${machine.cpu}, ${machine.processors} processors; ${kernels} kernels, ${threads} threads; Node ${machine.node}; ` +
      `commit ${machine.commit}; load ${machine.load.toFixed(1)}\n`,
  );
  const settings = {
    threads,
    device,
    script: given.peer,
    python: given.python,
    from: resolve(given['peers-from'] ?? packageRoot()),
    whisperCpp: given['whisper-cpp'],
    whisperCppModel: given['whisper-cpp-model'],
  };
  const peers = given.peers ? await findPeers(settings, say) : NO_PEERS;
  if (given.peers) say('');
  const results: Results = { machine, peers: peerVersions(peers), answers: [] };
  for (const question of given.questions) {
    const stream = new Stream({ device, threads });
    const answer: Answer = { question: question.name, tables: [] };
    const context = { stream, threads, repeats: given.repeats, types: given.types, peers };
    results.answers.push(answer);
    for await (const table of question.measure(context)) {
      say(render(table));
      answer.tables.push(table);
      keep(results);
    }
    if (answer.tables.length === 0)
      say(`${question.name}: no table for ${given.types.join(', ')} on ${threads} thread${threads > 1 ? 's' : ''}\n`);
    stream.close();
  }
}

/** Writes where --json and --out say. Returns what --out's files are called, without their endings. */
function write(given: Options, { machine, peers, answers }: Results): string | null {
  const json = `${JSON.stringify({ machine, peers, answers }, null, 1)}\n`;
  if (given.json !== undefined) writeFileSync(given.json, json);
  if (given.out === undefined) return null;
  mkdirSync(given.out, { recursive: true });
  const name = join(given.out, `${machine.date.slice(0, 10)}-${machine.commit.replace('+', '-changed')}`);
  writeFileSync(`${name}.json`, json);
  const facts = Object.entries({ ...machine, ...(peers.length > 0 && { peers: peers.join(', ') }) });
  writeFileSync(
    `${name}.md`,
    [
      ...facts.map(([key, value]) => `- ${key}: ${value}`),
      '',
      ...answers.flatMap((answer) => answer.tables.map(render)),
    ].join('\n'),
  );
  return name;
}

async function main(): Promise<void> {
  const given = options(process.argv.slice(2));
  if (!given) {
    console.log(HELP);
    return;
  }
  let written: string | null = null;
  await measure(given, (results) => {
    written = write(given, results);
  });
  if (written !== null) console.log(`Written: ${written}.json and .md`);
}

main().catch((error: unknown) => {
  console.error(isDistilWhisperError(error) ? error.message : error);
  process.exitCode = isDistilWhisperError(error) && error.code === 'ERR_ARGUMENT' ? 2 : 1;
});
