/** How a model decodes where nobody says otherwise. */
import { DistilWhisperError, shown } from '../errors/index.js';
import type { JsonObject } from '../files/index.js';
import { suppressTokens, type WhisperTokenizer } from '../text/index.js';
import { DEFAULT_SUPPRESSION, suppressionList, type WhisperConfig } from '../weights/index.js';

export interface Decoding {
  suppress: readonly number[];
  suppressAtBegin: readonly number[];
  maxTokens: number;
}

/**
 * Suppression and length of a model: its generation configuration's, else its config's; null or nothing suppresses none. Errors:
 * ERR_CONFIG.
 */
export function decodingOf(config: WhisperConfig, generation: JsonObject, tokenizer: WhisperTokenizer): Decoding {
  const list = (name: 'suppress_tokens' | 'begin_suppress_tokens'): readonly number[] => {
    const given = (name in generation ? generation[name] : config[name]) ?? [];
    const listed = suppressionList(name, given, config.vocab_size);
    if (listed?.includes(DEFAULT_SUPPRESSION)) {
      return [...new Set([...listed.filter((id) => id !== DEFAULT_SUPPRESSION), ...suppressTokens(tokenizer)])];
    }
    if (listed) return listed;
    throw new DistilWhisperError(
      'ERR_CONFIG',
      `generation_config.json: expected ${name} to list token ids below ${config.vocab_size}, got ${shown(given)}`,
    );
  };
  const length = generation.max_length;
  const whole = typeof length === 'number' && Number.isInteger(length) && length > 0;
  return {
    suppress: list('suppress_tokens'),
    suppressAtBegin: list('begin_suppress_tokens'),
    maxTokens: Math.min(whole ? length : Number.MAX_SAFE_INTEGER, config.max_target_positions),
  };
}
