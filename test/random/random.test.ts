import { readFileSync } from 'node:fs';
import test from 'ava';
import {
  AUGMENTATION_STREAMS,
  GATE_STREAMS,
  layerStream,
  noiseStream,
  permutation,
  philox4x32,
  SKIP_STREAM,
  uniforms,
} from '../../lib/random/index.js';

test('philox4x32 gives the known answers of the Random123 library', (t) => {
  const hex = (words: Uint32Array) => Array.from(words, (word) => word.toString(16).padStart(8, '0')).join(' ');
  const ones = 0xffffffff;
  t.is(hex(philox4x32([0, 0, 0, 0], [0, 0])), '6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  t.is(hex(philox4x32([ones, ones, ones, ones], [ones, ones])), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  t.is(
    hex(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])),
    'd16cfe09 94fdcceb 5001e420 24126ea1',
  );
});

test('Philox streams: those of the kernels are the same in TypeScript and C++, and no two draws share one', (t) => {
  const header = readFileSync('native/core/philox_streams.h', 'utf8');
  const kernels = [...header.matchAll(/\bk(\w)(\w+) = (\d+)/g)].map(([, first, rest, n]) => [
    first!.toLowerCase() + rest!,
    Number(n),
  ]);
  t.deepEqual(Object.fromEntries(kernels), GATE_STREAMS);
  const layers = Array.from({ length: 2 * 1024 }, (_, layer) => layerStream(layer));
  const all = [
    SKIP_STREAM,
    ...Object.values(AUGMENTATION_STREAMS),
    noiseStream(0),
    noiseStream(4095),
    ...layers.flatMap((first) => Object.values(GATE_STREAMS).map((stream) => first + stream)),
  ];
  t.is(new Set(all).size, all.length);
});

test('permutation: all values once, uniform, and different for every seed (also above 2^32), epoch and stream', (t) => {
  const seen = new Set<string>();
  for (const [seed, epoch, stream] of [
    [0, 0, 0],
    [1, 0, 0],
    [2 ** 32, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ] as const) {
    const order = permutation(100, seed, epoch, stream);
    t.deepEqual(
      [...order].sort((a, b) => a - b),
      Array.from({ length: 100 }, (_, i) => i),
    );
    t.deepEqual(permutation(100, seed, epoch, stream), order);
    seen.add(order.join());
  }
  t.is(seen.size, 5);
  // All 24 orders of 4 items over 24,000 draws: chi-square with 23 degrees of freedom, 99.9% quantile 49.7.
  const counts = new Map<string, number>();
  for (let epoch = 0; epoch < 24000; epoch++) {
    const key = permutation(4, 7, epoch, 0).join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  t.is(counts.size, 24);
  const chi = [...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  t.true(chi < 49.7, `chi-square ${chi}`);
});

test('uniforms: the same for the same (seed, step, stream, item), others for any other, and even', (t) => {
  const take = (...of: [number, number, number, number]): number[] => {
    const draw = uniforms(...of);
    return Array.from({ length: 1000 }, draw);
  };
  const first = take(7, 1, 2, 3);
  t.deepEqual(take(7, 1, 2, 3), first);
  for (const other of [take(8, 1, 2, 3), take(7, 2, 2, 3), take(7, 1, 3, 3), take(7, 1, 2, 4)])
    t.notDeepEqual(other, first);
  t.true(first.every((x) => x >= 0 && x < 1));
  const mean = first.reduce((a, b) => a + b, 0) / 1000;
  t.true(Math.abs(mean - 0.5) < 0.03, String(mean));
});
