/** The thread of a DecodePool: decodes what it is sent, one file at a time. */
import { parentPort } from 'node:worker_threads';
import { isDistilWhisperError } from '../errors/index.js';
import { decodeAudio } from './decode.js';
import type { DecodeReply, DecodeRequest } from './pool.js';

const port = parentPort;
if (!port) throw new Error('This module is the worker thread of DecodePool and is not imported directly');

port.on('message', async ({ id, source, name }: DecodeRequest) => {
  try {
    const audio = await decodeAudio(source, { name });
    port.postMessage({ id, audio } satisfies DecodeReply, [audio.samples.buffer as ArrayBuffer]);
  } catch (error) {
    const code = isDistilWhisperError(error) ? error.code : undefined;
    const message = error instanceof Error ? error.message : String(error);
    port.postMessage({ id, error: { code, message } } satisfies DecodeReply);
  }
});
port.postMessage('ready');
