/** Decides what is said, by which voice and how, for every utterance of every split, before any sound is made. */
import { allVoices, anyChannel, type Channel, fewVoices, noisy, otherVoices, type Voice } from './conditions.js';
import { type Kind, phrase } from './phrases.js';
import { Random } from './random.js';
import { readSentences } from './sentences.js';
import { codePoints, comparisonKey, type Language, LONGEST_TEXT, writtenForm } from './text.js';

export type Split = 'train' | 'validation' | 'test';

/**
 * How far an utterance is from what fine-tuning hears, which is 'in': one register, two voices, a clean channel. Out of domain one
 * of them is another, or everything is.
 */
export const DOMAINS = ['in', 'voices', 'noise', 'registers', 'everything'] as const;
export type Domain = (typeof DOMAINS)[number];

export interface Utterance {
  id: string;
  language: Language;
  split: Split;
  /** 'broad': of pre-training, which hears every voice, register and channel. */
  domain: Domain | 'broad';
  /** Its number in its group. A group's first utterances do not depend on how many it has. */
  index: number;
  kind: Kind;
  /** What it lasts at most. */
  seconds: number;
  /** What the synthesiser reads, with punctuation. */
  spoken: string;
  /** What the corpus says was spoken. */
  text: string;
  voice: Voice;
  channel: Channel;
}

/** Everything random in the published corpus follows from this. */
export const SEED = 'distilwhisper corpus 2';

/** Languages that the pocket student is weak in; the demo teaches it the first. */
export const TARGETS: readonly Language[] = ['ca', 'cs'];

/** Utterances of each test, of validation, and of fine-tuning. */
export const TESTS = 400;
export const VALIDATION = 100;
export const FINE_TUNING = 900;

/** The register of fine-tuning: read sentences, but in English, of which there are none. */
export const registerOf = (language: Language): Kind => (language === 'en' ? 'template' : 'sentence');

const OTHER_REGISTERS: Kind[] = list({ number: 4, date: 3, time: 3, template: 3, digits: 3, count: 3 });
const OTHER_REGISTERS_ENGLISH = OTHER_REGISTERS.filter((kind) => kind !== 'template');
const ALL_REGISTERS: Kind[] = list({
  sentence: 12,
  words: 8,
  number: 4,
  date: 2,
  time: 2,
  template: 2,
  price: 1,
  digits: 1,
  count: 1,
});
const ALL_REGISTERS_ENGLISH: Kind[] = list({
  words: 6,
  number: 5,
  date: 4,
  time: 3,
  template: 6,
  price: 2,
  digits: 2,
  count: 2,
});

const SHORT_REGISTERS: Kind[] = list({ words: 5, number: 1 });

function list(shares: Partial<Record<Kind, number>>): Kind[] {
  return Object.entries(shares).flatMap(([kind, share]) => Array<Kind>(share).fill(kind as Kind));
}

interface Phrase {
  kind: Kind;
  spoken: string;
}

/**
 * Deals the phrases of a language: those of one group never come in another. Sentences for fine-tuning and the tests are made of words
 * that the collection has elsewhere too: how a word is written that was never seen is not what the corpus is to measure.
 */
class Texts {
  /** Sentences of known words first. */
  private readonly sentences: string[];
  private next = 0;
  private readonly known: number;
  private readonly taken = new Set<string>();
  private readonly words: string[];

  constructor(private readonly language: Language) {
    const all = readSentences(language);
    const counts = new Map<string, number>();
    for (const word of all.flatMap((text) => wordsOf(text, language))) counts.set(word, (counts.get(word) ?? 0) + 1);
    const isKnown = (text: string): boolean => wordsOf(text, language).every((word) => counts.get(word)! > 1);
    const order = new Random(`${SEED} sentences ${language}`);
    const known = order.shuffle(all.filter(isKnown));
    this.known = known.length;
    this.sentences = [...known, ...all.filter((text) => !isKnown(text))];
    const common = [...counts].filter(([word, count]) => count > 1 && word.length > 1).map(([word]) => word);
    this.words = (language === 'en' ? englishWords() : common).sort();
  }

  /** A phrase that no other group has, nor this one. */
  take(kind: Kind, random: Random): Phrase {
    for (let attempt = 0; attempt < 5000; attempt++) {
      if (kind === 'sentence' && this.next === this.known) break;
      const spoken = kind === 'sentence' ? this.sentences[this.next++]! : this.made(kind, random);
      const key = comparisonKey(spoken);
      if (this.taken.has(key) || codePoints(writtenForm(spoken)) > LONGEST_TEXT) continue;
      this.taken.add(key);
      return { kind, spoken };
    }
    throw new Error(`${this.language}: no new ${kind} found`);
  }

  /** Any phrase of so many letters at most that was not taken; it may come again. */
  draw(kind: Kind, random: Random, letters: number): Phrase {
    for (;;) {
      const spoken = kind === 'sentence' ? random.pick(this.sentences) : this.made(kind, random, letters);
      if (this.taken.has(comparisonKey(spoken)) || codePoints(writtenForm(spoken)) > letters) continue;
      return { kind, spoken };
    }
  }

  private made(kind: Kind, random: Random, letters = LONGEST_TEXT): string {
    if (kind === 'sentence') throw new Error('sentences are read');
    if (kind !== 'words') return phrase(kind, this.language, random);
    const count = letters < LENGTHS.long.letters ? random.whole(1, 2) : random.whole(3, 7);
    const words = Array.from({ length: count }, () => random.pick(this.words));
    while (words.length > 1 && codePoints(words.join(' ')) > letters) words.pop();
    return words.join(this.language === 'th' ? '' : ' ');
  }
}

function wordsOf(text: string, language: Language): string[] {
  const segments = new Intl.Segmenter(language, { granularity: 'word' }).segment(writtenForm(text));
  return Array.from(segments)
    .filter(({ isWordLike }) => isWordLike)
    .map(({ segment }) => segment);
}

/** The words of all that is made in English. */
function englishWords(): string[] {
  const random = new Random(`${SEED} words en`);
  const kinds = [...new Set(ALL_REGISTERS_ENGLISH)].filter((kind) => kind !== 'words' && kind !== 'sentence');
  const texts = Array.from({ length: 4000 }, () => phrase(random.pick(kinds) as 'number', 'en', random));
  return [...new Set(texts.flatMap((text) => wordsOf(text, 'en')))];
}

/**
 * Pre-training goes from words to sentences, in windows that grow: `positions` of the encoder, 20 ms each, hold `seconds` of speech and
 * some silence.
 */
export const LENGTHS = {
  short: { letters: 12, seconds: 1.1, positions: 60 },
  long: { letters: LONGEST_TEXT, seconds: 3.1, positions: 160 },
};
export type Length = keyof typeof LENGTHS;

/** Some of the pre-training speech of a language; there is no last part. */
export interface Part {
  length: Length;
  /** From 0. */
  index: number;
}
/** Utterances of a language in a part. */
export const PART = 2000;

/**
 * Every utterance of a language: tests first, so that no later group can hold a phrase of an earlier one. `part`: with that part of the
 * pre-training speech.
 */
export function planLanguage(language: Language, part?: Part): Utterance[] {
  const texts = new Texts(language);
  const register = registerOf(language);
  const isEnglish = language === 'en';

  const group = (
    name: string,
    { split, domain }: Pick<Utterance, 'split' | 'domain'>,
    phrases: number | readonly Phrase[],
    draw: (random: Random) => Phrase,
    voices: typeof allVoices,
    channels: (random: Random) => Channel,
    seconds = LENGTHS.long.seconds,
  ): Utterance[] => {
    const random = new Random(`${SEED} ${name} ${language}`);
    const count = typeof phrases === 'number' ? phrases : phrases.length;
    return Array.from({ length: count }, (_, index) => {
      const { kind, spoken } = typeof phrases === 'number' ? draw(random) : (phrases[index] as Phrase);
      const id = `${language}-${name}-${String(index).padStart(4, '0')}`;
      const voice = voices(language, random);
      const text = writtenForm(spoken);
      const channel = channels(random);
      return { id, language, split, domain, index, kind, seconds, spoken, text, voice, channel };
    });
  };
  const clean = (): Channel => ({});
  const ofRegister = (random: Random): Phrase => texts.take(register, random);
  const several = (count: number, name: string, draw: (random: Random) => Phrase): Phrase[] => {
    const random = new Random(`${SEED} ${name} ${language}`);
    return Array.from({ length: count }, () => draw(random));
  };
  const others = isEnglish ? OTHER_REGISTERS_ENGLISH : OTHER_REGISTERS;

  // The same texts in every voice and channel: what makes the difference between two domains is their sound.
  const same = several(TESTS, 'register', ofRegister);
  const other = several(TESTS, 'others', (random) => texts.take(random.pick(others), random));
  const test = (domain: Domain, phrases: Phrase[], voices: typeof allVoices, channels: (random: Random) => Channel) =>
    group(`test-${domain}`, { split: 'test', domain }, phrases, ofRegister, voices, channels);
  const planned = [
    ...test('in', same, fewVoices, clean),
    ...test('voices', same, otherVoices, clean),
    ...test('noise', same, fewVoices, noisy),
    ...test('registers', other, fewVoices, clean),
    ...test('everything', other, otherVoices, noisy),
    ...group('validation', { split: 'validation', domain: 'in' }, VALIDATION, ofRegister, fewVoices, clean),
    ...group(
      'train',
      { split: 'train', domain: 'in' },
      TARGETS.includes(language) ? FINE_TUNING : 0,
      ofRegister,
      fewVoices,
      clean,
    ),
  ];
  if (part === undefined) return planned;
  const { letters, seconds } = LENGTHS[part.length];
  const registers = part.length === 'short' ? SHORT_REGISTERS : isEnglish ? ALL_REGISTERS_ENGLISH : ALL_REGISTERS;
  // Short ones are said in one breath: what is silent in a window teaches nothing.
  const broad = (random: Random): Phrase => {
    const { kind, spoken: first } = texts.draw(random.pick(registers), random, letters);
    let spoken = first;
    for (let more = 0; part.length !== 'short' && more < 2 && random.chance(0.8); more++) {
      const next = texts.draw(random.pick(registers), random, letters);
      const longer = `${spoken.replace(/[.!?;:,]+$/u, '')}${language === 'th' ? ' ' : ', '}${next.spoken}`;
      if (codePoints(writtenForm(longer)) <= letters) spoken = longer;
    }
    return { kind, spoken };
  };
  const name = `pretrain-${part.length}-${part.index}`;
  return [...planned, ...group(name, { split: 'train', domain: 'broad' }, PART, broad, allVoices, anyChannel, seconds)];
}
