/** An exported folder as another program runs it: onnxruntime-node, with the caches of the merged decoder. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { GreedyOptions } from '../../lib/decode/index.js';
import type { WhisperConfig } from '../../lib/weights/index.js';

type Values = Record<string, Tensor>;

export class OnnxWhisper {
  private constructor(
    readonly config: WhisperConfig,
    private readonly encoder: InferenceSession,
    private readonly decoder: InferenceSession,
  ) {}

  /** `suffix`: '' or '_quantized'. */
  static async open(folder: string, suffix = ''): Promise<OnnxWhisper> {
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as WhisperConfig;
    const session = (name: string): Promise<InferenceSession> =>
      InferenceSession.create(join(folder, 'onnx', `${name}${suffix}.onnx`), { intraOpNumThreads: 1 });
    return new OnnxWhisper(config, await session('encoder_model'), await session('decoder_model_merged'));
  }

  get outputs(): readonly string[] {
    return this.decoder.outputNames;
  }

  /** Last hidden rows of the encoder [B, S, D] of features [mels, frames] of each item. */
  async encode(features: readonly Float32Array[]): Promise<Tensor> {
    const { num_mel_bins: mels, max_source_positions: S } = this.config;
    const all = new Float32Array(features.length * mels * 2 * S);
    for (const [i, item] of features.entries()) all.set(item, i * mels * 2 * S);
    const input = new Tensor('float32', all, [features.length, mels, 2 * S]);
    return (await this.encoder.run({ input_features: input })).last_hidden_state as Tensor;
  }

  /** One call of the decoder: ids of each item behind the caches of the call before, or without. Its outputs, and the caches. */
  async decode(memory: Tensor, ids: readonly (readonly number[])[], caches: Values | null): Promise<Values> {
    const { decoder_layers, decoder_attention_heads: heads, d_model } = this.config;
    const [B, T] = [ids.length, ids[0]!.length];
    const feeds: Values = {
      input_ids: new Tensor('int64', BigInt64Array.from(ids.flat(), BigInt), [B, T]),
      encoder_hidden_states: memory,
      use_cache_branch: new Tensor('bool', [caches !== null], [1]),
    };
    const empty = new Tensor('float32', new Float32Array(0), [B, heads, 0, d_model / heads]);
    const kinds = ['decoder.key', 'decoder.value', 'encoder.key', 'encoder.value'];
    const names = Array.from({ length: decoder_layers }, (_, i) => kinds.map((kind) => `${i}.${kind}`)).flat();
    for (const name of names) feeds[`past_key_values.${name}`] = caches?.[`present.${name}`] ?? empty;
    const outputs = (await this.decoder.run(feeds)) as Values;
    // A call behind caches leaves the encoder's alone.
    if (caches)
      for (const name of names) if (name.includes('encoder')) outputs[`present.${name}`] = caches[`present.${name}`]!;
    return outputs;
  }

  /** As ours (lib/decode): the likeliest token each time; tokens without prompt and end. */
  async greedy(features: readonly Float32Array[], options: GreedyOptions): Promise<number[][]> {
    const { prompts, suppress = [], suppressAtBegin = [], endOfText, maxTokens } = options;
    const memory = await this.encode(features);
    const said: number[][] = prompts.map(() => []);
    const ended = new Set<number>();
    let ids = prompts.map((prompt) => [...prompt]);
    let caches: Values | null = null;
    for (let length = prompts[0]!.length; length < maxTokens && ended.size < said.length; length++) {
      caches = await this.decode(memory, ids, caches);
      const { data, dims } = caches.logits!;
      const [, T, V] = dims as [number, number, number];
      const never = new Set(length === prompts[0]!.length ? [...suppress, ...suppressAtBegin] : suppress);
      ids = said.map((tokens, b) => {
        const row = (data as Float32Array).subarray((b * T + T - 1) * V, (b + 1) * T * V);
        let best = -1;
        for (let id = 0; id < V; id++) if (!never.has(id) && (best < 0 || row[id]! > row[best]!)) best = id;
        if (best === endOfText) ended.add(b);
        if (!ended.has(b)) tokens.push(best);
        return [best];
      });
    }
    return said;
  }

  async close(): Promise<void> {
    await this.encoder.release();
    await this.decoder.release();
  }
}
