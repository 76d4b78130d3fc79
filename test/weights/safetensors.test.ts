import { execFileSync } from 'node:child_process';
import { mkdir, readdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { type ErrorCode, fileWriteError, isDistilWhisperError } from '../../lib/errors/index.js';
import {
  DTYPE_BYTES,
  fromFloat32,
  type HostDtype,
  type HostTensor,
  openSafetensors,
  parseSafetensors,
  serializeSafetensors,
  toFloat32,
  type WeightEntry,
  weightEntries,
  whisperTensorShapes,
  writeModelFolder,
  writeSafetensors,
} from '../../lib/weights/index.js';

import { generator, randomTensors, refused, scratch, small } from '../support/weights.js';

/** A file of any header text and data. */
function rawFile(header: string | Uint8Array, dataBytes = 0, length?: bigint): Uint8Array {
  const text = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + text.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

// ---- conversions -------------------------------------------------------------------------------------------------

/** The exact value of a 16-bit float, by its definition; NaN and infinities included. */
function exact(bits: number, exponentBits: number): number {
  const mantissaBits = 15 - exponentBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = (bits >> mantissaBits) & (2 ** exponentBits - 1);
  const mantissa = (bits & (2 ** mantissaBits - 1)) / 2 ** mantissaBits;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 2 ** exponentBits - 1) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? mantissa * 2 ** (1 - bias) : (1 + mantissa) * 2 ** (exponent - bias));
}

for (const [dtype, exponentBits] of [
  ['f16', 5],
  ['bf16', 8],
] as const) {
  test(`every ${dtype} value becomes its exact float32 and comes back as the same bits`, (t) => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const values = toFloat32({ dtype, shape: [65536], data: new Uint8Array(all.buffer) });
    const back = new Uint16Array(fromFloat32(values, [65536], dtype).data.buffer);
    let wrong = 0;
    for (let i = 0; i < 65536; i++) {
      const expected = exact(i, exponentBits);
      if (!Object.is(values[i], expected)) wrong++;
      if (Number.isNaN(expected) ? !Number.isNaN(exact(back[i]!, exponentBits)) : back[i] !== i) wrong++;
    }
    t.is(wrong, 0);
  });

  test(`float32 is rounded to the nearest ${dtype}, ties to even, at and around every midpoint`, (t) => {
    const infinity = exponentBits === 5 ? 0x7c00 : 0x7f80;
    const probe = new Float32Array(1);
    const probeBits = new Uint32Array(probe.buffer);
    const values: number[] = [];
    const expected: number[] = [];
    const add = (value: number, bits: number) => {
      values.push(value, -value);
      expected.push(bits, bits | 0x8000);
    };
    for (let low = 0; low < infinity; low++) {
      // The last interval ends at what would be the next value, were the exponent unbounded.
      const a = exact(low, exponentBits);
      const b = low + 1 === infinity ? 2 * a - exact(low - 1, exponentBits) : exact(low + 1, exponentBits);
      const middle = (a + b) / 2;
      probe[0] = middle;
      if (probe[0] !== middle) continue;
      add(middle, low % 2 === 0 ? low : low + 1);
      const at = probeBits[0]!;
      probeBits[0] = at + 1;
      add(probe[0], low + 1);
      probeBits[0] = at - 1;
      add(probe[0], low);
    }
    add(3.4028234663852886e38, infinity);
    add(Number.POSITIVE_INFINITY, infinity);
    add(2 ** -149, exponentBits === 5 ? 0 : 0);
    const got = new Uint16Array(fromFloat32(Float32Array.from(values), [values.length], dtype).data.buffer);
    t.true(values.length > 100_000);
    const bad = values.findIndex((_, i) => got[i] !== expected[i]);
    t.is(bad, -1, `${values[bad]} became ${got[bad]}, expected ${expected[bad]}`);
  });
}

test('a NaN stays a NaN whatever its payload, and the type that is asked for decides', (t) => {
  const bits = Uint32Array.of(0x7f800001, 0xff800001, 0x7fc00000, 0x7fffffff);
  for (const dtype of ['f64', 'f32', 'f16', 'bf16'] as const) {
    const tensor = fromFloat32(new Float32Array(bits.buffer), [4], dtype);
    t.is(tensor.data.byteLength, 4 * DTYPE_BYTES[dtype]);
    t.true(toFloat32(tensor).every(Number.isNaN), dtype);
  }
});

test('conversions take data at odd addresses, refuse integers and wrong lengths, and never share memory', async (t) => {
  const tensor = fromFloat32(Float32Array.of(1, -2.5, 3), [3], 'f32');
  const odd = new Uint8Array(13);
  odd.set(tensor.data, 1);
  t.deepEqual(toFloat32({ ...tensor, data: odd.subarray(1) }), Float32Array.of(1, -2.5, 3));
  const values = Float32Array.of(7);
  const made = fromFloat32(values, [], 'f32');
  const read = toFloat32(made);
  values[0] = 8;
  made.data.fill(0);
  t.is(read[0], 7);
  await refused(t, 'ERR_DTYPE', /i32/, () => toFloat32({ dtype: 'i32', shape: [1], data: new Uint8Array(4) }));
  await refused(t, 'ERR_SHAPE', /\[2\].*8 bytes.*4/, () =>
    toFloat32({ dtype: 'f32', shape: [2], data: new Uint8Array(4) }),
  );
  await refused(t, 'ERR_SHAPE', /\[2, 2\].*3 values/, () => fromFloat32(new Float32Array(3), [2, 2], 'bf16'));
  await refused(t, 'ERR_DTYPE', /u8/, () => fromFloat32(new Float32Array(1), [1], 'u8' as 'f32'));
});

// ---- safetensors -------------------------------------------------------------------------------------------------

function everyKind(): Map<string, HostTensor> {
  const next = generator(5);
  const tensors = new Map<string, HostTensor>();
  for (const dtype of Object.keys(DTYPE_BYTES) as HostDtype[]) {
    for (const shape of [[], [0], [3], [2, 0, 5], [1, 2, 3]]) {
      const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype] as number);
      tensors.set(`${dtype}/${shape.join('x')} "é\\😀`, {
        dtype,
        shape,
        data: Uint8Array.from({ length: bytes }, () => next(256)),
      });
    }
  }
  for (const name of ['1', '0', '', '__proto__', 'constructor'])
    tensors.set(name, { dtype: 'u8', shape: [1], data: Uint8Array.of(next(256)) });
  return tensors;
}

test('every dtype, scalars, empty tensors and awkward names come back equal, in the order given', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'all.safetensors');
  const tensors = everyKind();
  const metadata = { format: 'pt', note: 'naïve "quotes" 😀', ['__proto__']: 'kept' };
  await writeSafetensors(path, weightEntries(tensors), { metadata });
  const bytes = new Uint8Array(await readFile(path));
  t.deepEqual(bytes, serializeSafetensors(tensors, { metadata }));
  t.is(Number(new DataView(bytes.buffer).getBigUint64(0, true)) % 8, 0);
  const file = await openSafetensors(path);
  t.deepEqual({ ...file.metadata }, { ...metadata });
  t.is(file.metadata.note, metadata.note);
  const parsed = parseSafetensors(bytes);
  t.deepEqual(file.names().sort(), [...tensors.keys()].sort());
  t.deepEqual(
    file.names().filter((name) => name !== '1' && name !== '0'),
    [...tensors.keys()].filter((name) => name !== '1' && name !== '0'),
  );
  await Promise.all(
    Array.from(tensors, async ([name, tensor]) => {
      t.deepEqual(await file.read(name), tensor, name);
      t.deepEqual(file.info(name), {
        dtype: tensor.dtype,
        shape: [...tensor.shape],
        byteLength: tensor.data.byteLength,
      });
      const view = parsed.tensors.get(name)!;
      t.deepEqual({ ...view, data: view.data.slice() }, tensor);
    }),
  );
  await refused(t, 'ERR_SAFETENSORS', /all\.safetensors holds no tensor "none"/, () => file.read('none'));
  const late = file.read('f64/1x2x3 "é\\😀');
  await file.close();
  await file.close();
  t.is((await late).data.byteLength, 48);
  await refused(t, 'ERR_DISPOSED', /closed/, () => file.read('1'));
  t.deepEqual(await readdir(folder), ['all.safetensors']);
});

const info = (offsets: string, shape = '[1]', dtype = 'F32') =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}`;
const broken: [what: string, file: Uint8Array, pattern: RegExp][] = [
  ['an empty file', new Uint8Array(0), /0 bytes/],
  ['seven bytes', new Uint8Array(7), /7 bytes, fewer than the 8/],
  ['a header longer than the file', rawFile('{}', 0, 3n), /only 2 bytes follow/],
  ['a header beyond the limit', rawFile('{}', 0, 16_777_217n), /at most 16777216/],
  ['a header length of 2^64 - 1', rawFile('{}', 0, 0xffffffffffffffffn), /18446744073709551615 bytes/],
  ['a header length just above 2^53', rawFile('{}', 0, 2n ** 53n + 2n), /9007199254740994 bytes/],
  ['an empty header', rawFile(''), /does not start with/],
  ['a header that starts with a space', rawFile(' {}'), /does not start with/],
  ['a header that is an array', rawFile('[]'), /does not start with/],
  ['a header with a byte-order mark', rawFile('\ufeff{}'), /does not start with/],
  ['a header cut off', rawFile('{"a":'), /not valid JSON/],
  ['two objects', rawFile('{}{}'), /not valid JSON/],
  ['a header that is not UTF-8', rawFile(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), /UTF-8/],
  ['a nest of 100,000 brackets', rawFile(`{"a":${'['.repeat(100_000)}`), /not valid JSON/],
  ['a tensor that is a number', rawFile('{"a":1}'), /"a" is not described/],
  ['a tensor that is null', rawFile('{"a":null}'), /"a" is not described/],
  ['an unknown field', rawFile('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}'), /unknown field "x"/],
  ['an unknown dtype', rawFile(`{"a":${info('[0,4]', '[1]', 'F31')}}`, 4), /dtype "F31"/],
  ['a dtype in lower case', rawFile(`{"a":${info('[0,4]', '[1]', 'f32')}}`, 4), /dtype "f32"/],
  ['a missing dtype', rawFile('{"a":{"shape":[0],"data_offsets":[0,0]}}'), /dtype undefined/],
  ['a missing shape', rawFile('{"a":{"dtype":"U8","data_offsets":[0,0]}}'), /no shape/],
  ['missing offsets', rawFile('{"a":{"dtype":"U8","shape":[0]}}'), /data_offsets undefined/],
  ['a negative dimension', rawFile(`{"a":${info('[0,4]', '[-1]')}}`, 4), /shape \[-1\]/],
  ['two negative dimensions', rawFile(`{"a":${info('[0,4]', '[-1,-1]')}}`, 4), /shape \[-1,-1\]/],
  ['a broken dimension', rawFile(`{"a":${info('[0,4]', '[1.5]')}}`, 4), /shape \[1\.5\]/],
  ['a dimension that is text', rawFile(`{"a":${info('[0,4]', '["1"]')}}`, 4), /shape \["1"\]/],
  [
    'a shape whose product overflows',
    rawFile(`{"a":${info('[0,0]', '[4294967296,4294967296,0]')}}`),
    /product below 2\^53/,
  ],
  ['a byte size that overflows', rawFile(`{"a":${info('[0,0]', '[9007199254740991]')}}`), /product below 2\^53/],
  ['a dimension beyond 2^53', rawFile(`{"a":${info('[0,0]', '[18446744073709551616,0]')}}`), /product below 2\^53/],
  ['fewer bytes than the shape', rawFile(`{"a":${info('[0,4]', '[2]')}}`, 4), /needs 8 bytes, its offsets give 4/],
  ['more bytes than the shape', rawFile(`{"a":${info('[0,8]', '[1]')}}`, 8), /needs 4 bytes, its offsets give 8/],
  ['an empty tensor with bytes', rawFile(`{"a":${info('[0,4]', '[0]')}}`, 4), /needs 0 bytes/],
  ['offsets beyond the data', rawFile(`{"a":${info('[0,4]')}}`, 3), /bytes 0 to 4 of the data, which has 3/],
  ['offsets in reverse', rawFile(`{"a":${info('[4,0]')}}`, 4), /bytes 4 to 0/],
  ['negative offsets', rawFile(`{"a":${info('[-4,0]')}}`, 4), /data_offsets \[-4,0\]/],
  ['three offsets', rawFile(`{"a":${info('[0,4,4]')}}`, 4), /data_offsets \[0,4,4\]/],
  ['offsets with fractions', rawFile(`{"a":${info('[0.5,4.5]')}}`, 8), /data_offsets/],
  [
    'overlapping tensors',
    rawFile(`{"a":${info('[0,8]', '[2]')},"b":${info('[4,12]', '[2]')}}`, 12),
    /"b" overlaps tensor "a"/,
  ],
  ['the same bytes twice', rawFile(`{"a":${info('[0,4]')},"b":${info('[0,4]')}}`, 4), /overlaps/],
  ['a hole between tensors', rawFile(`{"a":${info('[0,4]')},"b":${info('[8,12]')}}`, 12), /4 bytes before tensor "b"/],
  ['a hole at the start', rawFile(`{"a":${info('[4,8]')}}`, 8), /4 bytes before tensor "a"/],
  ['bytes behind the last tensor', rawFile(`{"a":${info('[0,4]')}}`, 5), /1 bytes at its end/],
  ['data without tensors', rawFile('{}', 1), /1 bytes at its end/],
  ['a name given twice', rawFile(`{"a":${info('[0,4]')},"a":${info('[0,4]')}}`, 4), /name "a" twice/],
  [
    'a name given twice, once escaped',
    rawFile(`{"ab":${info('[0,4]')},"\\u0061b":${info('[0,4]')}}`, 4),
    /name "ab" twice/,
  ],
  [
    'a field given twice',
    rawFile('{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    /name "dtype" twice/,
  ],
  ['metadata given twice', rawFile('{"__metadata__":{},"__metadata__":{}}'), /"__metadata__" twice/],
  ['a metadata key given twice', rawFile('{"__metadata__":{"a":"1","a":"1"}}'), /name "a" twice/],
  ['metadata with a number', rawFile('{"__metadata__":{"a":1}}'), /"a", which is not a string/],
  ['metadata that is a list', rawFile('{"__metadata__":["a"]}'), /not an object of strings/],
  ['metadata that is a string', rawFile('{"__metadata__":"a"}'), /not an object of strings/],
  ['metadata that describes a tensor', rawFile(`{"__metadata__":${info('[0,4]')}}`, 4), /not a string/],
];

test('the reader refuses every broken file with ERR_SAFETENSORS that says what is wrong, in memory and on disk', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'broken.safetensors');
  for (const [what, bytes, pattern] of broken) {
    await t.notThrowsAsync(async () => {
      await refused(t, 'ERR_SAFETENSORS', pattern, () => parseSafetensors(bytes));
      await writeFile(path, bytes);
      await refused(t, 'ERR_SAFETENSORS', pattern, () => openSafetensors(path));
    }, what);
  }
});

test('names that only look alike are no duplicates, and odd but legal headers are read', (t) => {
  const tricky = `{"a":${info('[0,4]')},"A":${info('[4,8]')},"a\\"":${info('[8,12]')},"a\\\\":${info('[12,16]')},"dtype":${info('[16,20]')} } \n`;
  const { tensors } = parseSafetensors(rawFile(tricky, 20));
  t.deepEqual([...tensors.keys()], ['a', 'A', 'a"', 'a\\', 'dtype']);
  t.is(parseSafetensors(rawFile('{}')).tensors.size, 0);
  const outOfOrder = parseSafetensors(
    rawFile(`{"b":${info('[4,8]')},"e":${info('[4,4]', '[0]')},"a":${info('[0,4]')}}`, 8),
  );
  t.deepEqual([...outOfOrder.tensors.keys()], ['b', 'e', 'a']);
});

test('files that are not there, folders and files cut short after opening are typed errors', async (t) => {
  const folder = await scratch(t);
  await refused(t, 'ERR_FILE_NOT_FOUND', /none/, () => openSafetensors(join(folder, 'none')));
  await refused(t, 'ERR_FILE_READ', /folder/, () => openSafetensors(folder));
  const path = join(folder, 'a.safetensors');
  await writeSafetensors(path, [{ name: 'a', dtype: 'u8', shape: [1000], data: new Uint8Array(1000) }]);
  const file = await openSafetensors(path);
  await truncate(path, 500);
  await refused(t, 'ERR_SAFETENSORS', /ends in the middle of tensor "a"/, () => file.read('a'));
  await file.close();
});

test('any truncation, byte flip or splice of a good file either parses to consistent tensors or throws a typed error', (t) => {
  const good = serializeSafetensors([...everyKind()].slice(0, 12), { metadata: { format: 'pt' } });
  const next = generator(2024);
  let parsed = 0;
  let refusals = 0;
  const attempt = (bytes: Uint8Array) => {
    try {
      const { tensors } = parseSafetensors(bytes);
      let total = 0;
      for (const { dtype, shape, data } of tensors.values()) {
        total += data.byteLength;
        if (data.byteLength !== shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype] as number))
          t.fail('inconsistent');
      }
      const header = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
      if (total !== bytes.byteLength - 8 - header) t.fail('data and tensors differ');
      parsed++;
    } catch (error) {
      if (!isDistilWhisperError(error) || error.code !== 'ERR_SAFETENSORS') throw error;
      refusals++;
    }
  };
  for (let length = 0; length < good.length; length++) attempt(good.slice(0, length));
  t.is(parsed, 0);
  const headerBytes = Number(new DataView(good.buffer).getBigUint64(0, true));
  for (let round = 0; round < 20_000; round++) {
    const bytes = good.slice();
    // Most flips go to the header, where they matter.
    const within = next(4) === 0 ? bytes.length : 8 + headerBytes;
    for (let flips = 1 + next(3); flips > 0; flips--) {
      const at = next(within);
      bytes[at] = next(2) ? next(256) : bytes[at]! ^ (1 << next(8));
    }
    if (next(8) === 0) bytes.copyWithin(next(within), next(within), next(bytes.length));
    attempt(bytes);
  }
  t.true(parsed > 100 && refusals > 1000, `${parsed} parsed, ${refusals} refused`);
});

test('the writer checks before it writes, and a failure leaves the earlier file and nothing else', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'w.safetensors');
  const entry: WeightEntry = { name: 'a', dtype: 'f32', shape: [2], data: new Uint8Array(8) };
  await writeSafetensors(path, [entry]);
  const before = await readFile(path);
  const cases: [ErrorCode, RegExp, unknown[], Record<string, unknown>?][] = [
    ['ERR_ARGUMENT', /"a" is given twice/, [entry, entry]],
    ['ERR_ARGUMENT', /"__metadata__"/, [{ ...entry, name: '__metadata__' }]],
    ['ERR_ARGUMENT', /cannot be the name/, [{ ...entry, name: '\ud800' }]],
    ['ERR_SHAPE', /needs 8 bytes, its data has 7/, [{ ...entry, data: new Uint8Array(7) }]],
    ['ERR_SHAPE', /\[-1\]/, [{ ...entry, shape: [-1], data: () => new Uint8Array(0) }]],
    ['ERR_DTYPE', /"f31"/, [{ ...entry, dtype: 'f31', data: () => new Uint8Array(0) }]],
    ['ERR_ARGUMENT', /metadata "a" must be a string/, [entry], { metadata: { a: 1 } }],
    [
      'ERR_SHAPE',
      /tensor "b" .*needs 8 bytes, its data has 9/,
      [entry, { ...entry, name: 'b', data: async () => new Uint8Array(9) }],
    ],
  ];
  for (const [code, pattern, entries, options] of cases) {
    await refused(t, code, pattern, () => writeSafetensors(path, entries as WeightEntry[], options as object));
  }
  const own = new Error('the source went away');
  const failing = { ...entry, name: 'b', data: () => Promise.reject(own) };
  t.is(await t.throwsAsync(writeSafetensors(path, [entry, failing])), own);
  t.deepEqual(await readFile(path), before);
  t.deepEqual(await readdir(folder), ['w.safetensors']);
  await refused(t, 'ERR_FILE_WRITE', /no-such-folder/, () =>
    writeSafetensors(join(folder, 'no-such-folder', 'x'), [entry]),
  );
  await mkdir(join(folder, 'taken', 'inner'), { recursive: true });
  await refused(t, 'ERR_FILE_WRITE', /taken/, () => writeSafetensors(join(folder, 'taken'), [entry]));
  t.deepEqual((await readdir(folder)).sort(), ['taken', 'w.safetensors']);
});

test('lazy entries are asked for one at a time, in order, when their turn comes', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'lazy.safetensors');
  const asked: string[] = [];
  let open = 0;
  const lazy = (name: string, value: number): WeightEntry => ({
    name,
    dtype: 'u8',
    shape: [3],
    data: async () => {
      t.is(++open, 1);
      asked.push(name);
      await new Promise((resolve) => setTimeout(resolve, 2));
      open--;
      return new Uint8Array(3).fill(value);
    },
  });
  await writeSafetensors(path, [lazy('z', 1), lazy('a', 2), lazy('m', 3)]);
  t.deepEqual(asked, ['z', 'a', 'm']);
  const { tensors } = parseSafetensors(new Uint8Array(await readFile(path)));
  t.deepEqual(
    [...tensors.values()].map(({ data }) => data[0]),
    [1, 2, 3],
  );
});

test('a full disk is ERR_DISK_FULL, the half-written file is removed and the earlier one still reads', async (t) => {
  const folder = await scratch(t);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', folder], { stdio: 'ignore' });
  } catch {
    t.log(
      'mounting a small file system is not permitted here; only the error of the device that is always full is checked',
    );
    const full = await t.throwsAsync(writeFile('/dev/full', 'x'));
    t.is(fileWriteError(full, 'x').code, 'ERR_DISK_FULL');
    return;
  }
  try {
    const path = join(folder, 'checkpoint.safetensors');
    const entry = (size: number): WeightEntry => ({
      name: 'a',
      dtype: 'u8',
      shape: [size],
      data: new Uint8Array(size).fill(7),
    });
    await writeSafetensors(path, [entry(100_000)]);
    await refused(t, 'ERR_DISK_FULL', /checkpoint\.safetensors/, () => writeSafetensors(path, [entry(200_000)]));
    t.deepEqual(await readdir(folder), ['checkpoint.safetensors']);
    const file = await openSafetensors(path);
    t.true((await file.read('a')).data.every((byte) => byte === 7));
    await file.close();
    const model = {
      config: small,
      tensors: weightEntries(randomTensors(whisperTensorShapes(small))),
      files: { 'big.txt': 'x'.repeat(200_000) },
    };
    await refused(t, 'ERR_DISK_FULL', /big\.txt/, () => writeModelFolder(join(folder, 'model'), model));
    t.deepEqual(await readdir(folder), ['checkpoint.safetensors']);
  } finally {
    execFileSync('umount', [folder]);
  }
});
