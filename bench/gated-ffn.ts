/** What does a gated expert FFN cost, in training and in inference? Whisper-small, 30 s of audio. */
import { dtypeNumber, type FloatType, type Stream, type Tensor } from '../lib/tensor/index.js';
import { GATE_SIZE } from '../lib/weights/index.js';
import { floatTypes, randomTensor, typeName } from './data.js';
import { type Case, type Context, measureGroup, type Question } from './harness.js';
import { torchCase } from './peers.js';

const ROWS = 1500;
const WIDTH = 768;
/** As in training: noise factor, dropout of gate and expert, Philox seed, step and op. */
const SOFT = [2.5, 0.1, 0.3, 1, 0, 1024];

/** What a layer's FFN reads and writes, for `batch` items of `rows` rows, and its passes with soft gates. */
export function ffnCalls(stream: Stream, type: FloatType, batch = 1, rows = ROWS, D = WIDTH) {
  const F = 4 * D;
  const t = dtypeNumber(type);
  const f32 = dtypeNumber('f32');
  const tensor = (shape: number[], kind: FloatType, scale: number, seed: number): Tensor =>
    randomTensor(stream, shape, kind, scale, seed);
  const ffn = (kind: FloatType, seed: number): Tensor[] => [
    tensor([F, D], kind, 0.03, seed),
    tensor([F], 'f32', 0.1, seed),
    tensor([D, F], kind, 0.03, seed),
    tensor([D], 'f32', 0.1, seed),
  ];
  const gate = [
    tensor([GATE_SIZE, D], 'f32', 0.02, 2),
    tensor([GATE_SIZE], 'f32', 0.02, 3),
    tensor([1, GATE_SIZE], 'f32', 0.02, 4),
  ];
  const x = tensor([batch, rows, D], type, 1, 5);
  const residual = tensor([batch, rows, D], 'f32', 1, 6);
  const dy = tensor([batch, rows, D], 'f32', 1, 7);
  const shared = ffn(type, 8).map((w) => w.freeze());
  // Master weights of a trained expert are f32; in inference it is frozen, in the compute type.
  const trained = [...gate, ...ffn('f32', 9)];
  const frozen = [...gate, ...ffn(type, 9).map((w) => w.freeze())];
  const gradients = trained.map((w) => tensor([...w.shape], 'f32', 0, 1));
  const numbers = (out: number): number[] => [1, 0, batch * rows, 0, ...SOFT, t, out];

  const forward = (): Tensor[] =>
    stream.call('gated_ffn', [x, null, ...shared, ...trained, null, null, null], numbers(f32));
  const backward = ([, g, ...saved]: Tensor[]): void => {
    for (const gradient of gradients) stream.call('fill', [gradient], [0]);
    stream.call(
      'gated_ffn_backward',
      [dy, null, x, ...shared, ...trained, null, null, g!, ...saved, ...gradients],
      numbers(t),
    );
  };
  return { x, residual, shared, frozen, forward, backward };
}

function cases({ stream, peers }: Context, type: FloatType): Case[] {
  const t = dtypeNumber(type);
  const f32 = dtypeNumber('f32');
  const { x, residual, shared, frozen, forward, backward } = ffnCalls(stream, type);
  const quietly = (body: () => void) => (): void => {
    stream.tidy(() => {
      body();
      return undefined;
    });
  };
  const name = typeName(type);
  return [
    {
      name: `${name}, plain FFN`,
      ceiling: type,
      queue: quietly(() => {
        const [h] = stream.call('linear', [x, shared[0]!, shared[1]!, null], [1, 0, t, t]);
        stream.call('linear', [h!, shared[2]!, shared[3]!, residual], [0, 0, t, f32]);
      }),
    },
    {
      name: `${name}, hard gates`,
      ceiling: type,
      queue: quietly(() => {
        stream.call('gated_ffn_hard', [x, residual, ...shared, ...frozen], [1, 0, ROWS, t, f32]);
      }),
    },
    { name: `${name}, soft gates, forward`, ceiling: type, queue: quietly(() => void forward()) },
    {
      name: `${name}, soft gates, forward and backward`,
      ceiling: type,
      queue: quietly(() => backward(forward())),
    },
    ...torchCase(peers, `${name}, soft gates, forward and backward`, type, [
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
        title: `Gated expert FFN, ${ROWS} rows, width ${WIDTH}, ${typeName(type)}`,
        cases: cases(context, type),
      });
    }
  },
};
