/** Readers with faults put into them: what the harness must find. A byte of 200 in an input sets them off. */
import { DistilWhisperError } from '../../lib/errors/index.js';
import type { Reader } from './reader.js';

function planted(name: string, act: () => unknown, seconds = 1): Reader {
  return {
    name,
    about: `one input of twenty: ${name}`,
    seconds,
    open: () => ({
      // A long input of which one byte matters: it is made smaller to that byte.
      make: (random) => {
        const bytes = Uint8Array.from({ length: 200 }, () => random.below(100));
        if (random.chance(0.05)) bytes[random.below(200)] = 200;
        return bytes;
      },
      read: (input) => {
        if (input.includes(200)) return act();
        if (input.length === 0 || input[0]! % 2 === 0)
          throw new DistilWhisperError('ERR_ARGUMENT', 'refused as it should be');
      },
    }),
  };
}

const kept: Uint8Array[] = [];

export const readers: readonly Reader[] = [
  planted('nothing', () => undefined),
  planted('untyped', () => {
    throw new TypeError('a planted fault');
  }),
  planted('rejection', async () => {
    Promise.reject(new Error('nobody waits for this'));
  }),
  planted('hang', () => {
    for (;;);
  }),
  planted('waits', () => new Promise(() => {})),
  planted('abort', () => process.abort()),
  planted('exit', () => process.exit(3)),
  planted(
    'memory',
    () => {
      for (;;) kept.push(new Uint8Array(64 << 20).fill(1));
    },
    20,
  ),
];
