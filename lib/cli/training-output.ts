import type { TrainPlan, TrainRecipe } from '../recipes/index.js';
import { leftOutNote } from './options.js';
import type { CommandContext } from './run.js';
import { WarningNotes } from './warnings.js';

const count = (n: number): string => n.toLocaleString('en');

/** What a training run tells while it works, and how it is stopped. */
export function trainingOutput({
  signal,
  display,
}: CommandContext): Required<
  Pick<TrainRecipe, 'signal' | 'onCheck' | 'onWarning' | 'onStart' | 'onUpdate' | 'onValidation'>
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
      const { utterances, steps, trainable, parameters, badRows, heldOut } = started;
      if (badRows.length > 0) display.note(leftOutNote(badRows));
      if (heldOut.length > 0) {
        const names = heldOut.map((name) => JSON.stringify(name)).join(', ');
        display.note(`training on rows that are marked for tests or validation, as asked: ${names}`);
      }
      display.note(
        `plan: ${count(steps)} updates on ${count(utterances)} utterances; ` +
          `${count(trainable)} of ${count(parameters)} parameters train`,
      );
    },
    onUpdate: ({ step, loss, crossEntropy, distillation, gate, learningRate }) => {
      const parts = [`loss ${loss.toFixed(3)}`, `ce ${crossEntropy.toFixed(3)}`];
      if (distillation > 0) parts.push(`kd ${distillation.toFixed(3)}`);
      if (gate > 0) parts.push(`gate ${gate.toFixed(2)}`);
      parts.push(`lr ${learningRate.toExponential(1)}`);
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
