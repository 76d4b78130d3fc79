import { DecodePool, FeatureExtractor } from '../audio/index.js';
import {
  beamSearch,
  checkBeams,
  type DecodedSequence,
  type DecodingOptions,
  greedy,
  throwIfAborted,
} from '../decode/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import type { JsonObject } from '../files/index.js';
import { resolveAdapter, resolveExperts, resolveModel } from '../hub/index.js';
import { computeType, FeatureUploader, Whisper } from '../model/index.js';
import { Stream, type Tensor } from '../tensor/index.js';
import { resolveLanguage, WhisperTokenizer } from '../text/index.js';
import { type AdapterFolder, openAdapter, openModelFolder, unfollowedSettings } from '../weights/index.js';
import { windowBatches } from './batches.js';
import { type Decoding, decodingOf } from './decoding.js';
import { type DetectedLanguage, detectLanguage } from './language.js';
import { LOAD_OPTIONS, TRANSCRIBE_OPTIONS, type TranscribeOptions, type TranscriberOptions } from './options.js';
import type { AudioSource, HeardWindow, Hearing } from './sources.js';
import { type Start, type Transcript, Transcription } from './transcript.js';
import { PauseWindows } from './windows.js';

/** A list of sources; bytes are one source. */
const isList = (sources: readonly AudioSource[] | AudioSource): sources is readonly AudioSource[] =>
  Array.isArray(sources);

/** Transcribes audio: a model, its tokenizer and its decoding settings, with audio decoded and features made ahead of the model. */
export class Transcriber {
  readonly batchSize: number;
  /** What the model folder asks for and is not followed, a sentence each; to be told to people once. */
  readonly warnings: readonly string[];
  private readonly decoding: Decoding;
  private readonly hearing: Hearing;
  private readonly features: FeatureUploader;
  private release: () => void = () => {};

  /**
   * From parts in memory, which stay the caller's. `generation`: generation_config.json (suppress_tokens, begin_suppress_tokens,
   * max_length, is_multilingual); what it lacks is taken from the config and the vocabulary. `warnings`: default, what of
   * `generation` is not followed. Errors: ERR_VOCABULARY, ERR_CONFIG (suppression lists), ERR_ARGUMENT.
   */
  constructor(
    readonly model: Whisper,
    readonly tokenizer: WhisperTokenizer,
    options: {
      generation?: JsonObject | undefined;
      warnings?: readonly string[] | undefined;
      batchSize?: number | undefined;
    } = {},
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
    const extractor = new FeatureExtractor({ mels: config.num_mel_bins, frames: 2 * config.max_source_positions });
    this.features = new FeatureUploader(model.stream, config);
    this.hearing = { pool: new DecodePool(), extractor, chooser: new PauseWindows(extractor.seconds) };
  }

  /**
   * Opens a model with its tokenizer and settings, attaches experts, and merges or attaches adapters: each by its path or by a name of
   * the hub (`resolveModel`, `resolveExperts`, `resolveAdapter`). Errors: those of `openModelFolder`, `WhisperTokenizer.fromFolder`,
   * `Whisper.loadExperts`, `openAdapter` and of the constructor.
   */
  static async load(name: string, options: TranscriberOptions = {}): Promise<Transcriber> {
    checkOptions('Transcriber.load', options, LOAD_OPTIONS);
    const { cache = 'auto', copyWeights = false } = options;
    const compute = computeType(options.compute ?? 'auto');
    if (!['auto', 'compute', 'int8'].includes(cache)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `cache: expected 'auto', 'compute' or 'int8', got '${String(cache)}'`,
      );
    }
    const batchSize = wholeFromOne('batchSize', options.batchSize ?? 16);
    const { hub } = options;
    // Names first: what is nowhere is found before anything is loaded.
    const path = await resolveModel(name, hub);
    const experts: string[] = [];
    for (const expert of options.experts ?? []) experts.push(...(await resolveExperts(expert, hub)));
    const merged = options.adapter === undefined ? null : await resolveAdapter(options.adapter, hub);
    const apart: [name: string, path: string][] = [];
    for (const [name, adapter] of Object.entries(options.adapters ?? {}))
      apart.push([name, await resolveAdapter(adapter, hub)]);
    const folder = await openModelFolder(path);
    let adapter: AdapterFolder | undefined;
    let stream: Stream | null = null;
    let model: Whisper | null = null;
    const release = (): void => {
      model?.dispose();
      if (!options.stream) stream?.close();
    };
    try {
      const tokenizer = await WhisperTokenizer.fromFolder(folder.path);
      stream = options.stream ?? new Stream({ device: options.device ?? 'cpu' });
      if (merged !== null) adapter = await openAdapter(merged, folder.config);
      model = await Whisper.fromFolder(stream, folder, { compute, cache, copyWeights, adapter });
      for (const [name, path] of apart) await model.loadAdapter(path, { name });
      for (const expert of experts) await model.loadExpert(expert, { copyWeights });
      const { generationConfig: generation, warnings } = folder;
      const transcriber = new Transcriber(model, tokenizer, {
        generation: generation ?? undefined,
        warnings,
        batchSize,
      });
      transcriber.release = release;
      return transcriber;
    } catch (error) {
      release();
      throw error;
    } finally {
      await adapter?.close();
      await folder.close();
    }
  }

  /** Codes of the languages that the vocabulary has. */
  get languages(): readonly string[] {
    return this.tokenizer.languages;
  }

  /**
   * The transcript of a source, or those of a list of sources, in their order. Audio longer than the model's window is cut at
   * pauses and its windows' texts are joined by a space. Without `onError` the first source that fails ends the call. Errors:
   * those of `decodeAudio` and `FeatureExtractor`, with the source's name, ERR_LANGUAGE, ERR_VOCABULARY (timestamps),
   * ERR_ARGUMENT, ERR_INTERRUPTED.
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
    const { signal, strict, maxDuration, onProgress, onTranscript, onError } = options;
    const maxTokens = Math.min(
      wholeFromOne('maxTokens', options.maxTokens ?? this.decoding.maxTokens),
      this.model.config.max_target_positions,
    );
    const { adapter } = options;
    // Checked here, before any audio is read.
    this.model.adapters.of(adapter);
    const search = this.search(options);
    const timestamps = options.timestamps ? this.tokenizer.requireTimestamps(this.model.config.vocab_size) : null;
    const start = this.starts(options);
    const language = this.language(options.language);
    const transcriptions = sources.map(
      () => new Transcription(this.tokenizer, timestamps, language === 'auto' ? null : start(language)),
    );
    const total = sources.length;
    let [done, seconds] = [0, 0];
    const refused = (source: number, error: DistilWhisperError): unknown => {
      transcriptions[source]!.failed = true;
      done++;
      return onError?.(source, error);
    };
    const batches = windowBatches(sources, this.hearing, {
      batchSize: wholeFromOne('batchSize', options.batchSize ?? this.batchSize),
      signal,
      strict,
      maxDuration,
      onError: onError && refused,
    });
    for await (const batch of batches) {
      throwIfAborted(signal);
      const of = batch.map((window) => transcriptions[window.source]!);
      const fresh = batch.filter(({ source, begin }) => begin === 0 && transcriptions[source]!.start === null);
      for (const [i, detected] of (await this.detect(fresh, adapter)).entries())
        transcriptions[fresh[i]!.source]!.start = start(detected.language);
      const sequences = await search(this.upload(batch), {
        prompts: of.map((transcription) => transcription.start!.prompt),
        languages: of.map((transcription) => transcription.start!.expert),
        suppress: this.decoding.suppress,
        suppressAtBegin: this.decoding.suppressAtBegin,
        endOfText: this.tokenizer.endOfText,
        maxTokens,
        gateValues: true,
        adapter,
        timestamps: timestamps ?? undefined,
        signal,
      });
      for (const [i, window] of batch.entries()) {
        seconds += of[i]!.add(window, sequences[i]!);
        if (!window.whole) continue;
        const transcript = of[i]!.complete(window.whole);
        done++;
        await onTranscript?.(window.source, transcript);
      }
      await onProgress?.({ done, total, seconds });
    }
    return transcriptions.map(({ transcript }) => transcript);
  }

  /** The language of each source, by its first window. Errors: as `transcribe`. */
  async detectLanguage(
    sources: readonly AudioSource[],
    options: { signal?: AbortSignal | undefined } = {},
  ): Promise<DetectedLanguage[]> {
    const { signal } = options;
    const detected: DetectedLanguage[] = [];
    for await (const batch of windowBatches(sources, this.hearing, { batchSize: this.batchSize, signal })) {
      throwIfAborted(signal);
      const first = batch.filter(({ begin }) => begin === 0);
      for (const [i, found] of (await this.detect(first)).entries()) detected[first[i]!.source] = found;
    }
    return detected;
  }

  /** Ends the decoding threads and, when the transcriber was loaded, disposes of its model and of its own stream. */
  async close(): Promise<void> {
    this.hearing.extractor.close();
    await this.hearing.pool.close();
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

  /** What each language means to a call. */
  private starts(options: TranscribeOptions): (language: string) => Start {
    const task = options.task ?? 'transcribe';
    const useExperts = options.useExperts ?? true;
    const timestamps = Boolean(options.timestamps);
    const known = new Map<string, Start>();
    return (language) => {
      let found = known.get(language);
      if (!found) {
        const prompt = this.tokenizer.prompt({ language, task, timestamps });
        const { code, name } = resolveLanguage(language);
        found = { code, expert: useExperts && this.model.experts.has(name) ? name : null, prompt };
        known.set(language, found);
      }
      return found;
    };
  }

  private async detect(windows: readonly HeardWindow[], adapter?: string | null): Promise<DetectedLanguage[]> {
    if (windows.length === 0) return [];
    return detectLanguage(this.model, this.upload(windows), this.tokenizer, { adapter });
  }

  /** Greedy decoding or beam search. Errors: ERR_ARGUMENT, here, before any audio is read. */
  private search(options: TranscribeOptions) {
    const { beamSize = 1, patience = 1, lengthPenalty } = options;
    const beams = { beamSize, patience, lengthPenalty };
    checkBeams(beams);
    return (features: Tensor, settings: DecodingOptions): Promise<DecodedSequence[]> =>
      beamSize === 1 && patience === 1
        ? greedy(this.model, features, settings)
        : beamSearch(this.model, features, { ...settings, ...beams });
  }

  private upload(windows: readonly HeardWindow[]): Tensor {
    return this.features.upload(windows.map(({ features }) => features));
  }
}

function wholeFromOne(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 1) return value;
  throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected a whole number from 1, got ${value}`);
}
