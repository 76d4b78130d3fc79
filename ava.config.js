/**
 * `npm test`: all that takes seconds, on the processor, and on a GPU where there is one. What takes longer is in *.long.test.ts
 * (ava.long.config.js), and what wants the machine for itself in *.alone.test.ts.
 */
export default {
  files: ['test/**/*.test.ts', '!test/**/*.{long,alone}.test.ts'],
  extensions: { ts: 'module' },
  nodeArguments: ['--import=tsx'],
  workerThreads: false,
  // One more than processors, since some wait for servers and processes.
  concurrency: 3,
  timeout: '10m',
  // The emulated CUDA device takes a minute to build: `npm run test:long` runs the kernels on it, and EMULATE_ALL the trainer.
  environmentVariables: process.env.DISTILWHISPER_EMULATE_ALL
    ? {}
    : { DISTILWHISPER_EMULATED_PLUGIN: process.env.DISTILWHISPER_EMULATED_PLUGIN ?? 'none' },
};
