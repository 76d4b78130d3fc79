/** How fast is attention, forward and backward? Whisper-small: 12 heads of 64. */
import { elementType, type FloatName, kernels } from '../lib/tensor/index.js';
import { floatTypes, randomTensor } from './data.js';
import { type Case, type Context, measureGroup, type Question } from './harness.js';

const D = 768;
const HEADS = 12;
const SHAPES = [
  { title: 'encoder, 1500 rows', batch: 1, queries: 1500, keys: 1500, causal: false },
  { title: 'decoder, causal, 8 × 448 rows', batch: 8, queries: 448, keys: 448, causal: true },
  { title: 'cross, 8 × 64 rows on 1500', batch: 8, queries: 64, keys: 1500, causal: false },
];

function cases(context: Context, { batch, queries, keys, causal }: (typeof SHAPES)[number], name: FloatName): Case[] {
  const { stream } = context;
  const type = elementType(name);
  const rows = (n: number, seed: number) => randomTensor(stream, [batch, n, D], type, 1, seed);
  const q = rows(queries, 1);
  const k = rows(keys, 2);
  const v = rows(keys, 3);
  const dout = rows(queries, 4);
  const call = { q, k, v, heads: HEADS, causal, out: type };
  const forward = () => kernels.attention(stream, { ...call, keys });
  return [
    {
      name: `${name}, forward`,
      ceiling: name,
      queue: () => stream.tidy(() => void forward() as undefined),
    },
    {
      name: `${name}, forward and backward`,
      ceiling: name,
      queue: () =>
        stream.tidy(() => {
          kernels.attentionBackward(stream, { ...call, ...forward(), dout });
          return undefined;
        }),
    },
  ];
}

export const attention: Question = {
  name: 'attention',
  question: 'How fast is attention?',
  async *measure(context) {
    const types = floatTypes(context.types);
    if (types.length === 0) return;
    for (const shape of SHAPES) {
      yield await measureGroup(context, {
        title: `Attention: ${shape.title}, width ${D}, ${HEADS} heads`,
        cases: types.flatMap((type) => cases(context, shape, type)),
      });
    }
  },
};
