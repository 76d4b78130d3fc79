/** The first half of `npm run test:long`: what takes tens of seconds, and the tests of kernels and decoding on the emulated CUDA device. */
import quick from './ava.config.js';

const { environmentVariables: _, ...rest } = quick;

export default {
  ...rest,
  files: [
    'test/**/*.long.test.ts',
    'test/native/*.test.ts',
    'test/decode/{greedy,graph,beam-search,timestamp-rules}.test.ts',
    'test/profile/device.test.ts',
    'test/train/cuda.test.ts',
  ],
  // `npm test` runs every instruction set.
  environmentVariables: { DISTILWHISPER_KERNEL_TESTS: 'cuda' },
};
