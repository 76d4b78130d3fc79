/** The pocket models: their sizes, and what they heard. */
import type { Length } from '../corpus/plan.js';

export interface Stage {
  length: Length;
  /** Updates, and utterances in each. */
  updates: number;
  batch: number;
}

export interface Recipe {
  width: number;
  /** Layers. */
  encoder: number;
  decoder: number;
  learningRate: number;
  /** From words to sentences, at a steady rate. */
  stages: Stage[];
  /** Updates in which the rate then falls to 0. */
  cooldown: number;
  /** How many of a target language's utterances are heard, and how often, where one of another language comes once. */
  targetShare: number;
  targetWeight: number;
}

export const RECIPES = {
  teacher: {
    width: 192,
    encoder: 4,
    decoder: 2,
    learningRate: 1e-3,
    stages: [
      { length: 'short', updates: 3000, batch: 64 },
      { length: 'long', updates: 8000, batch: 32 },
    ],
    cooldown: 2000,
    targetShare: 1,
    targetWeight: 1.5,
  },
  student: {
    width: 128,
    encoder: 4,
    decoder: 2,
    learningRate: 1.5e-3,
    stages: [
      { length: 'short', updates: 3000, batch: 64 },
      { length: 'long', updates: 8000, batch: 32 },
    ],
    cooldown: 2000,
    targetShare: 0.12,
    targetWeight: 1,
  },
} satisfies Record<string, Recipe>;
