/** The real encoder of whisper-base on real speech, which is not part of the project. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type HostTensor, parseSafetensors, whisperPreset, whisperTensorShapes } from '../../lib/weights/index.js';
import { shared } from '../support/golden.js';
import { isas, relativeL2 } from '../support/kernels.js';

const real = join(shared, 'models', 'whisper-base-encoder');
(existsSync(real) ? test.serial : test.serial.skip)(
  "the real whisper-base encoder on real speech: fp32 within 1e-5, bf16 no worse than PyTorch's 0.0187",
  async (t) => {
    const file = parseSafetensors(readFileSync(join(real, 'model-encoder-only.safetensors'))).tensors;
    const config = { ...whisperPreset('base'), decoder_layers: 0 };
    const tensors = new Map<string, HostTensor>();
    for (const [name, shape] of whisperTensorShapes(config)) {
      const tensor = file.get(name) ?? file.get(name.replace(/^model\./, ''));
      // The file has no decoder: zeros stand in for what the encoder never reads.
      const size = shape.reduce((a, b) => a * b, 1);
      tensors.set(name, tensor ?? { dtype: 'f16', shape, data: new Uint8Array(2 * size) });
      t.true(tensor !== undefined || name.startsWith('model.decoder.'));
    }
    const read = (name: string): Float32Array =>
      new Float32Array(new Uint8Array(readFileSync(join(real, name))).buffer);
    const expected = read('jfk-encoder-1500x512.f32');
    for (const isa of isas) {
      for (const compute of ['fp32', 'bf16'] as const) {
        const stream = new Stream({ isa, threads: 2 });
        const model = Whisper.fromTensors(stream, config, tensors, { compute });
        const features = stream.tensor(read('jfk-logmel-80x3000.f32'), [1, 80, 3000]);
        const error = relativeL2(await model.encode(features).hidden.floats(), expected);
        t.log(`${isa} ${compute}: relative L2 ${error.toExponential(2)}`);
        t.true(error <= (compute === 'fp32' ? 1e-5 : 0.0187));
        stream.close();
      }
    }
  },
);
