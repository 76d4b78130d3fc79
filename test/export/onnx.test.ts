/** Whisper as ONNX files: what a reader of protocol buffers finds in them. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  crossGraph,
  decoderStepGraph,
  encoderGraph,
  type Graph,
  mergedDecoderGraph,
  type OnnxModel,
} from '../../lib/export/onnx/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { attachRandomExpert } from '../support/experts.js';
import { tinyConfig } from '../support/tiny.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-onnx-'));
const stream = new Stream({ threads: 1 });
const config = tinyConfig();
const model = await Whisper.create(stream, config, { seed: 1 });
attachRandomExpert(model, 'catalan', 2);
const parameters = new Map([...model.parameters, ...model.experts.get('catalan')!.parameters]);
const values = new Map<string, Float32Array>();
for (const [name, { value }] of parameters) values.set(name, await value.floats());
const plain: OnnxModel = {
  config,
  expert: null,
  weights: { shape: (name) => parameters.get(name)!.shape, values: async (name) => values.get(name)! },
};
const gated: OnnxModel = { ...plain, expert: 'catalan' };
stream.close();
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));

/** The fields of a message by number: numbers, and bytes of all else. */
function fields(bytes: Uint8Array): Map<number, (number | Uint8Array)[]> {
  const found = new Map<number, (number | Uint8Array)[]>();
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [field, wire] = [tag >> 3, tag & 7];
    let value: number | Uint8Array;
    if (wire === 0) value = varint();
    else {
      const length = wire === 2 ? varint() : 4;
      value = bytes.subarray(at, at + length);
      at += length;
    }
    found.set(field, [...(found.get(field) ?? []), value]);
  }
  return found;
}
const text = (value: unknown): string => new TextDecoder().decode(value as Uint8Array);
const names = (messages: readonly unknown[] | undefined, field: number): string[] =>
  (messages ?? []).map((message) => text(fields(message as Uint8Array).get(field)![0]));

let count = 0;
/** The model that is written of a graph: operators, names that go in and out, tensors by name. */
async function written(graph: Graph) {
  const path = join(scratch, `${count++}.onnx`);
  await graph.write(path);
  const file = fields(readFileSync(path));
  const main = fields(file.get(7)![0] as Uint8Array);
  return {
    version: file.get(1)![0],
    producer: text(file.get(2)![0]),
    operators: names(main.get(1), 4),
    tensors: new Map(
      (main.get(5) ?? []).map((each) => [text(fields(each as Uint8Array).get(8)![0]), fields(each as Uint8Array)]),
    ),
    inputs: names(main.get(11), 1),
    outputs: names(main.get(12), 1),
    /** What every node reads that nothing before it gives. */
    missing: (main.get(1) ?? []).reduce<{ known: Set<string>; missing: string[] }>(
      (sum, each) => {
        const node = fields(each as Uint8Array);
        const read = (node.get(1) ?? []).map(text);
        sum.missing.push(...read.filter((name) => !sum.known.has(name)));
        for (const name of node.get(2) ?? []) sum.known.add(text(name));
        return sum;
      },
      { known: new Set([...names(main.get(5), 8), ...names(main.get(11), 1)]), missing: [] },
    ).missing,
  };
}

const bytesOf = (array: ArrayBufferView): number[] => [
  ...new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
];
const CACHES = ['decoder.key', 'decoder.value', 'encoder.key', 'encoder.value'];
const past = CACHES.map((kind) => `past_key_values.0.${kind}`);
const present = CACHES.map((kind) => `present.0.${kind}`);

test('graphs take and give what their runtimes expect, and every value comes from somewhere', async (t) => {
  const step = past.toSorted();
  for (const dtype of ['fp32', 'int8'] as const)
    for (const model of [plain, gated])
      for (const [graph, inputs, outputs] of [
        [encoderGraph(model, dtype), ['input_features'], ['last_hidden_state']],
        [decoderStepGraph(model, dtype), ['input_ids', ...step], ['logits', ...present.slice(0, 2)]],
        [crossGraph(model), ['encoder_hidden_states'], past.slice(2)],
        [
          mergedDecoderGraph(model, dtype),
          ['input_ids', 'encoder_hidden_states', ...step, 'use_cache_branch'],
          ['logits', ...present],
        ],
        [
          mergedDecoderGraph(model, dtype, { hidden: true }),
          ['input_ids', 'encoder_hidden_states', ...step, 'use_cache_branch'],
          ['logits', ...present, 'last_hidden_state'],
        ],
      ] as const) {
        const got = await written(graph);
        t.deepEqual([got.version, got.producer], [8, 'distilwhisper']);
        t.deepEqual(got.inputs, [...inputs]);
        t.deepEqual(got.outputs, [...outputs]);
        t.deepEqual(got.missing, []);
      }
});

test("weights are the model's own: as they are, transposed, or in int8 with a scale a channel", async (t) => {
  const name = 'model.encoder.layers.0.fc1.weight';
  const w = values.get(name)!;
  const [rows, columns] = parameters.get(name)!.shape as [number, number];
  const { tensors } = await written(encoderGraph(plain, 'fp32'));
  const norm = 'model.encoder.layer_norm.weight';
  t.deepEqual(bytesOf(tensors.get(norm)!.get(9)![0] as Uint8Array), bytesOf(values.get(norm)!));
  const transposed = tensors.get(`${name}.T`)!;
  t.deepEqual(transposed.get(1), [columns, rows]);
  const expected = Float32Array.from(w, (_, i) => w[(i % rows) * columns + Math.floor(i / rows)]!);
  t.deepEqual(bytesOf(transposed.get(9)![0] as Uint8Array), bytesOf(expected));
  const quantised = (await written(encoderGraph(plain, 'int8'))).tensors;
  const scales = new Float32Array(Uint8Array.from(quantised.get(`${name}.scale`)!.get(9)![0] as Uint8Array).buffer);
  // Around 128: signed weights overflow in the runtime on processors without VNNI.
  const q = quantised.get(`${name}.uint8.T`)!.get(9)![0] as Uint8Array;
  t.is(scales.length, rows);
  t.true((quantised.get(`${name}.zero`)!.get(9)![0] as Uint8Array).every((zero) => zero === 128));
  for (const [i, x] of expected.entries())
    t.true(Math.abs((q[i]! - 128) * scales[i % rows]! - x) <= scales[i % rows]! * 0.5001);
});

test('the token embedding is stored once in fp32; tensors of a file that is too large lie beside it, each on its page', async (t) => {
  const table = 'model.decoder.embed_tokens.weight';
  const graph = mergedDecoderGraph(plain, 'fp32');
  const path = join(scratch, 'large.onnx');
  t.deepEqual(await graph.write(path, { maxBytes: 30_000 }), ['large.onnx', 'large.onnx_data']);
  const main = fields(fields(readFileSync(path)).get(7)![0] as Uint8Array);
  const data = readFileSync(`${path}_data`);
  const tensors = (main.get(5) ?? []).map((each) => fields(each as Uint8Array));
  t.is(tensors.filter((tensor) => text(tensor.get(8)![0]).startsWith(table)).length, 1);
  for (const tensor of tensors) {
    if (tensor.get(14)?.[0] !== 1) {
      t.true((tensor.get(9)![0] as Uint8Array).byteLength < 1024);
      continue;
    }
    const place = Object.fromEntries(
      tensor.get(13)!.map((entry) => {
        const pair = fields(entry as Uint8Array);
        return [text(pair.get(1)![0]), text(pair.get(2)![0])];
      }),
    );
    t.is(place.location, 'large.onnx_data');
    t.is(Number(place.offset) % 4096, 0);
    if (text(tensor.get(8)![0]) === table) {
      const there = data.subarray(Number(place.offset), Number(place.offset) + Number(place.length));
      t.deepEqual(bytesOf(there), bytesOf(values.get(table)!));
    }
  }
});
