/** Every real recording at hand, through the transcriber. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Stream } from '../../lib/tensor/index.js';
import { Transcriber } from '../../lib/transcribe/index.js';
import { shared } from '../support/golden.js';
import { createTalker, generation, tokenizer } from '../support/talker.js';

const stream = new Stream({ threads: 2 });
test.after.always(() => stream.close());

const recordings = ['audio', 'speech'].map((name) => join(shared, name));
const present = recordings.every((folder) => existsSync(folder));
if (!present) console.log('../shared is absent: the real recordings are skipped');
(present ? test.serial : test.serial.skip)(
  'every real recording in ../shared is transcribed without an error',
  async (t) => {
    const files = recordings.flatMap((folder) =>
      readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((name) => /\.(ogg|flac|wav|mp3)$/.test(name))
        .map((name) => join(folder, name)),
    );
    t.true(files.length > 1000);
    const pocket = new Transcriber(await createTalker(stream, { max_source_positions: 250 }), tokenizer, {
      generation,
    });
    const got = await pocket.transcribe(files, { language: 'auto', maxTokens: 8 });
    t.is(got.length, files.length);
    for (const [i, { duration, segments, text }] of got.entries()) {
      t.true(duration > 0.05 && segments.length >= Math.ceil(duration / 5 - 1e-3), files[i]!);
      t.regex(text, /^[a-z][a-z ]*$/, files[i]!);
      t.is(segments.at(-1)!.end, duration);
    }
    const seconds = got.reduce((sum, { duration }) => sum + duration, 0);
    t.log(`${files.length} files, ${(seconds / 60).toFixed(1)} minutes`);
    await pocket.close();
  },
);
