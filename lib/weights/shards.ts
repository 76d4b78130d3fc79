/** The weights of a model folder: one file or shards, in safetensors or as PyTorch saves them. */
import { join } from 'node:path';
import { DistilWhisperError, shown } from '../errors/index.js';
import { isFile, isJsonObject, readJsonObject } from '../files/index.js';
import type { HostTensor, StoredTensor, TensorInfo } from './host.js';
import { openSafetensors, type TensorSource } from './safetensors.js';
import { importTorchCheckpoint } from './torch.js';

type WeightsFile = TensorSource & { readonly path: string };

/** How weights lie in a folder; the first that is there counts. */
export const LAYOUTS = [
  { single: 'model.safetensors', ending: 'safetensors', open: openSafetensors },
  { single: 'pytorch_model.bin', ending: 'bin', open: importTorchCheckpoint },
] as const;

export const indexOf = (single: string): string => `${single}.index.json`;

/** Files by which a folder has weights. */
export const WEIGHTS_FILES: readonly string[] = LAYOUTS.flatMap(({ single }) => [single, indexOf(single)]);

/** Several files as one source; `where` says which file holds which name. */
class Shards implements TensorSource {
  readonly #files: readonly WeightsFile[];
  readonly #where: ReadonlyMap<string, WeightsFile>;

  constructor(files: readonly WeightsFile[], where: ReadonlyMap<string, WeightsFile>) {
    this.#files = files;
    this.#where = where;
  }

  names(): string[] {
    return [...this.#where.keys()];
  }

  has(name: string): boolean {
    return this.#where.has(name);
  }

  info(name: string): TensorInfo {
    return this.#holder(name).info(name);
  }

  read(name: string): Promise<HostTensor> {
    return this.#holder(name).read(name);
  }

  stored(name: string, copied?: boolean): Promise<StoredTensor> {
    return this.#holder(name).stored(name, copied);
  }

  async close(): Promise<void> {
    await Promise.all(this.#files.map((file) => file.close()));
  }

  #holder(name: string): WeightsFile {
    const file = this.#where.get(name);
    if (file === undefined) throw new DistilWhisperError('ERR_MODEL', `No shard holds a tensor ${shown(name)}`);
    return file;
  }
}

async function openShards(folder: string, { single, ending, open }: (typeof LAYOUTS)[number]): Promise<Shards> {
  const indexPath = join(folder, indexOf(single));
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_MODEL', what);
  };
  const index = await readJsonObject(indexPath, 'ERR_MODEL');
  const map = index.weight_map;
  if (!isJsonObject(map)) return refuse(`${indexPath} has no weight_map object`);
  const shardNames = new Set<string>();
  for (const [name, shard] of Object.entries(map)) {
    // A plain file name: an index must not be able to point outside of its folder.
    if (typeof shard !== 'string' || !/^[\w][\w.-]*$/.test(shard) || !shard.endsWith(`.${ending}`)) {
      return refuse(`${indexPath} puts ${name} in ${shown(shard)}, which is no ${ending} file name`);
    }
    shardNames.add(shard);
  }
  const files: WeightsFile[] = [];
  try {
    const where = new Map<string, WeightsFile>();
    for (const shard of shardNames) {
      const path = join(folder, shard);
      if (!(await isFile(path))) refuse(`${indexPath} names the shard ${shard}, which is missing`);
      const file = await open(path);
      files.push(file);
      for (const name of file.names()) {
        const other = where.get(name);
        if (other) refuse(`${name} is in two shards: ${other.path} and ${path}`);
        if (map[name] !== shard) {
          const said = map[name] === undefined ? 'does not list it' : `says ${String(map[name])}`;
          refuse(`${path} holds ${name}, but ${indexPath} ${said}`);
        }
        where.set(name, file);
      }
    }
    for (const [name, shard] of Object.entries(map)) {
      if (!where.has(name)) refuse(`${indexPath} puts ${name} in ${String(shard)}, which does not hold it`);
    }
    return new Shards(files, where);
  } catch (error) {
    await Promise.all(files.map((file) => file.close()));
    throw error;
  }
}

/**
 * Opens the weights of a folder: safetensors where there are any, else PyTorch's, each one file or shards with their index.
 * Throws ERR_MODEL and what `openSafetensors` and `importTorchCheckpoint` throw.
 */
export async function openWeights(folder: string): Promise<TensorSource> {
  for (const layout of LAYOUTS) {
    if (await isFile(join(folder, layout.single))) return layout.open(join(folder, layout.single));
    if (await isFile(join(folder, indexOf(layout.single)))) return openShards(folder, layout);
  }
  const names = LAYOUTS.map(({ single }) => single).join(' nor ');
  throw new DistilWhisperError('ERR_MODEL', `${folder} has neither ${names}, nor shards of one with their index`);
}
