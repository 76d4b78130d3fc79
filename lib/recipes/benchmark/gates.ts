import type { Dataset } from '../../data/index.js';
import { resolveLanguage } from '../../text/index.js';
import { AudioBatches, BatchUploader } from '../../train/index.js';
import type { Transcriber } from '../../transcribe/index.js';

/** Utterances by which the gates of a language are measured. */
const MEASURED = 32;

/**
 * Share of the rows of each layer, encoder before decoder, whose gate chooses the expert at inference: over a language's first utterances, the
 * decoder hearing their references. Null where none is there.
 */
export async function layerShares(transcriber: Transcriber, data: Dataset, code: string): Promise<number[] | null> {
  const { model, tokenizer } = transcriber;
  const rows = [...data.numbers()].filter((row) => data.entry(row).language === code).slice(0, MEASURED);
  if (rows.length === 0) return null;
  // One by one: nothing is padded.
  const batches = new AudioBatches(data.select(rows), model.config, tokenizer, { batchSize: 1, seed: 0 });
  const uploader = new BatchUploader(model.stream, model.config);
  const sums: { open: number; rows: number }[] = [];
  let left = batches.length;
  for await (const batch of batches.stream(0)) {
    const { features, ids } = uploader.upload(batch);
    const languages = [resolveLanguage(code).name];
    const heard = model.encode(features, { languages });
    const said = model.decode(ids, heard.hidden, { languages });
    const reading = Promise.all([...heard.gates, ...said.gates].map((gate) => gate.floats()));
    model.stream.endStep();
    for (const [layer, gates] of (await reading).entries()) {
      sums[layer] ??= { open: 0, rows: 0 };
      const sum = sums[layer]!;
      sum.open += gates.reduce((a, b) => a + b, 0);
      sum.rows += gates.length;
    }
    if (--left === 0) break;
  }
  return sums.map(({ open, rows }) => Number((open / rows).toFixed(6)));
}
