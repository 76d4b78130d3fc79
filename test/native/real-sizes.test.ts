/**
 * Kernels that a GPU takes for real sizes only, because they ask for enough blocks to fill it: in bf16 against the same call in
 * fp32 on the same device, whose plainer kernels the tables of cases hold against the oracles. The emulated device has few
 * processors, and takes them for small sizes.
 */
import test, { type ExecutionContext } from 'ava';
import { randomFloats } from '../../bench/data.js';
import { bf16ToFloat32, type FloatType, kernels } from '../../lib/tensor/index.js';
import {
  type Described,
  deviceNames,
  type Input,
  type Kernel,
  onDevice,
  type Path,
  relativeL2,
  run,
  toBf16,
} from '../support/kernels.js';

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
async function held<A>(
  t: ExecutionContext,
  { isa, stream }: Path,
  kernel: Kernel<A>,
  call: (type: FloatType) => Described<A>,
  roundings: number,
): Promise<Float64Array[]> {
  const exact = await run<A>(stream, kernel, call('f32'));
  const got = await run<A>(stream, kernel, call('bf16'));
  for (const [o, want] of exact.entries()) {
    const error = relativeL2(got[o]!, want);
    t.true(error <= roundings * 2 ** -9, `${isa}, ${kernel.name}, output ${o}: ${error}`);
  }
  return exact;
}

for (const isa of deviceNames) {
  const small = isa !== 'cuda';
  const sizes = (emulated: Quad, real: Quad): Quad => (small ? emulated : real);

  for (const [title, causal, [batch, heads, queries, keys]] of [
    ['the encoder', false, sizes([2, 2, 150, 181], [6, 12, 1500, 1500])],
    ['the decoder', true, sizes([2, 2, 150, 150], [32, 12, 200, 200])],
    ['cross-attention', false, sizes([2, 4, 100, 181], [48, 12, 100, 1500])],
  ] as const)
    test.serial(
      `attention of ${title}, on ${isa}`,
      onDevice(isa, async (t, place) => {
        const width = 64 * heads;
        const inputs = (type: FloatType) => {
          const { make } = maker(type);
          const [q, k, v] = [make([batch, queries, width]), make([batch, keys, width]), make([batch, keys, width])];
          return { q, k, v, dout: make([batch, queries, width]), heads, causal, out: 'f32' } as const;
        };
        const forward = (type: FloatType) => {
          const { q, k, v, out } = inputs(type);
          return { q, k, v, heads, causal, keys, out };
        };
        const [o, lse] = await held(t, place, kernels.attention, forward, 2);
        const saved = {
          o: { data: Float32Array.from(o!), shape: [batch, queries, width] },
          lse: { data: Float32Array.from(lse!), shape: [batch, heads, queries] },
        };
        await held(t, place, kernels.attentionBackward, (type) => ({ ...inputs(type), ...saved }), 2);
      }),
    );

  const [rows, width, inner, gate] = sizes([230, 72, 264, 16], [4500, 768, 3072, 64]);
  const third = Math.floor(rows / 3);
  const weightsOf = ({ make, wide }: ReturnType<typeof maker>) => {
    const ffn = () => ({
      fc1: make([inner, width], width ** -0.5),
      fc1Bias: wide([inner], 0.3),
      fc2: make([width, inner], inner ** -0.5),
      fc2Bias: wide([width], 0.3),
    });
    const expert = () => ({
      gateIn: wide([gate, width], width ** -0.5),
      gateInBias: wide([gate], 0.3),
      gateOut: wide([1, gate], gate ** -0.5),
      ...ffn(),
    });
    const shared = ffn();
    const languages = [
      { expert: expert(), begin: 0, end: third },
      { expert: expert(), begin: third, end: rows - 7 },
    ];
    return { shared, languages };
  };

  test.serial(
    `linear layers of the encoder, on ${isa}`,
    onDevice(isa, async (t, place) => {
      for (const gelu of [false, true])
        await held(
          t,
          place,
          kernels.linear,
          (type) => {
            const { make, wide } = maker(type);
            const [x, weight] = [make([rows, width]), make([inner, width], width ** -0.5)];
            const bias = wide([inner]);
            const residual = gelu ? null : make([rows, inner]);
            return { x, weight, bias, residual, gelu, savePre: gelu, compute: type, out: type };
          },
          2,
        );
    }),
  );

  test.serial(
    `the hard gate of the encoder, on ${isa}`,
    onDevice(isa, async (t, place) => {
      const call = (type: FloatType): Described<kernels.GatedFfnHardArguments> => {
        const made = maker(type);
        const [x, residual] = [made.make([rows, width]), made.wide([rows, width])];
        return { x, residual, ...weightsOf(made), compute: type, out: 'f32' };
      };
      const [, gates] = await held(t, place, kernels.gatedFfnHard, call, 2);
      t.true(gates!.includes(0) && gates!.includes(1));
    }),
  );

  test.serial(
    `the soft gate of the encoder, on ${isa}`,
    onDevice(isa, async (t, place) => {
      const settings = { skip: false, alpha: 1, gateDropout: 0.1, expertDropout: 0.3, seed: 7, step: 3, op: 40 };
      const forward = (type: FloatType): Described<kernels.GatedFfnArguments> => {
        const made = maker(type);
        const [x, residual] = [made.make([rows, width]), made.wide([rows, width])];
        return { x, residual, ...weightsOf(made), ...settings, compute: type, out: 'f32' };
      };
      const covered = rows - 7;
      const shapes = [[rows], [covered, gate], [rows, inner], [covered, inner], [covered, width]];
      const [g, gateHidden, preShared, preExpert, delta] = (await held(t, place, kernels.gatedFfn, forward, 3))
        .slice(1)
        .map((values, i): Input => ({ data: Float32Array.from(values), shape: shapes[i]! })) as [
        Input,
        Input,
        Input,
        Input,
        Input,
      ];
      const backward = (type: FloatType): Described<kernels.GatedFfnBackwardArguments> => {
        const made = maker(type);
        const x = made.make([rows, width]);
        const dy = made.wide([rows, width]);
        const { shared, languages } = weightsOf(made);
        const zeros = ({ shape, data }: Input): Input => ({ data: new Float32Array(data.length), shape, inout: true });
        const trained = languages.map((language) => {
          const { gateIn, gateInBias, gateOut, fc1, fc1Bias, fc2, fc2Bias } = language.expert;
          const gradients = {
            gateIn: zeros(gateIn),
            gateInBias: zeros(gateInBias),
            gateOut: zeros(gateOut),
            fc1: zeros(fc1),
            fc1Bias: zeros(fc1Bias),
            fc2: zeros(fc2),
            fc2Bias: zeros(fc2Bias),
          };
          return { ...language, gradients };
        });
        const saved = { g, gateHidden, preShared, preExpert, delta };
        return { dy, x, shared, languages: trained, ...saved, ...settings, compute: type, out: 'f32' };
      };
      await held(t, place, kernels.gatedFfnBackward, backward, 4);
    }),
  );

  test.serial(
    `the distillation loss, on ${isa}`,
    onDevice(isa, async (t, place) => {
      const [n, vocabulary, student, teacher] = sizes([40, 130, 16, 24], [256, 51865, 768, 1280]);
      const labels = Int32Array.from({ length: n }, (_, i) => (i % 5 === 0 ? -100 : (i * 7919) % vocabulary));
      const call = (type: FloatType): Described<kernels.DistillLossArguments> => {
        const { make } = maker(type);
        return {
          hidden: make([n, student]),
          weight: make([vocabulary, student], 2 * student ** -0.5),
          labels: { data: labels, shape: [n] },
          teacherHidden: make([n, teacher]),
          teacherWeight: make([vocabulary, teacher], 2 * teacher ** -0.5),
          smoothing: 0.1,
          temperature: 1,
          kind: 'js',
          crossEntropyWeight: 0.25,
          divergenceWeight: 0.5,
          grad: true,
          compute: type,
          workspace: 64 << 20,
        };
      };
      await held(t, place, kernels.distillLoss, call, 2);
    }),
  );
}
