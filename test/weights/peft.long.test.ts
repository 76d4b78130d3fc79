/** An adapter that was written here, loaded by PEFT, and one that PEFT saved, loaded here. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { openModelFolder, Stream, Whisper } from '../../lib/index.js';
import { fromFloat32, type HostTensor, openAdapter, writeAdapter } from '../../lib/weights/index.js';
import { root, scratchFolder } from '../support/cli.js';
import { exportConfig, writeExportModel } from '../support/exports.js';
import { normals, random, relativeL2 } from '../support/kernels.js';

// A Python that has torch, transformers and peft.
const python = process.env.DISTILWHISPER_PEFT_PYTHON;
const { path: scratch, remove } = scratchFolder();
const at = (name: string): string => join(scratch, name);
test.after.always(remove);

for (const [title, settings] of [
  ['fc1 and fc2', { rank: 4, alpha: 6 }],
  [
    'patterns, rsLoRA',
    {
      rank: 4,
      alpha: 8,
      rsLora: true,
      targets: ['q_proj', 'fc1'],
      rankPattern: { 'encoder_attn.q_proj': 2 },
      alphaPattern: { 'layers.1.fc1': 3 },
    },
  ],
  ['one pattern of whole names', { rank: 2, alpha: 2, targets: '.*decoder.*\\.(v_proj|out_proj)' }],
] as const) {
  test.serial(
    `PEFT runs an adapter of ours as we do, apart and merged, and what it saves is the same here: ${title}`,
    async (t) => {
      if (!python || !existsSync(python)) {
        t.log('skipped: DISTILWHISPER_PEFT_PYTHON names no Python with torch, transformers and peft');
        return t.pass();
      }
      const config = exportConfig();
      const model = at('model');
      if (!existsSync(model)) await writeExportModel(model, config);
      const stream = new Stream({ threads: 1 });
      const folder = await openModelFolder(model);
      const own = await Whisper.fromFolder(stream, folder);
      const adapter = await own.addAdapter('own', { ...settings, seed: 4 });
      const next = random(3);
      const tensors = new Map<string, HostTensor>();
      for (const [name, { value, shape }] of adapter.parameters) {
        if (name.includes('lora_B')) value.write(normals(value.size, next, 0.3));
        tensors.set(name, fromFloat32(await value.floats(), shape, 'f32'));
      }
      await writeAdapter(at('adapter'), { config: adapter.config, base: model, tensors });
      const frames = 2 * config.max_source_positions;
      const features = normals(80 * frames, next);
      writeFileSync(at('features'), features);
      const ids = [50258, 50259, 50359, 50363, 7, 300];
      const logits = async (of: Whisper): Promise<Float32Array> => {
        const memory = of.encode(stream.tensor(features, [1, 80, frames])).hidden;
        const { hidden } = of.decode(stream.tensor(Int32Array.from(ids), [1, ids.length], 'i32'), memory);
        const read = (await of.logits(hidden.reshape([ids.length, config.d_model])).floats()).slice();
        stream.endStep();
        return read;
      };
      const said = await logits(own);
      const args = [model, at('adapter'), at('features'), '80', String(frames), at('logits'), at('saved')];
      execFileSync(python, [join(root, 'scripts', 'exports', 'peft_peer.py'), ...args, ...ids.map(String)], {
        stdio: 'pipe',
      });
      const peer = new Float32Array(readFileSync(at('logits')).buffer);
      t.true(relativeL2(said, peer.subarray(0, said.length)) < 1e-5);
      t.true(relativeL2(said, peer.subarray(said.length)) < 1e-5);
      const saved = await openAdapter(at('saved'), config);
      t.deepEqual(saved.modules, adapter.modules);
      for (const [name, { data }] of tensors)
        t.deepEqual(Buffer.from((await saved.weights.read(name)).data), Buffer.from(data));
      const merged = await Whisper.fromFolder(stream, folder, { adapter: saved });
      t.true(relativeL2(await logits(merged), said) < 1e-5);
      await saved.close();
      await folder.close();
      stream.close();
    },
  );
}
