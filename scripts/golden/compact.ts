/**
 * Cuts the compact part of the recorded reference that lives in test/golden (so that a clone alone proves the numerics)
 * out of the whole recording: npx tsx scripts/golden/compact.ts <folder of the recording>
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '../../lib/files/index.js';
import { type HostTensor, parseSafetensors, weightEntries, writeSafetensors } from '../../lib/weights/index.js';

const from = process.argv[2]!;
const to = 'test/golden';
const read = (name: string): Map<string, HostTensor> => parseSafetensors(readFileSync(join(from, `${name}.safetensors`))).tensors;

async function write(name: string, tensors: Map<string, HostTensor>): Promise<void> {
  mkdirSync(join(to, name, '..'), { recursive: true });
  await writeSafetensors(join(to, `${name}.safetensors`), weightEntries(tensors));
}

/** The first item of a batch. */
function first(t: HostTensor): HostTensor {
  return { ...t, shape: [1, ...t.shape.slice(1)], data: t.data.subarray(0, t.data.length / t.shape[0]!) };
}

// Case 1: the weights, the first utterance, its logits and last hidden rows; of the encoder's 1,500 rows the first 100.
await write('case1_d64/weights', read('case1_d64/weights'));
await write('case1_d64/first_inputs', new Map([...read('case1_d64/inputs')].map(([name, t]) => [name, first(t)])));
const outputs = read('case1_d64/outputs_f64');
const rows = first(outputs.get('encoder_last_hidden_state')!);
await write(
  'case1_d64/first_outputs',
  new Map([
    ['logits', first(outputs.get('logits')!)],
    ['decoder_last_hidden_state', first(outputs.get('decoder_last_hidden_state')!)],
    ['encoder_last_hidden_state', { ...rows, shape: [1, 100, 64], data: rows.data.subarray(0, 100 * 64 * 4) }],
  ]),
);
const report = JSON.parse(readFileSync(join(from, 'case1_d64/report.json'), 'utf8'));
await writeFileAtomic(join(to, 'case1_d64/report.json'), (sink) =>
  sink.append(Buffer.from(`${JSON.stringify({ config: report.config }, null, 1)}\n`)),
);

// Case 3: what test/native/distill-loss.test.ts compares.
const wanted = /^(labels|(student|teacher)_logits|(masked_NOT_reference\.)?(JS5|KL)\.T\d\.(kd_loss|s[\d.]+_[\d.]+\.(loss|dloss_dstudent)))$/;
const gradients = /^((JS5|KL)\.T\d\.dkd_dstudent_f64|masked_NOT_reference\.(JS5|KL)\.T\d\.dkd_dstudent)$/;
const losses = [...read('case3_losses/random_2x7x200')].filter(([name]) => wanted.test(name) || gradients.test(name));
await write('case3_losses/random_2x7x200', new Map(losses));

// Case 15: all of it.
mkdirSync(join(to, 'case15_scores'), { recursive: true });
for (const name of ['scores.json', 'tensorboard.json']) {
  const json = JSON.stringify(JSON.parse(readFileSync(join(from, 'case15_scores', name), 'utf8')));
  await writeFileAtomic(join(to, 'case15_scores', name), (sink) => sink.append(Buffer.from(`${json}\n`)));
}
const { file } = JSON.parse(readFileSync(join(from, 'case15_scores', 'tensorboard.json'), 'utf8'));
await writeFileAtomic(join(to, 'case15_scores', file), (sink) => sink.append(readFileSync(join(from, 'case15_scores', file))));
