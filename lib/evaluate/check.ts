import { type DecodeOptions, DecodePool } from '../audio/index.js';
import { type BadRow, badRow, blamesRow, type Dataset, PrefetchLoader } from '../data/index.js';
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
  data: Dataset,
  { signal, onProgress, onWarning, ...decoding }: CheckOptions = {},
): Promise<BadRow[]> {
  const total = data.length;
  if (total === 0) return [];
  const pool = new DecodePool();
  const loader = new PrefetchLoader<number, BadRow | null, BadRow[]>({
    examples: [...data.numbers()],
    batches: Array.from({ length: total }, (_, position) => ({ epoch: 0, position, indices: Int32Array.of(position) })),
    load: async (row) => {
      const entry = data.entry(row);
      try {
        const source = await data.audio(row);
        // Samples have been decoded.
        if (typeof source !== 'string' && !(source instanceof Uint8Array)) return null;
        const audio = await pool.open(source, { ...decoding, name: entry.audio });
        for await (const _ of audio.pieces);
        for (const warning of audio.warnings) onWarning?.(entry.audio, warning);
        return null;
      } catch (error) {
        if (!blamesRow(error)) throw error;
        return badRow(entry, error);
      }
    },
    collate: (rows) => rows.filter((row) => row !== null),
    describe: (row) => {
      const { id, manifest, line } = data.entry(row);
      return `${id} (${manifest} line ${line})`;
    },
    onClose: () => pool.close(),
  });
  const bad: BadRow[] = [];
  for await (const { position, data: rows } of loader) {
    if (signal?.aborted) {
      throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the audio was checked; nothing was written');
    }
    bad.push(...rows);
    await onProgress?.(position + 1, total);
  }
  return bad;
}
