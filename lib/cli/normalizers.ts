import { Option } from 'commander';
import { defaultNormalizer } from '../evaluate/index.js';
import { basicNormalizer, type Normalizer } from '../text/index.js';

/** What is done to texts before errors are counted, by the names of --normalizer. */
export const NORMALIZERS: Record<string, Normalizer> = {
  extended: defaultNormalizer,
  basic: basicNormalizer(),
  none: (text) => text,
};

export const normalizerOption = (): Option =>
  new Option(
    '--normalizer <name>',
    "applied to both sides: Whisper's basic one, extended (letters of unspaced scripts count as words), or none",
  )
    .choices(Object.keys(NORMALIZERS))
    .default('extended');
