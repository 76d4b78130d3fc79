/** What the CUDA runtime refuses, on the emulated device, which can be told to: each is a typed error that says what happened. */
import test from 'ava';
import type { DType } from '../lib/tensor/index.js';
import { emulated, type Input, normals, number, oracle, random, relativeL2, run, streamOn } from './support/kernels.js';
import { emulatedCounts } from './support/plugin.js';

const onDevice = emulated ? test.serial : test.serial.skip;

onDevice('a product that cuBLASLt has no algorithm for is done without it', async (t) => {
  process.env.DW_EMULATOR_FAIL = 'cublasLtMatmulAlgoGetHeuristic';
  const stream = streamOn(emulated!);
  const before = emulatedCounts(emulated!).products;
  const next = random(3);
  for (const [m, n, k] of [
    [17, 1, 1],
    [37, 67, 130],
    [130, 65, 33],
  ] as const)
    for (const type of ['f32', 'bf16'] as DType[]) {
      const tensor = (rows: number, cols: number): Input => ({
        data: normals(rows * cols, next),
        shape: [rows, cols],
        dtype: type,
      });
      const [x, w, dy, residual] = [tensor(m, k), tensor(n, k), tensor(m, n), tensor(m, n)];
      const sum: Input = { data: normals(n * k, next), shape: [n, k], inout: true };
      const bias: Input = { data: normals(n, next), shape: [n] };
      for (const [op, inputs, numbers] of [
        ['linear', [x, w, bias, residual], [0, 0, number(type), number(type)]],
        ['linear_backward_input', [dy, w, null, null], [number(type), number('f32')]],
        ['linear_backward_weight', [dy, x, sum, null], [0, number(type)]],
      ] as const) {
        const [got] = await run(stream, op, [...inputs], [...numbers]);
        const [want] = await run(oracle, op, [...inputs], [...numbers]);
        const error = relativeL2(got!, want!);
        t.true(
          error <= (op === 'linear' && type === 'bf16' ? 2 ** -8 : 1e-6),
          `${op} ${m}x${n}x${k} ${type}: ${error}`,
        );
      }
    }
  t.is(emulatedCounts(emulated!).products, before);
  delete process.env.DW_EMULATOR_FAIL;
  stream.close();
});

// The last: it leaves no device to this process.
onDevice('a dead context that a product is the first to meet: the device is lost, and said to be', async (t) => {
  const stream = streamOn(emulated!);
  const tensor = (rows: number) => stream.tensor(new Float32Array(8 * rows), [rows, 8]);
  const multiply = () => stream.call('linear', [tensor(20), tensor(8), null, null], [0, 0, 0, 0])[0]!;
  process.env.DW_EMULATOR_FAIL = 'context';
  const message = /^cuda:0: linear: an illegal memory access .* The device is lost to this process$/;
  await t.throwsAsync(multiply().read(), { code: 'ERR_CUDA', message });
  delete process.env.DW_EMULATOR_FAIL;
  const lost = { code: 'ERR_CUDA', message: /^cuda:0 was lost by an earlier error.*linear: an illegal memory access/ };
  t.throws(multiply, lost);
  await t.throwsAsync(stream.sync(), lost);
  stream.close();
});
