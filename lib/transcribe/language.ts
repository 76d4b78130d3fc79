import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import type { Tensor } from '../tensor/index.js';
import type { WhisperTokenizer } from '../text/index.js';

export interface DetectedLanguage {
  /** Code of the likeliest language. */
  language: string;
  /** Probability of each of the vocabulary's languages, by code; their sum is 1. */
  probabilities: Record<string, number>;
}

/**
 * The language of each item, without experts, with `adapter` (default: the model's active one): one decoder step at the start token, softmax over the language tokens (Radford et
 * al. 2022); English of an English-only model, which is not asked. features f32 [B, mels, frames] is gone after the call, like every tensor of the stream's step.
 * Errors: ERR_LANGUAGE when the vocabulary has no languages, ERR_SHAPE (features).
 */
export async function detectLanguage(
  model: Whisper,
  features: Tensor,
  tokenizer: WhisperTokenizer,
  { adapter }: { adapter?: string | null | undefined } = {},
): Promise<DetectedLanguage[]> {
  const { languages } = tokenizer;
  if (languages.length === 0) {
    throw new DistilWhisperError('ERR_LANGUAGE', "the model's vocabulary has no language tokens to choose from");
  }
  const { stream, config } = model;
  const batch = features.shape[0] ?? 0;
  if (batch === 0) return [];
  if (!tokenizer.multilingual) {
    stream.endStep();
    return Array.from({ length: batch }, () => ({ language: languages[0]!, probabilities: { [languages[0]!]: 1 } }));
  }
  const read = (): Promise<Float32Array> => {
    try {
      const start = stream.tensor(new Int32Array(batch).fill(tokenizer.startOfTranscript), [batch, 1], 'i32');
      const { hidden } = model.decode(start, model.encode(features, { adapter }).hidden, { adapter });
      return model.logits(hidden.reshape([batch, config.d_model])).floats();
    } finally {
      stream.endStep();
    }
  };
  const logits = await read();
  const ids = languages.map((code) => tokenizer.languageId(code));
  return Array.from({ length: batch }, (_, i) => {
    const row = ids.map((id) => logits[i * config.vocab_size + id]!);
    const top = Math.max(...row);
    const sum = row.reduce((total, z) => total + Math.exp(z - top), 0);
    return {
      language: languages[row.indexOf(top)]!,
      probabilities: Object.fromEntries(languages.map((code, l) => [code, Math.exp(row[l]! - top) / sum])),
    };
  });
}
