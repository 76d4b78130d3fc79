/** Loads a model in a worker thread, posts logits of it, and keeps it: workerData.folder. */
import { parentPort, workerData } from 'node:worker_threads';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { logitsOf } from './logits.js';

const stream = new Stream({ threads: 1 });
const model = await Whisper.load(stream, workerData.folder);
parentPort!.postMessage(await logitsOf(model));
setInterval(() => model, 1 << 30);
