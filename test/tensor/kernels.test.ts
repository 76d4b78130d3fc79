/** The typed functions of the operations: one for each, and what is left out. */
import test from 'ava';
import { DistilWhisperError } from '../../lib/errors/index.js';
import { load } from '../../lib/native/addon.js';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream, type Tensor } from '../../lib/tensor/index.js';

const stream = new Stream({ backend: 'reference', threads: 1 });
test.after.always(() => stream.close());

test('every operation of the addon has its function, and no function is of another', (t) => {
  const named = load().ops.map((op) => op.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()));
  t.deepEqual(Object.keys(kernels).sort(), named.sort());
});

test('null and undefined leave an optional tensor out; what is not asked for is null', async (t) => {
  const x = stream.tensor(Float32Array.of(1, 2), [1, 2]);
  const weight = stream.tensor(Float32Array.of(3, 4), [1, 2]);
  const layer = { x, weight, compute: 'f32', out: 'f32' } as const;
  const bare = kernels.linear(stream, layer);
  t.is(bare.pre, null);
  const rest = { bias: null, residual: undefined, gelu: false, savePre: undefined };
  t.deepEqual(await kernels.linear(stream, { ...layer, ...rest }).y.read(), await bare.y.read());
  const { y, pre } = kernels.linear(stream, { ...layer, gelu: true, savePre: true });
  t.deepEqual(await pre!.read(), Float32Array.of(11));
  t.deepEqual(y.shape, [1, 1]);
});

test('a call by a name that no operation has', (t) => {
  const message = "no kernel is called 'nothing'";
  t.throws(() => rawCall(stream, 'nothing', [], []), { instanceOf: DistilWhisperError, code: 'ERR_ARGUMENT', message });
});

test('scripts may still call by position, as before there were functions: the same comes of it', async (t) => {
  const x = stream.tensor(Float32Array.of(1, 2), [2]);
  const before = stream as unknown as { call(op: string, tensors: Tensor[], numbers: number[]): Tensor[] };
  const [y] = before.call('add', [x, x], [1, 2, 0]);
  t.deepEqual(await y!.read(), await kernels.add(stream, { a: x, b: x, beta: 2, out: 'f32' }).y.read());
});
