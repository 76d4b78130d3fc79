import { Stream } from '../tensor/index.js';

let stream: Stream | null = null;

/** The stream of this thread that resamples; it lives as long as the thread. */
export function resamplingStream(): Stream {
  stream ??= new Stream({ threads: 1, label: 'resampling' });
  return stream;
}
