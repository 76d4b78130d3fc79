import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { embedded, planTraining, type TrainPlan, type TrainRecipe, train } from '../../lib/recipes/index.js';
import { cli } from '../support/cli.js';

const { teacher, student, manifest } = embedded();

/** A recipe of some rows of the embedded corpus, in a folder of its own. */
function recipe(t: ExecutionContext, more: Partial<TrainRecipe> = {}): TrainRecipe & { manifest: string } {
  const folder = mkdtempSync(join(tmpdir(), 'distilwhisper-plan-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const rows = readFileSync(manifest, 'utf8')
    .trimEnd()
    .split('\n')
    .filter((line) => line.includes('"ca"') && line.includes('"train"'))
    .slice(0, 8);
  const file = join(folder, 'rows.jsonl');
  writeFileSync(file, `${rows.join('\n')}\n`);
  const output = join(folder, 'run');
  const audioRoot = join(manifest, '..');
  const own = { model: student, teacher, audioRoot, output, language: 'ca', steps: 2 };
  return { ...own, ...more, manifest: file };
}

const started = async (own: TrainRecipe): Promise<TrainPlan> => {
  let plan: TrainPlan | null = null;
  await train({
    ...own,
    onStart: (told) => {
      plan = told;
    },
  });
  return plan!;
};

test('a plan says what a run takes, and writes nothing', async (t) => {
  const own = recipe(t, { teacherCache: 'auto' });
  const { time, ...plan } = await planTraining(own);
  t.false(existsSync(own.output));
  t.like(plan, { utterances: 8, steps: 2, batch: { size: 16, microBatch: 16, compute: 'fp32', chosen: true } });
  t.true(plan.hours! > 0.002 && plan.hours! < 0.01, String(plan.hours));
  const { total, base, room, ...parts } = plan.memory;
  t.is(
    total - base,
    Object.entries(parts).reduce((sum, [name, bytes]) => (name === 'files' ? sum : sum + bytes), 0),
  );
  t.true(room > total - base);
  t.is(plan.teacher.kind, 'filling');
  t.true(plan.teacher.flop > 1.5 * plan.teacher.cachedFlop);
  t.true(plan.disk.run > 36 * plan.trainable && plan.disk.teacherCache > 8 * 2 * 128);
  const { update, first, run, teacherCache } = time!;
  t.true(update > 0 && teacherCache! > 0);
  // Two updates, of which only the first asks the teacher.
  t.true(run < Math.max(first, update) + update && run >= first, `${first}, ${update}: ${run}`);
  // The run itself says the same.
  const { memory: _, ...others } = await started(own);
  const { memory: __, ...expected } = plan;
  t.deepEqual(others, expected);
});

test('batches are run in parts where the memory asks for it; a run that goes on keeps them, and one that cannot fit is refused', async (t) => {
  const own = recipe(t, { steps: 4, checkpointEvery: 1 });
  const whole = await planTraining(own);
  const needed = whole.memory.total - whole.memory.base;
  const maxMemory = Math.floor(needed - 0.6 * whole.memory.step);
  const abort = new AbortController();
  const reports: number[] = [];
  const small = train({
    ...own,
    maxMemory,
    signal: abort.signal,
    onUpdate: ({ step, loss }) => {
      reports.push(loss);
      if (step === 2) abort.abort();
    },
  });
  await t.throwsAsync(small, { code: 'ERR_INTERRUPTED' });
  const { microBatch } = JSON.parse(readFileSync(join(own.output, 'run.json'), 'utf8'));
  t.true(microBatch < 16, String(microBatch));
  // With all the memory there is, and none too many.
  const { batch, ...rest } = await train({ ...own, onUpdate: ({ loss }) => void reports.push(loss) });
  t.is(batch.microBatch, microBatch);
  t.true(batch.chosen);
  t.is(rest.updates, 2);
  const again = recipe(t, { steps: 4, maxMemory });
  const unbroken: number[] = [];
  await train({ ...again, onUpdate: ({ loss }) => void unbroken.push(loss) });
  t.deepEqual(reports, unbroken);
  const refused = recipe(t, { maxMemory: 1 << 20 });
  await t.throwsAsync(train(refused), {
    code: 'ERR_MEMORY',
    message:
      /^memory: the run needs at least \d+ MiB \(.*a step \d+ MiB.*\), and 1 MiB is there \(as --max-memory says\); a smaller model/,
  });
  await t.throwsAsync(train({ ...refused, batchSize: 16 }), {
    code: 'ERR_MEMORY',
    message: /--batch-size auto runs batches in parts/,
  });
  t.false(existsSync(refused.output));
});

test('a batch size that is given is kept, and is what it was before there were plans', async (t) => {
  const plan = await started(recipe(t, { batchSize: 5 }));
  t.deepEqual(plan.batch, { size: 5, microBatch: 5, gradientCheckpointing: false, compute: 'fp32', chosen: false });
  await t.throwsAsync(train(recipe(t, { batchSize: 0 })), {
    code: 'ERR_ARGUMENT',
    message: /batchSize: expected 'auto' or a whole number from 1, got 0/,
  });
});

test('the command: --dry-run prints the plan, and as JSON', async (t) => {
  const { model, output, manifest: rows } = recipe(t);
  const audioRoot = join(manifest, '..');
  const args = ['train', '--model', model, '--teacher', teacher, '--manifest', rows, '--audio-root', audioRoot];
  const own = [...args, '--language', 'ca', '--steps', '120', '--output', output, '--dry-run', '--threads', '2'];
  const { code, stdout, stderr } = await cli(own);
  t.is(code, 0, stderr);
  t.regex(
    stdout,
    /^plan: 120 updates on 8 utterances \(0\.0\d h\); 560,128 of 1,663,744 parameters train\n {2}batches of 16, fp32\n {2}teacher: runs beside the student; with a cache an update computes \d\.\d × less \(--teacher-cache\)\n {2}memory: \d+ MiB at the peak \(.*\); it may take .* besides the .* that it has\n {2}disk: \d+ MiB\n {2}time: \S+ s an update, \S+ in all\n$/,
  );
  t.false(existsSync(output));
  const json = await cli([...own, '--json', '--teacher-cache', 'auto']);
  t.is(json.code, 0, json.stderr);
  t.like(JSON.parse(json.stdout), { utterances: 8, teacher: { kind: 'filling' } });
  t.true(JSON.parse(json.stdout).time.teacherCache > 0);
});
