/**
 * Kernels that a GPU takes for real sizes only, because they ask for enough blocks to fill it: in bf16 against the same call in
 * fp32 on the same device, whose plainer kernels the tables of cases hold against the oracles. The emulated device has few
 * processors, and takes them for small sizes.
 */
import test, { type ExecutionContext } from 'ava';
import { randomFloats } from '../bench/data.js';
import { bf16ToFloat32, type FloatType } from '../lib/tensor/index.js';
import { devices, type Input, number, type Path, relativeL2, run, toBf16 } from './support/kernels.js';

type Quad = readonly [number, number, number, number];
type Make = (shape: number[], scale?: number) => Input;

/** Numbers that both types hold, f32 in a call of either where `wide`. */
function maker(dtype: FloatType): { make: Make; wide: Make } {
  let seed = 1;
  const of =
    (dtype: FloatType): Make =>
    (shape, scale = 1) => {
      const values = randomFloats(
        shape.reduce((a, b) => a * b, 1),
        scale,
        seed++,
      );
      return { data: bf16ToFloat32(toBf16(values)), shape, dtype };
    };
  return { make: of(dtype), wide: of('f32') };
}

/** Outputs in bf16 err, beside those in fp32, by some roundings of what their products take (2⁻⁹ each). */
async function held(
  t: ExecutionContext,
  { isa, stream }: Path,
  op: string,
  call: (type: FloatType) => [inputs: (Input | null)[], numbers: number[]],
  roundings: number,
): Promise<Float64Array[]> {
  const exact = await run(stream, op, ...call('f32'));
  const got = await run(stream, op, ...call('bf16'));
  for (const [o, want] of exact.entries()) {
    const error = relativeL2(got[o]!, want);
    t.true(error <= roundings * 2 ** -9, `${isa}, ${op}, output ${o}: ${error}`);
  }
  return exact;
}

for (const place of devices) {
  const small = place.isa !== 'cuda';
  const sizes = (emulated: Quad, real: Quad): Quad => (small ? emulated : real);

  for (const [title, causal, [batch, heads, queries, keys]] of [
    ['the encoder', 0, sizes([2, 2, 150, 181], [6, 12, 1500, 1500])],
    ['the decoder', 1, sizes([2, 2, 150, 150], [32, 12, 200, 200])],
    ['cross-attention', 0, sizes([2, 4, 100, 181], [48, 12, 100, 1500])],
  ] as const)
    test.serial(`attention of ${title}, on ${place.isa}`, async (t) => {
      const width = 64 * heads;
      const inputs = (type: FloatType, more: Input[] = []): Input[] => {
        const { make } = maker(type);
        const [q, k, v] = [make([batch, queries, width]), make([batch, keys, width]), make([batch, keys, width])];
        return more.length === 0 ? [q, k, v] : [q, k, v, ...more, make([batch, queries, width])];
      };
      const forward = (type: FloatType): [Input[], number[]] => [inputs(type), [heads, causal, keys, 0, number('f32')]];
      const [o, lse] = await held(t, place, 'attention', forward, 2);
      const saved: Input[] = [
        { data: Float32Array.from(o!), shape: [batch, queries, width] },
        { data: Float32Array.from(lse!), shape: [batch, heads, queries] },
      ];
      const backward = (type: FloatType): [Input[], number[]] => [inputs(type, saved), [heads, causal, number('f32')]];
      await held(t, place, 'attention_backward', backward, 2);
    });

  const [rows, width, inner, gate] = sizes([230, 72, 264, 16], [4500, 768, 3072, 64]);
  const ranges = [0, Math.floor(rows / 3), Math.floor(rows / 3), rows - 7];
  const experts = ({ make, wide }: ReturnType<typeof maker>): Input[] => {
    const ffn = () => [
      make([inner, width], width ** -0.5),
      wide([inner], 0.3),
      make([width, inner], inner ** -0.5),
      wide([width], 0.3),
    ];
    const one = () => [wide([gate, width], width ** -0.5), wide([gate], 0.3), wide([1, gate], gate ** -0.5), ...ffn()];
    return [...ffn(), ...one(), ...one()];
  };

  test.serial(`linear layers of the encoder, on ${place.isa}`, async (t) => {
    for (const gelu of [0, 1])
      await held(
        t,
        place,
        'linear',
        (type) => {
          const { make, wide } = maker(type);
          const inputs = [make([rows, width]), make([inner, width], width ** -0.5), wide([inner])];
          return [
            [...inputs, gelu ? null : make([rows, inner])],
            [gelu, gelu, number(type), number(type)],
          ];
        },
        2,
      );
  });

  test.serial(`the hard gate of the encoder, on ${place.isa}`, async (t) => {
    const call = (type: FloatType): [Input[], number[]] => {
      const made = maker(type);
      const inputs = [made.make([rows, width]), made.wide([rows, width]), ...experts(made)];
      return [inputs, [2, ...ranges, number(type), number('f32')]];
    };
    const [, gates] = await held(t, place, 'gated_ffn_hard', call, 2);
    t.true(gates!.includes(0) && gates!.includes(1));
  });

  test.serial(`the soft gate of the encoder, on ${place.isa}`, async (t) => {
    const settings = (type: FloatType) => [2, ...ranges, 0, 1, 0.1, 0.3, 7, 3, 40, number(type), number('f32')];
    const forward = (type: FloatType): [(Input | null)[], number[]] => {
      const made = maker(type);
      const inputs = [made.make([rows, width]), made.wide([rows, width]), ...experts(made), null, null, null];
      return [inputs, settings(type)];
    };
    const covered = rows - 7;
    const shapes = [[rows], [covered, gate], [rows, inner], [covered, inner], [covered, width]];
    const saved = (await held(t, place, 'gated_ffn', forward, 3))
      .slice(1)
      .map((values, i): Input => ({ data: Float32Array.from(values), shape: shapes[i]! }));
    const backward = (type: FloatType): [(Input | null)[], number[]] => {
      const made = maker(type);
      const x = made.make([rows, width]);
      const dy = made.wide([rows, width]);
      const weights = experts(made);
      const gradients = weights
        .slice(4)
        .map(({ shape, data }): Input => ({ data: new Float32Array(data.length), shape, inout: true }));
      return [[dy, null, x, ...weights, null, null, ...saved, ...gradients], settings(type)];
    };
    await held(t, place, 'gated_ffn_backward', backward, 4);
  });

  test.serial(`the distillation loss, on ${place.isa}`, async (t) => {
    const [n, vocabulary, student, teacher] = sizes([40, 130, 16, 24], [256, 51865, 768, 1280]);
    const labels = Int32Array.from({ length: n }, (_, i) => (i % 5 === 0 ? -100 : (i * 7919) % vocabulary));
    const call = (type: FloatType): [(Input | null)[], number[]] => {
      const { make } = maker(type);
      const [h, w] = [make([n, student]), make([vocabulary, student], 2 * student ** -0.5)];
      const [ht, wt] = [make([n, teacher]), make([vocabulary, teacher], 2 * teacher ** -0.5)];
      return [
        [h, w, { data: labels, shape: [n] }, ht, wt, null],
        [0.1, 1, 1, 0.25, 0.5, 0, 1, number(type), 64 << 20, 0],
      ];
    };
    await held(t, place, 'distill_loss', call, 2);
  });
}
