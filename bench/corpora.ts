/** Does data come as fast as it is trained on? Clips as Common Voice has them: mp3, 48 kHz, mono. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DecodePool, encodeWav, FeatureExtractor, SAMPLE_RATE } from '../lib/audio/index.js';
import { type Dataset, openDataset, prepare, type RowAudio } from '../lib/data/index.js';
import { packageRoot } from '../lib/native/index.js';
import { Stream } from '../lib/tensor/index.js';
import { WhisperTokenizer } from '../lib/text/index.js';
import { AudioBatches, TrainingEngine, trainingOptions } from '../lib/train/index.js';
import { LANGUAGE, randomFloats, randomModel } from './data.js';
import type { Question, Row } from './harness.js';
import { spread } from './spread.js';

const CLIPS = 60;
const SECONDS = 5;

/** A release of Common Voice with clips of noise in the shape of speech; null without ffmpeg, which makes mp3. */
function release(folder: string): string | null {
  const lines = ['client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment'];
  mkdirSync(join(folder, 'clips'), { recursive: true });
  for (let i = 0; i < CLIPS; i++) {
    const wav = join(folder, 'clip.wav');
    writeFileSync(wav, encodeWav(randomFloats(SECONDS * 48000, 0.1, i + 1), 48000));
    const name = `common_voice_ca_${i}.mp3`;
    try {
      execFileSync('ffmpeg', ['-loglevel', 'error', '-y', '-i', wav, '-b:a', '64k', join(folder, 'clips', name)]);
    } catch {
      return null;
    }
    lines.push(`s\t${name}\tfrase ${i}\t2\t0\t\t\t\t\tca\t`);
  }
  writeFileSync(join(folder, 'train.tsv'), lines.join('\n'));
  return folder;
}

/** Decodes all rows and makes their features, as training does; seconds of the clock and of processors. */
async function pass(data: Dataset): Promise<{ wall: number; cpu: number; audio: number }> {
  const pool = new DecodePool({ size: 1 });
  const stream = new Stream({ threads: 1 });
  const extractor = new FeatureExtractor({ mels: 80, frames: 3000, stream });
  const load = async (row: number): Promise<number> => {
    const found: RowAudio = await data.audio(row);
    const audio =
      typeof found === 'string' || found instanceof Uint8Array
        ? await pool.decode(found, { sampleRate: SAMPLE_RATE })
        : found;
    await extractor.extract(audio);
    return audio.samples.length / audio.sampleRate;
  };
  try {
    await load(0);
    const [start, before] = [performance.now(), process.cpuUsage()];
    let audio = 0;
    for (let row = 0; row < data.length; row += 4) {
      const some = [row, row + 1, row + 2, row + 3].filter((i) => i < data.length);
      for (const seconds of await Promise.all(some.map(load))) audio += seconds;
    }
    const { user, system } = process.cpuUsage(before);
    return { wall: (performance.now() - start) / 1000, cpu: (user + system) / 1e6, audio };
  } finally {
    await pool.close();
    extractor.close();
    stream.close();
  }
}

/** Updates of a tiny student on what is read, decoded and turned into features meanwhile: the share of the time that it waits. */
async function waitShare(stream: Stream, data: Dataset): Promise<Row> {
  const student = await randomModel(stream, 'tiny', 'bf16');
  await student.addExpert(LANGUAGE);
  const tokenizer = await WhisperTokenizer.fromFolder(join(packageRoot(), 'models', 'pocket-student'));
  const batches = new AudioBatches(data, student.config, tokenizer, { batchSize: 2, seed: 1, cacheBytes: 0 });
  const engine = new TrainingEngine(
    student,
    null,
    trainingOptions({ steps: 1000, learningRate: 1e-6, distillation: 'none' }),
  );
  const stepsTimed = 8;
  const times: number[] = [];
  let waited = 0;
  let from = performance.now();
  let step = 0;
  for await (const batch of batches.stream(0)) {
    if (step > 1) waited += performance.now() - from;
    const start = performance.now();
    await engine.update(step, [batch]);
    stream.endStep();
    if (step > 1) times.push(performance.now() - start);
    if (step++ > stepsTimed) break;
    from = performance.now();
  }
  engine.dispose();
  student.dispose();
  const trained = times.reduce((a, b) => a + b, 0);
  return {
    name: 'tiny',
    ms: spread(times),
    notes: { 'waits for data, % of the time': (100 * waited) / (waited + trained) },
  };
}

export const corpora: Question = {
  name: 'data',
  question: 'How fast are corpora read, decoded and turned into features?',
  async *measure({ repeats, stream }) {
    const scratch = mkdtempSync(join(tmpdir(), 'bench-data-'));
    try {
      const folder = release(join(scratch, 'ca'));
      if (!folder) {
        yield { title: 'Data: left out, since ffmpeg is not here to make mp3', rows: [] };
        return;
      }
      await using clips = await openDataset(folder);
      await prepare(clips, { output: join(scratch, 'shards') });
      await using shards = await openDataset(join(scratch, 'shards'));
      const rows: Row[] = [];
      for (const [name, data] of [
        ['mp3, 48 kHz mono', clips],
        ['packed shards', shards],
      ] as const) {
        const passes: Awaited<ReturnType<typeof pass>>[] = [];
        for (let i = 0; i < repeats; i++) passes.push(await pass(data));
        const sorted = passes.sort((a, b) => a.cpu - b.cpu);
        const { audio, cpu, wall } = sorted[Math.floor(sorted.length / 2)]!;
        const ms = (one: { wall: number }): number => (1000 * one.wall) / data.length;
        rows.push({
          name,
          ms: {
            min: Math.min(...passes.map(ms)),
            median: (1000 * wall) / data.length,
            max: Math.max(...passes.map(ms)),
          },
          notes: { 'times real time, a core': audio / cpu },
        });
      }
      yield { title: `Rows of ${SECONDS} s to features of 30 s, one at a time`, rows };
      const shares = [
        { ...(await waitShare(stream, clips)), name: 'tiny, bf16, batch 2, from mp3' },
        { ...(await waitShare(stream, shards)), name: 'tiny, bf16, batch 2, from packed shards' },
      ];
      yield { title: 'Updates on data that are read meanwhile', rows: shares };
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  },
};
