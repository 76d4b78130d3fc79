import { type DecodeOptions, DecodePool } from '../audio/index.js';
import { type BadRow, badRow, blamesRow, type ManifestEntry, PrefetchLoader } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';

export interface CheckOptions extends Pick<DecodeOptions, 'strict' | 'maxDuration'> {
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number) => unknown) | undefined;
  /** Audio that is unusual but was decoded. */
  onWarning?: ((audio: string, warning: string) => void) | undefined;
}

/**
 * Decodes every utterance once, of any length, as transcription takes it. Returns the rows whose audio is refused.
 * Errors: ERR_INTERRUPTED.
 */
export async function checkAudio(
  entries: readonly ManifestEntry[],
  { signal, onProgress, onWarning, ...decoding }: CheckOptions = {},
): Promise<BadRow[]> {
  if (entries.length === 0) return [];
  const pool = new DecodePool();
  const loader = new PrefetchLoader<ManifestEntry, BadRow | null, BadRow[]>({
    examples: entries,
    batches: entries.map((_, position) => ({ epoch: 0, position, indices: Int32Array.of(position) })),
    load: async (entry) => {
      try {
        const audio = await pool.open(entry.audio, decoding);
        for await (const _ of audio.pieces);
        for (const warning of audio.warnings) onWarning?.(entry.audio, warning);
        return null;
      } catch (error) {
        if (!blamesRow(error)) throw error;
        return badRow(entry, error);
      }
    },
    collate: (rows) => rows.filter((row) => row !== null),
    describe: (entry) => `${entry.id} (${entry.manifest} line ${entry.line})`,
    onClose: () => pool.close(),
  });
  const bad: BadRow[] = [];
  for await (const { position, data } of loader) {
    if (signal?.aborted) {
      throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the audio was checked; nothing was written');
    }
    bad.push(...data);
    await onProgress?.(position + 1, entries.length);
  }
  return bad;
}
