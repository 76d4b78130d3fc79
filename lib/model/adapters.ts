/** LoRA adapters of a model: new, loaded, chosen for a pass, or merged into its weights. */
import { DistilWhisperError } from '../errors/index.js';
import { ADAPTER_STREAMS } from '../random/index.js';
import { kernels, Parameter, type Stream } from '../tensor/index.js';
import {
  type AdapterFolder,
  fromFloat32,
  type HostTensor,
  type LoraConfig,
  type LoraModule,
  linearModules,
  loraModules,
  loraTensorNames,
  type TensorSource,
  toFloat32,
  type WhisperConfig,
} from '../weights/index.js';
import { loadParameter, type ParameterOptions, randomUniforms } from './create.js';
import type { AdaptedPass, AdapterDropout, Linear } from './linear.js';

/** The paper's LoRA: all fc1 and fc2, rank 64, alpha 64, dropout 0.05 (the reference's train_lora.py). */
export const loraDefaults: LoraConfig = {
  rank: 64,
  alpha: 64,
  targets: ['fc1', 'fc2'],
  rankPattern: {},
  alphaPattern: {},
  rsLora: false,
  dropout: 0.05,
};

/** A LoRA adapter of a model. */
export class LoraAdapter {
  private constructor(
    readonly name: string,
    readonly config: LoraConfig,
    readonly modules: readonly LoraModule[],
    /** By `loraTensorNames`. */
    readonly parameters: ReadonlyMap<string, Parameter>,
  ) {}

  /** A new one that trains, and changes nothing yet: A uniform in ±1/√in (PEFT's start), B = 0. Throws ERR_ARGUMENT. */
  static async create(
    stream: Stream,
    model: WhisperConfig,
    name: string,
    config: LoraConfig,
    seed: number,
  ): Promise<LoraAdapter> {
    const modules = loraModules(model, config);
    const numbers = numbersOf(model);
    const parameters = new Map<string, Parameter>();
    for (const { module, rank, inputs, outputs } of modules) {
      const { a, b } = loraTensorNames(module);
      const op = ADAPTER_STREAMS.start + numbers.get(module)!;
      const start = await randomUniforms(stream, rank * inputs, 1 / Math.sqrt(inputs), seed, op);
      parameters.set(a, Parameter.trainable(stream, a, start, [rank, inputs]));
      parameters.set(b, Parameter.trainable(stream, b, new Float32Array(outputs * rank), [outputs, rank]));
    }
    return new LoraAdapter(name, config, modules, parameters);
  }

  /** One from its folder. Throws ERR_ADAPTER for DoRA, which only merged weights can follow. */
  static async load(
    stream: Stream,
    name: string,
    { path, config, modules, weights }: AdapterFolder,
    options: ParameterOptions,
  ): Promise<LoraAdapter> {
    refuseDora(modules, path, 'beside the weights');
    const parameters = new Map<string, Parameter>();
    for (const { module, rank, inputs, outputs } of modules) {
      const { a, b } = loraTensorNames(module);
      for (const [of, shape] of [
        [a, [rank, inputs]],
        [b, [outputs, rank]],
      ] as const) {
        parameters.set(of, loadParameter(stream, of, await weights.read(of), shape, options));
      }
    }
    return new LoraAdapter(name, config, modules, parameters);
  }

  dispose(): void {
    for (const parameter of this.parameters.values()) parameter.dispose();
  }
}

/** The adapters of a model, and which of them passes take. */
export class Adapters {
  private readonly all = new Map<string, LoraAdapter>();
  private chosen: string | null = null;

  constructor(
    private readonly config: WhisperConfig,
    private readonly linears: ReadonlyMap<string, Linear<Parameter | null>>,
  ) {}

  names(): string[] {
    return [...this.all.keys()];
  }

  values(): LoraAdapter[] {
    return [...this.all.values()];
  }

  get(name: string): LoraAdapter | undefined {
    return this.all.get(name);
  }

  /** The one that passes take where they do not say; null: none. */
  get active(): string | null {
    return this.chosen;
  }

  /** Throws ERR_ARGUMENT for a name that is none. */
  use(name: string | null): void {
    this.chosen = this.known(name);
  }

  attach(adapter: LoraAdapter): void {
    this.remove(adapter.name);
    const numbers = numbersOf(this.config);
    for (const { module, scale } of adapter.modules) {
      const { a, b } = loraTensorNames(module);
      this.linears.get(module)!.adapters.set(adapter.name, {
        module,
        a: adapter.parameters.get(a)!,
        b: adapter.parameters.get(b)!,
        scale,
        stream: ADAPTER_STREAMS.dropout + numbers.get(module)!,
      });
    }
    this.all.set(adapter.name, adapter);
  }

  remove(name: string): void {
    for (const linear of this.linears.values()) linear.adapters.delete(name);
    this.all.get(name)?.dispose();
    this.all.delete(name);
    if (this.chosen === name) this.chosen = null;
  }

  /** What a pass runs with. `name`: undefined: the active one. Throws ERR_ARGUMENT for a name that is none. */
  of(name: string | null | undefined, dropout: AdapterDropout | null = null): AdaptedPass['adapter'] {
    const known = name === undefined ? this.chosen : this.known(name);
    return known === null ? null : { name: known, dropout };
  }

  dispose(): void {
    for (const adapter of this.all.values()) adapter.dispose();
  }

  private known(name: string | null): string | null {
    if (name === null || this.all.has(name)) return name;
    const names = this.names().join(', ') || 'none';
    throw new DistilWhisperError('ERR_ARGUMENT', `adapter: expected one that the model has (${names}), got '${name}'`);
  }
}

/**
 * The weights of the layers that an adapter changes, merged with it, by name: W + scale · B·A, and with DoRA the rows of that
 * at their magnitudes; in fp32. `weights`: the model's. Errors: ERR_STREAM.
 */
export async function mergedWeights(
  stream: Stream,
  weights: Pick<TensorSource, 'read'>,
  adapter: { modules: readonly LoraModule[]; weights: Pick<TensorSource, 'read'> },
): Promise<Map<string, HostTensor>> {
  const merged = new Map<string, HostTensor>();
  for (const { module, rank, scale, inputs, outputs, dora } of adapter.modules) {
    const name = `${module}.weight`;
    const names = loraTensorNames(module);
    const of = async (source: Pick<TensorSource, 'read'>, tensor: string) => toFloat32(await source.read(tensor));
    const shape = [outputs, inputs];
    const residual = stream.persistent(await of(weights, name), shape, 'f32');
    const a = stream.persistent(await of(adapter.weights, names.a), [rank, inputs], 'f32');
    const b = stream.persistent(
      (await of(adapter.weights, names.b)).map((x) => scale * x),
      [outputs, rank],
      'f32',
    );
    const { dx } = kernels.linearBackwardInput(stream, { dy: b, weight: a, residual, compute: 'f32', out: 'f32' });
    const values = (await dx.floats()).slice();
    for (const tensor of [dx, residual, a, b]) tensor.dispose();
    if (dora) scaleRows(values, await of(adapter.weights, names.magnitude));
    merged.set(name, fromFloat32(values, shape, 'f32'));
  }
  return merged;
}

/** Gives every row of a matrix its magnitude. */
function scaleRows(values: Float32Array, magnitudes: Float32Array): void {
  const width = values.length / magnitudes.length;
  for (const [row, magnitude] of magnitudes.entries()) {
    const of = values.subarray(row * width, (row + 1) * width);
    const factor = magnitude / Math.sqrt(of.reduce((sum, x) => sum + x * x, 0));
    for (let i = 0; i < width; i++) of[i]! *= factor;
  }
}

/** Throws ERR_ADAPTER. */
function refuseDora(modules: readonly LoraModule[], path: string, how: string): void {
  if (!modules.some(({ dora }) => dora)) return;
  throw new DistilWhisperError(
    'ERR_ADAPTER',
    `${path}: use_dora: expected LoRA without DoRA to run ${how}, got one with it: merge it into the weights`,
  );
}

/** Each linear layer's number: its place in the model. */
const numbersOf = (config: WhisperConfig): Map<string, number> =>
  new Map([...linearModules(config).keys()].map((module, i) => [module, i]));
