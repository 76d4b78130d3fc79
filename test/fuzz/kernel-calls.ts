/** Random calls of every operation that are right, or nearly: shapes and numbers as native/ops/ says them. */
import { type DType, dtypeNumber } from '../../lib/tensor/index.js';

export interface Draw {
  chance(p: number): boolean;
  /** A whole number from `low` to `high`. */
  from(low: number, high: number): number;
  pick<T>(all: readonly T[]): T;
  /** A value of a float tensor; now and then one at the ends of its type. */
  value(): number;
}

export interface Argument {
  shape: number[];
  types: DType[];
  /** Kernels write it in place. */
  written?: boolean;
  /** Of whole numbers. */
  values?: { low: number; high: number };
}

export interface Plan {
  tensors: (Argument | null)[];
  numbers: number[];
  /** Which numbers say how large an output is. */
  sizes?: number[];
}

const FLOAT: DType[] = ['f32', 'f32', 'bf16', 'f64'];
const WIDE: DType[] = ['f32', 'f32', 'f32', 'f64'];
const MATRIX: DType[] = ['f32', 'bf16', 'q8'];

const float = (...shape: number[]): Argument => ({ shape, types: FLOAT });
const wide = (...shape: number[]): Argument => ({ shape, types: WIDE });
const f32 = (...shape: number[]): Argument => ({ shape, types: ['f32'] });
const whole = (low: number, high: number, ...shape: number[]): Argument => ({
  shape,
  types: ['i32'],
  values: { low, high },
});
const matrix = (...shape: number[]): Argument => ({ shape, types: MATRIX });
const written = (argument: Argument): Argument => ({ ...argument, written: true });

/** A size: small and odd for the most part. */
const size = (draw: Draw, most = 40): number =>
  draw.chance(0.04) ? 0 : draw.chance(0.1) ? draw.pick([1, 63, 64, 65, 129]) : draw.from(1, most);
const maybe = (draw: Draw, argument: Argument): Argument | null => (draw.chance(0.5) ? argument : null);
const flag = (draw: Draw): number => draw.from(0, 1);
const type = (draw: Draw): number => dtypeNumber(draw.chance(0.05) ? 'f64' : draw.pick(['f32', 'bf16']));
/** Dimensions before the last. */
const leading = (draw: Draw): number[] =>
  draw.pick([[], [size(draw)], [size(draw)], [size(draw, 4), size(draw, 9)], [1, 2, 3]]);
/** Heads and the width of all of them. */
const headed = (draw: Draw): { heads: number; width: number } => {
  const heads = draw.from(1, 4);
  return { heads, width: heads * draw.pick([1, 3, 8, 16, 32, 64, 80, 128]) };
};

/** Keys and values of the same rows, in one type, or both in q8 by heads. */
function keysAndValues(draw: Draw, B: number, rows: number, heads: number, width: number, one: DType): Argument[] {
  const q8 = draw.chance(0.3);
  const shape = q8 ? [B, rows, heads, width / heads] : [B, rows, width];
  return [0, 1].map(() => ({ shape, types: [q8 ? 'q8' : one] }));
}

/** Ascending ranges of rows, of as many languages. */
function ranges(draw: Draw, rows: number, languages: number): number[] {
  const bounds = Array.from({ length: 2 * languages }, () => draw.from(0, rows));
  return bounds.sort((a, b) => a - b);
}

interface Ffn {
  x: number[];
  rows: number;
  width: number;
  inner: number;
  gate: number;
  bounds: number[];
  covered: number;
  languages: number;
}

function ffn(draw: Draw): Ffn {
  const x = draw.pick([[size(draw)], [size(draw, 3), size(draw, 20)]]);
  const rows = x.reduce((a, b) => a * b, 1);
  const languages = draw.from(0, 3);
  const bounds = ranges(draw, rows, languages);
  const covered = bounds.reduce((sum, bound, i) => sum + (i % 2 ? bound : -bound), 0);
  const width = size(draw, 48);
  return { x: [...x, width], rows, width, inner: size(draw, 70), gate: size(draw, 17), bounds, covered, languages };
}

/** The shared FFN's tensors, then those of each language's gate and FFN. */
function ffnWeights(
  { width, inner, gate, languages }: Ffn,
  kind: (...shape: number[]) => Argument,
  gateOf = kind,
): Argument[] {
  const block = [kind(inner, width), gateOf(inner), kind(width, inner), gateOf(width)];
  const vectors = [gateOf(gate, width), gateOf(gate), gateOf(1, gate)];
  return [...block, ...Array.from({ length: languages }, () => [...vectors, ...block]).flat()];
}

function gatedSettings(draw: Draw): number[] {
  const dropouts = [draw.pick([0, 0.1, 0.5]), draw.pick([0, 0.3])];
  return [draw.pick([0, 1, 5]), ...dropouts, draw.from(0, 99), draw.from(0, 99), draw.from(0, 99), flag(draw)];
}

function distillLoss(draw: Draw): Plan {
  const rows = size(draw, 80);
  const width = size(draw, 40);
  const vocabulary = draw.pick([size(draw, 60), 300]);
  const kind = draw.from(0, 2);
  const teacher = size(draw, 30);
  const grad = flag(draw);
  return {
    tensors: [
      float(rows, width),
      float(vocabulary, width),
      draw.chance(0.2) ? whole(-100, -100, rows) : whole(0, Math.max(0, vocabulary - 1), rows),
      kind ? float(rows, teacher) : null,
      kind ? float(vocabulary, teacher) : null,
      grad ? maybe(draw, written(wide(vocabulary, width))) : null,
    ],
    numbers: [
      ...[draw.pick([0, 0.1, 1]), draw.pick([1, 2, 0.5]), kind, 1, draw.pick([0, 1]), flag(draw), grad],
      ...[type(draw), 2 ** 20, draw.pick([0, 1e-8])],
    ],
  };
}

function decoderLayer(draw: Draw): Plan {
  const { heads, width } = headed(draw);
  const items = draw.from(1, 3);
  const B = items * draw.from(1, 3);
  const T = draw.chance(0.5) ? 1 : size(draw, 5);
  const P = draw.from(1, 12);
  const compute = draw.pick(['f32', 'bf16'] as const);
  const one = (...shape: number[]): Argument => ({ shape, types: [compute] });
  const inner = size(draw, 70);
  const gate = size(draw, 17);
  const weights = draw.pick([['q8'], ['f32', 'bf16']] as DType[][]);
  const square = (): Argument => matrix(width, width);
  const vector = (): Argument => f32(width);
  const languages = draw.from(0, 2);
  const block = [
    { shape: [inner, width], types: weights },
    f32(inner),
    { shape: [width, inner], types: weights },
    vector(),
  ];
  const expert = [
    { shape: [gate, width], types: ['f32', 'bf16'] as DType[] },
    f32(gate),
    { shape: [1, gate], types: ['f32', 'bf16'] as DType[] },
    ...block,
  ];
  const offset = draw.from(0, Math.max(0, P - T));
  return {
    tensors: [
      f32(B, T, width),
      ...[vector(), vector(), square(), vector(), square(), square(), vector(), square(), vector()],
      ...[written(one(B, P, width)), written(one(B, P, width))],
      ...[vector(), vector(), square(), vector(), square(), vector()],
      ...keysAndValues(draw, items, draw.from(1, 20), heads, width, compute),
      ...[vector(), vector(), ...block],
      ...Array.from({ length: languages }, () => expert).flat(),
      ...(T === 1 && draw.chance(0.3) ? [whole(0, offset, 1)] : []),
    ],
    numbers: [languages, ...ranges(draw, B * T, languages), heads, offset, 1e-5, dtypeNumber(compute)],
  };
}

const drawn = (draw: Draw): Plan => ({
  tensors: [],
  numbers: [size(draw, 200), draw.from(0, 99), draw.from(0, 99), draw.from(0, 99)],
  sizes: [0],
});

/** The operations by name. */
export const plans: Readonly<Record<string, (draw: Draw) => Plan>> = {
  linear: (draw) => {
    const [rows, K, N] = [leading(draw), size(draw, 70), size(draw, 70)];
    return {
      tensors: [
        float(...rows, K),
        { shape: [N, K], types: [...FLOAT, 'q8'] },
        maybe(draw, wide(N)),
        maybe(draw, float(...rows, N)),
      ],
      numbers: [flag(draw), flag(draw), type(draw), type(draw)],
    };
  },
  linear_backward_input: (draw) => {
    const [rows, K, N] = [leading(draw), size(draw, 70), size(draw, 70)];
    const dx = float(...rows, K);
    return {
      tensors: [float(...rows, N), float(N, K), maybe(draw, dx), maybe(draw, dx)],
      numbers: [type(draw), type(draw)],
    };
  },
  linear_backward_weight: (draw) => {
    const [rows, K, N] = [leading(draw), size(draw, 70), size(draw, 70)];
    return {
      tensors: [float(...rows, N), float(...rows, K), maybe(draw, written(wide(N, K))), maybe(draw, written(wide(N)))],
      numbers: [flag(draw), type(draw)],
    };
  },
  quantize: (draw) => {
    const shape = [...leading(draw), size(draw, 70)];
    return { tensors: [float(...shape), { shape, types: ['q8'], written: true }], numbers: [] };
  },
  gelu: (draw) => ({ tensors: [float(...leading(draw), size(draw))], numbers: [type(draw)] }),
  drop: (draw) => {
    const shape = [...leading(draw), size(draw)];
    const draws = [draw.from(0, 99), draw.from(0, 99), draw.from(0, 99)];
    return {
      tensors: [float(...shape), maybe(draw, f32(...shape))],
      numbers: [draw.pick([0, 0.05, 0.5]), draw.pick([1, 2, -0.5]), ...draws, type(draw)],
    };
  },
  gelu_backward: (draw) => {
    const shape = [...leading(draw), size(draw)];
    return { tensors: [float(...shape), float(...shape)], numbers: [type(draw)] };
  },
  unfold: (draw) => ({
    tensors: [float(size(draw, 3), size(draw), size(draw))],
    numbers: [draw.from(1, 2), flag(draw), type(draw)],
  }),
  fold: (draw) => {
    const [T, stride] = [size(draw), draw.from(1, 2)];
    return {
      tensors: [float(size(draw, 3), Math.ceil(T / stride), 3 * size(draw, 20))],
      numbers: [T, stride],
      sizes: [0],
    };
  },
  layer_norm: (draw) => {
    const D = size(draw, 70);
    return { tensors: [float(...leading(draw), D), wide(D), wide(D)], numbers: [1e-5, type(draw)] };
  },
  layer_norm_backward: (draw) => {
    const [rows, D] = [leading(draw), size(draw, 70)];
    const x = float(...rows, D);
    const R = rows.reduce((a, b) => a * b, 1);
    const sums = [maybe(draw, written(wide(D))), maybe(draw, written(wide(D)))];
    return {
      tensors: [x, float(...x.shape), wide(D), wide(R), wide(R), maybe(draw, float(...x.shape)), ...sums],
      numbers: [type(draw)],
    };
  },
  attention: (draw) => {
    const { heads, width } = headed(draw);
    const [B, Tq, Tk] = [size(draw, 3), size(draw), size(draw, 70)];
    const one = draw.pick(['f32', 'bf16'] as const);
    return {
      tensors: [{ shape: [B, Tq, width], types: [one] }, ...keysAndValues(draw, B, Tk, heads, width, one)],
      numbers: [heads, flag(draw), draw.from(1, Tk), draw.from(0, 70), type(draw)],
    };
  },
  attention_backward: (draw) => {
    const { heads, width } = headed(draw);
    const [B, Tq, Tk] = [size(draw, 3), size(draw), size(draw, 70)];
    const types: DType[] = [draw.pick(['f32', 'bf16'])];
    const [q, k] = [
      { shape: [B, Tq, width], types },
      { shape: [B, Tk, width], types },
    ];
    return {
      tensors: [q, k, { ...k }, { ...q }, wide(B, heads, Tq), { ...q }],
      numbers: [heads, flag(draw), type(draw)],
    };
  },
  embedding: (draw) => {
    const [B, T, D, V, P] = [size(draw, 4), size(draw, 9), size(draw), size(draw), size(draw, 20)];
    const offset = draw.from(0, Math.max(0, P - T));
    return {
      tensors: [
        whole(0, Math.max(0, V - 1), B, T),
        float(V, D),
        float(P, D),
        ...(draw.chance(0.3) ? [whole(0, offset, 1)] : []),
      ],
      numbers: [offset, type(draw)],
    };
  },
  embedding_backward: (draw) => {
    const [B, T, D, V, P] = [size(draw, 4), size(draw, 9), size(draw), size(draw), size(draw, 20)];
    return {
      tensors: [
        float(B, T, D),
        whole(0, Math.max(0, V - 1), B, T),
        maybe(draw, written(wide(V, D))),
        maybe(draw, written(wide(P, D))),
      ],
      numbers: [draw.from(0, Math.max(0, P - T)), draw.from(-1, V)],
    };
  },
  add: (draw) => {
    const shape = [...leading(draw), size(draw)];
    const other = draw.pick([shape, shape.slice(draw.from(0, shape.length - 1)), [shape.reduce((a, b) => a * b, 1)]]);
    return { tensors: [float(...shape), float(...other)], numbers: [draw.value(), draw.value(), type(draw)] };
  },
  add_backward_rows: (draw) => {
    const [T, D] = [size(draw), size(draw)];
    return { tensors: [float(size(draw, 4), T, D), written(wide(T, D))], numbers: [] };
  },
  cast: (draw) => ({ tensors: [float(...leading(draw), size(draw))], numbers: [type(draw)] }),
  fill: (draw) => ({
    tensors: [{ shape: [...leading(draw), size(draw)], types: [...FLOAT, 'i32'], written: true }],
    numbers: [draw.from(-3, 3)],
  }),
  cache_write: (draw) => {
    const [B, t, D, P] = [size(draw, 4), size(draw, 5), size(draw), size(draw, 20)];
    return {
      tensors: [float(B, t, D), written(float(B, P, D))],
      numbers: [draw.from(0, Math.max(0, P - t))],
    };
  },
  gated_ffn: (draw) => {
    const f = ffn(draw);
    const masks = [maybe(draw, wide(f.rows)), maybe(draw, f32(f.rows, f.width)), maybe(draw, f32(f.rows, f.width))];
    return {
      tensors: [float(...f.x), maybe(draw, float(...f.x)), ...ffnWeights(f, float), ...masks],
      numbers: [f.languages, ...f.bounds, flag(draw), ...gatedSettings(draw), type(draw), type(draw)],
    };
  },
  gated_ffn_backward: (draw) => {
    const f = ffn(draw);
    const skip = flag(draw);
    const experts = skip ? 0 : f.covered;
    const gradients = ffnWeights(f, wide).slice(4);
    return {
      tensors: [
        ...[float(...f.x), maybe(draw, wide(1)), float(...f.x), ...ffnWeights(f, float)],
        ...[maybe(draw, f32(f.rows, f.width)), maybe(draw, f32(f.rows, f.width))],
        ...[wide(f.rows), wide(f.covered, f.gate), float(f.rows, f.inner)],
        ...[float(experts, f.inner), float(experts, f.width)],
        ...gradients.map((argument) => maybe(draw, written(argument))),
      ],
      numbers: [f.languages, ...f.bounds, skip, ...gatedSettings(draw), type(draw), type(draw)],
    };
  },
  gated_ffn_hard: (draw) => {
    const f = ffn(draw);
    const kind = (...shape: number[]): Argument => ({ shape, types: draw.pick([['q8'], FLOAT] as DType[][]) });
    const weights = ffnWeights(f, draw.chance(0.5) ? matrix : kind, float);
    return {
      tensors: [float(...f.x), maybe(draw, float(...f.x)), ...weights],
      numbers: [f.languages, ...f.bounds, type(draw), type(draw)],
    };
  },
  gate_budget: (draw) => ({
    tensors: Array.from({ length: draw.from(0, 4) }, () => wide(size(draw))),
    numbers: [draw.pick([0, 0.5, 1]), draw.value(), draw.from(0, 60)],
  }),
  distill_loss: distillLoss,
  global_norm: (draw) => ({
    tensors: Array.from({ length: draw.from(0, 4) }, () => wide(...leading(draw), size(draw))),
    numbers: [draw.pick([0, 1]), draw.pick([0, 1, 0.5])],
  }),
  adamw: (draw) => {
    const groups = draw.from(0, 3);
    const steps = Array.from({ length: groups }, () => draw.from(0, 3));
    const tensors = steps.flatMap((step) => {
      const shape = [...leading(draw), size(draw, 90)];
      const [p, gradient, m, v] = [0, 1, 2, 3].map(() => f32(...shape));
      return [written(p!), step === 0 ? maybe(draw, gradient!) : gradient!, written(m!), written(v!)];
    });
    return {
      tensors: [f32(1), ...tensors],
      numbers: [groups, 1e-3, 0.9, 0.98, 1e-8, draw.pick([0, 0.1]), flag(draw), ...steps],
    };
  },
  log_mel: (draw) => ({
    tensors: [f32(draw.pick([size(draw), 900, 5000])), f32(size(draw, 9), 201)],
    numbers: [draw.pick([0, 2, size(draw)])],
    sizes: [0],
  }),
  mel_filters: (draw) => ({ tensors: [], numbers: [draw.from(1, 201)] }),
  resample: (draw) => {
    const rate = (): number =>
      draw.chance(0.5) ? draw.pick([1000, 8000, 16000, 44100, 48000, 768000]) : draw.from(1000, 768000);
    return { tensors: [f32(draw.pick([size(draw), 700]))], numbers: [rate(), rate()] };
  },
  top_k: (draw) => {
    const [rows, V] = [size(draw, 5), draw.pick([size(draw), 900])];
    const allowed = { ...whole(0, V, rows, 4) };
    return {
      tensors: [
        float(rows, V),
        maybe(draw, whole(0, Math.max(0, V - 1), size(draw, 9))),
        draw.chance(0.2) ? allowed : null,
      ],
      numbers: [draw.from(1, Math.min(32, Math.max(1, V)))],
    };
  },
  cache_reorder: (draw) => {
    const [B, K, P] = [size(draw, 4), draw.from(1, 6), size(draw, 9)];
    const caches = Array.from({ length: draw.from(0, 3) }, () => written(float(B * K, P, size(draw))));
    return { tensors: [whole(0, K - 1, B, K), ...caches], numbers: [draw.from(0, P)] };
  },
  decoder_layer: decoderLayer,
  random_normal: drawn,
  random_uniform: drawn,
};
