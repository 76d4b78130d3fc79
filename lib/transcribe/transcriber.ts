import { DecodePool, FeatureExtractor } from '../audio/index.js';
import {
  type BeamOptions,
  beamSearch,
  checkBeams,
  type DecodedSequence,
  type DecodingOptions,
  greedy,
  throwIfAborted,
} from '../decode/index.js';
import { checkOptions, DistilWhisperError, shown } from '../errors/index.js';
import type { JsonObject } from '../files/index.js';
import { type CacheType, type ComputeType, Whisper } from '../model/index.js';
import { onLane } from '../profile/index.js';
import { Stream, type Tensor } from '../tensor/index.js';
import { resolveLanguage, suppressTokens, type Task, type TimestampTokens, WhisperTokenizer } from '../text/index.js';
import {
  DEFAULT_SUPPRESSION,
  openModelFolder,
  suppressionList,
  unfollowedSettings,
  type WhisperConfig,
} from '../weights/index.js';
import { type DetectedLanguage, detectLanguage } from './language.js';
import { type TimedText, timedTexts } from './segments.js';
import { type AudioSource, type Piece, type SourceOptions, SourceWindows } from './sources.js';

export interface TranscriberOptions {
  /** Where the model runs: 'cpu' (default), 'cuda' or 'cuda:N'. */
  device?: string;
  /** Instead of `device`: a stream of the caller's, which stays open. */
  stream?: Stream;
  /** Default 'auto'. */
  compute?: ComputeType;
  /** How the cross-attention's keys and values are kept. Default 'auto'. */
  cache?: CacheType;
  /** Expert files to attach. */
  experts?: readonly string[];
  /** Windows that are decoded together. Default 16. */
  batchSize?: number;
  /** Weights are read into memory instead of being the files' pages (see `WhisperOptions`). Default false. */
  copyWeights?: boolean;
}

const LOAD_OPTIONS: Record<keyof TranscriberOptions, true> = {
  device: true,
  stream: true,
  compute: true,
  cache: true,
  experts: true,
  batchSize: true,
  copyWeights: true,
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
  language?: string;
  /** Default 'transcribe'. */
  task?: Task;
  /** Run the language's expert where the model has one. Default true. */
  useExperts?: boolean;
  /**
   * Have the model say when what it says begins and ends, by the rules of OpenAI's Whisper: `segments` are then those between
   * its timestamps. Default false.
   */
  timestamps?: boolean;
  /** Default: the transcriber's. */
  batchSize?: number;
  /** Tokens of a window, prompt included. Default: the generation configuration's max_length, the decoder's positions at most. */
  maxTokens?: number;
  /** After every batch. */
  onProgress?: (progress: TranscribeProgress) => unknown;
  /** As soon as a source's transcript is whole; in the order of the sources. */
  onTranscript?: (source: number, transcript: Transcript) => unknown;
  /** A source whose audio is refused: with this its transcript is null and the others go on; without, it ends the call. */
  onError?: (source: number, error: DistilWhisperError) => unknown;
}

const TRANSCRIBE_OPTIONS: Record<keyof TranscribeOptions, true> = {
  language: true,
  task: true,
  useExperts: true,
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

/** A list of sources; bytes are one source. */
const isList = (sources: readonly AudioSource[] | AudioSource): sources is readonly AudioSource[] =>
  Array.isArray(sources);

export interface TranscriptSegment extends TimedText {
  /** The window's: with timestamps its segments share it. */
  averageLogProbability: number;
}

export interface Transcript {
  text: string;
  /** Whisper's code of the language. */
  language: string;
  /** Seconds of audio. */
  duration: number;
  /** One for each window; with timestamps one for each pair of them that holds text, within its window. */
  segments: TranscriptSegment[];
  /** Tokens of the text. */
  tokens: number;
  /** Share of the gates that chose the expert, a mean over the windows; null when none ran. */
  gateShare: number | null;
  /** What was unusual about the audio and passed over, a sentence each; mostly none. */
  warnings: readonly string[];
}

interface Decoding {
  suppress: readonly number[];
  suppressAtBegin: readonly number[];
  maxTokens: number;
}

/** What a language means to a call: its code, its expert's name, its start sequence. */
interface Start {
  code: string;
  expert: string | null;
  prompt: number[];
}

/** Transcribes audio: a model, its tokenizer and its decoding settings, with audio decoded and features made ahead of the model. */
export class Transcriber {
  readonly batchSize: number;
  /** What the model folder asks for and is not followed, a sentence each; to be told to people once. */
  readonly warnings: readonly string[];
  private readonly decoding: Decoding;
  private readonly pool = new DecodePool();
  private readonly extractor: FeatureExtractor;
  private readonly sources: SourceWindows;
  private release: () => void = () => {};

  /**
   * From parts in memory, which stay the caller's. `generation`: generation_config.json (suppress_tokens, begin_suppress_tokens,
   * max_length, is_multilingual); what it lacks is taken from the config and the vocabulary. `warnings`: default, what of
   * `generation` is not followed. Errors: ERR_VOCABULARY, ERR_CONFIG (suppression lists), ERR_ARGUMENT.
   */
  constructor(
    readonly model: Whisper,
    readonly tokenizer: WhisperTokenizer,
    options: { generation?: JsonObject; warnings?: readonly string[]; batchSize?: number } = {},
  ) {
    const { config } = model;
    if (tokenizer.vocabSize > config.vocab_size) {
      throw new DistilWhisperError(
        'ERR_VOCABULARY',
        `the tokenizer has ${tokenizer.vocabSize} tokens, the model only ${config.vocab_size}: they do not belong together`,
      );
    }
    this.batchSize = wholeFromOne('batchSize', options.batchSize ?? 16);
    const { generation = {} } = options;
    this.warnings = options.warnings ?? unfollowedSettings(generation);
    if (typeof generation.is_multilingual === 'boolean') {
      this.tokenizer = tokenizer.as({ multilingual: generation.is_multilingual });
    }
    this.decoding = decodingOf(config, generation, this.tokenizer);
    this.extractor = new FeatureExtractor({ mels: config.num_mel_bins, frames: 2 * config.max_source_positions });
    this.sources = new SourceWindows(this.pool, this.extractor);
  }

  /**
   * Opens a model folder with its tokenizer and settings, and attaches experts.
   * Errors: those of `openModelFolder`, `WhisperTokenizer.fromFolder`, `readExpert` and of the constructor.
   */
  static async load(modelFolder: string, options: TranscriberOptions = {}): Promise<Transcriber> {
    checkOptions('Transcriber.load', options, LOAD_OPTIONS);
    const { compute = 'auto', cache = 'auto', copyWeights = false } = options;
    if (!['auto', 'f32', 'bf16', 'int8'].includes(compute)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `compute: expected 'auto', 'f32', 'bf16' or 'int8', got '${String(compute)}'`,
      );
    }
    if (!['auto', 'compute', 'int8'].includes(cache)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `cache: expected 'auto', 'compute' or 'int8', got '${String(cache)}'`,
      );
    }
    const batchSize = wholeFromOne('batchSize', options.batchSize ?? 16);
    const folder = await openModelFolder(modelFolder);
    let stream: Stream | null = null;
    let model: Whisper | null = null;
    const release = (): void => {
      model?.dispose();
      if (!options.stream) stream?.close();
    };
    try {
      const tokenizer = await WhisperTokenizer.fromFolder(modelFolder);
      stream = options.stream ?? new Stream({ device: options.device ?? 'cpu' });
      model = await Whisper.fromFolder(stream, folder, { compute, cache, copyWeights });
      for (const path of options.experts ?? []) await model.loadExpert(path, { copyWeights });
      const generation = folder.generationConfig ? { generation: folder.generationConfig } : {};
      const transcriber = new Transcriber(model, tokenizer, { ...generation, warnings: folder.warnings, batchSize });
      transcriber.release = release;
      return transcriber;
    } catch (error) {
      release();
      throw error;
    } finally {
      await folder.close();
    }
  }

  /** Codes of the languages that the vocabulary has. */
  get languages(): readonly string[] {
    return this.tokenizer.languages;
  }

  /**
   * The transcript of a source, or those of a list of sources, in their order. Audio longer than the model's window is cut at pauses and its windows' texts are
   * joined by a space. Without `onError` the first source that fails ends the call. Errors: those of `decodeAudio` and
   * `FeatureExtractor`, with the source's name, ERR_LANGUAGE, ERR_VOCABULARY (timestamps), ERR_ARGUMENT, ERR_INTERRUPTED.
   */
  transcribe(
    sources: readonly AudioSource[],
    options: TranscribeOptions & Required<Pick<TranscribeOptions, 'onError'>>,
  ): Promise<(Transcript | null)[]>;
  transcribe(sources: readonly AudioSource[], options?: TranscribeOptions): Promise<Transcript[]>;
  transcribe(source: AudioSource, options?: TranscribeOptions): Promise<Transcript>;
  async transcribe(
    sources: readonly AudioSource[] | AudioSource,
    options: TranscribeOptions = {},
  ): Promise<(Transcript | null)[] | Transcript | null> {
    checkOptions('transcribe', options, TRANSCRIBE_OPTIONS);
    if (isList(sources)) return this.transcripts(sources, options);
    const [transcript] = await this.transcripts([sources], options);
    return transcript!;
  }

  private async transcripts(
    sources: readonly AudioSource[],
    options: TranscribeOptions,
  ): Promise<(Transcript | null)[]> {
    const { signal, onProgress, onTranscript } = options;
    const task = options.task ?? 'transcribe';
    const maxTokens = Math.min(
      wholeFromOne('maxTokens', options.maxTokens ?? this.decoding.maxTokens),
      this.model.config.max_target_positions,
    );
    const search = this.search(options);
    const useExperts = options.useExperts ?? true;
    const timestamps = options.timestamps ? this.timestampTokens() : null;
    const known = new Map<string, Start>();
    const start = (language: string): Start => {
      let found = known.get(language);
      if (!found) {
        const prompt = this.tokenizer.prompt({ language, task, timestamps: timestamps !== null });
        const { code, name } = resolveLanguage(language);
        found = { code, expert: useExperts && this.model.experts.has(name) ? name : null, prompt };
        known.set(language, found);
      }
      return found;
    };
    const language = this.language(options.language);
    const starts: Start[] = [];
    if (language !== 'auto') starts.push(...sources.map(() => start(language)));
    const transcripts: (Transcript | null)[] = sources.map(() => null);
    const texts: string[][] = sources.map(() => []);
    const shares: number[][] = sources.map(() => []);
    const failed = new Set<number>();
    const fail =
      options.onError &&
      ((source: number, error: DistilWhisperError): unknown => {
        failed.add(source);
        return options.onError!(source, error);
      });
    let done = 0;
    let seconds = 0;
    await this.inBatches(
      sources,
      wholeFromOne('batchSize', options.batchSize ?? this.batchSize),
      audioOptions(options),
      async (batch) => {
        const fresh = batch.filter((piece) => !starts[piece.source] && piece.begin === 0);
        if (fresh.length > 0) {
          for (const [i, { language }] of (await this.detect(fresh)).entries())
            starts[fresh[i]!.source] = start(language);
        }
        const sequences = await search(this.upload(batch), {
          prompts: batch.map((piece) => starts[piece.source]!.prompt),
          languages: batch.map((piece) => starts[piece.source]!.expert),
          suppress: this.decoding.suppress,
          suppressAtBegin: this.decoding.suppressAtBegin,
          endOfText: this.tokenizer.endOfText,
          maxTokens,
          gateValues: true,
          ...(timestamps && { timestamps }),
          ...(signal && { signal }),
        });
        for (const [i, piece] of batch.entries()) {
          const { tokens, averageLogProbability, gateShare } = sequences[i]!;
          transcripts[piece.source] ??= {
            text: '',
            language: starts[piece.source]!.code,
            duration: 0,
            segments: [],
            tokens: 0,
            gateShare: null,
            warnings: [],
          };
          const transcript = transcripts[piece.source]!;
          const begin = piece.begin / piece.sampleRate;
          const window = { begin, end: piece.whole?.duration ?? piece.end / piece.sampleRate };
          const text = this.tokenizer.decode(tokens).trim();
          texts[piece.source]!.push(text);
          const said = timestamps ? tokens.filter((id) => id < timestamps.begin) : tokens;
          transcript.tokens += said.length;
          const timed = timestamps
            ? timedTexts(tokens, this.tokenizer, window)
            : [{ start: window.begin, end: window.end, text }];
          transcript.segments.push(...timed.map((segment) => ({ ...segment, averageLogProbability })));
          if (gateShare !== null) shares[piece.source]!.push(gateShare);
          seconds += window.end - window.begin;
          if (!piece.whole) continue;
          done++;
          Object.assign(transcript, piece.whole);
          transcript.text = texts[piece.source]!.filter((text) => text !== '').join(' ');
          const share = shares[piece.source]!;
          if (share.length > 0) transcript.gateShare = share.reduce((a, b) => a + b, 0) / share.length;
          await onTranscript?.(piece.source, transcript);
        }
        await onProgress?.({ done: done + failed.size, total: sources.length, seconds });
      },
      fail,
    );
    return transcripts.map((transcript, i) => (failed.has(i) ? null : transcript));
  }

  /** The language of each source, by its first window. Errors: as `transcribe`. */
  async detectLanguage(
    sources: readonly AudioSource[],
    options: { signal?: AbortSignal } = {},
  ): Promise<DetectedLanguage[]> {
    const detected: DetectedLanguage[] = [];
    await this.inBatches(sources, this.batchSize, options, async (batch) => {
      const first = batch.filter((piece) => piece.begin === 0);
      for (const [i, found] of (await this.detect(first)).entries()) detected[first[i]!.source] = found;
    });
    return detected;
  }

  /** Ends the decoding threads and, when the transcriber was loaded, disposes of its model and of its own stream. */
  async close(): Promise<void> {
    this.extractor.close();
    await this.pool.close();
    this.release();
    this.release = () => {};
  }

  private language(language: string | undefined): string {
    if (language !== undefined) {
      // Checked here, before any audio is read.
      if (!/^\s*auto\s*$/i.test(language)) return this.tokenizer.checkLanguage(language);
      // An English-only model has nothing to choose from.
      return this.tokenizer.multilingual ? 'auto' : this.languages[0]!;
    }
    const [only, ...others] = this.languages;
    if (only !== undefined && others.length === 0) return only;
    throw new DistilWhisperError(
      'ERR_LANGUAGE',
      `language: expected one of the model's languages or 'auto', got none; it has: ${this.languages.join(' ') || 'no languages'}`,
    );
  }

  /** Errors: ERR_VOCABULARY, here, before any audio is read. */
  private timestampTokens(): TimestampTokens {
    const { vocab_size: vocabulary } = this.model.config;
    const refuse = (why: string): never => {
      throw new DistilWhisperError(
        'ERR_VOCABULARY',
        `timestamps: expected a model with timestamp tokens, got a vocabulary ${why}`,
      );
    };
    if (!this.tokenizer.has('<|notimestamps|>') || !this.tokenizer.hasTimestamps) refuse('without any');
    const tokens = this.tokenizer.timestampTokens;
    // Tokenizers that end with <|notimestamps|> may leave them unsaid: the model decides.
    if (tokens.end > vocabulary) refuse(`of ${vocabulary} tokens, which ends before them`);
    return tokens;
  }

  private detect(pieces: readonly Piece[]): Promise<DetectedLanguage[]> {
    return pieces.length > 0 ? detectLanguage(this.model, this.upload(pieces), this.tokenizer) : Promise.resolve([]);
  }

  /** Greedy decoding or beam search. Errors: ERR_ARGUMENT, here, before any audio is read. */
  private search(options: TranscribeOptions) {
    const { beamSize = 1, patience = 1, lengthPenalty } = options;
    const beams = { beamSize, patience, ...(lengthPenalty !== undefined && { lengthPenalty }) };
    checkBeams(beams);
    return (features: Tensor, settings: DecodingOptions): Promise<DecodedSequence[]> =>
      beamSize === 1 && patience === 1
        ? greedy(this.model, features, settings)
        : beamSearch(this.model, features, { ...settings, ...beams });
  }

  private upload(pieces: readonly Piece[]) {
    const { num_mel_bins: mels, max_source_positions: positions } = this.model.config;
    const size = mels * 2 * positions;
    const features = new Float32Array(pieces.length * size);
    for (const [i, piece] of pieces.entries()) features.set(piece.features, i * size);
    return this.model.stream.tensor(features, [pieces.length, mels, 2 * positions]);
  }

  /** Runs `body` on batches of windows in order; the next batch is made ready meanwhile. */
  private async inBatches(
    sources: readonly AudioSource[],
    size: number,
    options: SourceOptions,
    body: (batch: Piece[]) => Promise<void>,
    onError?: (source: number, error: DistilWhisperError) => unknown,
  ): Promise<void> {
    const { signal } = options;
    const pieces = this.sources.windows(sources, options, onError);
    const take = async (): Promise<Piece[]> => {
      const batch: Piece[] = [];
      while (batch.length < size) {
        const { done, value } = await pieces.next();
        if (done) break;
        batch.push(value);
      }
      return batch;
    };
    let next = take();
    try {
      const wait = (): Promise<Piece[]> => onLane('waiting for data', 'next windows', () => next);
      for (let batch = await wait(); batch.length > 0; batch = await wait()) {
        throwIfAborted(signal);
        next = take();
        next.catch(() => {}); // Thrown when it is awaited, at its turn.
        await body(batch);
      }
    } finally {
      await next.catch(() => {});
      await pieces.return();
    }
  }
}

/** What the options say of the audio. */
const audioOptions = ({ signal, strict, maxDuration }: TranscribeOptions): SourceOptions => ({
  ...(signal && { signal }),
  ...(strict !== undefined && { strict }),
  ...(maxDuration !== undefined && { maxDuration }),
});

function wholeFromOne(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 1) return value;
  throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected a whole number from 1, got ${value}`);
}

/** Suppression and length of a model: its generation configuration's, else its config's; null or nothing suppresses none. */
function decodingOf(config: WhisperConfig, generation: JsonObject, tokenizer: WhisperTokenizer): Decoding {
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
