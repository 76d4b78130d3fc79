/** Whether the GPU computes what it should: kernel tests, loss curves of both devices, compute-sanitizer, the ladder's own check. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Whisper } from '../../lib/model/index.js';
import { packageRoot } from '../../lib/native/index.js';
import { type FloatType, Stream } from '../../lib/tensor/index.js';
import { Trainer, type UpdateReport } from '../../lib/train/index.js';
import { type WhisperConfig, whisperPreset } from '../../lib/weights/index.js';
import { LANGUAGE, randomFloats, TYPES, typeName } from '../data.js';
import type { GpuRow } from './results.js';
import { type Settings, SHAPES } from './settings.js';

type Add = (row: Omit<GpuRow, 'stage'>) => void;

const root = packageRoot();
/** Tests that run every kernel, by the beginning of their names. */
const KERNEL_TESTS = /^(1[1-9]|63|64)-/;
const SANITIZED_TESTS = /^(12|13|14|15|17)-/;

function ava(files: RegExp): string[] {
  const test = join(root, 'test');
  const extension = `.test${extname(fileURLToPath(import.meta.url))}`;
  const cli = join(dirname(createRequire(import.meta.url).resolve('ava')), 'cli.mjs');
  const chosen = readdirSync(test).filter((name) => files.test(name) && name.endsWith(extension));
  return [cli, '--concurrency', '2', ...chosen.map((name) => `test/${name}`)];
}

/** Runs a command to its end with its output in the stage's log. */
function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): { status: number | null; output: string } {
  const done = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
    maxBuffer: 1 << 28,
  });
  const output = `${done.stdout ?? ''}${done.stderr ?? ''}${done.error?.message ?? ''}`;
  console.log(output);
  return { status: done.status, output };
}

// The device that is emulated has its own turn in the project's tests.
const NO_EMULATION = { DISTILWHISPER_EMULATED_PLUGIN: 'none' };

const counts = (output: string): string =>
  output
    .match(/^.*\d+ (tests? (passed|failed)|uncaught exceptions?).*$/gm)
    ?.map((line) => line.trim())
    .join(', ') ?? 'no test ran';

/** Every kernel against its oracle, in both types. */
export function tests(add: Add): void {
  const { status, output } = run(process.execPath, ava(KERNEL_TESTS), NO_EMULATION);
  const failed = output.match(/✘ .*$/gm) ?? [];
  add({ name: 'kernels against their oracles', ok: status === 0, note: [counts(output), ...failed].join('; ') });
}

/** compute-sanitizer over the kernel tests. */
export function sanitizer(add: Add): void {
  const places = [
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/local/cuda/bin',
    join(process.env.CUDA_PATH ?? '/', 'bin'),
  ];
  const tool = places.map((folder) => join(folder, 'compute-sanitizer')).find((path) => existsSync(path));
  if (!tool) {
    add({ name: 'compute-sanitizer', note: 'skipped: not on the PATH, in CUDA_PATH or /usr/local/cuda' });
    return;
  }
  for (const check of ['memcheck', 'racecheck']) {
    const { status, output } = run(
      tool,
      [
        '--tool',
        check,
        '--target-processes',
        'all',
        '--error-exitcode',
        '9',
        process.execPath,
        ...ava(SANITIZED_TESTS),
      ],
      NO_EMULATION,
    );
    const found = output.match(/^=+ (ERROR|RACECHECK) SUMMARY:.*$/gm) ?? [];
    add({ name: `compute-sanitizer ${check}`, ok: status === 0, note: [...new Set(found), counts(output)].join('; ') });
  }
}

/** The rungs of the hot kernels, where the ladder was built (-DDISTILWHISPER_LADDER=ON). */
export function ladder(add: Add): void {
  const path = ['build-cuda/ladder', 'ladder'].map((name) => join(root, name)).find((file) => existsSync(file));
  if (!path) {
    add({ name: 'ladder', note: 'skipped: it was not built (-DDISTILWHISPER_LADDER=ON)' });
    return;
  }
  const { status, output } = run(path, []);
  for (const line of output.trim().split('\n')) add({ name: 'rung', note: line.trim() });
  add({ name: 'ladder', ok: status === 0 });
}

const UPDATES = 20;

async function curve(
  device: string,
  config: WhisperConfig,
  teacherConfig: WhisperConfig,
  type: FloatType,
  seed: number,
): Promise<number[]> {
  const stream = new Stream({ device });
  const teacher = await Whisper.create(stream, teacherConfig, { seed: 1, compute: type });
  const model = await Whisper.create(stream, config, { seed: 2, compute: type });
  await model.addExpert(LANGUAGE, { seed: 3 });
  const size = config.num_mel_bins * 2 * config.max_source_positions;
  const updates: UpdateReport[] = [];
  await new Trainer({
    model,
    teacher,
    batches: {
      async *stream(from) {
        for (let micro = from; ; micro++)
          yield {
            features: randomFloats(2 * size, 0.5, micro + 1),
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
  for (const type of TYPES) {
    const name = `losses of ${UPDATES} updates, ${typeName(type)}`;
    const cpu = await curve('cpu', student, teacher, type, 1);
    const gpu = await curve(device, student, teacher, type, 1);
    const apart = (a: readonly number[], b: readonly number[]): number =>
      Math.max(...a.map((x, i) => Math.abs(x - b[i]!) / Math.abs(b[i]!)));
    const error = apart(gpu, cpu);
    const bound = type === 'f32' ? 1e-4 : apart(await curve('cpu', student, teacher, type, 2), cpu);
    add({
      name,
      ok: error <= bound,
      note: `at most ${error.toExponential(1)} apart, allowed ${bound.toExponential(1)}`,
    });
  }
}
