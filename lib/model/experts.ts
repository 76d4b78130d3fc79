import { DistilWhisperError } from '../errors/index.js';
import { chosenType, type kernels, type Parameter, type Stream } from '../tensor/index.js';
import {
  expertLayerNames,
  expertTensorNames,
  type Side,
  type StoredTensor,
  type WhisperConfig,
} from '../weights/index.js';
import { loadParameter, type ParameterOptions } from './create.js';

/** The gate and FFN that a language adds to one layer. */
export interface ExpertLayer {
  readonly gateIn: Parameter;
  readonly gateInBias: Parameter;
  readonly gateOut: Parameter;
  readonly fc1: Parameter;
  readonly fc1Bias: Parameter;
  readonly fc2: Parameter;
  readonly fc2Bias: Parameter;
}

export const expertTensors = (layer: ExpertLayer): kernels.ExpertTensors => ({
  gateIn: layer.gateIn.value,
  gateInBias: layer.gateInBias.value,
  gateOut: layer.gateOut.value,
  fc1: layer.fc1.value,
  fc1Bias: layer.fc1Bias.value,
  fc2: layer.fc2.value,
  fc2Bias: layer.fc2Bias.value,
});

/** The gradients that a backward adds to: of a skipped layer its gate's. */
export const expertGradients = (layer: ExpertLayer, skipped: boolean): kernels.ExpertGradients => ({
  gateIn: layer.gateIn.accumulator(),
  gateInBias: layer.gateInBias.accumulator(),
  gateOut: layer.gateOut.accumulator(),
  fc1: skipped ? null : layer.fc1.accumulator(),
  fc1Bias: skipped ? null : layer.fc1Bias.accumulator(),
  fc2: skipped ? null : layer.fc2.accumulator(),
  fc2Bias: skipped ? null : layer.fc2Bias.accumulator(),
});

/** Whether a parameter of this name is a gate's. */
export const isGateParameter = (name: string): boolean => name.includes('.gate_');

/** What a language adds to a Whisper: a gate and an FFN in every layer (DistilWhisper, arXiv 2311.01070, section 2). */
export class LanguageExpert {
  private constructor(
    /** Lower-case English name: "catalan". */
    readonly language: string,
    readonly encoder: readonly ExpertLayer[],
    readonly decoder: readonly ExpertLayer[],
    readonly parameters: ReadonlyMap<string, Parameter>,
  ) {}

  /** Puts an expert's tensors (names and shapes of `expertTensorNames`) on a stream. Throws ERR_EXPERT, ERR_ARGUMENT. */
  static load(
    stream: Stream,
    config: WhisperConfig,
    language: string,
    tensors: ReadonlyMap<string, StoredTensor>,
    options: ParameterOptions,
  ): LanguageExpert {
    const compute = chosenType('compute', options.compute, ['fp32', 'bf16']);
    const parameters = new Map<string, Parameter>();
    for (const [name, shape] of expertTensorNames(config, language)) {
      const tensor = tensors.get(name);
      if (!tensor) throw new DistilWhisperError('ERR_EXPERT', `the ${language} expert lacks ${name}`);
      // The gate decides by the sign of its sum: its weights stay in fp32.
      const type = isGateParameter(name) ? 'fp32' : compute;
      parameters.set(name, loadParameter(stream, name, tensor, shape, { ...options, compute: type }));
    }
    const layers = (side: Side): ExpertLayer[] =>
      Array.from({ length: config[`${side}_layers`] }, (_, i) => {
        const names = expertLayerNames(side, i, language);
        const of = (name: string): Parameter => parameters.get(name)!;
        return {
          gateIn: of(names.gateIn),
          gateInBias: of(names.gateInBias),
          gateOut: of(names.gateOut),
          fc1: of(names.fc1),
          fc1Bias: of(names.fc1Bias),
          fc2: of(names.fc2),
          fc2Bias: of(names.fc2Bias),
        };
      });
    return new LanguageExpert(language, layers('encoder'), layers('decoder'), parameters);
  }

  dispose(): void {
    for (const parameter of this.parameters.values()) parameter.dispose();
  }
}

/** Consecutive rows of one language. */
export interface ExpertRows {
  readonly expert: ExpertLayer;
  readonly begin: number;
  readonly end: number;
}

/**
 * Rows of each run of items whose language has an expert, in every layer; an item is `rowsPerItem` rows. Throws ERR_ARGUMENT for
 * other than `batch` languages.
 */
export function expertRows(
  experts: ReadonlyMap<string, LanguageExpert>,
  languages: readonly (string | null)[] | undefined,
  batch: number,
  rowsPerItem: number,
): (side: Side, layer: number) => ExpertRows[] {
  if (!languages) return () => [];
  if (languages.length !== batch) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `languages: expected one for each of ${batch} items, got ${languages.length}`,
    );
  }
  const runs: { expert: LanguageExpert; begin: number; end: number }[] = [];
  for (const [item, language] of languages.entries()) {
    const expert = language === null ? undefined : experts.get(language);
    if (!expert) continue;
    const last = runs.at(-1);
    if (last?.expert === expert && last.end === item * rowsPerItem) last.end += rowsPerItem;
    else runs.push({ expert, begin: item * rowsPerItem, end: (item + 1) * rowsPerItem });
  }
  return (side, layer) => runs.map(({ expert, begin, end }) => ({ expert: expert[side][layer]!, begin, end }));
}
