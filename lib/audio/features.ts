import { DistilWhisperError } from '../errors/index.js';
import { kernels, Stream, type Tensor } from '../tensor/index.js';
import { checkSampleRate, checkSamples } from './samples.js';

/** Whisper's sample rate in Hz, and the hop of its features: 100 frames a second. */
export const SAMPLE_RATE = 16000;
export const FRAMES_PER_SECOND = 100;

/** Raised when decoding, resampling or features come to other numbers: what was computed from features then is another one's. */
export const FEATURES_VERSION = 1;

export interface FeatureOptions {
  /** Mel bins: 80, or 128 for large-v3. */
  mels: number;
  /** Frames of the window: 3000 for 30 s. */
  frames: number;
  /** Where the kernels run. Default: a stream of one thread of its own, so that features are made while a model computes. */
  stream?: Stream | undefined;
}

/**
 * Log-mel features as Whisper computes them: resampled to 16 kHz, padded with silence to the window, [mels, frames] in f32.
 * Calls may overlap.
 */
export class FeatureExtractor {
  readonly seconds: number;
  private readonly stream: Stream;
  private readonly owned: boolean;
  private filters: Promise<Tensor> | null = null;

  constructor(private readonly options: FeatureOptions) {
    this.seconds = options.frames / FRAMES_PER_SECOND;
    this.owned = options.stream === undefined;
    this.stream = options.stream ?? new Stream({ threads: 1, label: 'features' });
  }

  /**
   * Features of one utterance. Errors: ERR_AUDIO_TOO_LONG when it is longer than the window and `cut` is not set,
   * ERR_AUDIO_EMPTY, ERR_AUDIO_SAMPLES (NaN, infinite or not scaled to -1..1), ERR_ARGUMENT (sample rate).
   */
  async extract(
    audio: { samples: Float32Array; sampleRate: number },
    options: { cut?: boolean } = {},
  ): Promise<Float32Array> {
    const { samples, sampleRate } = audio;
    if (samples.length === 0) throw new DistilWhisperError('ERR_AUDIO_EMPTY', 'expected audio, got 0 samples');
    const seconds = samples.length / sampleRate;
    // A resampled clip may round up by one sample.
    if (!options.cut && seconds > this.seconds + 1e-3) {
      throw new DistilWhisperError(
        'ERR_AUDIO_TOO_LONG',
        `expected at most ${this.seconds} s of audio (the model's window), got ${seconds.toFixed(2)} s`,
      );
    }
    checkSampleRate(sampleRate, 'the audio', 'ERR_ARGUMENT');
    checkSamples(samples, 'the audio');
    this.filters ??= this.melFilters();
    const filters = await this.filters;
    const { stream } = this;
    const made: Tensor[] = [];
    try {
      let signal = stream.tensor(samples, [samples.length]);
      made.push(signal);
      if (sampleRate !== SAMPLE_RATE) {
        signal = kernels.resample(stream, { samples: signal, from: sampleRate, to: SAMPLE_RATE }).resampled;
        made.push(signal);
      }
      const { features } = kernels.logMel(stream, { samples: signal, filters, frames: this.options.frames });
      made.push(features);
      return (await features.read()) as Float32Array;
    } finally {
      for (const t of made) t.dispose();
    }
  }

  close(): void {
    if (this.owned) this.stream.close();
  }

  private async melFilters(): Promise<Tensor> {
    const { mels } = this.options;
    const { filters } = kernels.melFilters(this.stream, { mels });
    const values = (await filters.read()) as Float32Array;
    filters.dispose();
    return this.stream.persistent(values, [mels, values.length / mels]).freeze();
  }
}
