/** How fast is the distillation loss over a whole vocabulary, and in how much memory? small ← large-v2. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { elementType, type FloatName, type FloatType, kernels, type Stream } from '../lib/tensor/index.js';
import { lossWorkspace, trainingDefaults } from '../lib/train/index.js';
import { floatTypes, randomIds, randomTensor } from './data.js';
import { type Case, type Context, measureGroup, type Question } from './harness.js';
import { torchCase } from './peer-cases.js';

const VOCABULARY = 51865;
export const STUDENT = 768;
const TEACHER = 1280;
const ROWS = [256, 512, 2048];

/** Calls of the loss, one for each number of rows, on shared projections. */
export function lossCall(
  stream: Stream,
  type: FloatType,
  counts: readonly number[],
  { vocabulary = VOCABULARY, student: from = STUDENT, teacher: to = TEACHER } = {},
): (() => void)[] {
  const [student, teacher] = [from, to].map((width, i) =>
    randomTensor(stream, [vocabulary, width], type, 0.05, i + 1).freeze(),
  );
  return counts.map((rows) => {
    const hidden = randomTensor(stream, [rows, from], type, 1, 3);
    const taught = randomTensor(stream, [rows, to], type, 1, 4);
    const labels = stream.persistent(
      randomIds(rows).map((id) => id % vocabulary),
      [rows],
      'i32',
    );
    return () => {
      stream.tidy(() => {
        kernels.distillLoss(stream, {
          hidden,
          weight: student!,
          labels,
          teacherHidden: taught,
          teacherWeight: teacher,
          smoothing: trainingDefaults.labelSmoothing,
          temperature: 1,
          kind: 'js',
          crossEntropyWeight: 0.25,
          divergenceWeight: 0.5,
          grad: true,
          compute: type,
          workspace: lossWorkspace(stream.device),
        });
        return undefined;
      });
    };
  });
}

/** Peak memory in MiB beyond the inputs, of a process of its own; null where the system does not tell. */
function growth(rows: number, type: FloatType, threads: number): number | null {
  const script = fileURLToPath(new URL('loss-memory.ts', import.meta.url));
  const args = ['--expose-gc', '--import=tsx', script, `${rows}`, type, `${threads}`];
  const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  return status === 0 ? JSON.parse(stdout).grew : null;
}

function cases({ stream, threads, peers }: Context, name: FloatName): Case[] {
  const type = elementType(name);
  const calls = lossCall(stream, type, ROWS);
  const list = ROWS.map((rows, i): Case => {
    const mebibytes = stream.device === 'cpu' ? growth(rows, type, threads) : null;
    return {
      name: `${name}, ${rows} rows`,
      ceiling: name,
      queue: calls[i]!,
      notes: () => ({
        'workspace limit, MiB': lossWorkspace(stream.device) / 2 ** 20,
        ...(mebibytes !== null && { 'process grew by, MiB': mebibytes }),
        'logits would take, MiB': (2 * rows * VOCABULARY * 4) / 2 ** 20,
      }),
    };
  });
  const args = ['kdloss', '--student', 'small', '--teacher', 'large-v2', '--rows', `${ROWS[0]}`];
  return [...list, ...torchCase(peers, `${name}, ${ROWS[0]} rows`, name, args)];
}

export const loss: Question = {
  name: 'loss',
  question: 'How fast is the distillation loss, and in how much memory?',
  async *measure(context) {
    for (const type of floatTypes(context.types)) {
      yield await measureGroup(context, {
        title: `Distillation loss with gradient, ${VOCABULARY} tokens, widths ${STUDENT} and ${TEACHER}, ${type}`,
        cases: cases(context, type),
      });
    }
  },
};
