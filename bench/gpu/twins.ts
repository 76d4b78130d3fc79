/** The same model on several devices, to the bit: a device's own random numbers differ from another's in the last place. */
import { LanguageExpert, Whisper, type WhisperOptions } from '../../lib/model/index.js';
import { type Parameter, Stream } from '../../lib/tensor/index.js';
import { fromFloat32, type HostTensor, type WhisperConfig } from '../../lib/weights/index.js';

/** Weights of a new model, drawn on the processor, and of its new expert where a language is named. */
export interface Twin {
  config: WhisperConfig;
  model: ReadonlyMap<string, HostTensor>;
  expert: { language: string; tensors: ReadonlyMap<string, HostTensor> } | null;
}

export async function drawTwin(
  config: WhisperConfig,
  seed: number,
  expert?: { language: string; seed: number },
): Promise<Twin> {
  const stream = new Stream();
  const read = async (parameters: ReadonlyMap<string, Parameter>): Promise<Map<string, HostTensor>> => {
    const tensors = new Map<string, HostTensor>();
    for (const [name, { value, shape }] of parameters)
      tensors.set(name, fromFloat32(await value.floats(), shape, 'f32'));
    return tensors;
  };
  const model = await Whisper.create(stream, config, { seed });
  const added = expert ? await model.addExpert(expert.language, { seed: expert.seed }) : null;
  const twin = {
    config,
    model: await read(model.parameters),
    expert: added ? { language: added.language, tensors: await read(added.parameters) } : null,
  };
  stream.close();
  return twin;
}

/** The twin's model on a stream; its expert trains. */
export function placeTwin(stream: Stream, { config, model, expert }: Twin, options: WhisperOptions): Whisper {
  const whisper = Whisper.fromTensors(stream, config, model, options);
  if (expert) {
    const settings = { compute: whisper.compute, trainable: () => true };
    whisper.attach(LanguageExpert.load(stream, config, expert.language, expert.tensors, settings));
  }
  return whisper;
}
