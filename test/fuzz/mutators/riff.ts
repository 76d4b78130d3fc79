/** WAV files by their chunks: every sample format, sizes that lie, chunks that are odd, doubled, missing or unknown. */
import type { Random } from '../random.js';
import { ascii, concat, mutateBytes, mutateList, putNumber, randomBytes, view } from './bytes.js';

interface Chunk {
  id: string;
  body: Uint8Array;
  /** What the file says; the body's own size where it is left out. */
  size?: number;
  unpadded?: boolean;
}

export interface Wav {
  form: string;
  chunks: Chunk[];
  size?: number;
}

/** Offsets and sizes of the numbers in a format chunk. */
const FIELDS: readonly (readonly [at: number, size: number])[] = [
  [0, 2],
  [2, 2],
  [4, 4],
  [8, 4],
  [12, 2],
  [14, 2],
  [16, 2],
  [18, 2],
  [20, 4],
  [24, 2],
];
const TAGS = [0, 1, 2, 3, 6, 7, 0x11, 0x14, 0x31, 0x50, 0x55, 0x160, 0xfffe, 0xffff];
const FORMS = ['RIFF', 'RIFX', 'RF64', 'BW64', 'FFIR'];
const IDS = ['fmt ', 'data', 'LIST', 'fact', 'ds64', 'bext', 'id3 ', 'cue ', 'JUNK', 'PEAK', 'data', '\0\0\0\0'];

function wav(
  tag: number,
  bits: number,
  channels: number,
  frames: number,
  extra: readonly number[] = [],
  block?: number,
) {
  const align = block ?? (channels * Math.ceil(bits / 8)) | 0;
  const format = new Uint8Array(16 + extra.length);
  const numbers = view(format);
  numbers.setUint16(0, tag, true);
  numbers.setUint16(2, channels, true);
  numbers.setUint32(4, 16000, true);
  numbers.setUint32(8, 16000 * align, true);
  numbers.setUint16(12, align, true);
  numbers.setUint16(14, bits, true);
  format.set(extra, 16);
  const data = new Uint8Array(frames * align);
  const samples = view(data);
  if (tag === 3 && bits === 32)
    for (let i = 0; i < data.length / 4; i++) samples.setFloat32(4 * i, Math.sin(i) / 2, true);
  else if (tag === 3) for (let i = 0; i < data.length / 8; i++) samples.setFloat64(8 * i, Math.sin(i) / 2, true);
  else if (tag !== 17 && tag !== 2) for (let i = 0; i < data.length; i++) data[i] = 128 + 100 * Math.sin(i);
  return {
    form: 'RIFF',
    chunks: [
      { id: 'fmt ', body: format },
      { id: 'data', body: data },
    ],
  } satisfies Wav;
}

const guid = (tag: number): number[] => [tag, 0, 0, 0, 0, 0, 16, 0, 128, 0, 0, 170, 0, 56, 155, 113];
const MS_COEFFICIENTS = [
  7, 0, 0, 1, 0, 0, 0, 2, 0, 255, 0, 0, 0, 0, 192, 0, 64, 0, 240, 0, 0, 0, 204, 1, 48, 255, 136, 1, 24, 255,
];

export function wavSeeds(): Wav[] {
  const plain = [8, 12, 16, 20, 24, 32].map((bits) => wav(1, bits, 1 + (bits & 1), 40));
  const seeds = [...plain, wav(1, 16, 2, 40), wav(3, 32, 2, 40), wav(3, 64, 1, 20), wav(6, 8, 1, 40), wav(7, 8, 2, 40)];
  seeds.push(wav(17, 4, 1, 3, [2, 0, 65, 0], 36), wav(17, 4, 2, 2, [2, 0, 57, 0], 64));
  seeds.push(wav(2, 4, 1, 2, [32, 0, 20, 0, ...MS_COEFFICIENTS.slice(0, 28)], 16));
  seeds.push(wav(0xfffe, 24, 2, 20, [22, 0, 20, 0, 3, 0, 0, 0, ...guid(1)]));
  seeds.push(wav(0xfffe, 32, 1, 20, [22, 0, 32, 0, 4, 0, 0, 0, ...guid(3)]));
  const tagged: Wav = wav(1, 16, 1, 40);
  tagged.chunks.splice(1, 0, { id: 'LIST', body: ascii('INFOISFT\x03\0\0\0abc') });
  tagged.chunks.push({ id: 'id3 ', body: ascii('ID3\x03\0\0\0\0\0\0') });
  const several: Wav = wav(1, 16, 1, 20);
  several.chunks.push({ id: 'JUNK', body: new Uint8Array(5) }, { ...several.chunks[1]! });
  const long: Wav = { ...wav(1, 16, 1, 30), form: 'RF64' };
  const sizes = new Uint8Array(28);
  view(sizes).setBigUint64(8, 60n, true);
  long.chunks = [{ id: 'ds64', body: sizes }, long.chunks[0]!, { ...long.chunks[1]!, size: 0xffffffff }];
  return [...seeds, tagged, several, long, { ...wav(1, 16, 2, 20), form: 'RIFX' }];
}

/** A RIFX file has its numbers and its samples the other way round. */
function turned({ id, body }: Chunk, width: number): Uint8Array {
  if (id !== 'fmt ' && id !== 'data') return body;
  const fields =
    id === 'fmt ' ? FIELDS : Array.from({ length: Math.floor(body.length / width) }, (_, i) => [i * width, width]);
  const other = Uint8Array.from(body);
  for (const [at, size] of fields as [number, number][]) other.subarray(at, at + size).reverse();
  return other;
}

export function writeWav({ form, chunks, size }: Wav): Uint8Array {
  const little = form !== 'RIFX';
  const format = chunks.find(({ id }) => id === 'fmt ')?.body;
  const width = Math.max(1, Math.ceil(((format?.[14] ?? 16) & 127) / 8));
  const parts = chunks.map((chunk) => {
    const head = concat(ascii(chunk.id), [0, 0, 0, 0]);
    putNumber(head, 4, 4, BigInt(chunk.size ?? chunk.body.length), little);
    const pad = chunk.unpadded ? 0 : chunk.body.length & 1;
    return concat(head, little ? chunk.body : turned(chunk, width), new Uint8Array(pad));
  });
  const head = concat(ascii(form), [0, 0, 0, 0], ascii('WAVE'));
  const body = parts.reduce((sum, part) => sum + part.length, 4);
  putNumber(head, 4, 4, BigInt(size ?? body), little);
  return concat(head, ...parts);
}

function mutateFormat(body: Uint8Array, random: Random): void {
  if (random.chance(0.3)) {
    putNumber(body, 0, 2, BigInt(random.pick(TAGS)), true);
    return;
  }
  const [at, size] = random.pick(FIELDS);
  putNumber(body, at, size, random.boundary(8 * size), true);
}

export function mutateWav(seed: Wav, random: Random): Uint8Array {
  const mutated: Wav = {
    ...seed,
    chunks: seed.chunks.map((chunk) => ({ ...chunk, body: Uint8Array.from(chunk.body) })),
  };
  for (let times = random.count(5); times > 0 && mutated.chunks.length > 0; times--) {
    const chunk = random.pick(mutated.chunks);
    switch (random.below(12)) {
      case 0:
      case 1:
      case 2:
        mutateFormat(mutated.chunks.find(({ id }) => id === 'fmt ')?.body ?? chunk.body, random);
        break;
      case 3:
        chunk.size = random.chance(0.5) ? random.edge(32) : Math.max(0, chunk.body.length + random.between(-44, 44));
        break;
      case 4:
        chunk.body = mutateBytes(chunk.body, random, [], 1);
        break;
      case 5:
        mutateList(mutated.chunks, random);
        break;
      case 6:
        mutated.chunks.splice(random.below(mutated.chunks.length + 1), 0, {
          id: random.pick(IDS),
          body: randomBytes(random, random.count(50)),
          unpadded: random.chance(0.5),
        });
        break;
      case 7:
        chunk.id = random.pick(IDS);
        break;
      case 8:
        mutated.form = random.pick(FORMS);
        break;
      case 9:
        mutated.size = random.edge(32);
        break;
      case 10:
        chunk.body = chunk.body.slice(0, random.below(chunk.body.length + 1));
        break;
      default: {
        // Much of it: what little is announced to hold.
        const data = mutated.chunks.find(({ id }) => id === 'data') ?? chunk;
        const most = random.chance(0.05) ? 100_000 : 2000;
        data.body = Uint8Array.from({ length: random.count(most) }, (_, i) => data.body[i % data.body.length] ?? 0);
      }
    }
  }
  const bytes = writeWav(mutated);
  return random.chance(0.15) ? mutateBytes(bytes, random, [], 1) : bytes;
}
