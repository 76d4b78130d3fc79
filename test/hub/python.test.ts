/** The cache is shared with Python's huggingface_hub, where there is one: what either has fetched the other one finds, locks included. */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { resolveModel } from '../../lib/index.js';
import { hubPlace, pull } from '../support/hub.js';
import { whisperFiles } from '../support/hub-models.js';

/** A Python with huggingface_hub, by name or as it is found. */
const python = [process.env.DISTILWHISPER_PEER_PYTHON ?? '', 'python3'].find(
  (name) => name !== '' && spawnSync(name, ['-c', 'import huggingface_hub']).status === 0,
);
const files = await whisperFiles(1);
const NEEDED = '["*.json", "model.safetensors", "merges.txt"]';
const FETCH = `
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("org/name", allow_patterns=${NEEDED}, local_files_only=len(sys.argv) > 1))`;

const run = (args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> =>
  new Promise((resolve) => {
    const env = {
      ...process.env,
      HF_HUB_DISABLE_XET: '1',
      HF_HUB_DISABLE_TELEMETRY: '1',
      HF_HUB_DISABLE_PROGRESS_BARS: '1',
    };
    const child = execFile(python!, args, { env }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout: stdout.trim(), stderr }),
    );
  });

const shared = python === undefined ? test.serial.skip : test.serial;

shared('what is fetched here Python finds offline, and the other way round', async (t) => {
  const { hub, cache } = await hubPlace(t);
  await hub.commit('org/name', files);
  const folder = await resolveModel('org/name');
  const asked = hub.requests.length;
  const found = await run(['-c', FETCH, 'offline']);
  t.is(found.stdout, folder, found.stderr);
  const again = await run(['-c', FETCH]);
  t.is(again.stdout, folder, again.stderr);
  t.is(hub.asked('cdn').length, 1, 'nothing came twice');
  t.true(hub.requests.length > asked);
  const scanned = await run([
    '-c',
    'from huggingface_hub import scan_cache_dir\ni = scan_cache_dir()\nprint(len(i.warnings), [r.repo_id for r in i.repos])',
  ]);
  t.is(scanned.stdout, "0 ['org/name']", scanned.stderr);

  const other = await hubPlace(t);
  await other.hub.commit('org/name', files);
  const theirs = await run(['-c', FETCH]);
  t.is(theirs.code, 0, theirs.stderr);
  const before = other.hub.requests.length;
  t.is(await resolveModel('org/name', { offline: true }), theirs.stdout);
  t.is(other.hub.requests.length, before);
  t.is(await resolveModel('org/name'), theirs.stdout);
  t.is(other.hub.asked('cdn').length, 1);
  t.deepEqual(
    readdirSync(join(cache('org/name'), 'blobs')).sort(),
    readdirSync(join(other.cache('org/name'), 'blobs')).sort(),
  );
  t.true(realpathSync(join(theirs.stdout, 'model.safetensors')).includes('/blobs/'));
});

shared('while Python holds the lock of a file, it is waited for', async (t) => {
  const { hub, home, cache } = await hubPlace(t);
  await hub.commit('org/name', files);
  await resolveModel('org/name');
  const blobs = readdirSync(join(cache('org/name'), 'blobs'));
  const weights = blobs.find((name) => name.length === 64)!;
  const lock = join(home, 'hub', '.locks', 'models--org--name', `${weights}.lock`);
  t.true(existsSync(lock));
  const blob = readFileSync(join(cache('org/name'), 'blobs', weights));
  const [whole, aside, go] = [join(cache('org/name'), 'blobs', weights), join(home, 'aside'), join(home, 'go')];
  // It holds the lock until it is told to put the file there.
  const script = `
import time, os
from huggingface_hub.utils import WeakFileLock
with WeakFileLock(${JSON.stringify(lock)}):
    os.rename(${JSON.stringify(whole)}, ${JSON.stringify(aside)})
    while not os.path.exists(${JSON.stringify(go)}): time.sleep(0.05)
    os.rename(${JSON.stringify(aside)}, ${JSON.stringify(whole)})`;
  const holding = run(['-c', script]);
  while (!existsSync(aside)) await new Promise((resolve) => setTimeout(resolve, 20));
  const asked = hub.asked('cdn').length;
  const ours = await pull(['model', 'org/name'], {}, (stderr) => {
    if (stderr.includes('waiting')) writeFileSync(go, '');
  });
  t.is(ours.code, 0, ours.stderr);
  t.regex(ours.stderr, /waiting for another process that fetches model.safetensors of org\/name/);
  t.is(hub.asked('cdn').length, asked);
  t.deepEqual(readFileSync(join(JSON.parse(ours.stdout), 'model.safetensors')), blob);
  t.is((await holding).code, 0);
});
