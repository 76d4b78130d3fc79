/** LoRA against PEFT's recorded numbers (golden cases 8 and 13), and its ways of running against each other. */
import { mkdtempSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { greedy } from '../../lib/decode/index.js';
import { mergedWeights, Whisper } from '../../lib/model/index.js';
import { Stream, Tape } from '../../lib/tensor/index.js';
import { fromFloat32, openAdapter, openModelFolder, writeAdapter } from '../../lib/weights/index.js';
import { configOf, floats, golden, goldenJson, goldenPath, type Tensors } from '../support/golden.js';
import { isaEnds, relativeL2 } from '../support/kernels.js';
import { normalItems, normals, random } from '../support/random.js';
import { step } from '../support/step.js';
import { tinyConfig } from '../support/tiny.js';

const FORWARD = 1e-5;
const GRADIENT = 1e-4;
const when = (name: string) => (goldenPath(name) ? test.serial : test.serial.skip);
const streams = isaEnds.map((isa) => new Stream({ isa, threads: 2 }));
const folderOf = (name: string): string =>
  goldenPath(`case13_peft/${name}/adapter_config.json`)!.replace(/\/[^/]*$/, '');
/** Two layers a side, a window of 0.4 s. */
const config = tinyConfig({ encoder_layers: 2, decoder_layers: 2 });
const FRAMES = 80 * 40;
const scratch = (): string => mkdtempSync(join(tmpdir(), 'lora-'));

/** A model of `config`'s sizes whose adapters are not nothing. */
async function adapted(stream: Stream, targets: string[], options: { compute?: 'fp32' | 'bf16'; name?: string } = {}) {
  const { compute = 'fp32', name = 'one' } = options;
  const model = await Whisper.create(stream, config, { seed: 1, compute });
  const adapter = await model.addAdapter(name, { rank: 4, alpha: 6, targets, seed: 3 });
  const next = random(7);
  for (const [tensor, { value }] of adapter.parameters) {
    if (tensor.includes('lora_B')) value.write(Float32Array.from({ length: value.size }, () => 0.3 * (next() - 0.5)));
  }
  return { model, adapter };
}

when('case8_lora/r8_alpha16/eval_grads.safetensors')(
  'LoRA on fc1 and fc2 gives the recorded logits, loss and gradients of every A and B, with and without dropout',
  async (t) => {
    const config = configOf(goldenJson('case1_d64/report').config);
    const weights = golden('case8_lora/r8_alpha16/lora_weights');
    const masks = golden('case8_lora/r8_alpha16/train_dropout_keep_masks');
    for (const stream of streams) {
      const model = Whisper.fromTensors(stream, config, golden('case1_d64/weights'));
      const adapter = await model.addAdapter('peft', { rank: 8, alpha: 16 });
      t.deepEqual([...adapter.parameters.keys()].sort(), [...weights.keys()].sort());
      for (const [name, { value }] of adapter.parameters) value.write(floats(weights, name));
      for (const variant of ['eval', 'train_dropout']) {
        const outputs = golden(`case8_lora/r8_alpha16/${variant}_outputs`);
        const gradients = golden(`case8_lora/r8_alpha16/${variant}_grads`);
        const mask = (module: string) => {
          const name = `${module}.lora_dropout`;
          return stream.tensor(floats(masks, name), masks.get(name)!.shape);
        };
        const adapterDropout = variant === 'eval' ? undefined : { rate: 0.05, seed: 0, step: 0, mask };
        const read = step(
          model,
          golden('case1_d64/inputs'),
          { tape: new Tape(stream), adapterDropout },
          { smoothing: 0 },
        );
        for (const [name, values] of [
          ['encoder_last_hidden_state', await read.memory],
          ['logits', await read.logits],
        ] as const) {
          const error = relativeL2(values, floats(outputs, name));
          t.true(error <= FORWARD, `${stream.isa} ${variant} ${name}: ${error}`);
        }
        t.true(Math.abs((await read.stats)[0]! / floats(outputs, 'loss')[0]! - 1) <= FORWARD);
        for (const [name, parameter] of adapter.parameters) {
          const error = relativeL2(await parameter.gradient!.floats(), floats(gradients, name));
          t.true(error <= GRADIENT, `${stream.isa} ${variant} gradient of ${name}: ${error}`);
          parameter.clearGradient();
        }
        stream.endStep();
      }
      model.dispose();
    }
  },
);

for (const name of ['fc1_fc2', 'q_v', 'fc1_fc2_rslora']) {
  when(`case13_peft/${name}/grads_f64.safetensors`)(
    `an adapter's folder of today's PEFT (${name}) gives the recorded logits, loss and gradients, apart and merged`,
    async (t) => {
      const inputs = golden('case13_peft/inputs');
      const outputs = golden(`case13_peft/${name}/outputs_f64`);
      const gradients = golden(`case13_peft/${name}/grads_f64`);
      for (const stream of streams) {
        const folder = await openModelFolder(goldenPath('case13_peft/base/config.json')!.replace(/\/[^/]*$/, ''));
        const model = await Whisper.fromFolder(stream, folder);
        const adapter = await model.loadAdapter(folderOf(name), { name: 'peft', trainable: true });
        const plain = await step(model, inputs, {}, { smoothing: 0 }).logits;
        t.true(relativeL2(plain, floats(golden('case13_peft/base_outputs_f64'), 'logits')) <= FORWARD);
        model.adapters.use('peft');
        const read = step(model, inputs, { tape: new Tape(stream) }, { smoothing: 0 });
        const [memory, logits] = [await read.memory, await read.logits];
        t.true(
          relativeL2(logits, floats(outputs, 'logits')) <= FORWARD,
          `${relativeL2(logits, floats(outputs, 'logits'))}`,
        );
        const wanted = floats(outputs, 'encoder_last_hidden_state_first_10');
        const rows = [0, 1].flatMap((item) => [...memory.subarray(item * 1500 * 64, item * 1500 * 64 + 640)]);
        t.true(relativeL2(rows, wanted) <= FORWARD);
        t.true(Math.abs((await read.stats)[0]! / floats(outputs, 'loss')[0]! - 1) <= FORWARD);
        t.is(gradients.size, adapter.parameters.size);
        for (const [tensor, parameter] of adapter.parameters) {
          const error = relativeL2(await parameter.gradient!.floats(), floats(gradients, tensor));
          t.true(error <= GRADIENT, `${stream.isa} gradient of ${tensor}: ${error}`);
        }
        const source = await openAdapter(folderOf(name), model.config);
        const merged = await Whisper.fromFolder(stream, folder, { adapter: source });
        const together = await step(merged, inputs, {}, { smoothing: 0 }).logits;
        t.true(relativeL2(together, floats(outputs, 'merged_logits')) <= FORWARD);
        t.true(relativeL2(together, logits) <= 1e-5);
        if (goldenPath(`case13_peft/${name}/merged_weights.safetensors`)) {
          const weights = golden(`case13_peft/${name}/merged_weights`);
          const own = await mergedWeights(stream, folder.weights, source);
          t.deepEqual([...own.keys()].sort(), [...weights.keys()].sort());
          for (const tensor of weights.keys()) t.true(relativeL2(floats(own, tensor), floats(weights, tensor)) <= 1e-6);
        }
        await source.close();
        await folder.close();
        stream.endStep();
        for (const one of [model, merged]) one.dispose();
      }
    },
  );
}

when('case13_peft/q_v_dora/outputs_f64.safetensors')(
  'DoRA merged into the weights gives the recorded logits; apart it is refused by its name',
  async (t) => {
    const stream = streams.at(-1)!;
    const folder = await openModelFolder(goldenPath('case13_peft/base/config.json')!.replace(/\/[^/]*$/, ''));
    const adapter = await openAdapter(folderOf('q_v_dora'), folder.config);
    const model = await Whisper.fromFolder(stream, folder, { adapter });
    const logits = await step(model, golden('case13_peft/inputs'), {}, { smoothing: 0 }).logits;
    t.true(relativeL2(logits, floats(golden('case13_peft/q_v_dora/outputs_f64'), 'merged_logits')) <= FORWARD);
    await t.throwsAsync(model.loadAdapter(folderOf('q_v_dora')), { code: 'ERR_ADAPTER', message: /use_dora/ });
    await adapter.close();
    await folder.close();
    stream.endStep();
    model.dispose();
  },
);

test.serial('a new adapter changes nothing until it is trained, and A is uniform in ±1/√in', async (t) => {
  const stream = streams.at(-1)!;
  const model = await Whisper.create(stream, config, { seed: 1 });
  const features = stream.tensor(normalItems(1, FRAMES, random(3))[0]!, [1, 80, 40]);
  const plain = (await model.encode(features).hidden.floats()).slice();
  const adapter = await model.addAdapter('new', { rank: 16, alpha: 16, targets: 'all-linear', seed: 5 });
  t.is(adapter.modules.length, 2 * 6 + 2 * 10);
  t.deepEqual(await model.encode(features).hidden.floats(), plain);
  for (const { module, inputs, rank } of adapter.modules) {
    const a = await adapter.parameters.get(`${module}.lora_A.weight`)!.value.floats();
    const bound = 1 / Math.sqrt(inputs);
    t.true(a.every((x) => Math.abs(x) <= bound));
    const deviation = Math.sqrt(a.reduce((sum, x) => sum + x * x, 0) / (rank * inputs));
    t.true(Math.abs(deviation / (bound / Math.sqrt(3)) - 1) < 0.1, String(deviation));
  }
  model.dispose();
  stream.endStep();
});

test.serial(
  'token by token, in beams, in every cache and type, an adapter says what whole sequences say',
  async (t) => {
    for (const stream of streams)
      for (const compute of ['fp32', 'bf16'] as const)
        for (const targets of [
          ['fc1', 'fc2'],
          ['q_proj', 'v_proj'],
          ['k_proj', 'out_proj', 'fc2'],
        ]) {
          const { model } = await adapted(stream, targets, { compute });
          const features = stream.tensor(
            Float32Array.from(normalItems(2, FRAMES, random(3)).flatMap((item) => [...item])),
            [2, 80, 40],
          );
          const tokens = [3, 1, 4, 1, 5, 9];
          const memory = model.encode(features).hidden;
          const rows = Int32Array.from([0, 1].flatMap(() => tokens));
          const { hidden } = model.decode(stream.tensor(rows, [2, 6], 'i32'), memory);
          const whole = (await hidden.floats()).slice();
          for (const beams of [1, 3]) {
            const state = model.startDecoding(memory, { beams, cache: 'compute' });
            const said = (from: number, to: number): Int32Array =>
              Int32Array.from(Array.from({ length: 2 * beams }, () => tokens.slice(from, to)).flat());
            const part = (from: number, to: number) =>
              model
                .decode(stream.tensor(said(from, to), [2 * beams, to - from], 'i32'), null, { state })
                .hidden.floats();
            const first = (await part(0, 4)).slice();
            const last = (await part(4, 5)).slice();
            const D = config.d_model;
            const of = (item: number, from: number, to: number) =>
              whole.subarray((item * 6 + from) * D, (item * 6 + to) * D);
            for (let row = 0; row < 2 * beams; row++) {
              const item = Math.floor(row / beams);
              const bound = compute === 'fp32' ? 1e-5 : 0.03;
              t.true(relativeL2(first.subarray(row * 4 * D, (row + 1) * 4 * D), of(item, 0, 4)) <= bound);
              t.true(relativeL2(last.subarray(row * D, (row + 1) * D), of(item, 4, 5)) <= bound);
            }
            state.dispose();
          }
          stream.endStep();
          model.dispose();
        }
  },
);

test.serial('requests swap adapters: each has its own numbers, and none those of the plain model', async (t) => {
  const stream = streams.at(-1)!;
  const { model } = await adapted(stream, ['fc1', 'fc2'], { name: 'one' });
  const next = random(11);
  const other = await model.addAdapter('two', { rank: 2, alpha: 2, targets: ['q_proj'], seed: 9 });
  for (const { value } of other.parameters.values()) value.write(normals(value.size, next));
  model.adapters.use(null);
  const said = async (adapter: string | null | undefined) => {
    const features = stream.tensor(normalItems(1, FRAMES, random(3))[0]!, [1, 80, 40]);
    const [sequence] = await greedy(model, features, { prompts: [[3]], endOfText: 0, maxTokens: 8, adapter });
    const again = stream.tensor(normalItems(1, FRAMES, random(3))[0]!, [1, 80, 40]);
    const rows = (await model.encode(again, { adapter }).hidden.floats()).slice();
    stream.endStep();
    return { sequence, rows };
  };
  const plain = await said(null);
  t.deepEqual(await said(undefined), plain);
  const [one, two] = [await said('one'), await said('two')];
  t.true(relativeL2(one.rows, plain.rows) > 1e-3);
  t.true(relativeL2(two.rows, plain.rows) > 1e-4);
  t.true(relativeL2(two.rows, one.rows) > 1e-3);
  model.adapters.use('two');
  t.deepEqual((await said(undefined)).rows, two.rows);
  t.throws(() => model.adapters.use('three'), { code: 'ERR_ARGUMENT', message: /one, two.*three/ });
  t.throws(() => model.encode(stream.tensor(new Float32Array(FRAMES), [1, 80, 40]), { adapter: 'x' }), {
    code: 'ERR_ARGUMENT',
  });
  model.adapters.remove('two');
  t.deepEqual((await said(undefined)).rows, plain.rows);
  model.dispose();
});

test.serial(
  'an adapter that changes fc1 and fc2 is refused where rows have an expert; one of q and v runs beside it',
  async (t) => {
    const stream = streams.at(-1)!;
    const { model } = await adapted(stream, ['fc1', 'fc2']);
    await model.addExpert('catalan');
    const features = stream.tensor(normalItems(1, FRAMES, random(3))[0]!, [1, 80, 40]);
    t.throws(() => model.encode(features, { languages: ['catalan'] }), { code: 'ERR_ADAPTER', message: /fc1 and fc2/ });
    t.notThrows(() => model.encode(features, { languages: [null] }));
    await model.addAdapter('attention', { targets: ['q_proj', 'v_proj'], rank: 2 });
    t.notThrows(() => model.encode(features, { languages: ['catalan'] }));
    await stream.sync();
    stream.endStep();
    model.dispose();
  },
);

test.serial(
  'a folder that was written is read again to the bit; patterns give layers their own rank and scale',
  async (t) => {
    const stream = streams.at(-1)!;
    const path = join(scratch(), 'adapter');
    const settings = {
      rank: 4,
      alpha: 8,
      targets: ['fc1', 'encoder_attn.q_proj'],
      rankPattern: { 'encoder.layers.0.fc1': 2 },
      alphaPattern: { 'decoder\\.layers\\.\\d+\\.fc1': 3 },
      rsLora: true,
      dropout: 0.1,
    };
    const model = await Whisper.create(stream, config, { seed: 1 });
    const adapter = await model.addAdapter('own', settings);
    const scales = new Map(adapter.modules.map(({ module, rank, scale }) => [module, [rank, scale]]));
    t.deepEqual(scales.get('model.encoder.layers.0.fc1'), [2, 8 / Math.sqrt(2)]);
    t.deepEqual(scales.get('model.encoder.layers.1.fc1'), [4, 4]);
    t.deepEqual(scales.get('model.decoder.layers.1.fc1'), [4, 1.5]);
    t.deepEqual(scales.get('model.decoder.layers.0.encoder_attn.q_proj'), [4, 4]);
    t.false(scales.has('model.decoder.layers.0.self_attn.q_proj'));
    const tensors: Tensors = new Map();
    for (const [name, { value, shape }] of adapter.parameters)
      tensors.set(name, fromFloat32(await value.floats(), shape, 'f32'));
    await writeAdapter(path, { config: adapter.config, base: 'openai/whisper-tiny', tensors });
    const read = await openAdapter(path, config);
    t.deepEqual(read.config, adapter.config);
    t.deepEqual(read.modules, adapter.modules);
    for (const [name, tensor] of tensors) t.deepEqual((await read.weights.read(name)).data, tensor.data);
    await read.close();
    const json = JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8'));
    t.is(json.base_model_name_or_path, 'openai/whisper-tiny');
    for (const [change, message] of [
      [{ peft_type: 'ADALORA' }, /peft_type.*"LORA".*ADALORA/],
      [{ bias: 'all' }, /bias.*"none".*all/],
      [{ modules_to_save: ['proj_out'] }, /modules_to_save/],
      [{ init_lora_weights: 'pissa' }, /init_lora_weights.*pissa/],
      [{ layer_replication: [[0, 2]] }, /layer_replication/],
      [{ fan_in_fan_out: true }, /fan_in_fan_out/],
      [{ some_new_way: true }, /some_new_way/],
      [{ r: 0 }, /r: expected a whole number/],
      [{ r: 5 }, /lora_A.weight has shape/],
      [{ use_dora: true }, /missing .*lora_magnitude_vector/],
      [{ rank_pattern: { '(': 2 } }, /rank_pattern/],
      [{ alpha_pattern: { fc1: 'x' } }, /alpha_pattern/],
      [{ target_modules: 5 }, /target_modules/],
    ] as const) {
      await writeFile(join(path, 'adapter_config.json'), JSON.stringify({ ...json, ...change }));
      await t.throwsAsync(openAdapter(path, config), { code: 'ERR_ADAPTER', message });
    }
    await writeFile(join(path, 'adapter_config.json'), JSON.stringify(json));
    await t.throwsAsync(openAdapter(path, tinyConfig({ d_model: 32, encoder_ffn_dim: 64 })), {
      code: 'ERR_ADAPTER',
      message: /width 32/,
    });
    await t.throwsAsync(openAdapter(scratch(), config), { code: 'ERR_ADAPTER', message: /adapter_config.json/ });
    for (const [targets, message] of [
      [['fc3'], /targets: .*fc3/],
      [['fc1', 'conv1'], /conv1/],
      ['(', /pattern/],
      ['nothing', /nothing/],
    ] as const)
      await t.throwsAsync(model.addAdapter('bad', { targets }), { code: 'ERR_ARGUMENT', message });
    model.dispose();
  },
);
