export { type BadRow, BadRowsError, badRow, blamesRow, listRows, sortRows } from './bad-rows.js';
export { type LoadedBatch, PrefetchLoader, type PrefetchLoaderOptions } from './loader.js';
export { type ManifestColumn, type ManifestEntry, type ManifestOptions, readManifest, type Task } from './manifest.js';
export type { ManifestFormat } from './rows.js';
export { type Batch, EpochSampler, SAMPLER_OPTIONS, type SamplerItem, type SamplerOptions } from './sampler.js';
