/** The CUDA runtime as the emulated device has it: what it refuses, each as a typed error; reads and uploads behind the caller. */
import test from 'ava';
import { cudaReport } from '../../lib/native/index.js';
import { type FloatType, kernels, Stream } from '../../lib/tensor/index.js';
import {
  cpus,
  devices,
  type Input,
  normals,
  onEmulated,
  oracle,
  random,
  relativeL2,
  run,
  streamOn,
} from '../support/kernels.js';
import { emulatedCounts, withPlugin } from '../support/plugin.js';

test.serial(
  'a product that cuBLASLt has no algorithm for is done without it',
  onEmulated(async (t, plugin) => {
    process.env.DW_EMULATOR_FAIL = 'cublasLtMatmulAlgoGetHeuristic';
    const stream = streamOn(plugin);
    const before = emulatedCounts(plugin).products;
    const next = random(3);
    for (const [m, n, k] of [
      [17, 1, 1],
      [37, 67, 130],
      [130, 65, 33],
    ] as const)
      for (const type of ['f32', 'bf16'] as FloatType[]) {
        const tensor = (rows: number, cols: number): Input => ({
          data: normals(rows * cols, next),
          shape: [rows, cols],
          dtype: type,
        });
        const [x, w, dy, residual] = [tensor(m, k), tensor(n, k), tensor(m, n), tensor(m, n)];
        const sum: Input = { data: normals(n * k, next), shape: [n, k], inout: true };
        const bias: Input = { data: normals(n, next), shape: [n] };
        const near = (what: string, [got]: Float64Array[], [want]: Float64Array[], bound = 1e-6) => {
          const error = relativeL2(got!, want!);
          t.true(error <= bound, `${what} ${m}x${n}x${k} ${type}: ${error}`);
        };
        const forward = (on: Stream) =>
          run(on, kernels.linear, { x, weight: w, bias, residual, compute: type, out: type });
        near('linear', await forward(stream), await forward(oracle), type === 'bf16' ? 2 ** -8 : 1e-6);
        const input = (on: Stream) =>
          run(on, kernels.linearBackwardInput, { dy, weight: w, compute: type, out: 'f32' });
        near('linear_backward_input', await input(stream), await input(oracle));
        const weight = (on: Stream) => run(on, kernels.linearBackwardWeight, { dy, x, dweight: sum, compute: type });
        near('linear_backward_weight', await weight(stream), await weight(oracle));
      }
    t.is(emulatedCounts(plugin).products, before);
    delete process.env.DW_EMULATOR_FAIL;
    stream.close();
  }),
);

test.serial('reads that nothing waits behind: values of their place in the order, and faults told once', async (t) => {
  for (const { isa, stream } of [...devices(), cpus().at(-1)!]) {
    const x = stream.persistent(new Float32Array(3), [3]);
    const reads: Promise<Float32Array>[] = [];
    // More than a device takes at a time.
    for (let i = 0; i < 150; i++) {
      kernels.fill(stream, { x, value: i });
      reads.push(x.floats({ behind: true }));
    }
    for (const [i, values] of (await Promise.all(reads)).entries())
      t.deepEqual(values, new Float32Array(3).fill(i), isa);
    const large = stream.tensor(
      Float32Array.from({ length: 5000 }, (_, i) => i),
      [5000],
    );
    const ids = stream.tensor(Int32Array.of(0, 9), [1, 2], 'i32');
    const table = stream.persistent(new Float32Array(8), [2, 4]);
    const behind = { behind: true };
    const { y: rows } = kernels.embedding(stream, { ids, table, positions: table, out: 'f32' });
    const told = rows.floats(behind);
    const after = [x.floats(behind), large.floats(behind)] as const;
    await t.throwsAsync(told, { code: 'ERR_ARGUMENT', message: /got 9/ }, isa);
    t.deepEqual(await after[0], new Float32Array(3).fill(149), isa);
    t.is((await after[1])[4999], 4999, isa);
    await stream.sync();
    stream.endStep();
    x.dispose();
    table.dispose();
  }
});

test.serial(
  'a driver that is too old, none, no GPU, no cuBLASLt: an error says which, and the report what is there',
  onEmulated(async (t, plugin) => {
    const lacking = async (what: string, body: () => Promise<void> | void) => {
      process.env.DW_EMULATOR_FAIL = what;
      try {
        await body();
      } finally {
        delete process.env.DW_EMULATOR_FAIL;
      }
    };
    for (const [what, message, driver] of [
      ['old driver', /driver is too old: it runs CUDA 11\.8, this plugin needs 13\.0 or later/, '11.8'],
      ['no driver', /no NVIDIA driver was found/, null],
      ['no GPU', /the NVIDIA driver sees no GPU/, '13.0'],
    ] as const)
      await lacking(what, () => {
        // Another device than the one that this process holds open.
        const open = () => withPlugin(plugin, () => new Stream({ device: 'cuda:1' }));
        t.throws(open, { code: 'ERR_CUDA', message });
        const report = withPlugin(plugin, cudaReport);
        t.like(report, { plugin, driver, devices: [] });
        t.regex(report.problem!, message);
      });
    const stream = streamOn(plugin);
    const [x, w] = [20, 8].map((rows) => stream.tensor(new Float32Array(8 * rows), [rows, 8]));
    const multiply = () => kernels.linear(stream, { x: x!, weight: w!, compute: 'f32', out: 'f32' }).y.read();
    await lacking('no cuBLASLt', async () => {
      await t.throwsAsync(multiply(), { code: 'ERR_CUDA', message: /^cuBLASLt was not found/ });
      t.regex(withPlugin(plugin, cudaReport).problem!, /^cuBLASLt was not found/);
    });
    await t.notThrowsAsync(multiply());
    stream.close();
  }),
);

test.serial(
  'a stream that is closed has told its reads',
  onEmulated(async (t, plugin) => {
    const stream = streamOn(plugin);
    const x = stream.persistent(Float32Array.of(1), [1]);
    const reads = Array.from({ length: 20 }, () => x.item({ behind: true }).catch((error: Error) => error));
    stream.close();
    for (const told of await Promise.all(reads))
      t.true(told === 1 || (told as { code?: string }).code === 'ERR_STREAM');
  }),
);

test.serial(
  'uploads of every size, more of them than there is room for at a time',
  onEmulated(async (t, plugin) => {
    const stream = streamOn(plugin);
    const written = [1, 100, 16384, 16385, 3 << 20, 5 << 20, 7].map((n, i) => {
      const x = stream.persistent(null, [n]);
      x.write(new Float32Array(n).fill(i + 1));
      return x;
    });
    for (const [i, x] of written.entries()) t.true((await x.floats()).every((value) => value === i + 1));
    const x = stream.persistent(null, [15000]);
    const sums: Promise<Float32Array>[] = [];
    for (let i = 0; i < 60; i++) {
      x.write(new Float32Array(15000).fill(i));
      sums.push(x.slice(14999, 15000).floats({ behind: true }));
    }
    t.deepEqual(
      (await Promise.all(sums)).map(([value]) => value),
      [...sums.keys()],
    );
    stream.close();
  }),
);

// The last: it leaves no device to this process.
test.serial(
  'a dead context that a product is the first to meet: the device is lost, and said to be',
  onEmulated(async (t, plugin) => {
    const stream = streamOn(plugin);
    const tensor = (rows: number) => stream.tensor(new Float32Array(8 * rows), [rows, 8]);
    const multiply = () => kernels.linear(stream, { x: tensor(20), weight: tensor(8), compute: 'f32', out: 'f32' }).y;
    process.env.DW_EMULATOR_FAIL = 'context';
    const message = /^cuda:0: linear: an illegal memory access .* The device is lost to this process$/;
    await t.throwsAsync(multiply().read(), { code: 'ERR_CUDA', message });
    delete process.env.DW_EMULATOR_FAIL;
    const lost = {
      code: 'ERR_CUDA',
      message: /^cuda:0 was lost by an earlier error.*linear: an illegal memory access/,
    };
    t.throws(multiply, lost);
    await t.throwsAsync(stream.sync(), lost);
    stream.close();
  }),
);
