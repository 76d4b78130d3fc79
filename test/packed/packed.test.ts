/** Packed files: what goes in comes out, whole files or none, and every flipped bit and cut is refused with its place. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { PackedReader, PackedWriter } from '../../lib/packed/index.js';

const KIND = 'numbers';
const folder = (t: ExecutionContext): string => {
  const path = mkdtempSync(join(tmpdir(), 'packed-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
};
const bytesOf = (i: number, length: number): Uint8Array => Uint8Array.from({ length }, (_, j) => 7 * i + j);
const LENGTHS = [5, 0, 300, 1, 64];

async function written(t: ExecutionContext, lengths: readonly number[] = LENGTHS): Promise<string> {
  const path = join(folder(t), 'some.packed');
  const writer = await PackedWriter.create(path, { kind: KIND, header: { of: 'a test', version: 3 } });
  for (const [i, length] of lengths.entries()) await writer.append(`key ${i} ţ`, bytesOf(i, length));
  t.is(writer.length, lengths.length);
  await writer.finish();
  return path;
}

async function readAll(path: string): Promise<Uint8Array[]> {
  await using reader = await PackedReader.open(path, { kind: KIND });
  const all: Uint8Array[] = [];
  for await (const { bytes } of reader.records()) all.push(bytes);
  return all;
}

test('records come back by number and one behind the other, with keys and header', async (t) => {
  const path = await written(t);
  await using reader = await PackedReader.open(path, { kind: KIND });
  t.deepEqual(reader.header, { of: 'a test', version: 3 });
  t.is(reader.length, LENGTHS.length);
  t.deepEqual(
    reader.keys,
    LENGTHS.map((_, i) => `key ${i} ţ`),
  );
  for (const i of [3, 0, 4, 2, 1]) {
    t.deepEqual(new Uint8Array(await reader.read(i)), bytesOf(i, LENGTHS[i]!));
    t.is(reader.byteLength(i), LENGTHS[i]!);
  }
  const some: [number, string, number][] = [];
  for await (const { index, key, bytes } of reader.records(1, 4)) some.push([index, key, bytes.length]);
  t.deepEqual(some, [
    [1, 'key 1 ţ', 0],
    [2, 'key 2 ţ', 300],
    [3, 'key 3 ţ', 1],
  ]);
  await t.throwsAsync(reader.read(5), { code: 'ERR_ARGUMENT', message: /below 5, got 5/ });
  await t.throwsAsync(reader.records(3, 6).next(), { code: 'ERR_ARGUMENT' });
  await reader.close();
  await t.throwsAsync(reader.read(0), { code: 'ERR_DISPOSED' });
});

test('records larger than what is read at once, and a file without any', async (t) => {
  const lengths = [2 ** 20 - 8, 10, 3 * 2 ** 20, 10, 2 ** 19, 2 ** 19];
  const all = await readAll(await written(t, lengths));
  t.deepEqual(
    all.map(({ length }) => length),
    lengths,
  );
  t.true(all.every((bytes, i) => Buffer.compare(bytes, bytesOf(i, lengths[i]!)) === 0));
  t.deepEqual(await readAll(await written(t, [])), []);
});

test('an unfinished file leaves nothing, and what was there stays', async (t) => {
  const path = await written(t);
  const before = readFileSync(path);
  const writer = await PackedWriter.create(path, { kind: KIND, header: {} });
  await writer.append('x', new Uint8Array(100));
  await writer.discard();
  await writer.discard();
  await t.throwsAsync(writer.append('x', new Uint8Array(1)), { code: 'ERR_DISPOSED' });
  await t.throwsAsync(writer.finish(), { code: 'ERR_DISPOSED' });
  t.deepEqual(readFileSync(path), before);
  t.deepEqual(readdirSync(join(path, '..')), ['some.packed']);
  await t.throwsAsync(PackedWriter.create(join(path, 'x', 'y'), { kind: KIND, header: {} }), {
    code: 'ERR_FILE_WRITE',
  });
  const other = await PackedWriter.create(path, { kind: KIND, header: {} });
  await t.throwsAsync(other.append('k'.repeat(2 ** 20 + 1), new Uint8Array(1)), {
    code: 'ERR_ARGUMENT',
    message: /^key of record 0/,
  });
  await other.discard();
});

test('another kind, another version, another file and none are refused by name', async (t) => {
  const path = await written(t);
  await t.throwsAsync(PackedReader.open(path, { kind: 'letters' }), {
    code: 'ERR_PACKED',
    message: `${path} holds "numbers", expected "letters"`,
  });
  const bytes = readFileSync(path);
  bytes[8] = 2;
  writeFileSync(path, bytes);
  await t.throwsAsync(readAll(path), {
    code: 'ERR_PACKED',
    message: `${path} is a packed file of version 2, expected 1`,
  });
  writeFileSync(path, 'audio\ttext\n');
  await t.throwsAsync(readAll(path), { code: 'ERR_PACKED', message: `${path} is no packed file` });
  writeFileSync(path, '');
  await t.throwsAsync(readAll(path), { code: 'ERR_PACKED' });
  await t.throwsAsync(readAll(join(path, '..')), { code: 'ERR_FILE_READ' });
  await t.throwsAsync(readAll(`${path}.not`), { code: 'ERR_FILE_NOT_FOUND' });
});

test('every flipped bit is refused, in a record with its number', async (t) => {
  const path = await written(t);
  const sound = readFileSync(path);
  const file = `${path}.bent`;
  const numbers = new Set<string>();
  for (let bit = 0; bit < 8 * sound.length; bit += 3) {
    const bent = Buffer.from(sound);
    bent[bit >> 3]! ^= 1 << (bit & 7);
    writeFileSync(file, bent);
    const error = await t.throwsAsync(readAll(file), { code: 'ERR_PACKED' }, `bit ${bit}`);
    t.true(error?.message.startsWith(file));
    const record = /is damaged: record (\d)/.exec(error?.message ?? '');
    if (record) numbers.add(record[1]!);
  }
  t.deepEqual([...numbers].sort(), ['0', '1', '2', '3', '4']);
});

test('a file that is cut short anywhere, or longer than it was, is refused, with the record in which it ends', async (t) => {
  const path = await written(t);
  const sound = readFileSync(path);
  const file = `${path}.cut`;
  for (let length = 0; length < sound.length; length++) {
    writeFileSync(file, sound.subarray(0, length));
    await t.throwsAsync(readAll(file), { code: 'ERR_PACKED' }, `${length} bytes`);
  }
  writeFileSync(file, sound.subarray(0, sound.indexOf(bytesOf(2, 300)) + 10));
  await t.throwsAsync(readAll(file), { message: /is cut short: it ends in record 2 / });
  writeFileSync(file, Buffer.concat([sound, sound.subarray(0, 10)]));
  await t.throwsAsync(readAll(file), { code: 'ERR_PACKED' });
});
