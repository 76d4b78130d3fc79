import { parseWhisperConfig, type WhisperConfig } from '../../lib/weights/index.js';

/** A Whisper small enough for tests that train: width 16, 1 + 1 layers, a window of 0.4 s. */
export function tinyConfig(changes: Partial<WhisperConfig> = {}): WhisperConfig {
  return parseWhisperConfig(
    {
      vocab_size: 50,
      num_mel_bins: 80,
      d_model: 16,
      encoder_layers: 1,
      encoder_attention_heads: 2,
      encoder_ffn_dim: 64,
      decoder_layers: 1,
      decoder_attention_heads: 2,
      decoder_ffn_dim: 64,
      max_source_positions: 20,
      max_target_positions: 24,
      decoder_start_token_id: 48,
      pad_token_id: 49,
      bos_token_id: 49,
      eos_token_id: 49,
      activation_function: 'gelu',
      ...changes,
    },
    'the tiny configuration',
  );
}
