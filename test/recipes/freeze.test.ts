/** Layers that stay as they are: which, what that costs in the backward, and what is written. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { Profile, readProfile } from '../../lib/profile/index.js';
import { frozenNames } from '../../lib/recipes/freeze.js';
import { type TrainRecipe, train } from '../../lib/recipes/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type TrainBatch, TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import { openModelFolder, toFloat32 } from '../../lib/weights/index.js';
import { corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const config = tinyConfig({ encoder_layers: 2, decoder_layers: 2 });

test('patterns: sides, embeddings, ranges and beginnings of names; what means nothing is refused', (t) => {
  const frozen = (...patterns: string[]): string[] => [...frozenNames(patterns, config)].map((name) => name.slice(6));
  t.true(frozen('encoder').every((name) => name.startsWith('encoder.')));
  t.true(frozen('encoder').includes('encoder.layer_norm.bias'));
  t.deepEqual(frozen('embeddings').sort(), [
    'decoder.embed_positions.weight',
    'decoder.embed_tokens.weight',
    'encoder.embed_positions.weight',
  ]);
  t.deepEqual(frozen('encoder.layers.0-1'), frozen('encoder.layers'));
  t.deepEqual(frozen('model.encoder.layers.1'), frozen('encoder.layers.1'));
  t.deepEqual(
    frozen('decoder.layers.*.fc1'),
    [0, 1].flatMap((i) => [`decoder.layers.${i}.fc1.weight`, `decoder.layers.${i}.fc1.bias`]),
  );
  for (const [patterns, message] of [
    [['encodr'], /^freeze: expected encoder, decoder, embeddings, .* the model has 2 \+ 2 layers, got "encodr"$/],
    [['encoder.layers.0-3'], /got "encoder\.layers\.2" \(of "encoder\.layers\.0-3"\)$/],
    [['encoder.layers.1-0'], /^freeze: expected a range of layers from the lower/],
    [['encoder.lay'], /got "encoder\.lay"$/],
    [[''], /got ""$/],
    [['encoder', 'decoder'], /^freeze: expected something to be left that trains, got encoder, decoder$/],
  ] as const)
    t.throws(() => frozenNames(patterns, config), { code: 'ERR_ARGUMENT', message });
});

test.serial(
  'the backward ends where nothing below trains: counted by the profiler; what trains has the same gradients',
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'freeze-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const size = config.num_mel_bins * 2 * config.max_source_positions;
    const batch: TrainBatch = {
      features: normalItems(2, size, random(1)),
      labels: [
        [1, 2, 3],
        [4, 5],
      ],
      languages: [null, null],
    };
    const update = async (...patterns: string[]) => {
      const frozen = frozenNames(patterns, config);
      const stream = new Stream({ threads: 1 });
      const model = await Whisper.create(stream, config, { seed: 2, trainable: (name) => !frozen.has(name) });
      const options = trainingOptions({ steps: 2, warmup: 0, maxGradientNorm: 0 });
      const engine = new TrainingEngine(model, null, options);
      const path = join(folder, 'trace.json');
      const profile = await Profile.start(path, { threads: 1 });
      await engine.update(0, [batch]);
      await stream.sync();
      profile.stop();
      const calls = new Map<string, number>();
      for (const { name, calls: n } of (await readProfile(path)).streams[0]!.kernels)
        calls.set(name, (calls.get(name) ?? 0) + n);
      const moments = new Map<string, Float32Array>();
      for (const [name, tensor] of engine.optimizer.state().tensors) moments.set(name, await tensor.floats());
      stream.close();
      const count = (name: string): number => calls.get(name) ?? 0;
      return {
        moments,
        attention: count('attention_backward'),
        norm: count('layer_norm_backward'),
        weights: count('linear_backward_weight'),
        embedding: count('embedding_backward'),
      };
    };
    const { moments: all, ...full } = await update();
    // Attention of two encoder layers, self- and cross-attention of two decoder layers; two norms a layer and one more, three and one more.
    t.deepEqual(full, { attention: 6, norm: 12, weights: full.weights, embedding: 1 });
    const { moments: decoder, ...half } = await update('encoder');
    t.like(half, { attention: 4, norm: 7, embedding: 1 });
    // In the encoder two convolutions, and of each layer four projections and two products.
    t.is(full.weights - half.weights, 2 + 2 * 6);
    const { moments: last, ...end } = await update('encoder', 'embeddings', 'decoder.layers.0');
    t.like(end, { attention: 2, norm: 4, embedding: 0 });
    t.is(half.weights - end.weights, 10);
    // Through the decoder to the encoder: all but the self-attention at its bottom.
    t.like(await update('decoder'), { attention: 5, embedding: 0 });
    for (const moments of [decoder, last]) {
      t.true(moments.size > 0);
      for (const [name, values] of moments) t.deepEqual(values, all.get(name), name);
    }
  },
);

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
test.after.always(remove);

test('a run leaves what is frozen as it was, to the bit, in bf16 too; it is a part of what the run is', async (t) => {
  await writeTinyModel(at('student'), 1);
  writeRows(at('rows.jsonl'), corpusRows('ca', 'train', 'in', 4));
  const recipe = (more: Partial<TrainRecipe>): TrainRecipe => ({
    model: at('student'),
    manifest: at('rows.jsonl'),
    output: at('run'),
    method: 'full',
    compute: 'bf16',
    batchSize: 2,
    steps: 3,
    ...more,
  });
  const { result, trainable, parameters } = await train(recipe({ freeze: ['encoder', 'embeddings'] }));
  t.true(trainable < parameters);
  const [before, after] = [await openModelFolder(at('student')), await openModelFolder(result)];
  let moved = 0;
  for (const name of before.weights.names()) {
    const [old, now] = [toFloat32(await before.weights.read(name)), toFloat32(await after.weights.read(name))];
    const isFrozen = name.startsWith('model.encoder.') || name.includes('embed_');
    if (isFrozen) t.deepEqual(now, old, name);
    else if (now.some((x, i) => x !== old[i])) moved++;
  }
  t.true(moved > 20, String(moved));
  await before.close();
  await after.close();
  t.deepEqual(JSON.parse(readFileSync(at('run', 'run.json'), 'utf8')).freeze, ['embeddings', 'encoder']);
  t.is((await train(recipe({ freeze: ['embeddings', 'encoder'] }))).updates, 0);
  await t.throwsAsync(train(recipe({ freeze: 'encoder' })), { code: 'ERR_RUN', message: /freeze/ });
  const refused = (more: Partial<TrainRecipe>, message: RegExp) =>
    t.throwsAsync(train(recipe({ output: at('refused'), ...more })), { code: 'ERR_ARGUMENT', message });
  await refused({ freeze: 'encoder.layers.7' }, /^freeze: expected encoder/);
  await refused({ freeze: 3 as never }, /^freeze: expected a name or a list of names, got 3$/);
  await refused({ freeze: 'encoder', method: 'experts', language: 'ca' }, /^freeze: expected with method 'full'/);
  t.false(existsSync(at('refused')));
});
