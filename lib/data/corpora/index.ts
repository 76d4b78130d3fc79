/** How each kind of corpus is recognised and read. */
export { isAudioFolder, readAudioFolder } from './audio-folder.js';
export { BlockMemory } from './block-cache.js';
export { isCommonVoice, readCommonVoice } from './common-voice.js';
export { type CorpusReader, Gathered, SUBSETS, type Subset, throwIfAborted } from './corpus.js';
export { isFleurs, readFleurs } from './fleurs.js';
export { isPacked, keyOf, readPacked, readShards, SHARD_KIND, SHARDS_FILE, shardName, toPcm16 } from './packed.js';
export { chosenShards, isParquet, readParquet } from './parquet.js';
