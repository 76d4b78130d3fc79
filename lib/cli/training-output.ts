import type { BadRow } from '../data/index.js';
import { gibibytes, memoryParts, type TimePlan, type TrainPlan, type TrainRecipe } from '../recipes/index.js';
import { clock, type Display } from './display.js';
import { leftOutNote } from './options.js';
import type { CommandContext } from './run.js';
import { WarningNotes } from './warnings.js';

const count = (n: number): string => n.toLocaleString('en');

/** How a run's batches are run, in words. */
function batchText({ size, microBatch, gradientCheckpointing, compute }: TrainPlan['batch']): string {
  const parts = [`batches of ${size}`];
  if (microBatch < size) parts.push(`${microBatch} at a time`);
  if (gradientCheckpointing) parts.push('layers run again in the backward pass');
  parts.push(compute);
  return parts.join(', ');
}

const TEACHERS: Record<TrainPlan['teacher']['kind'], string> = {
  none: 'none',
  unheard: 'named, not learned from',
  live: 'runs beside the student',
  runtime: 'graphs of ONNX, run by onnxruntime',
  filling: 'runs beside the student once for each utterance; its cache is filled',
  cached: 'from its cache; its layers are not loaded',
};

/** Languages in words, the most frequent first; where they are sampled otherwise than they are there, that too. */
function languagesText(languages: TrainPlan['languages']): string {
  const shares = (amount: (one: TrainPlan['languages'][number]) => number) => {
    const sum = languages.reduce((all, one) => all + amount(one), 0);
    return (one: TrainPlan['languages'][number]): string => `${((100 * amount(one)) / sum).toFixed(0)}%`;
  };
  const [dealt, there] = [shares(({ epoch }) => epoch), shares(({ utterances }) => utterances)];
  return [...languages]
    .sort((a, b) => b.epoch - a.epoch)
    .map((one) => {
      const share = dealt(one) === there(one) ? '' : `, ${there(one)} of the rows`;
      return `${one.language} ${dealt(one)}${share}`;
    })
    .join('; ');
}

/** A plan as lines for people. */
export function planText(plan: TrainPlan): string {
  const { utterances, hours, steps, trainable, parameters, memory, teacher, disk } = plan;
  const audio = hours === null ? '' : ` (${hours.toFixed(hours < 10 ? 2 : 0)} h)`;
  const lines = [
    `plan: ${count(steps)} updates on ${count(utterances)} utterances${audio}; ${count(trainable)} of ${count(parameters)} parameters train`,
    `  ${batchText(plan.batch)}${plan.batch.chosen ? '' : ', as asked'}`,
  ];
  if (plan.extension) {
    const { from, at } = plan.extension;
    lines.push(
      `  goes on behind update ${count(at)} of what were ${count(from)}: learning rate and gate noise follow the new length from there`,
    );
  }
  if (plan.languages.length > 1) lines.push(`  languages: ${languagesText(plan.languages)}`);
  if (teacher.kind !== 'none') {
    const saved = teacher.flop / teacher.cachedFlop;
    const hint =
      teacher.kind === 'live' ? `; with a cache an update computes ${saved.toFixed(1)} × less (--teacher-cache)` : '';
    lines.push(`  teacher: ${TEACHERS[teacher.kind]}${hint}`);
  }
  const mapped =
    memory.files >= 1 << 20
      ? `, and ${gibibytes(memory.files)} of mapped weights, which the system takes back where memory is short`
      : '';
  const parts = memoryParts(memory).map(([name, bytes]) => `${name} ${gibibytes(bytes)}`);
  lines.push(
    `  memory: ${gibibytes(memory.total)} at the peak (${parts.join(', ')})${mapped}; it may take ${gibibytes(memory.room)} besides the ${gibibytes(memory.base)} that it has`,
  );
  const cache = disk.teacherCache > 0 ? `, and ${gibibytes(disk.teacherCache)} of teacher cache` : '';
  lines.push(`  disk: ${gibibytes(disk.run)}${cache}`);
  return lines.join('\n');
}

/** Tells which rows are left out, and which are taken that are usually not. */
export function noteRows(
  display: Display,
  { badRows, heldOut }: { badRows: readonly BadRow[]; heldOut: readonly string[] },
): void {
  if (badRows.length > 0) display.note(leftOutNote(badRows));
  if (heldOut.length === 0) return;
  const names = heldOut.map((name) => JSON.stringify(name)).join(', ');
  display.note(`training on rows that are marked for tests or validation, as asked: ${names}`);
}

/** How long a run takes, as a line. */
export function timeText({ update, run, teacherCache }: TimePlan): string {
  const cache = teacherCache === null ? '' : `, ${clock(teacherCache)} of it for the teacher's cache`;
  return `  time: ${update.toPrecision(3)} s an update, ${clock(run)} in all${cache}`;
}

/** What a training run tells while it works, and how it is stopped. */
export function trainingOutput({
  signal,
  display,
}: CommandContext): Required<
  Pick<TrainRecipe, 'signal' | 'onCheck' | 'onWarning' | 'onStart' | 'onTime' | 'onUpdate' | 'onValidation'>
> {
  const warnings = new WarningNotes(display);
  let plan: TrainPlan | null = null;
  return {
    signal,
    onCheck: (done, total) => display.progress('checking audio', done, total),
    onWarning: warnings.add,
    onStart: (started) => {
      warnings.end();
      plan = started;
      noteRows(display, started);
      display.note(planText(started));
    },
    onTime: (time) => display.note(timeText(time)),
    onUpdate: ({ step, loss, crossEntropy, distillation, gate, chosen, learningRate }, pace) => {
      const parts = [`loss ${loss.toFixed(3)}`, `ce ${crossEntropy.toFixed(3)}`];
      if (distillation > 0) parts.push(`kd ${distillation.toFixed(3)}`);
      // Their mean, and the share that inference would send to the expert.
      if (gate > 0) parts.push(`gate ${gate.toFixed(2)} (${(100 * chosen).toFixed(0)}%)`);
      parts.push(`lr ${learningRate.toExponential(1)}`);
      if (pace.audioSeconds > 0) parts.push(`${(pace.audioSeconds / pace.seconds).toFixed(1)} × real time`);
      parts.push(`waiting ${((100 * pace.waited) / pace.seconds).toFixed(0)}%`);
      display.progress('training', step, plan?.steps ?? step, parts.join('  '));
    },
    onValidation: (step, { score, cer, gateShare }, isBest) => {
      const parts = [`WER ${(100 * score).toFixed(1)}%`];
      if (typeof cer === 'number') parts.push(`CER ${(100 * cer).toFixed(1)}%`);
      if (typeof gateShare === 'number') parts.push(`gate ${(100 * gateShare).toFixed(0)}%`);
      display.note(`validation after update ${step}: ${parts.join('  ')}${isBest ? '  (best so far)' : ''}`);
    },
  };
}
