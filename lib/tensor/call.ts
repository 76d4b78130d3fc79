import { opNumber } from '../native/index.js';
import { dtypes, type Stream, Tensor } from './tensor.js';

/**
 * Queues an operation by its name in native/core/op_names.h; tensors and numbers stand in the addon's order, and null or undefined
 * is an optional tensor left out. Nothing is checked but what the addon checks: it is for kernels/, which knows the order, and
 * for tests of what the addon refuses. Errors: ERR_ARGUMENT for no operation of that name; those of the operation.
 */
export function rawCall(
  stream: Stream,
  op: string,
  tensors: readonly (Tensor | null | undefined)[],
  numbers: readonly number[],
): Tensor[] {
  const outputs = stream.guard(() =>
    stream.native.call(
      opNumber(op),
      tensors.map((t) => (t ? t.id : 0)),
      numbers,
    ),
  );
  return outputs.map(([id, dtype, ...shape]) => new Tensor(stream, id, dtypes[dtype]!, shape, stream.records));
}
