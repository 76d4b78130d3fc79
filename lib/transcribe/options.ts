import type { BeamOptions } from '../decode/index.js';
import type { DistilWhisperError } from '../errors/index.js';
import type { HubOptions } from '../hub/index.js';
import type { CacheType, ComputeType } from '../model/index.js';
import type { Stream } from '../tensor/index.js';
import type { Task } from '../text/index.js';
import type { SourceOptions } from './sources.js';
import type { Transcript } from './transcript.js';

export interface TranscriberOptions {
  /** Where the model runs: 'cpu' (default), 'cuda' or 'cuda:N'. */
  device?: string | undefined;
  /** Instead of `device`: a stream of the caller's, which stays open. */
  stream?: Stream | undefined;
  /** Default 'auto'. */
  compute?: ComputeType | undefined;
  /** How the cross-attention's keys and values are kept. Default 'auto'. */
  cache?: CacheType | undefined;
  /** Experts to attach: files, folders (a run's is one), or names of the hub. */
  experts?: readonly string[] | undefined;
  /** A LoRA adapter's folder as PEFT writes it, or a name of the hub: merged into the weights, at no cost afterwards. */
  adapter?: string | undefined;
  /** LoRA adapters to keep apart from the weights, by the name that `transcribe` is asked for them with. */
  adapters?: Readonly<Record<string, string>> | undefined;
  /** Windows that are decoded together. Default 16. */
  batchSize?: number | undefined;
  /** Weights are read into memory instead of being the files' pages (see `WhisperOptions`). Default false. */
  copyWeights?: boolean | undefined;
  /** How names are found and fetched. */
  hub?: HubOptions | undefined;
}

export const LOAD_OPTIONS: Record<keyof TranscriberOptions, true> = {
  device: true,
  stream: true,
  compute: true,
  cache: true,
  experts: true,
  adapter: true,
  adapters: true,
  batchSize: true,
  copyWeights: true,
  hub: true,
};

export interface TranscribeProgress {
  /** Sources whose transcript is whole. */
  done: number;
  total: number;
  /** Seconds of audio transcribed. */
  seconds: number;
}

/** Of the beam options `beamSize` is 1 by default: greedy decoding. */
export interface TranscribeOptions extends Partial<BeamOptions>, SourceOptions {
  /** Code or name, or 'auto': detected in the first window of each source. May be left out when the model has only one. */
  language?: string | undefined;
  /** Default 'transcribe'. */
  task?: Task | undefined;
  /** Run the language's expert where the model has one. Default true. */
  useExperts?: boolean | undefined;
  /** Name of the adapter to take, of those kept apart; null: none. Default: the model's active one, none where it was just loaded. */
  adapter?: string | null | undefined;
  /**
   * Have the model say when what it says begins and ends, by the rules of OpenAI's Whisper: `segments` are then those between
   * its timestamps. Default false.
   */
  timestamps?: boolean | undefined;
  /** Default: the transcriber's. */
  batchSize?: number | undefined;
  /** Tokens of a window, prompt included. Default: the generation configuration's max_length, the decoder's positions at most. */
  maxTokens?: number | undefined;
  /** After every batch. */
  onProgress?: ((progress: TranscribeProgress) => unknown) | undefined;
  /** As soon as a source's transcript is whole; in the order of the sources. */
  onTranscript?: ((source: number, transcript: Transcript) => unknown) | undefined;
  /** A source whose audio is refused: with this its transcript is null and the others go on; without, it ends the call. */
  onError?: ((source: number, error: DistilWhisperError) => unknown) | undefined;
}

export const TRANSCRIBE_OPTIONS: Record<keyof TranscribeOptions, true> = {
  language: true,
  task: true,
  useExperts: true,
  adapter: true,
  timestamps: true,
  batchSize: true,
  maxTokens: true,
  beamSize: true,
  patience: true,
  lengthPenalty: true,
  strict: true,
  maxDuration: true,
  signal: true,
  onProgress: true,
  onTranscript: true,
  onError: true,
};
