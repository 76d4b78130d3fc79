/** How much work a piece of code gives a stream. */
import { DistilWhisperError } from '../errors/index.js';
import { typed } from '../native/index.js';
import { type ProfiledStream, recording } from '../trace/index.js';

/** As the addon counts it: native/core/work.h. */
export interface CountedWork {
  /** Of products, attention and transforms; a multiply and an add are two. */
  flop: number;
  /** Of tensors, each read or written once by a call. */
  bytes: number;
  kernels: number;
}

/**
 * Runs `body`, waits for what it queued on the stream, and says how much that was. Errors: ERR_ARGUMENT while a profile is
 * taken or when more was queued than is recorded (65,536 calls); those of the calls.
 */
export async function countWork(stream: ProfiledStream, body: () => void | Promise<void>): Promise<CountedWork> {
  const { native } = stream;
  if (recording() && !stream.plans)
    throw new DistilWhisperError('ERR_ARGUMENT', 'countWork: expected no profile to be taken, got one');
  native.profile(true, false);
  try {
    await body();
    await native.sync();
    const counted = native.counted();
    if (native.lost() > 0) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `countWork: expected fewer calls, ${native.lost()} were not counted`,
      );
    }
    return counted;
  } catch (error) {
    throw typed(error);
  } finally {
    native.profile(false, false);
  }
}
