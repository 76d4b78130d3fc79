/** How fast is the distillation loss over a whole vocabulary, and in how much memory? small ← large-v2. */
import { readFileSync, writeFileSync } from 'node:fs';
import { dtypeNumber, type FloatType } from '../lib/tensor/index.js';
import { trainingDefaults } from '../lib/train/index.js';
import { randomIds, randomTensor, TYPES, typeName } from './data.js';
import { type Case, type Context, measureGroup, type Question } from './harness.js';
import { peerCase } from './peers.js';

const VOCABULARY = 51865;
const STUDENT = 768;
const TEACHER = 1280;
const ROWS = [256, 512, 2048];

/** MiB by which the process grew at most while `body` ran; null where the system does not tell. */
async function growth(body: () => Promise<void>): Promise<number | null> {
  const status = (name: string): number =>
    Number(new RegExp(`${name}:\\s*(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024;
  try {
    writeFileSync('/proc/self/clear_refs', '5');
  } catch {
    return null;
  }
  const before = status('VmRSS');
  await body();
  return Math.max(0, status('VmHWM') - before);
}

async function cases(context: Context, type: FloatType): Promise<Case[]> {
  const { stream } = context;
  const t = dtypeNumber(type);
  const heads = [STUDENT, TEACHER].map((width, i) =>
    randomTensor(stream, [VOCABULARY, width], type, 0.05, i + 1).freeze(),
  );
  const name = typeName(type);
  const list: Case[] = [];
  for (const rows of ROWS) {
    const hidden = randomTensor(stream, [rows, STUDENT], type, 1, 3);
    const teacher = randomTensor(stream, [rows, TEACHER], type, 1, 4);
    const labels = stream.persistent(randomIds(rows), [rows], 'i32');
    const queue = (): undefined =>
      stream.tidy(() => {
        stream.call(
          'distill_loss',
          [hidden, heads[0]!, labels, teacher, heads[1]!, null],
          [trainingDefaults.labelSmoothing, 1, 1, 0.25, 0.5, 0, 1, t, trainingDefaults.workspace, 0],
        );
        return undefined;
      });
    // The first call of all would count the packed weights too.
    if (rows === ROWS[0]) queue();
    await stream.sync();
    const mebibytes = await growth(async () => {
      queue();
      await stream.sync();
    });
    list.push({
      name: `${name}, ${rows} rows`,
      flop: 2 * rows * VOCABULARY * (2 * STUDENT + TEACHER),
      ceiling: type,
      queue,
      notes: () => ({
        'workspace limit, MiB': trainingDefaults.workspace / 2 ** 20,
        ...(mebibytes !== null && { 'process grew by, MiB': mebibytes }),
        'logits would take, MiB': (2 * rows * VOCABULARY * 4) / 2 ** 20,
      }),
    });
  }
  const args = ['kdloss', '--student', 'small', '--teacher', 'large-v2', '--rows', `${ROWS[0]}`];
  return [...list, peerCase(`${name}, ${ROWS[0]} rows`, type, args)];
}

export const loss: Question = {
  name: 'loss',
  question: 'How fast is the distillation loss, and in how much memory?',
  async *measure(context) {
    for (const type of TYPES) {
      yield await measureGroup(context, {
        title: `Distillation loss with gradient, ${VOCABULARY} tokens, widths ${STUDENT} and ${TEACHER}, ${typeName(type)}`,
        cases: await cases(context, type),
      });
    }
  },
};
