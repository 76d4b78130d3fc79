/** What the CUDA runtime refuses, on the emulated device, which can be told to: each is a typed error that says what happened. */
import test from 'ava';
import { emulated, streamOn } from './support/kernels.js';

const onDevice = emulated ? test.serial : test.serial.skip;

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
