/** TensorBoard's event files: the bytes that it was recorded to write (golden case 15), and the curves of a run that was interrupted. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { record, scalarEvent, versionEvent } from '../../lib/train/event-file.js';
import { Trainer } from '../../lib/train/index.js';
import { goldenJson, goldenPath } from '../support/golden.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

test('the bytes are those of torch.utils.tensorboard', (t) => {
  const { file, scalars } = goldenJson('case15_scores/tensorboard') as {
    file: string;
    scalars: { tag: string; step: number; value: number | 'NaN'; wall_time: number }[];
  };
  const want = readFileSync(goldenPath(`case15_scores/${file}`)!);
  // When the file was begun is not in the list.
  const begun = want.readDoubleLE(13);
  const records = [
    record(versionEvent(begun, 'tensorboard.summary.writer.event_file_writer')),
    ...scalars.map(({ tag, step, value, wall_time }) =>
      record(scalarEvent(wall_time, step, { tag, value: Number(value) })),
    ),
  ];
  t.deepEqual(Buffer.concat(records), want);
});

/** The fields of a message: whole numbers, floats and doubles as numbers, the rest as bytes. */
function fields(message: Buffer): Map<number, number | Buffer> {
  const found = new Map<number, number | Buffer>();
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message[at++]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < message.length) {
    const key = varint();
    if (key % 8 === 0) found.set(key >> 3, varint());
    else {
      const length = key % 8 === 1 ? 8 : key % 8 === 5 ? 4 : varint();
      const value = message.subarray(at, at + length);
      at += length;
      found.set(key >> 3, key % 8 === 1 ? value.readDoubleLE() : key % 8 === 5 ? value.readFloatLE() : value);
    }
  }
  return found;
}

interface Event {
  step: number | undefined;
  scalar?: [tag: string, value: number];
  session?: number;
}

function eventsOf(path: string): Event[] {
  const file = readFileSync(path);
  const events: Event[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const event = fields(file.subarray(at + 12, at + 12 + length));
    at += 16 + length;
    const step = event.get(2) as number | undefined;
    const [summary, session] = [event.get(5), event.get(7)] as (Buffer | undefined)[];
    if (session) events.push({ step, session: fields(session).get(1) as number });
    if (!summary) continue;
    const value = fields(fields(summary).get(1) as Buffer);
    events.push({ step, scalar: [String(value.get(1)), value.get(2) as number] });
  }
  return events;
}

test('the curves of a run are its log; a run that goes on begins a file that takes back what was lost', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'curves-')), 'run');
  t.teardown(() => rmSync(join(path, '..'), { recursive: true, force: true }));
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig();
  const features = normalItems(2, config.num_mel_bins * 40, random(1));
  const run = async (abortAt?: number): Promise<void> => {
    const abort = new AbortController();
    const trainer = new Trainer({
      model: await Whisper.create(stream, config, { seed: 2, trainable: () => true }),
      batches: {
        async *stream() {
          for (;;) yield { features, labels: [[1, 2, 3], [4]], languages: [null, null] };
        },
      },
      options: { steps: 6 },
      folder: path,
      tensorboard: true,
      validateEvery: 3,
      validate: async (step) => ({ score: step / 8, gateShare: null }),
      onUpdate: ({ step }) => {
        if (step === abortAt) abort.abort();
      },
      signal: abort.signal,
    });
    await trainer.run();
  };
  await t.throwsAsync(run(3), { code: 'ERR_INTERRUPTED' });
  await run();
  const files = readdirSync(join(path, 'tensorboard')).sort();
  t.is(files.length, 2);
  t.true(files.every((name) => /^events\.out\.tfevents\.\d+\./.test(name)));
  const [before, after] = files.map((name) => eventsOf(join(path, 'tensorboard', name))) as [Event[], Event[]];
  t.false(before.some(({ session }) => session !== undefined));
  const from = after[0]!;
  t.is(from.session, 1);
  const log = readFileSync(join(path, 'log.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const scalars = [...before.filter(({ step }) => step! < from.step!), ...after.slice(1)];
  for (const [tag, of] of [
    ['train/loss', (line: Record<string, number>) => line.loss],
    ['train/learning_rate', (line: Record<string, number>) => line.learningRate],
    ['validation/score', (line: { validation?: { score: number } }) => line.validation?.score],
  ] as const) {
    const want = log.flatMap((line) => (of(line) === undefined ? [] : [[line.step, Math.fround(of(line)!)]]));
    t.deepEqual(
      scalars.flatMap(({ step, scalar }) => (scalar?.[0] === tag ? [[step, scalar[1]]] : [])),
      want,
      tag,
    );
  }
  await run();
  t.is(readdirSync(join(path, 'tensorboard')).length, 2, 'a run at its end begins no file');
  stream.close();
});
