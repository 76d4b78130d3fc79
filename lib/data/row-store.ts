/** Rows of a data set in few bytes: a hundred thousand of them take some ten megabytes, outside of the collected heap. */
import { basename, dirname, join } from 'node:path';
import type { ManifestEntry, Task } from './manifest.js';
import type { TextSegment } from './segments.js';

/** A row, and where its source finds its audio: numbers that the source alone understands. */
export interface StoredRow {
  entry: ManifestEntry;
  place: readonly number[];
}

type Packed = [
  id: string,
  folder: number,
  audio: string,
  text: string,
  language: number,
  split: number,
  domain: number,
  duration: number | null,
  speaker: string | null,
  task: number,
  segments: readonly TextSegment[] | null,
  manifest: number,
  line: number,
  ...place: number[],
];

const CHUNK = 1 << 20;

/** Rows in the order in which they were added, each kept as a line of bytes; words that many rows share are kept once. */
export class RowStore {
  private readonly chunks: Buffer[] = [];
  private room = 0;
  private readonly words: string[] = [];
  private readonly numbers = new Map<string, number>();
  private places = new Float64Array(1024);
  private count = 0;

  get length(): number {
    return this.count;
  }

  add(entry: ManifestEntry, place: readonly number[] = []): void {
    const { audio, language, split, domain, duration, task } = entry;
    const packed: Packed = [
      entry.id,
      this.word(dirname(audio)),
      basename(audio),
      entry.text,
      this.word(language),
      this.word(split),
      this.word(domain),
      duration ?? null,
      entry.speaker ?? null,
      this.word(task),
      entry.segments ?? null,
      this.word(entry.manifest),
      entry.line,
      ...place,
    ];
    this.put(Buffer.from(JSON.stringify(packed)));
  }

  get(i: number): StoredRow {
    const at = this.places[2 * i]!;
    const length = this.places[2 * i + 1]!;
    const chunk = this.chunks[Math.floor(at / 2 ** 32)]!;
    const from = at % 2 ** 32;
    const [
      id,
      folder,
      audio,
      text,
      language,
      split,
      domain,
      duration,
      speaker,
      task,
      segments,
      manifest,
      line,
      ...place
    ] = JSON.parse(chunk.toString('utf8', from, from + length)) as Packed;
    const entry: ManifestEntry = {
      id,
      audio: join(this.words[folder]!, audio),
      text,
      language: this.words[language]!,
      manifest: this.words[manifest]!,
      line,
    };
    if (split >= 0) entry.split = this.words[split]!;
    if (domain >= 0) entry.domain = this.words[domain]!;
    if (duration !== null) entry.duration = duration;
    if (speaker !== null) entry.speaker = speaker;
    if (segments !== null) entry.segments = segments;
    if (task >= 0) entry.task = this.words[task] as Task;
    return { entry, place };
  }

  private word(text: string | undefined): number {
    if (text === undefined) return -1;
    const known = this.numbers.get(text);
    if (known !== undefined) return known;
    this.numbers.set(text, this.words.length);
    return this.words.push(text) - 1;
  }

  private put(bytes: Buffer): void {
    if (bytes.length > this.room) {
      const size = Math.max(CHUNK, bytes.length);
      this.chunks.push(Buffer.allocUnsafeSlow(size));
      this.room = size;
    }
    const chunk = this.chunks.length - 1;
    const from = this.chunks[chunk]!.length - this.room;
    bytes.copy(this.chunks[chunk]!, from);
    this.room -= bytes.length;
    if (2 * this.count + 2 > this.places.length) {
      const wider = new Float64Array(2 * this.places.length);
      wider.set(this.places);
      this.places = wider;
    }
    this.places[2 * this.count] = chunk * 2 ** 32 + from;
    this.places[2 * this.count + 1] = bytes.length;
    this.count++;
  }
}
