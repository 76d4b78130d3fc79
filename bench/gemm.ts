/** How near to the machine's ceiling are products of Whisper's shapes? */
import { elementType, type FloatName, kernels } from '../lib/tensor/index.js';
import { floatTypes, randomTensor } from './data.js';
import { type Case, type Context, measureGroup, type Question } from './harness.js';

/** Rows × inputs × outputs. */
type Shape = readonly [rows: number, inputs: number, outputs: number, what: string];
const SHAPES: readonly Shape[] = [
  [1500, 768, 3072, 'small, fc1'],
  [1500, 3072, 768, 'small, fc2'],
  [1500, 768, 768, 'small, attention'],
  [1500, 384, 1536, 'tiny, fc1'],
  [1500, 512, 2048, 'base, fc1'],
  [1500, 1280, 5120, 'large, fc1'],
  [448, 384, 51865, 'tiny, logits of a whole text'],
  [64, 768, 3072, 'small, fc1, 64 rows'],
];
/** So few rows that the time is that of reading the weight. */
const FEW_ROWS: readonly Shape[] = [
  [1, 768, 51865, 'small, logits of a token'],
  [8, 768, 51865, 'small, logits of 8 tokens'],
];

type Kind = 'weight packed once' | 'weight packed each time' | 'bias and GELU' | 'dX' | 'dW';

function product(context: Context, [M, K, N]: Shape, name: FloatName, kind: Kind, few: boolean): Case {
  const { stream } = context;
  const type = elementType(name);
  const x = randomTensor(stream, [M, kind === 'dX' ? N : K], type, 1);
  const weight = kind === 'dW' ? null : randomTensor(stream, [N, K], type, 0.05);
  if (kind !== 'weight packed each time') weight?.freeze();
  const bias = kind === 'bias and GELU' ? randomTensor(stream, [N], 'f32', 1) : null;
  const dy = kind === 'dW' ? randomTensor(stream, [M, N], type, 1) : null;
  const dweight = kind === 'dW' ? randomTensor(stream, [N, K], 'f32', 0) : null;
  return {
    name: `${name}, ${kind}`,
    bytes: N * K * (type === 'bf16' ? 2 : 4),
    ceiling: few ? 'read' : name,
    queue: () =>
      stream.tidy(() => {
        if (dy) kernels.linearBackwardWeight(stream, { dy, x, dweight, compute: type });
        else if (kind === 'dX')
          kernels.linearBackwardInput(stream, { dy: x, weight: weight!, compute: type, out: type });
        else kernels.linear(stream, { x, weight: weight!, bias, gelu: bias !== null, compute: type, out: type });
        return undefined;
      }),
    dispose: () => {
      for (const tensor of [x, weight, bias, dy, dweight]) tensor?.dispose();
    },
  };
}

export const gemm: Question = {
  name: 'gemm',
  question: 'How near to the ceiling are matrix products of Whisper’s shapes?',
  async *measure(context) {
    const types = floatTypes(context.types);
    if (types.length === 0) return;
    for (const [i, shape] of [...SHAPES, ...FEW_ROWS].entries()) {
      const few = i >= SHAPES.length;
      const kinds: Kind[] = ['weight packed once', 'weight packed each time'];
      if (i === 0) kinds.push('bias and GELU', 'dX', 'dW');
      const [M, K, N, what] = shape;
      yield await measureGroup(context, {
        title: `GEMM ${M}×${K}×${N} (${what})`,
        cases: types.flatMap((type) => kinds.map((kind) => product(context, shape, type, kind, few))),
      });
    }
  },
};
