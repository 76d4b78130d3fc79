/** The thread of a DecodePool: decodes what it is sent, one file at a time. */
import { parentPort } from 'node:worker_threads';
import { isDistilWhisperError } from '../errors/index.js';
import { decodeAudio } from './decode.js';
import type { DecodeReply, DecodeRequest } from './pool.js';

const port = parentPort;
if (!port) throw new Error('This module is the worker thread of DecodePool and is not imported directly');

/** The clock that all threads of a process share, in nanoseconds. */
const now = (): number => Number(process.hrtime.bigint());

port.on('message', async ({ id, source, name }: DecodeRequest) => {
  const begin = now();
  const times = () => ({ begin, end: now() });
  try {
    const audio = await decodeAudio(source, { name });
    port.postMessage({ id, audio, times: times() } satisfies DecodeReply, [audio.samples.buffer as ArrayBuffer]);
  } catch (error) {
    const code = isDistilWhisperError(error) ? error.code : undefined;
    const message = error instanceof Error ? error.message : String(error);
    port.postMessage({ id, error: { code, message }, times: times() } satisfies DecodeReply);
  }
});
port.postMessage('ready');
