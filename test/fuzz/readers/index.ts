/** All readers that are fuzzed, by kind. A module of this shape is what the supervisor and its children load. */
import type { Reader } from '../reader.js';
import { audioReaders } from './audio.js';
import { commandLineReaders } from './command-line.js';
import { corpusReaders } from './corpora.js';
import { dataReaders } from './data.js';
import { hubReaders } from './hub.js';
import { runReaders } from './runs.js';
import { textReaders } from './texts.js';
import { weightReaders } from './weights.js';

export const readers: readonly Reader[] = [
  ...audioReaders,
  ...weightReaders,
  ...textReaders,
  ...dataReaders,
  ...corpusReaders,
  ...runReaders,
  ...hubReaders,
  ...commandLineReaders,
];
