import { Tokenizer } from '@huggingface/tokenizers';
import { DistilWhisperError } from '../errors/index.js';
import { LANGUAGES, resolveLanguage } from './languages.js';
import { checkPatterns } from './patterns.js';
import { readTokenizerFiles } from './tokenizer-files.js';
import { checkTokenizerJSON, isRecord, PIECES, SPECIAL, TIMESTAMP, type TokenizerJSON } from './tokenizer-json.js';
import { BYTE_CHARACTERS, timestampToken } from './vocabulary.js';

export type Task = 'transcribe' | 'translate';

export interface DecodeOptions {
  /** Leave out special tokens (start, languages, tasks, end …). Default true. */
  skipSpecial?: boolean;
  /** Write timestamp tokens as `<|1.08|>`. Default false: they are left out. */
  timestamps?: boolean;
}

export interface PromptOptions {
  /** Code, name or alias. Without one the prompt has no language token. */
  language?: string;
  /** Default 'transcribe'. */
  task?: Task;
  /** Let the decoder write timestamps: the prompt then lacks `<|notimestamps|>`. Default false. */
  timestamps?: boolean;
}

export interface LabelOptions extends PromptOptions {
  /** When the parts of the text are spoken, in seconds: the labels then have a timestamp before and behind the text of each. */
  segments?: readonly { start: number; end: number; text: string }[];
  /** 'reference': no language token in the labels, as the reference implementation trains. Default 'paper'. */
  compat?: 'paper' | 'reference';
}

/** Where a vocabulary has its timestamps: the tokens from `begin`, which is `<|0.00|>`, to below `end`, 0.02 s apart. */
export interface TimestampTokens {
  begin: number;
  end: number;
  /** The id of `<|notimestamps|>`. */
  noTimestamps: number;
}

/** A label holds a few thousand characters at most; one word of a million takes the byte-pair merges ten seconds and a gigabyte. */
const MAX_CHARACTERS = 100_000;
/** Codes that tokens had before: vocabularies with one in the place of its successor are about. */
const EARLIER_CODES: Readonly<Record<string, string>> = { he: 'iw', jw: 'jv' };
/** GPT-2's vocabulary has 50,257 tokens with the end; Whisper's of English is it with the start behind, 51,864 in all. */
const ENGLISH_END = 50256;
const ENGLISH = 'en';

/** The byte that a character of a byte-level vocabulary stands for. */
const BYTES: ReadonlyMap<string, number> = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));

/** Seconds between two neighbouring timestamp tokens. */
export const TIMESTAMP_STEP = 0.02;
/** Vocabularies from before timestamps were listed end with `<|notimestamps|>`; the model still has 30 s of them. */
const UNLISTED_TIMESTAMPS = 1501;

/**
 * Whisper's tokenizer over a model's tokenizer.json: any byte-pair vocabulary with Whisper's special tokens by name, from
 * the published 51,865 ids to a pocket vocabulary with a few languages.
 */
export class WhisperTokenizer {
  /** One more than the highest id that the files list. A model's `vocab_size` may be larger, never smaller. */
  readonly vocabSize: number;
  /**
   * Whether the model knows languages and tasks by their tokens. An English-only model (Whisper's `.en`) has neither in its
   * prompt, though its vocabulary may list them.
   */
  readonly multilingual: boolean;
  /** Codes of the languages that the vocabulary has a token for, in the order of their ids; English alone without languages. */
  readonly languages: readonly string[];
  private readonly tokenizer: Tokenizer;
  private readonly ids = new Map<string, number>();
  private readonly tokens: (string | undefined)[] = [];
  private readonly special = new Set<number>();
  private readonly firstTimestamp: number | undefined;
  private readonly timestampCount: number = 0;
  /** Characters known to survive encoding; undefined where every byte has a token, or an unknown token exists. */
  private readonly encodable: Set<string> | undefined;

  private constructor(
    private readonly json: TokenizerJSON,
    private readonly config: Record<string, unknown>,
    private readonly source: string,
    multilingual: boolean | undefined,
  ) {
    for (const [content, id] of Object.entries(json.model.vocab)) this.list(content, id, SPECIAL.test(content));
    for (const token of json.added_tokens) {
      this.list(
        token.content,
        token.id,
        (token.special || SPECIAL.test(token.content)) && !TIMESTAMP.test(token.content),
      );
    }
    this.vocabSize = this.tokens.length;
    const known = LANGUAGES.map(({ code }) => code).filter((code) => this.languageToken(code) !== undefined);
    const english = this.ids.get('<|endoftext|>') === ENGLISH_END && this.ids.has('<|startoftranscript|>');
    const bare = known.length === 0 && !this.ids.has('<|transcribe|>');
    this.multilingual = multilingual ?? !(english || bare);
    this.languages = this.multilingual
      ? known.sort((a, b) => this.languageToken(a)! - this.languageToken(b)!)
      : [ENGLISH];

    const listed = this.tokens.filter((token) => token !== undefined && TIMESTAMP.test(token)).length;
    const unlistedFrom = this.ids.get('<|notimestamps|>');
    if (listed > 0) {
      this.firstTimestamp = this.ids.get(timestampToken(0));
      this.timestampCount = listed;
      const last = (this.firstTimestamp ?? NaN) + listed - 1;
      if (this.tokens[last] !== timestampToken(listed - 1)) {
        throw new DistilWhisperError(
          'ERR_TOKENIZER',
          `${source}: expected ${listed} timestamp tokens in a row from <|0.00|> in steps of 0.02 s; some are missing or out of order.`,
        );
      }
    } else if (unlistedFrom === this.vocabSize - 1) {
      this.firstTimestamp = this.vocabSize;
      this.timestampCount = UNLISTED_TIMESTAMPS;
    }

    // A literal '<|endoftext|>' in a transcript is text: the library, which would match it, never sees the special tokens.
    const plain = json.added_tokens.filter(({ id, content }) => !this.special.has(id) && !TIMESTAMP.test(content));
    checkPatterns([json.normalizer, json.pre_tokenizer, json.decoder, json.post_processor], source);
    try {
      this.tokenizer = new Tokenizer({ ...json, added_tokens: plain, pre_tokenizer: preTokenizer(json) }, config);
    } catch (error) {
      throw new DistilWhisperError('ERR_TOKENIZER', `${source}: ${(error as Error).message}`, { cause: error });
    }
    const everyByte = json.decoder?.type === 'ByteLevel' && BYTE_CHARACTERS.every((byte) => this.ids.has(byte));
    const unknown = json.model.unk_token;
    this.encodable = everyByte || (unknown !== null && unknown !== undefined) ? undefined : new Set();
  }

  private list(content: string, id: number, special: boolean): void {
    this.ids.set(content, id);
    this.tokens[id] = content;
    if (special) this.special.add(id);
  }

  /** The id of a language's token, by the code of today or the one before. */
  private languageToken(code: string): number | undefined {
    return this.ids.get(`<|${code}|>`) ?? this.ids.get(`<|${EARLIER_CODES[code]}|>`);
  }

  /**
   * Reads a model folder's `tokenizer.json`, or `vocab.json` and `merges.txt` with `added_tokens.json`; what else is there of
   * `tokenizer_config.json` and `special_tokens_map.json`; and `is_multilingual` of `generation_config.json`.
   * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_TOKENIZER, ERR_CONFIG
   */
  static async fromFolder(folder: string): Promise<WhisperTokenizer> {
    const { json, config, source, multilingual } = await readTokenizerFiles(folder);
    return WhisperTokenizer.build(json, config, source, multilingual);
  }

  /**
   * From the parsed tokenizer.json and, optionally, tokenizer_config.json. `multilingual` as generation_config.json says it;
   * without it the vocabulary decides: false where it has neither languages nor tasks, or is that of Whisper's English-only
   * models.
   * @throws ERR_TOKENIZER when it is not a byte-pair tokenizer
   */
  static fromJSON(json: unknown, config?: unknown, options: { multilingual?: boolean } = {}): WhisperTokenizer {
    return WhisperTokenizer.build(json, config, 'tokenizer.json', options.multilingual);
  }

  private static build(
    json: unknown,
    config: unknown,
    source: string,
    multilingual: boolean | undefined,
  ): WhisperTokenizer {
    const checked = checkTokenizerJSON(json, config, source);
    return new WhisperTokenizer(checked, isRecord(config) ? config : {}, source, multilingual);
  }

  /** The same vocabulary as that of a model which is said to be multilingual or English-only. */
  as({ multilingual }: { multilingual: boolean }): WhisperTokenizer {
    if (multilingual === this.multilingual) return this;
    return new WhisperTokenizer(this.json, this.config, this.source, multilingual);
  }

  /** The tokenizer.json that this tokenizer was made from, to be written beside a model's weights. */
  toJSON(): TokenizerJSON {
    return this.json;
  }

  /**
   * Ids of a text, without any special token: text that looks like one (`<|endoftext|>`) is encoded as text.
   * @throws ERR_TOKENIZER when the vocabulary lacks a character of the text and has neither bytes nor an unknown token;
   * ERR_ARGUMENT for more than 100,000 characters
   */
  encode(text: string): number[] {
    if (typeof text !== 'string') {
      throw new DistilWhisperError('ERR_ARGUMENT', `text must be a string, got ${typeof text}.`);
    }
    if (text.length > MAX_CHARACTERS) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `text must have at most ${MAX_CHARACTERS} characters, got ${text.length}.`,
      );
    }
    if (this.encodable) this.checkCharacters(text, this.encodable);
    return text === '' ? [] : this.run(() => this.tokenizer.encode(text, { add_special_tokens: false }).ids);
  }

  /** The library runs what the file says, and throws its own errors where that makes no sense. */
  private run<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new DistilWhisperError('ERR_TOKENIZER', `${this.source} cannot be followed: ${reason}`, { cause: error });
    }
  }

  /** The library drops what it has no token for; labels must not lose letters silently. */
  private checkCharacters(text: string, encodable: Set<string>): void {
    for (const character of new Set(text)) {
      if (encodable.has(character)) continue;
      const { ids } = this.run(() => this.tokenizer.encode(character, { add_special_tokens: false }));
      const kept = this.json.normalizer ? ids.length > 0 : ids.length > 0 && this.decode(ids).includes(character);
      if (!kept) {
        const code = character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0');
        throw new DistilWhisperError(
          'ERR_TOKENIZER',
          `The vocabulary has no token for '${character}' (U+${code}) in '${text.slice(0, 60)}'.`,
        );
      }
      encodable.add(character);
    }
  }

  /**
   * The text of ids. Bytes that are no UTF-8 become U+FFFD; nothing else is changed (no clean-up of spaces).
   * @throws ERR_TOKENIZER for an id that the vocabulary lacks
   */
  decode(ids: Iterable<number>, options: DecodeOptions = {}): string {
    const { skipSpecial = true, timestamps = false } = options;
    let text = '';
    let run: string[] = [];
    const flush = (): void => {
      const { decoder } = this.tokenizer;
      if (run.length > 0) text += decoder ? this.run(() => decoder.decode(run)) : run.join(' ');
      run = [];
    };
    for (const id of ids) {
      if (this.special.has(id) ? skipSpecial : this.isTimestamp(id) && !timestamps) continue;
      if (this.special.has(id) || this.isTimestamp(id)) {
        flush();
        text += this.token(id);
      } else {
        run.push(this.token(id));
      }
    }
    flush();
    return text;
  }

  /**
   * The vocabulary's own spelling of an id, such as `Ġdia` or `<|ca|>`.
   * @throws ERR_TOKENIZER for an id that the vocabulary lacks
   */
  token(id: number): string {
    const token = this.tokens[id] ?? (this.isTimestamp(id) ? timestampToken(id - this.firstTimestamp!) : undefined);
    if (token === undefined) {
      throw new DistilWhisperError(
        'ERR_TOKENIZER',
        `The vocabulary has no token with the id ${id}: its ids go from 0 to ${this.vocabSize - 1}. Do tokenizer and model belong together?`,
      );
    }
    return token;
  }

  /**
   * The bytes of text that an id stands for; a byte-level vocabulary spells each with a character of its own.
   * @throws ERR_TOKENIZER for an id that the vocabulary lacks, or spells otherwise
   */
  tokenBytes(id: number): Uint8Array {
    const token = this.token(id);
    const bytes = [...token].map((character) => BYTES.get(character));
    if (bytes.every((byte) => byte !== undefined)) return Uint8Array.from(bytes);
    throw new DistilWhisperError(
      'ERR_TOKENIZER',
      `${this.source}: expected the token ${id} to be spelt in bytes, got '${token.slice(0, 60)}'.`,
    );
  }

  /**
   * The id of a token by its spelling, such as `<|startoftranscript|>`.
   * @throws ERR_TOKENIZER when the vocabulary lacks it
   */
  id(token: string): number {
    const id = this.ids.get(token);
    if (id === undefined) throw new DistilWhisperError('ERR_TOKENIZER', `The vocabulary has no token '${token}'.`);
    return id;
  }

  /** Whether the vocabulary has a token of this spelling. */
  has(token: string): boolean {
    return this.ids.has(token);
  }

  /** Whether the id is a special token (timestamps are not). */
  isSpecial(id: number): boolean {
    return this.special.has(id);
  }

  get startOfTranscript(): number {
    return this.id('<|startoftranscript|>');
  }

  get endOfText(): number {
    return this.id('<|endoftext|>');
  }

  get transcribe(): number {
    return this.id('<|transcribe|>');
  }

  get translate(): number {
    return this.id('<|translate|>');
  }

  get noTimestamps(): number {
    return this.id('<|notimestamps|>');
  }

  /**
   * The code of a language that the model knows; takes whatever `resolveLanguage` does.
   * @throws ERR_LANGUAGE when Whisper or this model does not know it
   */
  checkLanguage(language: string): string {
    const { code, name } = resolveLanguage(language);
    if (!this.multilingual && code !== ENGLISH) {
      throw new DistilWhisperError(
        'ERR_LANGUAGE',
        `The model is English-only and has no languages besides: expected '${ENGLISH}', got ${name} (${code}).`,
      );
    }
    if (this.multilingual && this.languageToken(code) === undefined) {
      throw new DistilWhisperError(
        'ERR_LANGUAGE',
        `The model's vocabulary has no token for ${name} (<|${code}|>); it has: ${this.languages.join(' ') || 'no languages'}.`,
      );
    }
    return code;
  }

  /**
   * The id of a language's token; takes whatever `resolveLanguage` does.
   * @throws ERR_LANGUAGE as `checkLanguage`, and for every language of an English-only model
   */
  languageId(language: string): number {
    const code = this.checkLanguage(language);
    if (!this.multilingual) {
      throw new DistilWhisperError(
        'ERR_LANGUAGE',
        'The model is English-only: no token of a language means anything to it.',
      );
    }
    return this.languageToken(code)!;
  }

  /**
   * The tokens that decoding starts from: [start, language?, task, notimestamps?]; of an English-only model [start,
   * notimestamps?].
   * @throws ERR_LANGUAGE, ERR_ARGUMENT (task), ERR_TOKENIZER (the vocabulary lacks a token)
   */
  prompt(options: PromptOptions = {}): number[] {
    const { language, task = 'transcribe', timestamps = false } = options;
    if (task !== 'transcribe' && task !== 'translate') {
      throw new DistilWhisperError('ERR_ARGUMENT', `task must be 'transcribe' or 'translate', got '${String(task)}'.`);
    }
    const ids = [this.startOfTranscript];
    if (this.multilingual) {
      if (language !== undefined) ids.push(this.languageId(language));
      ids.push(this.id(`<|${task}|>`));
    } else {
      if (language !== undefined) this.checkLanguage(language);
      if (task === 'translate') {
        throw new DistilWhisperError(
          'ERR_ARGUMENT',
          "task must be 'transcribe': the model is English-only, got 'translate'.",
        );
      }
    }
    if (!timestamps) ids.push(this.noTimestamps);
    return ids;
  }

  /**
   * Labels of one utterance: the prompt, the text, the end: [start, language?, task, notimestamps?, ...text, end]. With `compat: 'reference'` the
   * language token is left out, as in the reference's training (its decoder input then starts with a doubled start token). With `segments`:
   * [start, language?, task, begin, ...text, end, …, end of text], the text of each between its timestamps.
   */
  labels(text: string, options: LabelOptions = {}): number[] {
    const { compat = 'paper', language, segments, ...given } = options;
    const rest = segments ? { ...given, timestamps: true } : given;
    const prompt = this.prompt(language === undefined || compat === 'reference' ? rest : { ...rest, language });
    if (!segments) return [...prompt, ...this.encode(text), this.endOfText];
    const timed = segments.flatMap(({ start, end, text: part }) => [
      this.timestampId(start),
      ...this.encode(part),
      this.timestampId(end),
    ]);
    return [...prompt, ...timed, this.endOfText];
  }

  /**
   * Where the timestamps are of a model with a `vocabulary` of so many tokens, which is to write them.
   * @throws ERR_VOCABULARY when it has none
   */
  requireTimestamps(vocabulary: number): TimestampTokens {
    const refuse = (why: string): never => {
      throw new DistilWhisperError(
        'ERR_VOCABULARY',
        `timestamps: expected a model with timestamp tokens, got a vocabulary ${why}`,
      );
    };
    if (!this.has('<|notimestamps|>') || !this.hasTimestamps) refuse('without any');
    const tokens = this.timestampTokens;
    // Tokenizers that end with <|notimestamps|> may leave them unsaid: the model decides.
    if (tokens.end > vocabulary) refuse(`of ${vocabulary} tokens, which ends before them`);
    return tokens;
  }

  /** Whether the vocabulary has timestamps, or leaves them unlisted behind its end. */
  get hasTimestamps(): boolean {
    return this.firstTimestamp !== undefined;
  }

  /**
   * The id of `<|0.00|>`.
   * @throws ERR_TOKENIZER when the vocabulary has no timestamps
   */
  get timestampBegin(): number {
    if (this.firstTimestamp === undefined) {
      throw new DistilWhisperError('ERR_TOKENIZER', 'The vocabulary has no timestamp tokens.');
    }
    return this.firstTimestamp;
  }

  /**
   * Where the timestamps are.
   * @throws ERR_TOKENIZER when the vocabulary has no timestamps, or no `<|notimestamps|>`
   */
  get timestampTokens(): TimestampTokens {
    const begin = this.timestampBegin;
    return { begin, end: begin + this.timestampCount, noTimestamps: this.noTimestamps };
  }

  isTimestamp(id: number): boolean {
    return (
      this.firstTimestamp !== undefined && id >= this.firstTimestamp && id < this.firstTimestamp + this.timestampCount
    );
  }

  /**
   * The id of the timestamp nearest to a time in seconds.
   * @throws ERR_ARGUMENT when it lies outside the vocabulary's timestamps
   */
  timestampId(seconds: number): number {
    const begin = this.timestampBegin;
    const step = Math.round(seconds / TIMESTAMP_STEP);
    if (!(step >= 0 && step < this.timestampCount)) {
      const end = ((this.timestampCount - 1) * TIMESTAMP_STEP).toFixed(2);
      throw new DistilWhisperError('ERR_ARGUMENT', `A timestamp must be from 0 to ${end} seconds, got ${seconds}.`);
    }
    return begin + step;
  }

  /**
   * The time in seconds that a timestamp token stands for.
   * @throws ERR_ARGUMENT for any other id
   */
  timestampSeconds(id: number): number {
    const begin = this.timestampBegin;
    if (!this.isTimestamp(id)) throw new DistilWhisperError('ERR_ARGUMENT', `The id ${id} is not a timestamp token.`);
    return (id - begin) / 50;
  }
}

/**
 * GPT-2's pattern, spelt out where a vocabulary asks for it implicitly: the library's built-in copy uses JavaScript's \s,
 * which differs from Unicode's white space in U+0085 and U+FEFF.
 */
function preTokenizer(json: TokenizerJSON): Record<string, unknown> | null {
  const given = json.pre_tokenizer;
  if (given?.type !== 'ByteLevel' || given.use_regex === false || given.add_prefix_space === true) return given;
  return {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: PIECES }, behavior: 'Isolated', invert: false },
      { ...given, use_regex: false },
    ],
  };
}
