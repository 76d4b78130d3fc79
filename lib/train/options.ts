import { checkOptions, DistilWhisperError } from '../errors/index.js';

/** What is minimised, and how (docs/method.md, sections 2 to 4). Defaults are the paper's recipe. */
export interface TrainingOptions {
  /** Updates in the whole run. */
  steps: number;
  /** Micro-batches whose gradients one update averages. Default 1. */
  accumulation: number;
  /** Peak of the learning rate, behind a linear warm-up over `warmup`·steps updates. */
  learningRate: number;
  /** Behind the warm-up: linearly to 0, half a cosine to 0, or no decay. */
  schedule: 'linear' | 'cosine' | 'constant';
  /** The learning rate of the gates, times that of all else. */
  gateRate: number;
  warmup: number;
  betas: readonly [number, number];
  epsilon: number;
  weightDecay: number;
  /** Gradients are scaled down to this global norm; 0: never. */
  maxGradientNorm: number;
  labelSmoothing: number;
  /** Divergence from the teacher: Jensen-Shannon, KL(T‖S), or none. */
  distillation: 'js' | 'kl' | 'none';
  temperature: number;
  /** L = ½[(CE + budget)/σ0² + KD/σ1²]; without a teacher L = CE + budget. */
  sigma: readonly [number, number];
  /** Share of rows that should take the expert. */
  gateBudget: number;
  /** Whose share that is: the soft gates' mean (the paper's), or that of the rows whose hard gate, without noise, chooses the expert. */
  gateBudgetOf: 'soft' | 'hard';
  /** What mixes the FFNs on the way forward: the soft gate (the paper's), or its hard choice, with the soft gate's gradient. */
  gateForward: 'soft' | 'hard';
  /** Probability that a layer's call leaves its expert out. */
  skipGate: number;
  gateDropout: number;
  expertDropout: number;
  /** Noise factor of the gates at the end of training. */
  gateNoise: number;
  seed: number;
  /** 'reference' repeats the published code where it differs from the paper. */
  compat: 'paper' | 'reference';
  /** Scratch memory of the distillation loss in bytes; 0: 64 MiB, on a GPU 192. */
  workspace: number;
}

export const trainingDefaults: Omit<TrainingOptions, 'steps'> = {
  accumulation: 1,
  learningRate: 1e-4,
  schedule: 'linear',
  gateRate: 1,
  warmup: 0.1,
  betas: [0.9, 0.98],
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradientNorm: 1,
  labelSmoothing: 0.1,
  distillation: 'js',
  temperature: 1,
  sigma: [1.41, 1],
  gateBudget: 0.5,
  gateBudgetOf: 'soft',
  gateForward: 'soft',
  skipGate: 0.2,
  gateDropout: 0.1,
  expertDropout: 0.3,
  gateNoise: 5,
  seed: 77,
  compat: 'paper',
  workspace: 0,
};

const OPTIONS: Readonly<Record<string, true>> = Object.fromEntries(
  ['steps', ...Object.keys(trainingDefaults)].map((name) => [name, true]),
);

type Check = readonly [name: keyof TrainingOptions, ok: (value: number) => boolean, expected: string];
const whole = (low: number) => (v: number) => Number.isSafeInteger(v) && v >= low;
const within = (low: number, high: number) => (v: number) => v >= low && v <= high;
const CHECKS: Check[] = [
  ['steps', whole(1), 'an integer of at least 1'],
  ['accumulation', whole(1), 'an integer of at least 1'],
  ['learningRate', within(0, 10), 'a number from 0 to 10'],
  ['gateRate', within(0, 1000), 'a number from 0 to 1,000'],
  ['warmup', within(0, 1), 'a share from 0 to 1'],
  ['epsilon', (v) => v > 0 && v < 1, 'a number between 0 and 1'],
  ['weightDecay', within(0, 10), 'a number from 0 to 10'],
  ['maxGradientNorm', within(0, 1e30), 'a number of at least 0'],
  ['labelSmoothing', (v) => v >= 0 && v < 1, 'a share from 0 to below 1'],
  ['temperature', (v) => v > 0 && v <= 1e6, 'a number above 0'],
  ['gateBudget', within(0, 1), 'a share from 0 to 1'],
  ['skipGate', within(0, 1), 'a share from 0 to 1'],
  ['gateDropout', (v) => v >= 0 && v < 1, 'a share from 0 to below 1'],
  ['expertDropout', (v) => v >= 0 && v < 1, 'a share from 0 to below 1'],
  ['gateNoise', within(0, 1e6), 'a number of at least 0'],
  ['seed', whole(0), 'an integer of at least 0'],
  ['workspace', (v) => v === 0 || whole(1 << 20)(v), '0, or at least 1 MiB in bytes'],
];

const CHOICES = {
  schedule: ['linear', 'cosine', 'constant'],
  gateBudgetOf: ['soft', 'hard'],
  gateForward: ['soft', 'hard'],
  distillation: ['js', 'kl', 'none'],
  compat: ['paper', 'reference'],
} as const;

/** Fills in the defaults and checks every value. Throws ERR_ARGUMENT that names the option. */
export function trainingOptions(given: Partial<TrainingOptions> & { steps: number }): TrainingOptions {
  checkOptions('training options', given, OPTIONS);
  const options: TrainingOptions = { ...trainingDefaults, ...given };
  const refuse = (name: keyof TrainingOptions, expected: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected ${expected}, got ${String(options[name])}`);
  };
  for (const [name, ok, expected] of CHECKS) {
    const value = options[name];
    if (typeof value !== 'number' || !ok(value)) refuse(name, expected);
  }
  for (const [name, choices] of Object.entries(CHOICES) as [keyof typeof CHOICES, readonly string[]][]) {
    if (!choices.includes(options[name])) refuse(name, choices.join(' or '));
  }
  const two = (pair: unknown, ok: (value: number) => boolean): boolean =>
    Array.isArray(pair) && pair.length === 2 && pair.every((value) => typeof value === 'number' && ok(value));
  if (!two(options.betas, (b) => b >= 0 && b < 1)) refuse('betas', 'two numbers from 0 to below 1');
  if (!two(options.sigma, (s) => s > 0)) refuse('sigma', 'two numbers above 0');
  return options;
}
