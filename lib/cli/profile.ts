import type { Command } from 'commander';
import { Option } from 'commander';
import { formatColumns } from '../evaluate/index.js';
import { type KernelSummary, type ProfileReport, readProfile, type StreamSummary } from '../profile/index.js';
import { endHelp, jsonOption, whole } from './options.js';
import { run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  shapes?: boolean;
  top: number;
  json?: boolean;
}

export function define(command: Command): void {
  command
    .description(
      'Sum up a trace that train, transcribe or evaluate wrote with --profile: how long each kernel ran, how near it came to the ceilings that were measured when the run began, and how long nothing ran, waiting for data or for something else.',
    )
    .argument('<trace>', 'the file that --profile wrote; that of an interrupted run too')
    .option('--shapes', 'a row for each shape of a kernel')
    .addOption(new Option('--top <n>', 'rows of a stream that are shown').argParser(whole(1)).default(16))
    .addOption(jsonOption('the whole report'))
    .action((trace: string, options: Options) =>
      run(options, async () => {
        const report = await readProfile(trace, { byShape: options.shapes ?? false });
        if (options.json) printJson(report);
        else print(format(report, options));
        return undefined;
      }),
    );
  endHelp(command, {
    notes:
      'training step: its teacher, forward (with the loss), backward and optimiser.\n' +
      'ceiling: the least time in which the calls could run at the measured ceilings (operations at the rate of their type, bytes at\n' +
      'the rate of reading memory, whichever takes longer), as a share of the time that they took; more than 100% says that the bytes\n' +
      'came from a cache. bound: which of the two takes longer. GFLOP/s count products, attention and transforms alone.',
    examples: [
      'distilwhisper transcribe talk.mp3 --language ca --profile trace.json',
      'distilwhisper profile trace.json',
      'distilwhisper profile trace.json --shapes --top 40',
    ],
  });
}

const percent = (share: number): string => `${(100 * share).toFixed(1)}%`;
/** Three digits that count. */
const number = (x: number): string => x.toFixed(x >= 100 ? 0 : x >= 10 ? 1 : 2);

const HEAD = ['kernel', 'type', 'calls', 'ms', 'share', 'µs a call', 'GFLOP/s', 'GB/s', 'ceiling', 'bound'];

function cells(k: KernelSummary): string[] {
  const rate = (x: number | null): string => (x === null || x === 0 ? '' : number(x));
  return [
    k.shape === null ? k.name : `${k.name} ${k.shape}`,
    k.type,
    k.calls.toLocaleString('en'),
    number(1e3 * k.seconds),
    percent(k.share),
    number((1e6 * k.seconds) / k.calls),
    rate(k.gflops),
    rate(k.gbs),
    k.ofCeiling === null ? '' : percent(k.ofCeiling),
    k.boundBy ?? '',
  ];
}

/** What training steps were made of. */
function partsTable({ parts, seconds }: StreamSummary, all: number): string {
  if (parts.length === 0) return '';
  const row = (name: string, s: number, gflops: number | null): string[] => [
    name,
    number(1e3 * s),
    percent(s / all),
    gflops ? number(gflops) : '',
  ];
  const body = parts.map(({ name, seconds, gflops }) => row(name, seconds, gflops));
  if (seconds.waitingForData > 0) body.push(row('waiting for data', seconds.waitingForData, null));
  return `${formatColumns(['training step', 'ms', 'share', 'GFLOP/s'], body, 1)}\n`;
}

function table({ name, seconds, kernels }: StreamSummary, all: number, top: number): string {
  const plain = (what: string, s: number): string[] =>
    [what, '', '', number(1e3 * s), percent(s / all)].concat(HEAD.slice(5).map(() => ''));
  const others = kernels.slice(top);
  const rest = others.reduce((sum, k) => sum + k.seconds, 0);
  const body = [
    ...kernels.slice(0, top).map(cells),
    ...(others.length > 0 ? [plain(`${others.length} more`, rest)] : []),
    null,
    ...(seconds.waitingForData > 0 ? [plain('waiting for data', seconds.waitingForData)] : []),
    plain('idle', seconds.idle),
  ];
  return `${name}\n${formatColumns(HEAD, body, 2)}`;
}

function format(report: ProfileReport, { top }: Options): string {
  const { ceilings, machine, javascript, seconds } = report;
  const onGpu = ceilings.isa === 'cuda';
  const of = onGpu
    ? `${ceilings.device}, ${machine.gpu}`
    : `${ceilings.isa}, ${ceilings.threads} threads, ${machine.cpu}`;
  const lines = [
    `${report.file}: ${number(seconds)} s${report.interrupted ? ', interrupted' : ''}`,
    `ceilings: fp32 ${number(ceilings.fp32)} GFLOP/s, bf16 ${number(ceilings.bf16)} GFLOP/s, ` +
      `${onGpu ? 'memory' : 'reading'} ${number(ceilings.read)} GB/s (${of})`,
  ];
  if (report.lost > 0) lines.push(`${report.lost} calls are missing: the JavaScript thread was busy for too long`);
  const tables = report.streams.map((stream) => `\n${partsTable(stream, seconds)}${table(stream, seconds, top)}`);
  const busy = javascript.busy === null ? '' : `busy ${percent(javascript.busy)}, `;
  const threads = [
    `JavaScript thread: ${busy}${number(1e3 * javascript.garbageCollection)} ms of garbage collection`,
    ...report.lanes.map(
      ({ name, lanes, seconds: s }) => `${name}: ${number(s)} s in ${lanes} lane${lanes > 1 ? 's' : ''}`,
    ),
  ];
  const advice = report.advice.map((sentence) => `- ${sentence}`);
  return `${[...lines, ''].join('\n')}${tables.join('')}\n${[...threads, ...advice].join('\n')}\n`;
}
