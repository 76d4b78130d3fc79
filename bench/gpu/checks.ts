/** Whether the GPU computes what it should: kernel tests, loss curves of both devices, compute-sanitizer, the ladder's own check. */
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { packageRoot } from '../../lib/native/index.js';
import { type FloatName, Stream } from '../../lib/tensor/index.js';
import { Trainer, type UpdateReport } from '../../lib/train/index.js';
import { whisperPreset } from '../../lib/weights/index.js';
import { LANGUAGE, randomItems, TYPES } from '../data.js';
import { type Ended, run as runCommand } from './processes.js';
import type { Add } from './results.js';
import { type Settings, SHAPES } from './settings.js';
import { drawTwin, placeTwin, type Twin } from './twins.js';

const root = packageRoot();
/** '.ts' in a clone, '.js' in a bundle. */
const extension = extname(fileURLToPath(import.meta.url));
/** The GPU against the oracles. Processor and emulated device have their own turn in the project's tests. */
const ON_THE_GPU = { DISTILWHISPER_EMULATED_PLUGIN: 'none', DISTILWHISPER_KERNEL_TESTS: 'cuda' };

const run = (command: string, args: readonly string[], write?: (text: string) => void): Promise<Ended> =>
  runCommand(command, args, { cwd: root, env: ON_THE_GPU, ...(write && { write }) });

function testFiles({ shapes }: Settings): string[] {
  const { tests } = SHAPES[shapes]();
  return readdirSync(join(root, 'test'), { encoding: 'utf8', recursive: true }).filter(
    (name) => tests.test(name) && name.endsWith(`.test${extension}`),
  );
}

function ava(file: string): string[] {
  const cli = join(dirname(createRequire(import.meta.url).resolve('ava')), 'cli.mjs');
  return [cli, '--timeout=20m', `test/${file}`];
}

const summary = (output: string): string =>
  output
    .match(/^.*\d+ (tests? (passed|failed|skipped)|uncaught exceptions?|unhandled rejections?).*$/gm)
    ?.map((line) => line.trim())
    .join(', ') ?? 'no test ran';

/** Does `work` for each item, `workers` at a time. */
async function each<T>(items: readonly T[], workers: number, work: (item: T) => Promise<void>): Promise<void> {
  const left = [...items];
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) await work(next);
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.floor(workers)) }, worker));
}

/** Every kernel against its oracle, in both types: a file a row, as it ends. */
export async function tests(add: Add, settings: Settings): Promise<void> {
  await each(testFiles(settings), Math.max(2, availableParallelism() / 2), async (file) => {
    const { status, output } = await whole(`tests ${file}`, (write) => run(process.execPath, ava(file), write));
    for (const line of new Set(output.match(/✘ .*$/gm))) add({ name: 'kernel test', ok: false, note: line });
    const name = `kernels against their oracles, ${subject(file)}`;
    add({ name, ok: status === 0, note: summary(output) });
  });
}

const subject = (file: string): string => file.replace(/\.test\..*/, '');

/** Logs what a command writes when it has ended: not lines of several in turns. */
async function whole(title: string, start: (write: (text: string) => void) => Promise<Ended>): Promise<Ended> {
  let text = '';
  const ended = await start((more) => {
    text += more;
  });
  console.log(`${title}\n${text}`);
  return ended;
}

/** compute-sanitizer over the kernel tests, a file at a time in several processes. */
export async function sanitizer(add: Add, settings: Settings): Promise<void> {
  const places = [
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/local/cuda/bin',
    ...(process.env.CUDA_PATH ? [join(process.env.CUDA_PATH, 'bin')] : []),
  ];
  const tool = places.map((folder) => join(folder, 'compute-sanitizer')).find((path) => existsSync(path));
  if (!tool) {
    add({ name: 'compute-sanitizer', note: 'skipped: not on the PATH, in CUDA_PATH or /usr/local/cuda' });
    return;
  }
  const watched = (check: string, args: readonly string[], write?: (text: string) => void): Promise<Ended> => {
    // Refused calls (out of memory is tried on purpose) are the package's to report; the tool is here for what kernels do.
    const watch = ['--tool', check, '--target-processes', 'all', '--report-api-errors', 'no', '--error-exitcode', '9'];
    return run(tool, [...watch, process.execPath, ...args], write);
  };
  const probe = join(dirname(fileURLToPath(import.meta.url)), `probe${extension}`);
  const { status, output } = await watched('memcheck', [...process.execArgv, probe, settings.device]);
  if (status !== 0) {
    const why = output.match(/^=+ (?!COMPUTE-SANITIZER|ERROR SUMMARY).*\S.*$/m)?.[0] ?? summaryLine(output);
    add({ name: 'compute-sanitizer', note: `skipped: it does not work here: ${why.replace(/^=+ */, '')}` });
    return;
  }
  const all = ['memcheck', 'racecheck'].flatMap((check) => testFiles(settings).map((file) => ({ check, file })));
  await each(all, availableParallelism() / 4, async ({ check, file }) => {
    const done = await whole(`${check} ${file}`, (write) => watched(check, ava(file), write));
    const found = [...new Set(done.output.match(/^=+ (ERROR|RACECHECK) SUMMARY:.*$/gm))];
    const note = [...found.map((line) => line.replace(/^=+ /, '')), summary(done.output)].join('; ');
    add({ name: `${check}, ${subject(file)}`, ok: done.status === 0, note });
  });
}

const summaryLine = (output: string): string => output.trim().split('\n').at(-1) ?? 'it says nothing';

/** The rungs of the hot kernels, where the ladder was built. A later rung may be as far from the first as bf16 rounds. */
export async function ladder(add: Add, { device }: Settings): Promise<void> {
  const path = process.env.DISTILWHISPER_LADDER ?? join(root, 'build-cuda', 'ladder');
  if (!existsSync(path)) {
    add({ name: 'ladder', note: "skipped: it was not built ('npm run build:cuda -- --ladder')" });
    return;
  }
  const { status, output } = await run(path, [device.split(':')[1] ?? '0']);
  for (const { name, ms, tflops, gained, difference } of rungs(output)) {
    const note = `${gained} times the rung before, ${difference} from the first`;
    add({ name, ms, tflops, ok: difference <= 0.02, note });
  }
  if (status !== 0) add({ name: 'ladder', ok: false, note: summaryLine(output) });
}

/** The ladder's table: kernel, rung, ms, TFLOP/s, gained, difference, with tabs between them. */
export function rungs(output: string) {
  return output.split('\n').flatMap((line) => {
    const [kernel, rung, ...numbers] = line.split('\t');
    const [ms, tflops, gained, difference] = numbers.map(Number);
    if (numbers.length !== 4 || Number.isNaN(ms)) return [];
    return [{ name: `${kernel}: ${rung}`, ms: ms!, tflops: tflops!, gained: gained!, difference: difference! }];
  });
}

const UPDATES = 20;

interface Pair {
  student: Twin;
  teacher: Twin;
}

async function curve(device: string, twins: Pair, type: FloatName, seed: number): Promise<number[]> {
  const stream = new Stream({ device });
  const teacher = placeTwin(stream, twins.teacher, { compute: type });
  const model = placeTwin(stream, twins.student, { compute: type });
  const { config } = model;
  const updates: UpdateReport[] = [];
  await new Trainer({
    model,
    teacher,
    batches: {
      async *stream(from) {
        for (let micro = from; ; micro++)
          yield {
            features: randomItems(config, 2, micro + 1),
            labels: [
              [5, 6, 7, 8, 9],
              [10, 11, 12],
            ],
            languages: [LANGUAGE, LANGUAGE],
          };
      },
    },
    options: { steps: UPDATES, learningRate: 1e-3, warmup: 0, seed },
    onUpdate: (report) => {
      updates.push(report);
    },
  }).run();
  stream.close();
  return updates.map(({ loss }) => loss);
}

/** 20 updates of the same training on both devices: fp32 to 1e-4, bf16 within what another seed changes. */
export async function curves(add: Add, { device, shapes }: Settings): Promise<void> {
  const tiny = SHAPES.tiny();
  const [student, teacher] =
    shapes === 'tiny' ? [tiny.student, tiny.teacher] : [whisperPreset('tiny'), whisperPreset('base')];
  const twins: Pair = {
    student: await drawTwin(student, 2, { language: LANGUAGE, seed: 3 }),
    teacher: await drawTwin(teacher, 1),
  };
  for (const type of TYPES) {
    const cpu = await curve('cpu', twins, type, 1);
    const gpu = await curve(device, twins, type, 1);
    const apart = (a: readonly number[], b: readonly number[]): number =>
      Math.max(...a.map((x, i) => Math.abs(x - b[i]!) / Math.abs(b[i]!)));
    const error = apart(gpu, cpu);
    const bound = type === 'fp32' ? 1e-4 : apart(await curve('cpu', twins, type, 2), cpu);
    const shown = (losses: readonly number[]): string => losses.map((x) => x.toFixed(4)).join(' ');
    console.log(`${type}, processor ${shown(cpu)}\n${type}, ${device} ${shown(gpu)}`);
    add({
      name: `losses of ${UPDATES} updates, ${type}`,
      ok: error <= bound,
      note: `from ${cpu[0]!.toFixed(3)} to ${cpu.at(-1)!.toFixed(3)}, at most ${error.toExponential(1)} apart, allowed ${bound.toExponential(1)}`,
    });
  }
}
