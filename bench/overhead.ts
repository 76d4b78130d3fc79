/** What do experts and adapters cost at inference? Whisper-small: an encoder's window, and 64 tokens from caches that are filled. */
import { type ModelPass, mergedWeights, Whisper } from '../lib/model/index.js';
import type { FloatName, Stream } from '../lib/tensor/index.js';
import { LANGUAGES } from '../lib/text/index.js';
import { fromFloat32, type HostTensor } from '../lib/weights/index.js';
import { floatTypes, LANGUAGE, randomFeatures, randomFloats, randomModel } from './data.js';
import { decodeCase } from './decode.js';
import { type Case, measureGroup, type Notes, type Question } from './harness.js';

/** Languages of a model that serves many. */
const RESIDENT = 8;
/** The reference's: rank 64 on every fc1 and fc2. */
const ADAPTER = 'adapter';

/** A way to run a model, and what it holds beside the plain one. */
interface Way {
  name: string;
  model: Whisper;
  pass: ModelPass;
  /** Parameters beside the backbone's, and those of them that a row runs through beside one FFN. */
  added: number;
  active: number;
}

const sizeOf = (parameters: Iterable<{ size: number }>): number =>
  [...parameters].reduce((sum, { size }) => sum + size, 0);

/** Languages other than `LANGUAGE`. */
const others = LANGUAGES.map(({ name }) => name).filter((name) => name !== LANGUAGE);

async function waysOf(stream: Stream, type: FloatName): Promise<{ ways: Way[]; backbone: number; dispose(): void }> {
  const model = await randomModel(stream, 'small', type);
  const backbone = sizeOf(model.parameters.values());
  const pass = { languages: [LANGUAGE] };
  // Gates that start as the published code's are open for some rows and closed for others.
  const expert = await model.addExpert(LANGUAGE, { compat: 'reference' });
  const parameters = [...expert.parameters.values()];
  const gates = sizeOf(parameters.filter(({ name }) => name.includes('.gate_')));
  const many = await randomModel(stream, 'small', type);
  for (const language of [LANGUAGE, ...others.slice(0, RESIDENT - 1)])
    await many.addExpert(language, { compat: 'reference' });
  const adapter = await model.addAdapter(ADAPTER);
  for (const [name, { value }] of adapter.parameters)
    if (name.includes('lora_B')) value.write(randomFloats(value.size, 0.01));
  model.adapters.use(null);
  const merged = await mergedModel(stream, model, type);
  const ways: Way[] = [
    { name: 'plain', model, pass: { adapter: null }, added: 0, active: 0 },
    { name: 'an expert', model, pass: { ...pass, adapter: null }, added: sizeOf(parameters), active: gates },
    {
      name: `${RESIDENT} experts resident`,
      model: many,
      pass,
      added: RESIDENT * sizeOf(parameters),
      active: gates,
    },
    { name: 'LoRA, merged', model: merged, pass: {}, added: 0, active: 0 },
    {
      name: 'LoRA, apart',
      model,
      pass: { adapter: ADAPTER },
      added: sizeOf(adapter.parameters.values()),
      active: sizeOf(adapter.parameters.values()),
    },
  ];
  return { ways, backbone, dispose: () => [model, many, merged].forEach((one) => void one.dispose()) };
}

/** The model with its adapter in its weights. */
async function mergedModel(stream: Stream, model: Whisper, compute: FloatName): Promise<Whisper> {
  const adapter = model.adapters.get(ADAPTER)!;
  const of = (parameters: Whisper['parameters']) => ({
    read: async (name: string): Promise<HostTensor> => {
      const { value, shape } = parameters.get(name)!;
      return fromFloat32(await value.floats(), shape, 'f32');
    },
  });
  const { modules, parameters } = adapter;
  const merged = await mergedWeights(stream, of(model.parameters), { modules, weights: of(parameters) });
  const tensors = new Map<string, HostTensor>();
  for (const name of model.parameters.keys())
    tensors.set(name, merged.get(name) ?? (await of(model.parameters).read(name)));
  return Whisper.fromTensors(stream, model.config, tensors, { compute });
}

const notesOf = ({ added, active }: Way, backbone: number): Notes => ({
  'parameters held, % more': Number(((100 * added) / backbone).toFixed(2)),
  'run through, % more': Number(((100 * active) / backbone).toFixed(2)),
});

export const overhead: Question = {
  name: 'overhead',
  question: 'What do experts and adapters cost at inference?',
  async *measure(context) {
    const { stream, types } = context;
    for (const type of floatTypes(types)) {
      const { ways, backbone, dispose } = await waysOf(stream, type);
      const { config } = ways[0]!.model;
      const shape = [1, config.num_mel_bins, 2 * config.max_source_positions];
      const features = stream.persistent(randomFeatures(config, 1), shape);
      const windows = ways.map(
        (way): Case => ({
          name: `${type}, ${way.name}`,
          queue: () => stream.tidy(() => void way.model.encode(features, way.pass) as undefined),
          notes: () => notesOf(way, backbone),
        }),
      );
      yield await measureGroup(context, { title: `Whisper-small encoder, 30 s, ${type}`, cases: windows });
      features.dispose();
      const tokens = ways.map(
        (way): Case => ({
          ...decodeCase(stream, way.model, type, 1, { pass: way.pass }),
          name: `${type}, ${way.name}`,
        }),
      );
      yield await measureGroup(context, { title: `Whisper-small, 64 tokens greedily, ${type}`, cases: tokens });
      dispose();
    }
  },
};
