// A training loop of one's own, step by step, on the embedded pocket models: an expert for Catalan, taught by
//   paper   the paper's losses: what `Trainer` does, number for number
//   focal   a loss that this package does not have, on logits: the focal loss (Lin et al. 2017), −(1 − p)^γ · log p of each label
// node examples/own-training-loop.js [paper|focal] [updates] [γ]        prints a line of JSON an update
import {
  AdamW,
  AudioBatches,
  BatchUploader,
  distillationLoss,
  embedded,
  gateBudgetLoss,
  learningRate,
  liveTeacher,
  lossWeights,
  readManifest,
  Stream,
  softGates,
  Tape,
  trainingOptions,
  Whisper,
  WhisperTokenizer,
} from 'distilwhisper';

const [kind = 'paper', updates = '12', gamma = '2'] = process.argv.slice(2);
if (kind !== 'paper' && kind !== 'focal') throw new Error(`expected paper or focal, got ${kind}`);

// Everything runs on one stream: calls are queued in order, and only a read waits.
const stream = new Stream({ threads: 2 });
const paths = embedded();
const model = await Whisper.load(stream, paths.student);
const teacher = kind === 'paper' ? await Whisper.load(stream, paths.teacher) : null;
const options = trainingOptions({ steps: Number(updates), learningRate: 2e-3, seed: 7 });
await model.addExpert('catalan', { seed: options.seed });

// Batches of features and labels, a function of seed and number.
const rows = readManifest(paths.manifest, { language: 'ca', split: 'train' }).slice(0, 16);
const tokenizer = await WhisperTokenizer.fromFolder(paths.student);
const batches = new AudioBatches(rows, model.config, tokenizer, { batchSize: 8, seed: options.seed });

// What of the model trains is what `trainable` says; here the expert and its gates.
const optimizer = new AdamW(stream, model.trainable(), options);
const uploader = new BatchUploader(stream, model.config);
const layers = model.config.encoder_layers + model.config.decoder_layers;
const [crossEntropy, divergence] = lossWeights(options, teacher !== null);

let k = 0;
for await (const batch of batches.stream(0)) {
  // 1. The batch on the stream: features [B, mels, frames], what the decoder hears [B, T], what it shall say [B·T].
  const { features, ids, targets } = uploader.upload(batch);
  const taught = teacher && liveTeacher(teacher).teach(features, ids, batch);

  // 2. Forward, on a tape: gates are soft, with the noise, dropout and skips of this micro-batch.
  const tape = new Tape(stream);
  const pass = { tape, languages: batch.languages, gates: softGates(options, layers, k, k) };
  const heard = model.encode(features, pass);
  const said = model.decode(ids, heard.hidden, pass);

  // 3. Losses: each adds its gradient to the tape.
  const loss =
    kind === 'paper'
      ? distillationLoss(tape, model, said.hidden, { targets, taught, weights: [crossEntropy, divergence], options })
      : await focalLoss(tape, said.hidden, batch.labels);
  const gates = { gates: [...heard.gates, ...said.gates], chosen: [...heard.chosen, ...said.chosen] };
  const budget = gateBudgetLoss(tape, gates, { weight: crossEntropy, options });

  // 4. Backward, and an update at the rate of the schedule, with clipped gradients.
  tape.backward();
  const { norm } = optimizer.update(learningRate(options, k), options.maxGradientNorm);

  // 5. Read what is wanted; then the step's memory is used again.
  const [values, gate, chosen, gateLoss, gradientNorm] = await Promise.all([
    kind === 'paper' ? loss.floats() : loss,
    budget.mean.item(),
    budget.chosen.item(),
    budget.loss.item(),
    norm.item(),
  ]);
  stream.endStep();
  const report =
    kind === 'paper'
      ? { loss: values[2] + crossEntropy * gateLoss, crossEntropy: values[0], distillation: values[1] }
      : { loss: values };
  console.log(JSON.stringify({ step: ++k, ...report, gate, chosen, gateLoss, gradientNorm }));
  if (k === options.steps) break;
}
optimizer.dispose();
stream.close();

/** The mean focal loss of the labels: read as logits, its gradient set on the tape. hidden [B, T, D]. */
async function focalLoss(tape, hidden, labels) {
  // Aware of the tape: from the logits' gradient the rows' follows.
  const logits = model.logits(hidden, { tape });
  const [, T, V] = logits.shape;
  const values = await logits.floats();
  const gradient = new Float32Array(values.length);
  const count = labels.reduce((sum, own) => sum + own.length, 0);
  let sum = 0;
  for (const [b, own] of labels.entries()) {
    for (const [t, label] of own.entries()) {
      const at = (b * T + t) * V;
      const row = values.subarray(at, at + V);
      const top = row.reduce((a, x) => Math.max(a, x), Number.NEGATIVE_INFINITY);
      const total = row.reduce((a, x) => a + Math.exp(x - top), 0);
      const p = (i) => Math.exp(row[i] - top) / total;
      const [right, wrong, power] = [p(label), 1 - p(label), Number(gamma)];
      sum -= wrong ** power * Math.log(right);
      // dL/dz_i = [γ·p·(1 − p)^(γ − 1)·log p − (1 − p)^γ] · (1[i = label] − p_i)
      const inner = power === 0 ? 0 : power * right * wrong ** (power - 1) * Math.log(right);
      const factor = (inner - wrong ** power) / count;
      for (let i = 0; i < V; i++) gradient[at + i] = factor * ((i === label ? 1 : 0) - p(i));
    }
  }
  tape.set(logits, stream.tensor(gradient, logits.shape));
  return sum / count;
}
