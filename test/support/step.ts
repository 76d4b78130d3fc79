/** One training step on a recorded batch. */
import type { ModelPass, Whisper } from '../../lib/model/index.js';
import { kernels, type Tensor } from '../../lib/tensor/index.js';
import { floats, ints, type Tensors } from './golden.js';

export interface Loss {
  smoothing: number;
  teacher?: { rows: Tensor; table: Tensor };
  kind?: kernels.DistillLossArguments['kind'];
  temperature?: number;
  weights?: [number, number];
  gateWeight?: number;
}

/** Forward, loss and backward of one recorded batch. */
export function step(model: Whisper, inputs: Tensors, pass: ModelPass, loss: Loss) {
  const { stream, config } = model;
  const [B, T] = inputs.get('decoder_input_ids')!.shape as [number, number];
  const features = stream.tensor(floats(inputs, 'input_features'), [B, 80, 3000]);
  const ids = stream.tensor(ints(inputs, 'decoder_input_ids'), [B, T], 'i32');
  const labels = stream.tensor(ints(inputs, 'labels'), [B * T], 'i32');
  const { hidden: memory, gates: heard } = model.encode(features, pass);
  const { hidden, gates: said } = model.decode(ids, memory, pass);
  const gates = [...heard, ...said];
  const table = model.embeddingTable;
  const [ce, kd] = loss.weights ?? [1, 0];
  const { stats, dhidden } = kernels.distillLoss(stream, {
    hidden: hidden.reshape([B * T, config.d_model]),
    weight: table.value,
    labels,
    teacherHidden: loss.teacher?.rows,
    teacherWeight: loss.teacher?.table,
    dweight: table.accumulator(),
    smoothing: loss.smoothing,
    temperature: loss.temperature ?? 1,
    kind: loss.kind ?? 'none',
    crossEntropyWeight: ce,
    divergenceWeight: kd,
    allPositions: true,
    grad: true,
    compute: 'f32',
    workspace: 64 << 20,
    epsilon: loss.kind === 'js' ? 1e-10 : 0,
  });
  const read = {
    memory: memory.floats(),
    hidden: hidden.floats(),
    logits: model.logits(hidden).floats(),
    stats: stats.floats(),
    gates: gates.map((g) => g.floats()),
    budget: [] as Promise<Float32Array>[],
  };
  if (pass.tape) {
    pass.tape.set(hidden, dhidden.reshape(hidden.shape));
    if (gates.length > 0) {
      const count = gates.reduce((n, g) => n + g.size, 0);
      const budget = { gates, budget: 0.5, weight: loss.gateWeight ?? 1, count };
      const { mean, loss: distance, dgate } = kernels.gateBudget(stream, budget);
      read.budget.push(mean.floats(), distance.floats());
      for (const g of gates) pass.tape.set(g, dgate);
    }
    pass.tape.backward();
  }
  return read;
}
