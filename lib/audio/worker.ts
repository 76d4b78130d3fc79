/** A thread of a DecodePool: decodes what it is told to, one source at a time, as far ahead as it is given credit. */
import { parentPort } from 'node:worker_threads';
import { isDistilWhisperError } from '../errors/index.js';
import { openAudio } from './decode.js';
import type { FromWorker, ToWorker } from './job.js';

const port = parentPort;
if (!port) throw new Error('This module is the worker thread of DecodePool and is not imported directly');

/** The clock that all threads of a process share, in nanoseconds. */
const now = (): number => Number(process.hrtime.bigint());
const send = (message: FromWorker, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer);

interface Work {
  id: number;
  /** Samples that may still be sent before the other side takes some. */
  credit: number;
  wake: () => void;
  closing: AbortController;
}
let work: Work | null = null;

async function decode({ id, source, options, credit }: ToWorker & { type: 'open' }): Promise<void> {
  const own: Work = { id, credit, wake: () => {}, closing: new AbortController() };
  work = own;
  const begin = now();
  try {
    const audio = await openAudio(source, { ...options, signal: own.closing.signal });
    const { sampleRate, channels, expected } = audio;
    send({ type: 'opened', id, sampleRate, channels, expected });
    for await (const samples of audio.pieces) {
      own.credit -= samples.length; // Sent, it is empty.
      send({ type: 'piece', id, samples }, [samples.buffer as ArrayBuffer]);
      while (own.credit <= 0 && !own.closing.signal.aborted)
        await new Promise<void>((resolve) => {
          own.wake = resolve;
        });
    }
    send({ type: 'end', id, duration: audio.duration, warnings: [...audio.warnings], times: { begin, end: now() } });
  } catch (error) {
    const code = isDistilWhisperError(error) ? error.code : undefined;
    const message = error instanceof Error ? error.message : String(error);
    send({ type: 'error', id, error: { code, message }, times: { begin, end: now() } });
  }
}

port.on('message', (message: ToWorker) => {
  if (message.type === 'open') void decode(message);
  else if (message.id === work?.id && message.type === 'taken') {
    work.credit += message.samples;
    work.wake();
  } else if (message.id === work?.id && message.type === 'close') {
    work.closing.abort();
    work.wake();
  }
});
send({ type: 'ready' });
