/** Which CUDA plugin this process takes, and what the emulated one tells of itself. */
import { cudaReport } from '../../lib/native/index.js';

/** Takes the plugin at `path` from here on; what it returns goes back to the one before. */
export function usePlugin(path: string): () => void {
  const before = process.env.DISTILWHISPER_CUDA_PLUGIN;
  process.env.DISTILWHISPER_CUDA_PLUGIN = path;
  return () => {
    if (before === undefined) delete process.env.DISTILWHISPER_CUDA_PLUGIN;
    else process.env.DISTILWHISPER_CUDA_PLUGIN = before;
  };
}

export function withPlugin<T>(path: string, body: () => T): T {
  const back = usePlugin(path);
  try {
    return body();
  } finally {
    back();
  }
}

/** In the order in which the emulated device tells them (test/cuda-emulator/emulated_device.cc). */
const COUNTS = ['kernels', 'products', 'copies', 'captures', 'graphs', 'events', 'mostEvents', 'eventsMade'] as const;

/**
 * What the host has put on streams of the emulated device at `path` so far, a graph's launch as one; and of the events that can be
 * timed those that are there, the most that were at a time, and all.
 */
export function emulatedCounts(path: string): Record<(typeof COUNTS)[number], number> {
  const said = withPlugin(path, () => cudaReport().cublasLt.path!.match(/\d+/g)!);
  return Object.fromEntries(COUNTS.map((name, i) => [name, Number(said[i])])) as ReturnType<typeof emulatedCounts>;
}
