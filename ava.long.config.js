/** The first half of `npm run test:long`: what takes tens of seconds, and the tests of kernels and decoding on the emulated CUDA device. */
import { readFileSync } from 'node:fs';
import quick from './ava.config.js';

const { environmentVariables: _, ...rest } = quick;

// .ci/run runs these under the sanitizers, on the emulated device too, and says so.
const elsewhere = process.env.DISTILWHISPER_SANITIZED
  ? readFileSync(new URL('scripts/sanitized-tests.txt', import.meta.url), 'utf8').match(/^test\/.*$/gm)
  : [];

export default {
  ...rest,
  files: [
    'test/**/*.long.test.ts',
    'test/native/*.test.ts',
    'test/decode/{greedy,graph,beam-search,timestamp-rules}.test.ts',
    'test/profile/device.test.ts',
    'test/train/cuda.test.ts',
    ...elsewhere.map((file) => `!${file}`),
  ],
  // `npm test` runs every instruction set.
  environmentVariables: { DISTILWHISPER_KERNEL_TESTS: 'cuda' },
};
