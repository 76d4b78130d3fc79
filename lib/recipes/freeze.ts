/** Which parameters of the backbone stay as they are, by patterns of their names. */
import { DistilWhisperError } from '../errors/index.js';
import { type WhisperConfig, whisperTensorShapes } from '../weights/index.js';

/** Names that stand for parts of both sides. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  embeddings: ['decoder.embed_tokens', 'decoder.embed_positions', 'encoder.embed_positions'],
};

const refuse = (expected: string, got: string): never => {
  throw new DistilWhisperError('ERR_ARGUMENT', `freeze: expected ${expected}, got ${got}`);
};

/** A pattern for each number of its ranges. */
function withoutRanges(parts: readonly string[]): string[][] {
  return parts.reduce<string[][]>(
    (all, part) => {
      const [, low, high] = /^(\d+)-(\d+)$/.exec(part) ?? [];
      if (low === undefined) return all.map((begin) => [...begin, part]);
      const [from, to] = [Number(low), Number(high)];
      if (from > to || to >= 1000) refuse('a range of layers from the lower number to the higher', part);
      const numbers = Array.from({ length: to - from + 1 }, (_, i) => String(from + i));
      return all.flatMap((begin) => numbers.map((number) => [...begin, number]));
    },
    [[]],
  );
}

/**
 * The names of a model's parameters that patterns freeze. A pattern is the beginning of a name of Hugging Face, part by part, without 'model.':
 * 'encoder', 'decoder.layers.3', 'encoder.layers.0-3' (a range), 'decoder.layers.*.self_attn' (any part), 'encoder.conv1'; or 'embeddings' (of tokens and
 * positions). Throws ERR_ARGUMENT for one that means no parameter, and where nothing is left that trains.
 */
export function frozenNames(patterns: readonly string[], config: WhisperConfig): Set<string> {
  const names = [...whisperTensorShapes(config)].map(([name]) => name);
  const frozen = new Set<string>();
  for (const pattern of patterns) {
    for (const path of GROUPS[pattern] ?? [pattern]) {
      for (const parts of withoutRanges(path.replace(/^model\./, '').split('.'))) {
        const matching = names.filter((name) => {
          const own = name.split('.').slice(1);
          return parts.length <= own.length && parts.every((part, i) => part === '*' || part === own[i]);
        });
        if (matching.length === 0) {
          const { encoder_layers, decoder_layers } = config;
          const what = parts.join('.') === pattern ? '' : ` (of ${JSON.stringify(pattern.slice(0, 60))})`;
          refuse(
            `encoder, decoder, embeddings, or the beginning of a parameter's name, such as encoder.layers.0-3; the model has ${encoder_layers} + ${decoder_layers} layers`,
            `${JSON.stringify(parts.join('.').slice(0, 60))}${what}`,
          );
        }
        for (const name of matching) frozen.add(name);
      }
    }
  }
  if (names.every((name) => frozen.has(name))) refuse('something to be left that trains', patterns.join(', '));
  return frozen;
}
