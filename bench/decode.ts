/** How long does greedy decoding of 64 tokens take? Whisper-small, caches filled from 30 s; the encoder is not timed. */
import { ReplayedStep } from '../lib/decode/replayed-step.js';
import type { CacheType, ComputeType, DecoderState, ModelPass, ReplayedPosition, Whisper } from '../lib/model/index.js';
import { elementType, kernels, type Stream, type Tensor } from '../lib/tensor/index.js';
import { floatTypes, randomModel, randomTensor } from './data.js';
import { type Case, measureGroup, type Question } from './harness.js';
import { onnxCase, torchCase, whisperCppCase } from './peer-cases.js';

export const TOKENS = 64;
const BATCHES = [1, 8];
const BEAMS = 5;

interface DecodeOptions {
  /** Default 64. */
  tokens?: number;
  /** Sequences an item. Default 1. */
  beams?: number;
  /** How the cross-attention's keys and values are kept. Default: as `transcribe` keeps them. */
  cache?: CacheType;
  /** With experts or an adapter. Default: the plain model. */
  pass?: Pick<ModelPass, 'languages' | 'adapter'>;
}

/** Bytes that all tokens together must read: the decoder's weights once a token, and the key/value caches. */
function bytesRead(
  model: Whisper,
  type: ComputeType,
  batch: number,
  { tokens, beams, narrow }: { tokens: number; beams: number; narrow: boolean },
): number {
  const { config, compute } = model;
  const { d_model: D, decoder_layers: layers, decoder_ffn_dim: F, vocab_size: V, max_source_positions: S } = config;
  const size = compute === 'bf16' ? 2 : 4;
  const weights = (layers * (6 * D * D + 2 * D * F) + V * D) * (type === 'int8' ? 1 : size);
  // In int8 each head of a row has a scale of 4 bytes.
  const row = narrow ? D + 4 * config.decoder_attention_heads : D * size;
  return tokens * (weights + batch * layers * 2 * (S * row + (beams * tokens * D * size) / 2));
}

/**
 * Decodes `tokens` tokens greedily; each is read before the next is queued. Where an item has several beams, each of them goes on
 * from the one before it: all caches are reordered, as a beam search does at most. On a GPU the calls of a token are a CUDA graph,
 * as in the search.
 */
export async function decodeTokens(
  stream: Stream,
  model: Whisper,
  state: DecoderState,
  tokens: number,
  pass: DecodeOptions['pass'] = {},
): Promise<void> {
  const { config } = model;
  const { batch, beams } = state;
  const candidates = beams > 1 ? beams + 1 : 1;
  const parents = Int32Array.from({ length: batch }, (_, row) => (row + 1) % beams);
  const choose = (ids: Tensor, at?: ReplayedPosition): Tensor => {
    const { hidden } = model.decode(ids, null, { ...pass, state, at });
    const logits = model.logits(hidden.reshape([batch, config.d_model]));
    return kernels.topK(stream, { logits, k: candidates }).ids;
  };
  const replayed =
    stream.graphs && state.adapter === null
      ? new ReplayedStep(stream, state, config.max_target_positions, choose)
      : null;
  let ids = new Int32Array(batch).fill(config.decoder_start_token_id);
  try {
    for (let i = 0; i < tokens; i++) {
      if (beams > 1) state.reorder(stream.tensor(parents, [batch / beams, beams], 'i32'));
      const chosen = (replayed?.run([...ids]) ?? choose(stream.tensor(ids, [batch, 1], 'i32'))).read();
      stream.endStep();
      const best = (await chosen) as Int32Array;
      ids = ids.map((_, row) => best[row * candidates]!);
    }
  } finally {
    replayed?.dispose();
  }
}

/** Decoding for `batch` items, from caches that an encoder's output fills. */
export function decodeCase(
  stream: Stream,
  model: Whisper,
  type: ComputeType,
  batch: number,
  options: DecodeOptions = {},
): Case {
  const { config } = model;
  const { tokens = TOKENS, beams = 1, cache = 'auto', pass } = options;
  const narrow = (cache === 'auto' ? model.cache : cache) === 'int8';
  const memory = randomTensor(
    stream,
    [batch, config.max_source_positions, config.d_model],
    elementType(model.compute),
    1,
  );
  let state: DecoderState | null = null;
  return {
    name: `${type}${cache === 'auto' ? '' : `, cache ${narrow ? 'int8' : model.compute}`}, batch ${batch}${beams > 1 ? `, ${beams} beams` : ''}`,
    bytes: bytesRead(model, type, batch, { tokens, beams, narrow }),
    ceiling: 'read',
    prepare: async () => {
      state?.dispose();
      state = model.startDecoding(memory, { beams, cache, adapter: pass?.adapter });
      stream.endStep();
      await stream.sync();
    },
    run: () => decodeTokens(stream, model, state!, tokens, pass),
    dispose: () => {
      state?.dispose();
      memory.dispose();
    },
    notes: (ms) => ({ 'tokens/s': (batch * tokens * 1000) / ms }),
  };
}

export const decode: Question = {
  name: 'decode',
  question: 'How long does greedy decoding take?',
  async *measure(context) {
    const { stream, peers, types } = context;
    // Matrices of int8 are the processor's.
    for (const type of stream.device === 'cpu' ? types : floatTypes(types)) {
      const model = await randomModel(stream, 'small', type);
      const cases = BATCHES.map((batch) => decodeCase(stream, model, type, batch));
      const wide =
        type === 'bf16' && stream.device === 'cpu'
          ? BATCHES.map((batch) => decodeCase(stream, model, type, batch, { cache: 'compute' }))
          : [];
      const args = ['decode', '--student', 'small', '--plain', '--labels', `${TOKENS}`, '--batch'];
      const weights = type === 'int8' ? 'int8' : 'fp32';
      const beside = BATCHES.flatMap((batch, i) => {
        const against = cases[i]!.name;
        const what = `, batch ${batch}`;
        return [
          ...torchCase(peers, against, type === 'fp32' ? 'fp32' : 'bf16', [...args, `${batch}`], what),
          ...onnxCase(peers, 'onnx', [against], { mode: 'decode', weights, batch, tokens: TOKENS }, what),
        ];
      });
      const searched = decodeCase(stream, model, type, 1, { beams: BEAMS });
      yield await measureGroup(context, {
        title: `Whisper-small, ${TOKENS} tokens greedily, ${type}`,
        cases: [...cases, ...wide, searched, ...beside, ...whisperCppCase(peers, 'decode', [cases[0]!.name], TOKENS)],
      });
      model.dispose();
    }
  },
};
