import { DistilWhisperError } from '../errors/index.js';
import type { Stream, Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** Puts the features of a batch on a stream: from one buffer for all batches, because garbage of this size fragments the heap. */
export class FeatureUploader {
  private gathered = new Float32Array(0);

  constructor(
    private readonly stream: Stream,
    private readonly config: WhisperConfig,
  ) {}

  /** f32 [mels, frames] of each item → [B, mels, frames]. Throws ERR_SHAPE for other than `B` items, or of another size. */
  upload(items: readonly Float32Array[], B = items.length): Tensor {
    const { num_mel_bins: mels, max_source_positions } = this.config;
    const frames = 2 * max_source_positions;
    const size = mels * frames;
    if (items.length !== B) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `features: expected those of each of ${B} items, f32 [${mels}, ${frames}], got a list of ${items.length}`,
      );
    }
    if (this.gathered.length < B * size) this.gathered = new Float32Array(B * size);
    for (const [b, item] of items.entries()) {
      if (item.length !== size) {
        throw new DistilWhisperError(
          'ERR_SHAPE',
          `features: expected ${size} numbers of item ${b}, f32 [${mels}, ${frames}], got ${item.length}`,
        );
      }
      this.gathered.set(item, b * size);
    }
    return this.stream.tensor(this.gathered.subarray(0, B * size), [B, mels, frames]);
  }
}
