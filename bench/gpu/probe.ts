/** The least that uses a GPU: whether a tool that watches a process works here is tried on it. */
import { Stream } from '../../lib/tensor/index.js';

const stream = new Stream({ device: process.argv[2]! });
await stream.persistent(null, [64]).read();
stream.close();
