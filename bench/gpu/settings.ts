/** What the GPU check is asked to do, and the sizes that it does it with. */
import { parseArgs } from 'node:util';
import { DistilWhisperError } from '../../lib/errors/index.js';
import { type WhisperConfig, whisperPreset } from '../../lib/weights/index.js';

/**
 * In the order in which they run, what costs little and says most first; and the share of all the time that each may take: one
 * that hangs leaves the others theirs.
 */
export const CAPS = {
  tests: 0.3,
  curves: 0.2,
  ceilings: 0.05,
  ffn: 0.1,
  loss: 0.1,
  encoder: 0.1,
  decode: 0.1,
  training: 0.2,
  pytorch: 0.4,
  ladder: 0.1,
  sanitizer: 0.5,
} as const;
export type StageName = keyof typeof CAPS;
export const STAGES = Object.keys(CAPS) as StageName[];

export const HELP = `npm run gpu-check -- <folder for results> [options]

Tries everything that needs a GPU, and measures it beside PyTorch; a line for each figure as it comes, then tables, and in the
folder results.json, .csv and .md and a log for each stage.

  tests      kernels against their oracles          curves     losses of 20 updates on the processor and on the GPU
  ceilings   products and memory                    ffn loss encoder decode training   figures in bf16
  pytorch    the same work by --peer, eager first, then compiled; of the training steps one is compiled
  ladder     the rungs of the hot kernels, where built (npm run build:cuda -- --ladder)
  sanitizer  compute-sanitizer's memcheck and racecheck over the kernel tests

  --device NAME    cuda (the first GPU) or cuda:N
  --only a,b       these stages only; ceilings comes along with figures
  --peer SCRIPT    the PyTorch script to run beside (default: none)
  --python PATH    a Python that has torch (default: python3)
  --minutes N      no stage begins later than that, and none goes on (default: 10); each has a share of it at most, from 3
                   seconds of a minute for ceilings to 30 for the sanitizer: what takes longer is stopped, and the next begins
  --repeats N      samples of every figure, at most (default: 10)
  --shapes WHICH   full: Whisper small <- large-v2; tiny: proves the script where speed means nothing

Exit codes: 0 all held, 1 something did not hold or failed, 2 wrong usage, 3 there is no GPU that can be used.
`;

export interface Shapes {
  student: WhisperConfig;
  teacher: WhisperConfig;
  /** What the peer calls them; those of tiny shapes are other models, and its figures mean nothing. */
  names: { student: string; teacher: string };
  /** Test files that run every kernel, by the beginning of their names. */
  tests: RegExp;
  /** Of training; then the largest that fits, but no more than `mostBatch`. */
  batches: number[];
  mostBatch: number;
  /** Of those the one that PyTorch compiles too, which takes it minutes: only there a bar holds ours against it. */
  compiledBatch: number;
  ffnBatch: number;
  lossRows: number[];
  decodeBatches: number[];
  encoderBatches: number[];
  labels: number;
  tokens: number;
}

const small = (width: number): WhisperConfig => ({
  ...whisperPreset('tiny'),
  ...{ vocab_size: 500, d_model: width, encoder_layers: 1, decoder_layers: 1, encoder_ffn_dim: 4 * width },
  ...{ encoder_attention_heads: width / 64, decoder_attention_heads: width / 64, decoder_ffn_dim: 4 * width },
  ...{
    max_source_positions: 40,
    max_target_positions: 32,
    decoder_start_token_id: 1,
    pad_token_id: 0,
    bos_token_id: 0,
  },
  ...{ eos_token_id: 0, suppress_tokens: [], begin_suppress_tokens: [] },
});

export const SHAPES: Record<'full' | 'tiny', () => Shapes> = {
  full: () => ({
    student: whisperPreset('small'),
    teacher: whisperPreset('large-v2'),
    names: { student: 'small', teacher: 'large-v2' },
    tests: /^(native\/(?!addon|cuda-faults)|train\/cuda\.|decode\/graph\.)/,
    batches: [8, 16, 32],
    mostBatch: 256,
    compiledBatch: 32,
    ffnBatch: 32,
    lossRows: [512, 2048, 8192],
    decodeBatches: [1, 16],
    encoderBatches: [1, 16],
    labels: 64,
    tokens: 64,
  }),
  tiny: () => ({
    student: small(64),
    teacher: small(128),
    names: { student: 'pocket', teacher: 'tiny' },
    tests: /^native\/optimizer\./,
    batches: [1, 2],
    mostBatch: 3,
    compiledBatch: 2,
    ffnBatch: 1,
    lossRows: [7],
    decodeBatches: [1, 2],
    encoderBatches: [1],
    labels: 5,
    tokens: 3,
  }),
};

export interface Settings {
  folder: string;
  device: string;
  only: StageName[];
  peer: string | undefined;
  python: string | undefined;
  minutes: number;
  repeats: number;
  shapes: 'full' | 'tiny';
  /** Run this stage here, instead of all, each in a process of its own. */
  stage: StageName | undefined;
}

/** Stages whose figures are held against the ceilings. */
const FIGURES: ReadonlySet<string> = new Set<StageName>(['ffn', 'loss', 'encoder', 'decode', 'training']);

/** Null when help is asked for. Errors: ERR_ARGUMENT. */
export function settings(argv: string[]): Settings | null {
  const refuse = (sentence: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', sentence);
  };
  const text = { type: 'string' } as const;
  const known = {
    ...{ device: text, only: text, peer: text, python: text, minutes: text, repeats: text, shapes: text, stage: text },
    help: { type: 'boolean' },
  } as const;
  let parsed: ReturnType<typeof parseArgs<{ options: typeof known; allowPositionals: true }>>;
  try {
    parsed = parseArgs({ args: argv, options: known, allowPositionals: true });
  } catch (error) {
    return refuse(`${(error as Error).message}; --help lists the options`);
  }
  const { values, positionals } = parsed;
  if (values.help) return null;
  if (positionals.length !== 1)
    refuse(`expected one folder for results, got ${positionals.length}; --help lists the options`);
  const number = (name: 'minutes' | 'repeats', otherwise: number): number => {
    const value = Number(values[name] ?? otherwise);
    return value > 0 && Number.isFinite(value)
      ? value
      : refuse(`--${name}: expected a number above 0, got '${values[name]}'`);
  };
  const stages = (names: readonly string[]): StageName[] =>
    names.map(
      (name) =>
        STAGES.find((stage) => stage === name) ??
        refuse(`--only: expected some of ${STAGES.join(', ')}, got '${name}'`),
    );
  const asked = stages(values.only?.split(',').map((name) => name.trim()) ?? STAGES);
  const withCeilings = asked.some((name) => FIGURES.has(name));
  const only = STAGES.filter((name) => asked.includes(name) || (withCeilings && name === 'ceilings'));
  const shapes = values.shapes ?? 'full';
  if (shapes !== 'full' && shapes !== 'tiny') return refuse(`--shapes: expected full or tiny, got '${shapes}'`);
  return {
    folder: positionals[0]!,
    device: values.device ?? 'cuda',
    only,
    peer: values.peer,
    python: values.python,
    minutes: number('minutes', 10),
    repeats: Math.ceil(number('repeats', 10)),
    shapes,
    stage: values.stage === undefined ? undefined : stages([values.stage])[0],
  };
}
