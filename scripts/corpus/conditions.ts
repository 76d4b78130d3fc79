/** By whom and through what an utterance is heard: voices, paces and pitches, tone, room, noise and codecs. */
import type { Random } from './random.js';
import type { NoiseColour } from './sound.js';
import type { Language } from './text.js';

export type Voice =
  | { engine: 'espeak-ng'; name: string; pace: number; pitch: number }
  | { engine: 'festival' | 'flite'; name: string; speed: number };

/** What speech passes, in this order. */
export interface Channel {
  /** Tilt of the spectrum from -0.6 (dull) to 0.6 (thin), and a low pass in Hz. */
  tone?: { tilt: number; cutoff: number } | undefined;
  /** Seconds until echoes have fallen by 60 dB, and how loud they begin. */
  room?: { seconds: number; wet: number } | undefined;
  /** Signal-to-noise ratio in dB. */
  noise?: { ratio: number; colour: NoiseColour } | undefined;
  /** A telephone (8 kHz, μ-law), or Opus at so many kbit/s. */
  codec?: 'telephone' | number | undefined;
}

/** The two variants of espeak-ng that fine-tuning hears. */
export const FEW_VARIANTS = ['+m3', '+f2'];
export const OTHER_VARIANTS = [
  ...['', '+m1', '+m2', '+m4', '+m5', '+m6', '+m7', '+m8', '+f1', '+f3', '+f4', '+f5', '+klatt', '+klatt2', '+klatt3'],
  ...['+Annie', '+Mario', '+Andy', '+Denis', '+Gene', '+Jacky', '+Lee', '+Michael', '+Nguyen', '+linda', '+steph'],
];
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
const OTHER_ENGINE_SHARE = 0.2;

/** One of the two voices of fine-tuning, at an ordinary pace. */
export function fewVoices(language: Language, random: Random): Voice {
  return {
    engine: 'espeak-ng',
    name: language + random.pick(FEW_VARIANTS),
    pace: random.whole(150, 180),
    pitch: random.whole(40, 60),
  };
}

/** Any other voice, at any pace and pitch. */
export function otherVoices(language: Language, random: Random): Voice {
  const others = OTHER_ENGINES[language];
  if (others !== undefined && random.chance(OTHER_ENGINE_SHARE)) {
    return { ...random.pick(others), speed: random.uniform(0.9, 1.2) };
  }
  return {
    engine: 'espeak-ng',
    name: (language === 'en' && random.chance(0.3) ? 'en-us' : language) + random.pick(OTHER_VARIANTS),
    pace: random.whole(120, 220),
    pitch: random.whole(15, 85),
  };
}

/** Pre-training hears all of them. */
export function allVoices(language: Language, random: Random): Voice {
  return random.chance(0.12) ? fewVoices(language, random) : otherVoices(language, random);
}

const COLOURS: NoiseColour[] = ['white', 'pink', 'brown'];

const tone = (random: Random): Channel['tone'] => ({
  tilt: random.uniform(-0.5, 0.5),
  cutoff: random.pick([3400, 4500, 6000, 7500]),
});
const room = (random: Random): Channel['room'] => ({
  seconds: random.uniform(0.1, 0.35),
  wet: random.uniform(0.15, 0.5),
});

/** Noise always, and mostly a room, a tone and a codec. */
export function noisy(random: Random): Channel {
  return {
    tone: random.chance(0.5) ? tone(random) : undefined,
    room: random.chance(0.6) ? room(random) : undefined,
    noise: { ratio: random.uniform(12, 22), colour: random.pick(COLOURS) },
    codec: random.chance(0.5) ? (random.chance(0.4) ? 'telephone' : random.pick([6, 8])) : undefined,
  };
}

/** Anything from studio to `noisy`: what pre-training hears. */
export function anyChannel(random: Random): Channel {
  if (random.chance(0.4)) return noisy(random);
  return {
    tone: random.chance(0.25) ? tone(random) : undefined,
    room: random.chance(0.15) ? room(random) : undefined,
    noise: random.chance(0.4) ? { ratio: random.uniform(20, 45), colour: random.pick(COLOURS) } : undefined,
    codec: random.chance(0.2) ? random.pick([8, 12]) : undefined,
  };
}

/** A channel in words, for a manifest. */
export function describeChannel({ tone, room, noise, codec }: Channel): string {
  const parts = [
    tone && `tone to ${tone.cutoff} Hz`,
    room && `room of ${room.seconds.toFixed(2)} s`,
    noise && `${noise.colour} noise at ${noise.ratio.toFixed(0)} dB`,
    codec && (codec === 'telephone' ? 'telephone' : `Opus at ${codec} kbit/s`),
  ].filter((part) => part !== undefined);
  return parts.length === 0 ? 'clean' : parts.join(', ');
}
