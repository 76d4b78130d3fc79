import type { DecodedSequence } from '../decode/index.js';
import type { TimestampTokens, WhisperTokenizer } from '../text/index.js';
import { type TimedText, timedTexts } from './segments.js';
import type { HeardWindow } from './sources.js';

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

/** What a language means to a call: its code, its expert's name, its start sequence. */
export interface Start {
  code: string;
  expert: string | null;
  prompt: number[];
}

/** A source on its way to its transcript. */
export class Transcription {
  /** It was refused: there is no transcript of it. */
  failed = false;
  private readonly texts: string[] = [];
  private readonly shares: number[] = [];
  private begun: Transcript | null = null;

  /** `start`: null until the source's language has been detected; `timestamps`: null where the model is not asked for any. */
  constructor(
    private readonly tokenizer: WhisperTokenizer,
    private readonly timestamps: TimestampTokens | null,
    public start: Start | null,
  ) {}

  /** What was made of it; null when it was refused. */
  get transcript(): Transcript | null {
    return this.failed ? null : this.begun;
  }

  /** Takes what is said in its next window. Returns the seconds that the window lasts. */
  add(window: HeardWindow, { tokens, averageLogProbability, gateShare }: DecodedSequence): number {
    const { tokenizer, timestamps, texts } = this;
    this.begun ??= {
      text: '',
      language: this.start!.code,
      duration: 0,
      segments: [],
      tokens: 0,
      gateShare: null,
      warnings: [],
    };
    const { segments } = this.begun;
    const begin = window.begin / window.sampleRate;
    const end = window.whole?.duration ?? window.end / window.sampleRate;
    const text = tokenizer.decode(tokens).trim();
    texts.push(text);
    this.begun.tokens += (timestamps ? tokens.filter((id) => id < timestamps.begin) : tokens).length;
    const timed = timestamps ? timedTexts(tokens, tokenizer, { begin, end }) : [{ start: begin, end, text }];
    segments.push(...timed.map((segment) => ({ ...segment, averageLogProbability })));
    if (gateShare !== null) this.shares.push(gateShare);
    return end - begin;
  }

  /** Its transcript, when its last window has been added. */
  complete(whole: NonNullable<HeardWindow['whole']>): Transcript {
    const { texts, shares } = this;
    const transcript = Object.assign(this.begun!, whole);
    transcript.text = texts.filter((text) => text !== '').join(' ');
    if (shares.length > 0) transcript.gateShare = shares.reduce((a, b) => a + b, 0) / shares.length;
    return transcript;
  }
}
