/** Decides what is said, by which voice and how, for every utterance of every split, before any sound is made. */
import { type Kind, phrase } from './phrases.js';
import { Random } from './random.js';
import { readSentences } from './sentences.js';
import { codePoints, comparisonKey, type Language, writtenForm } from './text.js';

export type Split = 'train' | 'validation' | 'test';
export type Domain = 'in' | 'out';

export interface Utterance {
  id: string;
  language: Language;
  split: Split;
  domain: Domain;
  kind: Kind;
  /** What the synthesiser reads, with punctuation. */
  spoken: string;
  /** What the corpus says was spoken. */
  text: string;
  voice: Voice;
}

export type Voice =
  | { engine: 'espeak-ng'; name: string; pace: number; pitch: number }
  | { engine: 'festival' | 'flite'; name: string; speed: number };

/** Everything random in the published corpus follows from this. */
export const SEED = 'distilwhisper corpus 1';

/** How many utterances of each group a language has; `pretrain` is the training set that is not embedded. */
export interface Counts {
  testOut: number;
  testIn: number;
  validation: number;
  train: number;
  pretrain: number;
}

export const TARGET: Language = 'ca';

/** The groups of the published corpus. Changing an earlier number changes every later group. */
export function countsOf(language: Language): Counts {
  const test = language === TARGET ? 80 : 40;
  return { testOut: test, testIn: test, validation: 100, train: language === TARGET ? 900 : 0, pretrain: 4000 };
}

/** Validation rows that are embedded: the first ones of each language. */
export const EMBEDDED_VALIDATION = (language: Language): number => (language === TARGET ? 60 : 40);

const LONGEST = { in: 56, out: 44 };

const MIX: Record<Domain, Kind[]> = {
  in: list({ number: 6, date: 4, time: 3, template: 4, sentence: 3 }),
  out: list({ price: 4, digits: 4, count: 4, sentence: 8 }),
};
// There are no English sentences to draw on.
const MIX_ENGLISH: Record<Domain, Kind[]> = {
  in: list({ number: 6, date: 4, time: 3, template: 7 }),
  out: list({ price: 7, digits: 6, count: 7 }),
};

function list(shares: Partial<Record<Kind, number>>): Kind[] {
  return Object.entries(shares).flatMap(([kind, share]) => Array<Kind>(share).fill(kind as Kind));
}

export const IN_VARIANTS = ['', '+m1', '+m3', '+m4', '+m7', '+f1', '+f2', '+f4'];
export const OUT_VARIANTS = ['+m2', '+m5', '+m6', '+m8', '+f3', '+f5', '+klatt2', '+Annie', '+Mario'];
// Czech has festival voices too, but they join recorded pieces that are under the GPL.
const OTHER_ENGINES: Partial<Record<Language, { engine: 'festival' | 'flite'; name: string }[]>> = {
  ca: [{ engine: 'festival', name: 'upc_ca_ona_hts' }],
  en: [
    { engine: 'flite', name: 'slt' },
    { engine: 'flite', name: 'rms' },
    { engine: 'flite', name: 'awb' },
    { engine: 'flite', name: 'kal16' },
  ],
};

function voiceFor(language: Language, domain: Domain, index: number, random: Random): Voice {
  if (domain === 'in') {
    return {
      engine: 'espeak-ng',
      name: language + random.pick(IN_VARIANTS),
      pace: random.whole(135, 190),
      pitch: random.whole(30, 70),
    };
  }
  const others = OTHER_ENGINES[language];
  if (others !== undefined && index % 2 === 0) return { ...random.pick(others), speed: random.uniform(0.88, 1.2) };
  return {
    engine: 'espeak-ng',
    name: (language === 'en' ? 'en-us' : language) + random.pick(OUT_VARIANTS),
    pace: random.chance(0.5) ? random.whole(105, 130) : random.whole(195, 235),
    pitch: random.chance(0.5) ? random.whole(5, 25) : random.whole(75, 95),
  };
}

/** Every utterance of a language, tests first, so that no later group can hold a phrase of an earlier one. */
export function planLanguage(language: Language, seed: string, counts: Counts = countsOf(language)): Utterance[] {
  const random = new Random(`${seed} plan ${language}`);
  const sentences = random.shuffle(readSentences(language));
  const seen = new Set<string>();
  let nextSentence = 0;

  const draw = (kind: Kind, domain: Domain): { kind: Kind; spoken: string } => {
    if (kind === 'sentence') {
      while (nextSentence < sentences.length) {
        const spoken = sentences[nextSentence++] as string;
        const key = comparisonKey(spoken);
        if (seen.has(key)) continue;
        seen.add(key);
        return { kind, spoken };
      }
      return draw('template', domain);
    }
    for (let attempt = 0; attempt < 2000; attempt++) {
      const spoken = phrase(kind, language, random);
      const key = comparisonKey(spoken);
      if (seen.has(key) || codePoints(writtenForm(spoken)) > LONGEST[domain]) continue;
      seen.add(key);
      return { kind, spoken };
    }
    if (kind === 'number') throw new Error(`${language}: no new number found in 2000 draws`);
    return draw('number', domain);
  };

  const group = (name: string, split: Split, domain: Domain, count: number): Utterance[] => {
    const mix = (language === 'en' ? MIX_ENGLISH : MIX)[domain];
    const kinds = random.shuffle(Array.from({ length: count }, (_, i) => mix[i % mix.length] as Kind));
    return kinds.map((wanted, i) => {
      const { kind, spoken } = draw(wanted, domain);
      const voice = voiceFor(language, domain, i, random);
      const id = `${language}-${name}-${String(i).padStart(4, '0')}`;
      return { id, language, split, domain, kind, spoken, text: writtenForm(spoken), voice };
    });
  };

  return [
    ...group('test-out', 'test', 'out', counts.testOut),
    ...group('test-in', 'test', 'in', counts.testIn),
    ...group('validation', 'validation', 'in', counts.validation),
    ...group('train', 'train', 'in', counts.train),
    ...group('pretrain', 'train', 'in', counts.pretrain),
  ];
}
