export { type BleuOptions, type BleuScore, type BleuSmoothing, bleu } from './bleu.js';
export type { BleuTokenizer } from './bleu-tokenizers.js';
export { type ChrfOptions, type ChrfScore, chrf } from './chrf.js';
export { LANGUAGES, type Language, resolveLanguage } from './languages.js';
export { basicNormalizer, extendedNormalizer, type Normalizer, type NormalizerOptions } from './normalizer.js';
export { nonSpeechTokens, suppressAtBegin, suppressTokens } from './suppression.js';
export {
  type DecodeOptions,
  type LabelOptions,
  type PromptOptions,
  type Task,
  TIMESTAMP_STEP,
  type TimestampTokens,
  WhisperTokenizer,
} from './tokenizer.js';
export type { AddedTokenJSON, TokenizerJSON } from './tokenizer-json.js';
export { tokenizerFromCharacters, tokenizerFromTiktoken, type VocabularyOptions } from './vocabulary.js';
export { cer, type ErrorRate, wer } from './wer.js';
