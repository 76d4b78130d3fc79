/** Options of what training does to what is heard. */
import { type Command, InvalidArgumentError } from 'commander';
import { type Augmentation, augmentationDefaults as defaults, type NoiseKind } from '../audio/index.js';
import { pair, real, whole } from './options.js';

/** `speedPerturb`: the speed factors. */
export type AugmentationOptions = Partial<Omit<Augmentation, 'speedFactors' | 'noiseFolder'>> & {
  speedPerturb?: number[];
  noiseFolder?: string;
};

const list = (text: string): number[] => text.split(',').map(real);

function kinds(text: string): NoiseKind[] {
  return text.split(',').map((kind) => {
    if (kind === 'white' || kind === 'pink') return kind;
    throw new InvalidArgumentError('Expected white, pink or both with a comma between them.');
  });
}

export function addAugmentation(command: Command): Command {
  return command
    .optionsGroup('Augmentation (the paper has none):')
    .option(
      '--apply-spec-augment',
      'SpecAugment: mask frames and mel bins of what the student hears; the teacher hears them',
    )
    .option('--mask-time-prob <share>', `share of the frames under masks (default: ${defaults.maskTimeProb})`, real)
    .option('--mask-time-length <n>', `frames of 10 ms of a mask (default: ${defaults.maskTimeLength})`, whole(1))
    .option('--mask-time-min-masks <n>', `masks at least (default: ${defaults.maskTimeMinMasks})`, whole(0))
    .option(
      '--mask-feature-prob <share>',
      `share of the mel bins under masks (default: ${defaults.maskFeatureProb})`,
      real,
    )
    .option('--mask-feature-length <n>', `mel bins of a mask (default: ${defaults.maskFeatureLength})`, whole(1))
    .option('--mask-feature-min-masks <n>', `masks at least (default: ${defaults.maskFeatureMinMasks})`, whole(0))
    .option('--speed-perturb <factors>', 'speeds of which each utterance is heard at one, such as 0.9,1,1.1', list)
    .option('--noise <kinds>', 'noise that is added: white, pink or both (white,pink)', kinds)
    .option('--noise-folder <folder>', 'audio files with noise, one of which is added')
    .option(
      '--noise-snr <low,high>',
      `ratio of speech to noise in dB, drawn from there (default: ${defaults.noiseSnr})`,
      pair,
    )
    .option('--noise-prob <share>', `share of the utterances that have noise (default: ${defaults.noiseProb})`, real);
}

/** What they say, as the API takes it; undefined where nothing is said. */
export function augmentationOf(options: AugmentationOptions): Partial<Augmentation> | undefined {
  const { speedPerturb: speedFactors, noise, noiseFolder, noiseSnr, noiseProb, applySpecAugment } = options;
  const { maskTimeProb, maskTimeLength, maskTimeMinMasks } = options;
  const { maskFeatureProb, maskFeatureLength, maskFeatureMinMasks } = options;
  const given = {
    ...{ applySpecAugment, maskTimeProb, maskTimeLength, maskTimeMinMasks },
    ...{ maskFeatureProb, maskFeatureLength, maskFeatureMinMasks },
    ...{ speedFactors, noise, noiseFolder, noiseSnr, noiseProb },
  };
  const told = Object.entries(given).filter(([, value]) => value !== undefined);
  return told.length > 0 ? (Object.fromEntries(told) as Partial<Augmentation>) : undefined;
}
