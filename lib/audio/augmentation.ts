/** What training does to what is heard, a function of (seed, micro-batch, item): docs/method.md, section 4. */
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { AUGMENTATION_STREAMS, noiseStream, uniforms } from '../random/index.js';
import type { Stream } from '../tensor/index.js';
import { FRAMES_PER_SECOND, SAMPLE_RATE } from './features.js';
import { mixed, NoiseFiles, pink, resampled, whiteNoise } from './noise.js';
import type { DecodePool } from './pool.js';
import { masked, maskStarts } from './spec-augment.js';

export type NoiseKind = 'white' | 'pink';

/** All of it is off by default. The names of the masks are those of Hugging Face's Whisper. */
export interface Augmentation {
  /** SpecAugment: masks on the features of the student. A teacher hears them whole. */
  applySpecAugment: boolean;
  /** Share of the frames that hold audio under masks of so many frames (of 0.01 s), did they not overlap; at least so many masks. */
  maskTimeProb: number;
  maskTimeLength: number;
  maskTimeMinMasks: number;
  /** The same of mel bins. */
  maskFeatureProb: number;
  maskFeatureLength: number;
  maskFeatureMinMasks: number;
  /**
   * Speeds of which an utterance is heard at one, pitch and all, as a tape that is run faster: 0.9, 1 and 1.1 usually. Of those that let it fit
   * the model's window.
   */
  speedFactors: readonly number[];
  /** Noise that is added: of one of these kinds, or of a file in the folder. */
  noise: readonly NoiseKind[];
  noiseFolder: string | null;
  /** Between which ratios of the mean powers of speech and noise, in dB, one is drawn. */
  noiseSnr: readonly [number, number];
  /** Share of the utterances that have noise. */
  noiseProb: number;
}

export const augmentationDefaults: Augmentation = {
  applySpecAugment: false,
  maskTimeProb: 0.05,
  maskTimeLength: 10,
  maskTimeMinMasks: 2,
  maskFeatureProb: 0,
  maskFeatureLength: 10,
  maskFeatureMinMasks: 0,
  speedFactors: [],
  noise: [],
  noiseFolder: null,
  noiseSnr: [5, 30],
  noiseProb: 0.5,
};

const OPTIONS = Object.fromEntries(Object.keys(augmentationDefaults).map((name) => [name, true])) as Record<
  keyof Augmentation,
  true
>;

type Check = readonly [ok: (value: unknown) => boolean, expected: string];
const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value);
const share: Check = [(v) => isNumber(v) && v >= 0 && v <= 1, 'a share from 0 to 1'];
const whole = (least: number): Check => [
  (v) => Number.isSafeInteger(v) && (v as number) >= least,
  `a whole number from ${least}`,
];
const list = (ok: (value: unknown) => boolean) => (v: unknown) =>
  Array.isArray(v) && v.every(ok) && new Set(v).size === v.length;
const CHECKS: Record<keyof Augmentation, Check> = {
  applySpecAugment: [(v) => typeof v === 'boolean', 'true or false'],
  maskTimeProb: share,
  maskTimeLength: whole(1),
  maskTimeMinMasks: whole(0),
  maskFeatureProb: share,
  maskFeatureLength: whole(1),
  maskFeatureMinMasks: whole(0),
  speedFactors: [list((f) => isNumber(f) && f >= 0.5 && f <= 2), 'different factors from 0.5 to 2'],
  noise: [list((kind) => kind === 'white' || kind === 'pink'), "'white', 'pink' or both"],
  noiseFolder: [(v) => v === null || (typeof v === 'string' && v !== ''), 'the path of a folder'],
  noiseSnr: [
    (v) => Array.isArray(v) && v.length === 2 && v.every((x) => isNumber(x) && Math.abs(x) <= 100) && v[0] <= v[1],
    'the lowest and the highest ratio in dB, within -100 to 100',
  ],
  noiseProb: share,
};

/** Fills in the defaults. Throws ERR_ARGUMENT that names the option, also for one that means nothing without another. */
export function augmentationOptions(given: Partial<Augmentation> = {}): Augmentation {
  checkOptions('augmentation', given, OPTIONS);
  const told = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const options: Augmentation = { ...augmentationDefaults, ...told };
  const refuse = (name: string, expected: string, got: unknown): never => {
    const shown = typeof got === 'string' ? got : JSON.stringify(got);
    throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected ${expected}, got ${shown}`);
  };
  for (const [name, [ok, expected]] of Object.entries(CHECKS) as [keyof Augmentation, Check][]) {
    if (!ok(options[name])) refuse(name, expected, options[name]);
  }
  for (const name of Object.keys(told)) {
    if (name.startsWith('mask') && !options.applySpecAugment) refuse(name, 'with applySpecAugment', 'it without');
    if (/^noise(Snr|Prob)$/.test(name) && options.noise.length === 0 && options.noiseFolder === null)
      refuse(name, 'with noise or a noiseFolder', 'it without');
  }
  return options;
}

/** Of which item of which micro-batch. */
export interface AugmentedItem {
  micro: number;
  item: number;
}

/** Augments what is heard. */
export class Augmenter {
  readonly options: Augmentation;
  /** The files that noise is taken from; null without any. */
  readonly noiseFiles: NoiseFiles | null;

  /** `features`: sizes of the model's. Errors: ERR_ARGUMENT (masks longer than the features are), those of `NoiseFiles`. */
  constructor(
    given: Partial<Augmentation>,
    private readonly seed: number,
    private readonly features: { mels: number; frames: number },
  ) {
    this.options = augmentationOptions(given);
    const { applySpecAugment, maskTimeLength, maskFeatureLength, noiseFolder } = this.options;
    for (const [name, length, most] of [
      ['maskTimeLength', maskTimeLength, features.frames],
      ['maskFeatureLength', maskFeatureLength, features.mels],
    ] as const) {
      if (!applySpecAugment || length <= most) continue;
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `${name}: expected at most ${most}, as the model hears, got ${length}`,
      );
    }
    this.noiseFiles = noiseFolder === null ? null : new NoiseFiles(noiseFolder);
  }

  /** Whether the audio itself is changed: then a teacher hears other than what it is. */
  get changesAudio(): boolean {
    const { speedFactors, noise } = this.options;
    return speedFactors.length > 0 || noise.length > 0 || this.noiseFiles !== null;
  }

  /** Whether features are masked. */
  get masks(): boolean {
    return this.options.applySpecAugment;
  }

  /** Whether anything is done. */
  get isOn(): boolean {
    return this.changesAudio || this.masks;
  }

  /** Speeds at which so many samples fit the window. Throws ERR_AUDIO_TOO_LONG where there is none. */
  speeds(samples: number): readonly number[] {
    const { speedFactors } = this.options;
    if (speedFactors.length === 0) return [1];
    const seconds = samples / SAMPLE_RATE;
    const window = this.features.frames / FRAMES_PER_SECOND;
    const fitting = speedFactors.filter((factor) => seconds / factor <= window + 1e-3);
    if (fitting.length > 0) return fitting;
    throw new DistilWhisperError(
      'ERR_AUDIO_TOO_LONG',
      `expected audio that fits the model's window of ${window} s at one of the speeds ${speedFactors.join(', ')}, got ${seconds.toFixed(2)} s`,
    );
  }

  /**
   * Speech at 16 kHz as an item of a micro-batch hears it; kernels run on `stream`. The samples that are given stay as they are. Errors:
   * ERR_AUDIO_TOO_LONG, those of `decodeAudio` for a file of noise.
   */
  async audio(
    samples: Float32Array,
    { micro, item }: AugmentedItem,
    { stream, pool }: { stream: Stream; pool: DecodePool },
  ): Promise<{ samples: Float32Array; speed: number }> {
    const { seed, noiseFiles } = this;
    const { noise, noiseProb, noiseSnr } = this.options;
    const speeds = this.speeds(samples.length);
    const speed = speeds[Math.floor(uniforms(seed, micro, AUGMENTATION_STREAMS.speed, item)() * speeds.length)]!;
    let heard = samples;
    // As if it had been recorded at another rate.
    if (speed !== 1) heard = await resampled(stream, samples, Math.round(speed * SAMPLE_RATE), SAMPLE_RATE);
    const kinds = [...noise, ...(noiseFiles ? (['files'] as const) : [])];
    const draw = uniforms(seed, micro, AUGMENTATION_STREAMS.noise, item);
    if (kinds.length === 0 || draw() >= noiseProb) return { samples: heard, speed };
    const kind = kinds[Math.floor(draw() * kinds.length)]!;
    const snr = noiseSnr[0] + draw() * (noiseSnr[1] - noiseSnr[0]);
    let added: Float32Array;
    if (kind === 'files') {
      const file = Math.floor(draw() * noiseFiles!.files.length);
      added = await noiseFiles!.excerpt(file, draw(), heard.length, pool);
    } else {
      const white = await whiteNoise(stream, { count: heard.length, seed, step: micro, op: noiseStream(item) });
      added = kind === 'pink' ? pink(white) : white;
    }
    return { samples: mixed(heard, added, snr), speed };
  }

  /** Features [mels, frames] with the masks of an item of a micro-batch, in an array of their own; `seconds` of them hold audio. */
  mask(features: Float32Array, seconds: number, { micro, item }: AugmentedItem): Float32Array {
    const { seed, options } = this;
    const { mels, frames } = this.features;
    const heard = Math.min(frames, Math.ceil(seconds * FRAMES_PER_SECOND));
    const starts = (on: number, of: number, which: 'Time' | 'Feature', stream: number) => {
      const length = options[`mask${which}Length`];
      const prob = options[`mask${which}Prob`];
      if (prob === 0) return { starts: [], length };
      const minMasks = options[`mask${which}MinMasks`];
      return { starts: maskStarts(on, of, { prob, length, minMasks }, uniforms(seed, micro, stream, item)), length };
    };
    const time = starts(heard, frames, 'Time', AUGMENTATION_STREAMS.timeMasks);
    const feature = starts(mels, mels, 'Feature', AUGMENTATION_STREAMS.featureMasks);
    return masked(features, { mels, heard }, time, feature);
  }
}
