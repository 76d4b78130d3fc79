/** What does a gated expert FFN cost, in training and in inference? Whisper-small, 30 s of audio. */
import { elementType, type FloatName, type FloatType, kernels, type Stream, type Tensor } from '../lib/tensor/index.js';
import { GATE_SIZE } from '../lib/weights/index.js';
import { floatTypes, randomTensor } from './data.js';
import { type Case, type Context, measureGroup, type Question } from './harness.js';
import { torchCase } from './peer-cases.js';

const ROWS = 1500;
const WIDTH = 768;
/** As in training. */
const SOFT = { skip: false, alpha: 2.5, gateDropout: 0.1, expertDropout: 0.3, seed: 1, step: 0, op: 1024 };

/** What a layer's FFN reads and writes, for `batch` items of `rows` rows, and its passes with soft gates. */
export function ffnCalls(stream: Stream, type: FloatType, batch = 1, rows = ROWS, D = WIDTH) {
  const F = 4 * D;
  const tensor = (shape: number[], kind: FloatType, scale: number, seed: number): Tensor =>
    randomTensor(stream, shape, kind, scale, seed);
  const ffn = (kind: FloatType, seed: number): kernels.FeedForwardTensors => ({
    fc1: tensor([F, D], kind, 0.03, seed),
    fc1Bias: tensor([F], 'f32', 0.1, seed),
    fc2: tensor([D, F], kind, 0.03, seed),
    fc2Bias: tensor([D], 'f32', 0.1, seed),
  });
  const gate = {
    gateIn: tensor([GATE_SIZE, D], 'f32', 0.02, 2),
    gateInBias: tensor([GATE_SIZE], 'f32', 0.02, 3),
    gateOut: tensor([1, GATE_SIZE], 'f32', 0.02, 4),
  };
  const frozenFfn = (seed: number): kernels.FeedForwardTensors => {
    const made = ffn(type, seed);
    for (const weight of Object.values(made) as Tensor[]) weight.freeze();
    return made;
  };
  const x = tensor([batch, rows, D], type, 1, 5);
  const residual = tensor([batch, rows, D], 'f32', 1, 6);
  const dy = tensor([batch, rows, D], 'f32', 1, 7);
  const shared = frozenFfn(8);
  // Master weights of a trained expert are f32; in inference it is frozen, in the compute type.
  const trained = { ...gate, ...ffn('f32', 9) };
  const frozen = { ...gate, ...frozenFfn(9) };
  const zeros = (weight: Tensor): Tensor => tensor([...weight.shape], 'f32', 0, 1);
  const gradients = {
    gateIn: zeros(trained.gateIn),
    gateInBias: zeros(trained.gateInBias),
    gateOut: zeros(trained.gateOut),
    fc1: zeros(trained.fc1),
    fc1Bias: zeros(trained.fc1Bias),
    fc2: zeros(trained.fc2),
    fc2Bias: zeros(trained.fc2Bias),
  };
  const all = { begin: 0, end: batch * rows };
  const languages = [{ expert: trained, gradients, ...all }];
  const both = { x, shared, languages, compute: type, ...SOFT };

  const forward = (): kernels.GatedFfnSaved => kernels.gatedFfn(stream, { ...both, out: 'f32' });
  const backward = (saved: kernels.GatedFfnSaved): void => {
    for (const gradient of Object.values(gradients)) kernels.fill(stream, { x: gradient, value: 0 });
    kernels.gatedFfnBackward(stream, { ...both, ...saved, dy, out: type });
  };
  return { x, residual, shared, frozen: [{ expert: frozen, ...all }], forward, backward };
}

function cases({ stream, peers }: Context, name: FloatName): Case[] {
  const type = elementType(name);
  const { x, residual, shared, frozen, forward, backward } = ffnCalls(stream, type);
  const quietly = (body: () => void) => (): void => {
    stream.tidy(() => {
      body();
      return undefined;
    });
  };
  return [
    {
      name: `${name}, plain FFN`,
      ceiling: name,
      queue: quietly(() => {
        const { fc1, fc1Bias, fc2, fc2Bias } = shared;
        const inner = { x, weight: fc1, bias: fc1Bias, gelu: true, compute: type, out: type };
        const { y: h } = kernels.linear(stream, inner);
        kernels.linear(stream, { x: h, weight: fc2, bias: fc2Bias, residual, compute: type, out: 'f32' });
      }),
    },
    {
      name: `${name}, hard gates`,
      ceiling: name,
      queue: quietly(() => {
        kernels.gatedFfnHard(stream, { x, residual, shared, languages: frozen, compute: type, out: 'f32' });
      }),
    },
    { name: `${name}, soft gates, forward`, ceiling: name, queue: quietly(() => void forward()) },
    {
      name: `${name}, soft gates, forward and backward`,
      ceiling: name,
      queue: quietly(() => backward(forward())),
    },
    ...torchCase(peers, `${name}, soft gates, forward and backward`, name, [
      'ffn',
      '--student',
      'small',
      '--batch',
      '1',
    ]),
  ];
}

export const gatedFfn: Question = {
  name: 'gated-ffn',
  question: 'What does a gated expert FFN cost?',
  async *measure(context) {
    for (const type of floatTypes(context.types)) {
      yield await measureGroup(context, {
        title: `Gated expert FFN, ${ROWS} rows, width ${WIDTH}, ${type}`,
        cases: cases(context, type),
      });
    }
  },
};
