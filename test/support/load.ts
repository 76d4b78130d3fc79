/**
 * Claims about time on a machine that others use too. What a claim says is held where the processors were free for it; where they
 * were not, it is measured again, and at last said not to be judged. `npm run bench` measures speed.
 */
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';

/** Milliseconds: the clock of a processor's idle time ticks every 10. */
const SHORTEST = 500;
const TURNS = 5;
/** Of a processor: what a machine does beside a test where nothing else runs. */
const FREE = 0.2;

/** Seconds that all processors together have been idle. */
const idle = (): number => cpus().reduce((sum, { times }) => sum + times.idle, 0) / 1e3;

/** Seconds that this process has computed, on all of its threads: what others do does not count. */
export function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Begins to watch the machine. What it returns tells how many processors others than this process have taken since. */
export function watch(): () => Promise<number> {
  const [began, own, free] = [performance.now(), processorSeconds(), idle()];
  return async () => {
    await sleep(Math.max(0, SHORTEST - (performance.now() - began)));
    const seconds = (performance.now() - began) / 1e3;
    return cpus().length - (idle() - free + processorSeconds() - own) / seconds;
  };
}

/** Waits for what must come, however late: a minute at most. Returns whether it came. */
export async function until(come: () => boolean): Promise<boolean> {
  const end = performance.now() + 60_000;
  while (!come() && performance.now() < end) await sleep(10);
  return come();
}

/**
 * Measures until `holds` says that the claim holds. It fails where it does not although nothing else ran; where something did each
 * time, the test says so. `say` is the figure in words.
 */
export async function unlessBusy<T>(
  t: ExecutionContext,
  measure: () => Promise<T> | T,
  holds: (measured: T) => boolean,
  say: (measured: T) => string,
): Promise<void> {
  const tried: string[] = [];
  for (let turn = 0; turn < TURNS; turn++) {
    const others = watch();
    const measured = await measure();
    if (holds(measured)) {
      t.log(say(measured));
      t.pass();
      return;
    }
    const taken = await others();
    tried.push(`${say(measured)}, while others took ${taken.toFixed(1)} processors`);
    if (taken <= FREE) {
      t.fail(tried.join('\n'));
      return;
    }
  }
  t.log(`the machine is busy: not judged\n${tried.join('\n')}`);
  t.pass();
}
