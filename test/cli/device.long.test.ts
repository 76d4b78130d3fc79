// The command line on a GPU, as far as a machine without one can try it: on the emulated device, and where there is none.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { ProfileReport } from '../../lib/index.js';
import { openSafetensors, toFloat32 } from '../../lib/weights/index.js';
import { type CliResult, cli } from '../support/cli.js';
import { at, manifest, speech } from '../support/cli-models.js';
import { emulatedPlugin, relativeL2 } from '../support/kernels.js';

const trainArgs = (output: string, ...more: string[]): string[] => [
  ...['train', '--model', at('student'), '--teacher', at('teacher'), '--manifest', manifest, '--split', 'train'],
  ...['--language', 'ca', '--batch-size', '4', '--steps', '4', '--learning-rate', '0.01', '--output', output, ...more],
];
const decodeArgs = (...more: string[]): string[] => ['--model', at('student'), ...more];
const onDevice = (args: readonly string[]): Promise<CliResult> =>
  cli([...args, '--device', 'cuda'], { env: { DISTILWHISPER_CUDA_PLUGIN: emulatedPlugin()! } });

/** Whether there is a device to try; says so where there is none. */
function ready(t: ExecutionContext): boolean {
  if (emulatedPlugin()) return true;
  t.log('skipped: no emulated device');
  t.pass();
  return false;
}

/** What a run logged of its updates. */
const losses = (output: string): number[][] =>
  readFileSync(join(output, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, number>)
    .map(({ loss, crossEntropy, distillation, gate }) => [loss!, crossEntropy!, distillation!, gate!]);

test('train --device cuda: losses and the expert are those of the processor; a run stays on its kind of device', async (t) => {
  if (!ready(t)) return;
  const [cpu, cuda] = [at('runs', 'cpu'), at('runs', 'cuda')];
  for (const [output, run] of [
    [cpu, await cli(trainArgs(cpu))],
    [cuda, await onDevice(trainArgs(cuda))],
  ] as const) {
    t.is(run.code, 0, run.stderr);
    t.is(run.stdout, `${join(output, 'expert.catalan.safetensors')}\n`);
  }
  const [expected, got] = [losses(cpu), losses(cuda)];
  t.is(got.length, 4);
  for (const [i, values] of got.entries())
    t.true(relativeL2(values, expected[i]!) < 1e-4, `update ${i + 1}: ${values}, on the processor ${expected[i]}`);
  const [a, b] = await Promise.all([cpu, cuda].map((run) => openSafetensors(join(run, 'expert.catalan.safetensors'))));
  for (const name of a!.names()) {
    const [x, y] = [toFloat32(await a!.read(name)), toFloat32(await b!.read(name))];
    t.true(relativeL2(y, x) < 1e-3 || Math.max(...x.map(Math.abs), ...y.map(Math.abs)) < 1e-6, name);
  }
  await a!.close();
  await b!.close();

  const back = await cli(trainArgs(cuda));
  t.is(back.code, 1);
  t.regex(back.stderr, /ERR_RUN: .*device = "cuda", got "cpu"/);
});

test('transcribe and evaluate --device cuda say what the processor says', async (t) => {
  if (!ready(t)) return;
  const files = [0, 1, 2].map(speech);
  for (const args of [
    ['transcribe', ...files, ...decodeArgs('--language', 'ca', '--compute-type', 'fp32', '--json')],
    ['evaluate', ...decodeArgs('--manifest', manifest, '--split', 'test', '--compute-type', 'fp32', '--json')],
  ]) {
    const [expected, got] = [await cli(args), await onDevice(args)];
    t.is(got.code, 0, got.stderr);
    const told = ({ stdout }: CliResult): string =>
      stdout
        .replaceAll(/"(seconds|secondsTaken)": [\d.]+/g, '')
        .replaceAll(/-?\d+\.\d{5,}/g, (number) => Number(number).toFixed(3));
    t.is(told(got), told(expected));
  }
});

test('--profile --device cuda: train, transcribe and evaluate write times of the device, and profile sums them up', async (t) => {
  if (!ready(t)) return;
  for (const [name, args, kernel] of [
    ['train', trainArgs(at('runs', 'profiled')), 'gated_ffn_backward'],
    ['transcribe', ['transcribe', speech(0), ...decodeArgs('--language', 'ca')], 'attention'],
    ['evaluate', ['evaluate', ...decodeArgs('--manifest', manifest, '--split', 'test')], 'attention'],
  ] as const) {
    const trace = at(`${name}.json`);
    const run = await onDevice([...args, '--profile', trace]);
    t.is(run.code, 0, run.stderr);
    t.regex(run.stderr, /^profile: .*\.json; 'distilwhisper profile .*\.json' sums it up$/m);
    const report: ProfileReport = JSON.parse((await cli(['profile', trace, '--json'])).stdout);
    t.like(report, { interrupted: false, lost: 0, ceilings: { device: 'cuda:0', isa: 'cuda' } });
    const stream = report.streams.find((s) => s.kernels.some((k) => k.name === kernel))!;
    t.regex(stream.name, /^stream \d+: cuda:0$/);
    const { kernels, transfers, waitingForData, idle } = stream.seconds;
    t.true(Math.abs(kernels + transfers + waitingForData + idle - report.seconds) < 1e-6);
    const products = stream.kernels.filter((k) => k.name === 'linear');
    t.true(products.length > 0 && products.every((k) => k.gflops! > 0 && k.gbs! > 0 && k.ofCeiling! > 0));
    t.true(report.lanes.some((lane) => lane.name === 'launching' && lane.seconds > 0));

    const { code, stdout } = await cli(['profile', trace]);
    t.is(code, 0);
    t.regex(stdout, /^ceilings: fp32 .* memory [\d.]+ GB\/s \(cuda:0, emulated device\)$/m);
    t.regex(stdout, /^linear +(fp32|bf16) +\d+ +[\d.]+ +[\d.]+% +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+% +(compute|memory)$/m);
    t.regex(stdout, /^launching: [\d.]+ s in \d+ lanes?$/m);
  }
});

test('doctor tells what was found of CUDA, whatever else is missing', async (t) => {
  if (!ready(t)) return;
  const plugin = /plugin .*cuda-emulator\.so of CUDA 13\.0/;
  for (const [lacks, ...lines] of [
    [
      'nothing',
      /^\+ cuda:0 +emulated device/m,
      /^\+ cuda +plugin .*; driver for CUDA 13\.0$/m,
      /^\+ cublasLt +13\.0\.0 in /m,
    ],
    ['old driver', /^- cuda +.*too old: it runs CUDA 11\.8.*; plugin .*; driver for CUDA 11\.8$/m, /^\+ cublasLt +/m],
    ['no driver', /^- cuda +no NVIDIA driver was found.*; plugin .*; no driver$/m, /^\+ cublasLt +/m],
    ['no cuBLASLt', /^\+ cuda:0 /m, /^- cuda +plugin .*13\.0$/m, /^- cublasLt +cuBLASLt was not found/m],
  ] as [string, ...RegExp[]][]) {
    const env = { DISTILWHISPER_CUDA_PLUGIN: emulatedPlugin()!, DW_EMULATOR_FAIL: lacks };
    const { code, stdout } = await cli(['doctor'], { env });
    t.is(code, 0, stdout);
    for (const line of [plugin, ...lines]) t.regex(stdout, line, lacks);
  }
});

test('a device that is not there is refused by name, and nothing is written', async (t) => {
  const output = at('runs', 'nowhere');
  const plugin = emulatedPlugin();
  for (const [args, env, code, message] of [
    [['--device', 'cuda'], { DISTILWHISPER_CUDA_PLUGIN: at('none.so') }, 1, /ERR_CUDA_PLUGIN: .*none\.so/],
    [['--device', 'gpu'], {}, 2, /Expected 'cpu', 'cuda' or 'cuda:N'/],
    [['--device', 'cuda:x'], {}, 2, /Expected 'cpu', 'cuda' or 'cuda:N'/],
    [
      ['--device', 'cuda', '--profile', at('trace.json')],
      { DISTILWHISPER_CUDA_PLUGIN: at('none.so') },
      1,
      /ERR_CUDA_PLUGIN: .*none\.so/,
    ],
    ...(plugin
      ? ([
          [['--device', 'cuda:7'], { DISTILWHISPER_CUDA_PLUGIN: plugin }, 1, /ERR_CUDA: .*7/],
          [
            ['--device', 'cuda:7', '--profile', at('trace.json')],
            { DISTILWHISPER_CUDA_PLUGIN: plugin },
            1,
            /ERR_CUDA: .*7/,
          ],
        ] as const)
      : []),
  ] as const) {
    const run = await cli(trainArgs(output, ...args), { env });
    t.is(run.code, code, run.stderr);
    t.regex(run.stderr, message);
    t.is(run.stdout, '');
  }
  t.false(existsSync(output));
  t.false(existsSync(at('trace.json')));
});
