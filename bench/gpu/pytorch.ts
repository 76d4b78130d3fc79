/** What PyTorch takes for the work of our figures: one process for all runs, eager ones first, then compiled ones. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Add, type GpuRow, peerName, readRows } from './results.js';
import type { Settings } from './settings.js';

/** Every run of the script that our rows ask for, as its arguments. */
export function peerRuns(rows: readonly GpuRow[]): { args: readonly string[]; compiled: boolean }[] {
  return [false, true].flatMap((compiled) =>
    rows.flatMap(({ peer, compile }) => (peer && (!compiled || compile) ? [{ args: peer, compiled }] : [])),
  );
}

/** Our figures of this run came before; each run of the script is a row, also one that fails. */
export async function pytorch(add: Add, { folder, only, peer, python = 'python3', device, repeats }: Settings) {
  if (peer === undefined) {
    add({ name: 'PyTorch', note: 'skipped: no script was named (--peer)' });
    return;
  }
  const runs = peerRuns(only.filter((stage) => stage !== 'pytorch').flatMap((stage) => readRows(folder, stage)));
  if (runs.length === 0) {
    add({ name: 'PyTorch', note: 'skipped: there are no figures of ours to hold it against' });
    return;
  }
  const driver = fileURLToPath(new URL('torch_runs.py', import.meta.url));
  const child = spawn(python, [driver, peer, device], { stdio: ['pipe', 'pipe', 'inherit'] });
  const failed = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => resolve(`${python} ended with code ${code}`));
  });
  // A process that is gone answers no more; that it is gone is what is told.
  child.stdin.on('error', () => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  for (const { args, compiled } of runs) {
    const name = peerName(args, compiled);
    const all = [...args, ...(compiled ? ['--compile'] : []), '--device', device];
    child.stdin.write(`${JSON.stringify([...all, '--repeat', `${repeats}`, '--warmup', '3'])}\n`);
    const { value, done } = await lines.next();
    if (done) {
      add({ name, ok: false, note: `${await failed}: see pytorch.log` });
      return;
    }
    const said = JSON.parse(value) as { ms_median?: number; peak_mib?: number; error?: string };
    add({
      name,
      ...(said.ms_median !== undefined && { ms: said.ms_median }),
      ...(said.peak_mib !== undefined && { peakMiB: said.peak_mib }),
      ...(said.error !== undefined && { note: said.error }),
    });
  }
  child.stdin.end();
  await failed;
}
