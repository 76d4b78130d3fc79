/** What types are called where people choose or read them: fp32, bf16, fp16, int8. A tensor's elements have names of their own (`DType`). */
import { DistilWhisperError } from '../errors/index.js';

const ELEMENTS = { fp32: 'f32', bf16: 'bf16', fp16: 'f16' } as const;
/** Types of floats that a model computes in. */
export type FloatName = 'fp32' | 'bf16';

/** The type of elements that a name means. */
export const elementType = <N extends keyof typeof ELEMENTS>(name: N): (typeof ELEMENTS)[N] => ELEMENTS[name];

type NameOf<T extends string> = T extends 'f32' ? 'fp32' : T extends 'f16' ? 'fp16' : T;

/** The name of a type of elements; other names stay what they are. */
export const typeName = <T extends string>(type: T): NameOf<T> =>
  (type === 'f32' ? 'fp32' : type === 'f16' ? 'fp16' : type) as NameOf<T>;

/** A type that an option names, one of `names`; that of its elements is taken for it. Throws ERR_ARGUMENT. */
export function chosenType<N extends string>(option: string, given: unknown, names: readonly N[]): N {
  const name = typeof given === 'string' ? typeName(given) : given;
  if (names.includes(name as N)) return name as N;
  const listed = names.map((known) => `'${known}'`);
  const expected = [listed.slice(0, -1).join(', '), listed.at(-1)].filter(Boolean).join(' or ');
  throw new DistilWhisperError('ERR_ARGUMENT', `${option}: expected ${expected}, got '${String(given).slice(0, 60)}'`);
}
