import { DistilWhisperError } from '../errors/index.js';
import { chosenType, type FloatName, type Stream, typeName } from '../tensor/index.js';

const COMPUTE_TYPES = ['auto', 'fp32', 'bf16', 'int8'] as const;

/**
 * Type of products and of frozen matrices: fp32, bf16, or int8, where the matrices that every token of a decoding reads are held
 * in int8 with a scale for each output, and all else is as in 'auto'. 'auto' is bf16 where the device has instructions for it,
 * else fp32.
 */
export type ComputeType = (typeof COMPUTE_TYPES)[number];

/** What the option `compute` says. Throws ERR_ARGUMENT. */
export const computeType = (given: unknown): ComputeType => chosenType('compute', given, COMPUTE_TYPES);

/**
 * How the keys and values of the cross-attention are kept while decoding: as the products are computed, or in int8 with a scale
 * for each head of a position, half of bf16's memory. 'auto' is int8 on the processor where products run in bf16, whose rounding
 * moves logits more than that of the cache, or where the decoder's matrices are in int8; else 'compute'.
 */
export type CacheType = 'auto' | 'compute' | 'int8';

export interface WhisperOptions {
  /** Default fp32. */
  compute?: ComputeType | undefined;
  /** Default 'auto'. int8 runs on the processor. */
  cache?: CacheType | undefined;
  /** Which parameters of the backbone train, by name. Default: none. */
  trainable?: ((name: string) => boolean) | undefined;
  /**
   * From files: weights are read into memory of the model's own while it loads, instead of being the file's pages. It takes that
   * memory and time, and then nothing that becomes of the file reaches the model. Default false.
   */
  copyWeights?: boolean | undefined;
}

/** What a model may be told. */
export const OPTIONS: Record<keyof WhisperOptions, true> = {
  compute: true,
  cache: true,
  trainable: true,
  copyWeights: true,
};

/** Refuses int8 off the processor. Throws ERR_ARGUMENT. */
export function refuseOnGpu(stream: Stream, option: string, type: string): void {
  if (type !== 'int8' || stream.device === 'cpu') return;
  throw new DistilWhisperError(
    'ERR_ARGUMENT',
    `${option}: int8 runs on the processor, got a model on ${stream.device}`,
  );
}

/** What a model computes in on a stream. */
export interface Types {
  compute: FloatName;
  /** Whether the matrices that every token of a decoding reads are held in int8. */
  quantizes: boolean;
  cache: Exclude<CacheType, 'auto'>;
}

/** Throws ERR_ARGUMENT for what the stream's device or a model that trains cannot have. */
export function typesOn(stream: Stream, options: WhisperOptions): Types {
  const wanted = computeType(options.compute ?? 'fp32');
  const compute = wanted === 'fp32' || wanted === 'bf16' ? wanted : typeName(stream.fastType);
  const quantizes = wanted === 'int8';
  const kept = options.cache ?? 'auto';
  refuseOnGpu(stream, 'compute', wanted);
  refuseOnGpu(stream, 'cache', kept);
  const narrow = stream.device === 'cpu' && (quantizes || compute === 'bf16');
  const cache = kept === 'auto' ? (narrow ? 'int8' : 'compute') : kept;
  if (quantizes && options.trainable) {
    throw new DistilWhisperError('ERR_ARGUMENT', 'compute: expected fp32 or bf16 for a model that trains, got int8');
  }
  return { compute, quantizes, cache };
}
