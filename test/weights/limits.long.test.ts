/** Weights that are damaged, or made to cost more than they are: checksums, counts, numbers and depths. */
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { importTorchCheckpoint, openSafetensors, parseSafetensors, readProfile, toFloat32 } from '../../lib/index.js';
import { checkpoint, stateDict, type View, zip } from '../support/archive.js';
import { refused, scratch } from '../support/weights.js';

const values = Float32Array.from({ length: 1000 }, (_, i) => i / 8);
const whole: View = { key: '0', storage: 1000, offset: 0, count: 1000 };
const part: View = { key: '0', storage: 1000, offset: 10, count: 20 };

test('an archive made by hand reads: whole storages, and views that share one', async (t) => {
  const path = join(await scratch(t), 'good.bin');
  writeFileSync(path, checkpoint({ whole, part, again: part }, { 0: values }));
  const file = await importTorchCheckpoint(path);
  for (const [name, from, to] of [
    ['part', 10, 30],
    ['whole', 0, 1000],
    ['again', 10, 30],
  ] as const) {
    t.deepEqual(toFloat32(await file.read(name)), values.slice(from, to));
  }
  await file.close();
});

test('data without the checksum that an archive gives is refused where it is read, whole or in part, the pickle at once', async (t) => {
  const path = join(await scratch(t), 'damaged.bin');
  const good = checkpoint({ whole, part }, { 0: values });
  const damaged = Buffer.from(good);
  const bytes = Buffer.from(values.buffer);
  // A byte of an element that `part` does not show.
  const at = good.indexOf(bytes.subarray(400, 2000));
  t.true(at > 0);
  damaged[at + 1000]! ^= 1;
  writeFileSync(path, damaged);
  const file = await importTorchCheckpoint(path);
  for (const name of ['whole', 'part']) {
    await refused(t, 'ERR_MODEL', /damaged\.bin .*m\/data\/0 is damaged/, () => file.read(name));
  }
  await file.close();
  for (const name of ['m/data.pkl', 'm/byteorder']) {
    writeFileSync(path, checkpoint({ whole }, { 0: values }, { checksums: { [name]: 7 } }));
    await refused(t, 'ERR_MODEL', new RegExp(`${name} is damaged`), () => importTorchCheckpoint(path));
  }
  writeFileSync(path, checkpoint({ whole }, { 0: values }, { checksums: { 'm/data/0': 0 } }));
  const wrong = await importTorchCheckpoint(path);
  await refused(t, 'ERR_MODEL', /m\/data\/0 is damaged/, () => wrong.read('whole'));
  await wrong.close();
});

/** Opens the file in a process of its own, and says how it ended, the seconds that it computed, and its largest resident set. */
async function opened(path: string): Promise<{ code: string; seconds: number; mebibytes: number }> {
  const library = fileURLToPath(new URL('../../dist/index.js', import.meta.url));
  const script = `
    const { importTorchCheckpoint, openSafetensors } = await import(${JSON.stringify(library)});
    const path = process.argv[1], begin = process.cpuUsage(), before = process.resourceUsage().maxRSS;
    const open = path.endsWith('.bin') ? importTorchCheckpoint : openSafetensors;
    let code = 'opened';
    try { await (await open(path)).close(); } catch (error) { code = error.code ?? String(error); }
    const mebibytes = (process.resourceUsage().maxRSS - before) / 1024;
    const { user, system } = process.cpuUsage(begin);
    console.log(JSON.stringify({ code, seconds: (user + system) / 1e6, mebibytes }));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, path]);
  return JSON.parse(stdout);
}

test('a pickle of millions of objects ends by a count, in a second and 200 MB', async (t) => {
  const folder = await scratch(t);
  const of = (unit: string, times: number): Buffer => Buffer.from(unit.repeat(times), 'latin1');
  const bombs: Record<string, [Buffer, RegExp]> = {
    dicts: [of('}', 10e6), /dicts|bytes/],
    'dicts, more': [of('}', 20e6), /bytes/],
    'ordered dicts': [of('ccollections\nOrderedDict\n)R', 500_000), /dicts/],
    tuples: [of(')', 10e6), /instructions/],
    nest: [of(')', 1) && Buffer.concat([of(')', 1), of('\x85', 10e6)]), /instructions/],
    marks: [of('(', 10e6), /instructions/],
    'marks and tuples': [of('(t', 5e6), /instructions/],
    numbers: [of('K\x01', 5e6), /instructions/],
    memo: [Buffer.concat([of('N', 1), of('r\x01\x00\x00\x7f', 3e6)]), /instructions/],
    recall: [Buffer.concat([of('Nq\x00', 1), of('h\x00', 5e6)]), /instructions/],
    names: [of('X\x01\x00\x00\x00a', 2e6), /instructions/],
  };
  for (const [name, [before, pattern]] of Object.entries(bombs)) {
    const path = join(folder, `${name}.bin`);
    writeFileSync(path, checkpoint({ whole }, { 0: values }, { before }));
    await refused(t, 'ERR_MODEL', pattern, () => importTorchCheckpoint(path));
    const { code, seconds, mebibytes } = await opened(path);
    t.is(code, 'ERR_MODEL', name);
    t.true(mebibytes < 200, `${name}: ${mebibytes} MiB`);
    // A hundred milliseconds where nothing else runs.
    t.true(seconds < 10, `${name}: ${seconds} s`);
  }
});

test('as many tensors as the largest Whisper with a hundred experts has are read', async (t) => {
  const path = join(await scratch(t), 'many.bin');
  const views = Object.fromEntries(
    Array.from({ length: 12_000 }, (_, i) => [`model.decoder.layers.${i}.fc1.weight`, part]),
  );
  writeFileSync(path, checkpoint(views, { 0: values }));
  const file = await importTorchCheckpoint(path);
  t.is(file.names().length, 12_000);
  await file.close();
});

test('an archive of too many entries, or with a pickle too large, is refused', async (t) => {
  const path = join(await scratch(t), 'large.bin');
  writeFileSync(path, zip({ 'm/data.pkl': Buffer.alloc(16 * 1024 * 1024 + 1, '}') }));
  await refused(t, 'ERR_MODEL', /data\.pkl has 16777217 bytes/, () => importTorchCheckpoint(path));
  writeFileSync(path, zip({ 'm/data.pkl': stateDict({}).subarray(0, 3) }));
  await refused(t, 'ERR_MODEL', /broken pickle/, () => importTorchCheckpoint(path));
});

// ---------------------------------------------------------------- safetensors

function safetensors(header: string, dataBytes = 0): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)));
  return Buffer.concat([length, Buffer.from(header), Buffer.alloc(dataBytes)]);
}

test('numbers of a safetensors header are whole ones in digits, as other readers want them', async (t) => {
  const tensor = (shape: string, offsets: string, dtype = 'U8') =>
    `{"a":{"dtype":"${dtype}","shape":${shape},"data_offsets":${offsets}}}`;
  const broken: [string, number][] = [
    [tensor('[0.0]', '[0,0]'), 0],
    [tensor('[1.0]', '[0,1]'), 1],
    [tensor('[1e0]', '[0,1]'), 1],
    [tensor('[10E-1]', '[0,1]'), 1],
    [tensor('[-0]', '[0,0]'), 0],
    [tensor('[1]', '[0,1.0]'), 1],
    [tensor('[1]', '[-0,1]'), 1],
    [tensor('[1]', '[0e5,1]'), 1],
    [tensor('[0.5]', '[0,0]'), 0],
    [tensor('[-1]', '[0,1]'), 1],
    [tensor('[9007199254740993]', '[0,0]'), 0],
    [tensor('[3037000500,3037000500]', '[0,0]'), 0],
    [tensor('[2,4503599627370496]', '[0,0]', 'F32'), 0],
    [tensor('[[1]]', '[0,1]'), 1],
    [tensor('[null]', '[0,1]'), 1],
    [tensor('[true]', '[0,1]'), 1],
    [tensor('"1"', '[0,1]'), 1],
    [tensor('[1]', '[0,9007199254740993]'), 1],
    [`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3],
  ];
  for (const [header, bytes] of broken) {
    await refused(t, 'ERR_SAFETENSORS', /not a sound safetensors file/, () =>
      parseSafetensors(safetensors(header, bytes)),
    );
  }
  const named = '{"__metadata__":{"1.0":"-2.5e3"},"0.0":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}';
  t.is(parseSafetensors(safetensors(named, 1)).tensors.size, 1);
});

test('a header that is too long, nests too deep or has too many parts is refused before it is believed', async (t) => {
  const folder = await scratch(t);
  const cases: Record<string, [string, RegExp]> = {
    long: [`{${' '.repeat(16 * 1024 * 1024)}}`, /16777218 bytes long, expected at most 16777216/],
    deep: [`{"a":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, /nests/],
    'deep objects': [`${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`, /nests/],
    'deep metadata': [`{"__metadata__":{"a":${'['.repeat(101)}${']'.repeat(101)}}}`, /nests/],
    lists: [`{"a":[${'[],'.repeat(5e6)}[]]}`, /more than 1000000 lists/],
    objects: [`{"a":[${'{},'.repeat(5e6)}{}]}`, /more than 1000000 lists/],
  };
  for (const [name, [header, pattern]] of Object.entries(cases)) {
    const path = join(folder, `${name}.safetensors`);
    writeFileSync(path, safetensors(header));
    await refused(t, 'ERR_SAFETENSORS', pattern, () => openSafetensors(path));
    const { code, mebibytes } = await opened(path);
    t.is(code, 'ERR_SAFETENSORS', name);
    t.true(mebibytes < 200, `${name}: ${mebibytes} MiB`);
  }
});

// ---------------------------------------------------------------- other JSON

test('a trace whose events nest 20,000 deep is a typed error', async (t) => {
  const path = join(await scratch(t), 'trace.json');
  const deep = `${'['.repeat(20_000)}${']'.repeat(20_000)}`;
  for (const line of [deep, `{"ph":"M","name":"distilwhisper","args":${deep}}`, `{"ph":${deep}}`]) {
    writeFileSync(path, `\ufeff[\n${line},\n{"ph":"X"}\n]\n`);
    await refused(t, 'ERR_TRACE', /line 2/, () => readProfile(path));
  }
});
