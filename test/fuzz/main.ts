/** The command of `npm run fuzz`. */
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { WatchedChild } from './child-process.js';
import { LAST_CALL } from './faults.js';
import type { Reader } from './reader.js';
import { describe, fuzz, type ReaderReport, replay, scratchFolder } from './supervisor.js';

const HELP = `npm run fuzz -- [options]

  --reader <name>    a reader, several with commas between them, or all (default); 'kernels': random calls of the native kernels
  --seconds <n>      for all readers together (default 60, where --inputs is not given)
  --inputs <n>       so many inputs, for all readers together
  --seed <n>         default 1; an input follows from reader, seed and its number
  --jobs <n>         processes at once (default: the processors)
  --finds <folder>   where inputs with faults are written (default: a temporary folder)
  --replay <file>    reads one input: <reader>/<file>, as finds are written; --reader for another place
  --list             the readers

A fault is an error without a code, a result that breaks what is documented, a rejection that nobody handles, more than 5 s or
1 GiB for one input, or the end of the process. Exit codes: 0 none, 1 faults, 2 wrong usage.`;

const module = new URL('./readers/index.ts', import.meta.url).href;
let readers: readonly Reader[] = [];

function usage(message: string): never {
  process.stderr.write(`${message}\n\n${HELP}\n`);
  process.exit(2);
}

function whole(name: string, text: string | undefined, least: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least)
    usage(`--${name}: expected a whole number of at least ${least}, got '${text}'`);
  return value;
}

function parse() {
  try {
    return parseArgs({
      options: {
        reader: { type: 'string' },
        seconds: { type: 'string' },
        inputs: { type: 'string' },
        seed: { type: 'string' },
        jobs: { type: 'string' },
        finds: { type: 'string' },
        replay: { type: 'string' },
        list: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values;
  } catch (error) {
    return usage((error as Error).message);
  }
}

function chosen(names: string): Reader[] {
  return names.split(',').flatMap((name) => {
    if (name === 'all') return [...readers];
    const reader = readers.find((each) => each.name === name);
    return reader
      ? [reader]
      : usage(`--reader: no reader is called '${name}'; there are ${readers.map((each) => each.name).join(', ')}`);
  });
}

function table(reports: readonly ReaderReport[]): string {
  const rows = reports.map(({ reader, inputs, seconds, finds }) => [
    reader,
    String(inputs),
    seconds.toFixed(0),
    (inputs / seconds).toFixed(0),
    String(finds.length),
  ]);
  const inputs = reports.reduce((sum, report) => sum + report.inputs, 0);
  const seconds = reports.reduce((sum, report) => sum + report.seconds, 0);
  const finds = reports.reduce((sum, report) => sum + report.finds.length, 0);
  rows.push(['together', String(inputs), seconds.toFixed(0), (inputs / seconds).toFixed(0), String(finds)]);
  const all = [['reader', 'inputs', 'seconds', 'inputs/s', 'faults'], ...rows];
  const widths = all[0]!.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  const pad = (cell: string, column: number): string =>
    column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!);
  return all.map((row) => row.map(pad).join('  ')).join('\n');
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

async function kernels(seconds: number, seed: number): Promise<number> {
  if (!existsSync(new URL('./kernels.ts', import.meta.url))) {
    say('kernels: skipped, there are no random calls of kernels in test/fuzz');
    return 0;
  }
  const folder = scratchFolder();
  const child = new WatchedChild(folder, '');
  let faults = 0;
  try {
    // Of several threads, and under sanitizers much slower: only what never ends is late.
    const outcome = await child.ask({ type: 'kernels', seed, seconds }, 4 * seconds + 120, (reply) => {
      if (reply.type === 'found') faults++;
      if (reply.type === 'said') say(`kernels: ${reply.line}`);
    });
    if ('fault' in outcome) {
      const call = readFileSync(join(folder, 'scratch', LAST_CALL), 'utf8').trim();
      say(`kernels: ${outcome.fault.kind}: ${outcome.fault.what}; seed ${seed}, in ${call}`);
      return 1;
    }
    if (outcome.reply.type === 'ended') say(`kernels: ${outcome.reply.inputs} calls, ${faults} faults`);
    return faults;
  } finally {
    child.close();
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130));
const values = parse();
const seed = whole('seed', values.seed, 0) ?? 1;
const inputs = whole('inputs', values.inputs, 1);
const seconds = whole('seconds', values.seconds, 1) ?? (inputs === undefined ? 60 : undefined);
const jobs = whole('jobs', values.jobs, 1) ?? availableParallelism();
if (values.help) {
  say(HELP);
  process.exit();
}
if (values.reader === 'kernels') process.exit((await kernels(seconds ?? 60, seed)) > 0 ? 1 : 0);
({ readers } = await import('./readers/index.js'));
if (values.list) {
  for (const { name, about, missing } of readers) {
    const reason = missing?.();
    say(`${name.padEnd(12)}  ${about}${reason ? ` (left out: ${reason})` : ''}`);
  }
} else if (values.replay !== undefined) {
  const path = resolve(values.replay);
  const [reader] = chosen(values.reader ?? basename(dirname(path)));
  const [fault] = await replay(module, [{ reader: reader!, input: new Uint8Array(readFileSync(path)) }]);
  say(fault ? `${fault.kind}: ${fault.what}${fault.where ? ` (${fault.where})` : ''}` : 'no fault');
  process.exitCode = fault ? 1 : 0;
} else {
  const all = chosen(values.reader ?? 'all');
  const here = all.filter(({ name, missing }) => {
    const reason = missing?.();
    if (reason) say(`${name}: left out: ${reason}`);
    return !reason;
  });
  const finds = resolve(values.finds ?? join(tmpdir(), `distilwhisper-finds-${process.pid}`));
  const reports = await fuzz({
    readers: here,
    module,
    seed,
    jobs,
    finds,
    log: say,
    ...(seconds !== undefined && { seconds }),
    ...(inputs !== undefined && { inputs }),
  });
  const found = reports.flatMap((report) => report.finds);
  say(`\n${table(reports)}`);
  if (found.length > 0)
    say(`\n${found.map((find) => `${describe(find)}, ${find.times} times`).join('\n')}\nfinds: ${finds}`);
  process.exitCode = found.length > 0 ? 1 : 0;
}
