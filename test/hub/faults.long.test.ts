import { execFile, execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { resolveModel } from '../../lib/index.js';
import { hubPlace, pull } from '../support/hub.js';
import { whisperFiles } from '../support/hub-models.js';
import type { Fault } from '../support/hub-server.js';
import { refused } from '../support/weights.js';

const files = await whisperFiles(1);
const weights = files['model.safetensors'] as Buffer;

test.serial('401, 403 and 404 are told apart, with what to do, and are not asked again', async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/name', files);
  await hub.commit('org/gated', files, { gated: true });
  await refused(
    t,
    'ERR_HUB_ACCESS',
    /org\/none: .* answered 401: "Invalid username or password."; there is no such repository, or it is private, and no model folder of that name is here: .*HF_TOKEN/,
    () => resolveModel('org/none'),
  );
  t.is(hub.requests.length, 1);
  process.env.HF_TOKEN = 'hf_reader';
  await refused(t, 'ERR_HUB_NOT_FOUND', /org\/none: .* answered 404.*check the name/, () => resolveModel('org/none'));
  await refused(t, 'ERR_HUB_NOT_FOUND', /org\/name@v9: .*it has no revision v9/, () => resolveModel('org/name@v9'));
  await refused(
    t,
    'ERR_HUB_ACCESS',
    /org\/gated, .*answered 403: "Access to this model is restricted.".*ask for access, or accept its conditions, at .*\/org\/gated/,
    () => resolveModel('org/gated'),
  );
  process.env.HF_TOKEN = 'hf_expired';
  await refused(t, 'ERR_HUB_ACCESS', /answered 401.*the token is not accepted: make another/, () =>
    resolveModel('org/name'),
  );
  delete process.env.HF_TOKEN;
  hub.fault = ({ part, path }) => (part === 'resolve' && path.endsWith('config.json') ? { status: 404 } : undefined);
  await refused(t, 'ERR_HUB_NOT_FOUND', /org\/name, \w*_?config.json: .* answered 404/, () => resolveModel('org/name'));
});

test.serial('429 waits as long as it is told to; 5xx are asked again, later and later', async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/name', files);
  const times: number[] = [];
  hub.fault = ({ path, before }): Fault | undefined => {
    if (path.includes('/revision/')) {
      times.push(performance.now());
      if (before === 0) return { status: 429, headers: { 'retry-after': '1' } };
      if (before === 1) return { status: 429, headers: { ratelimit: '"api";r=0;t=1' } };
      if (before === 2) return { status: 503 };
    }
    return path.includes('/resolve/') && path.endsWith('model.safetensors') && before === 0
      ? { status: 500 }
      : undefined;
  };
  const folder = await resolveModel('org/name');
  t.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights);
  const [first, second, third] = [1, 2, 3].map((i) => times[i]! - times[i - 1]!);
  t.true(first! >= 990 && second! >= 990, `${first} and ${second} ms`);
  t.true(third! >= 1900, `${third} ms: the third wait is of two seconds`);
});

test.serial('who is told to wait for an hour is told so; an endpoint that is none is refused', async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/name', files);
  hub.fault = () => ({ status: 429, headers: { 'retry-after': '3600' } });
  await refused(t, 'ERR_HUB', /answered 429.*try again in 3600 seconds; with a token in HF_TOKEN more is allowed/, () =>
    resolveModel('org/name'),
  );
  t.is(hub.requests.length, 1);
  process.env.HF_ENDPOINT = 'ftp://x';
  await refused(t, 'ERR_ARGUMENT', /HF_ENDPOINT: expected an http or https URL, got "ftp:\/\/x"/, () =>
    resolveModel('org/name'),
  );
  process.env.HF_ENDPOINT = hub.url;
});

test.serial("an answer that is no hub's is refused", async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/name', files);
  const bodies = [
    '',
    '<html>',
    '[]',
    'null',
    '{"sha": "main"}',
    `{"sha": ${JSON.stringify('../../../../etc/passwd'.padEnd(40, 'a'))}}`,
  ];
  for (const body of bodies) {
    hub.fault = ({ path }) => (path.includes('/revision/') ? { status: 200, body } : undefined);
    await refused(t, 'ERR_HUB', /is it a hub\? \(HF_ENDPOINT\)/, () => resolveModel('org/name'));
  }
  const entry = { type: 'file', path: 'config.json', size: 1, oid: 'a'.repeat(40) };
  const listings: object[] = [
    {},
    [{ ...entry, path: '../config.json' }],
    [{ ...entry, path: '/etc/passwd' }],
    [{ ...entry, path: 'a//b' }],
    [{ ...entry, path: 'C:\\x' }],
    [{ ...entry, oid: '../../x'.padEnd(40, 'a') }],
    [{ ...entry, size: -1 }],
    [{ ...entry, size: 1.5 }],
    [{ ...entry, lfs: { oid: 'b'.repeat(40), size: 1 } }],
    [{ ...entry, lfs: [] }],
    [7],
  ];
  for (const listing of listings) {
    hub.fault = ({ path }) => (path.includes('/tree/') ? { status: 200, body: JSON.stringify(listing) } : undefined);
    await refused(t, 'ERR_HUB', /is it a hub\?/, () => resolveModel('org/name'));
  }
  hub.fault = ({ path }) =>
    path.includes('/tree/')
      ? { status: 200, body: '[]', headers: { link: `<${hub.url}/api/models/org/name/tree/x>; rel="next"` } }
      : undefined;
  await refused(t, 'ERR_HUB', /a listing that does not end/, () => resolveModel('org/name'));
});

test.serial('a file that is shorter than its listing says is not asked for without end', async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/name', files);
  const entries: { path: string; size: number; lfs?: { size: number } }[] = [];
  for (let page: string | undefined = `${hub.url}/api/models/org/name/tree/main?recursive=true`; page !== undefined; ) {
    const listed: Response = await fetch(page);
    entries.push(...((await listed.json()) as typeof entries));
    page = /<([^>]+)>/.exec(listed.headers.get('link') ?? '')?.[1];
  }
  for (const entry of entries) {
    if (entry.path !== 'model.safetensors') continue;
    entry.size += 50;
    if (entry.lfs) entry.lfs.size += 50;
  }
  hub.fault = ({ path }) => (path.includes('/tree/') ? { status: 200, body: JSON.stringify(entries) } : undefined);
  await refused(t, 'ERR_HUB', /the connection ends after \d+ of \d+ bytes again and again/, () =>
    resolveModel('org/name'),
  );
  t.true(hub.asked('resolve').length < 100);
});

test.serial('a wrong hash: nothing of it is kept, the file and both hashes are named', async (t) => {
  const { hub, cache } = await hubPlace(t);
  await hub.commit('org/name', files);
  hub.fault = ({ part }) => (part === 'cdn' ? { change: 7000 } : undefined);
  await refused(
    t,
    'ERR_HUB_CORRUPT',
    /org\/name, model.safetensors: .*SHA-256: expected [0-9a-f]{64}, got [0-9a-f]{64}/,
    () => resolveModel('org/name'),
  );
  const damaged = readdirSync(join(cache('org/name'), 'blobs')).filter((name) => /^[0-9a-f]{64}/.test(name));
  t.deepEqual(damaged, [], 'neither the weights nor a part of them');
  hub.fault = ({ path }) => (path.endsWith('/tokenizer.json') ? { change: 10 } : undefined);
  await hub.commit('org/text', files);
  await refused(t, 'ERR_HUB_CORRUPT', /org\/text, tokenizer.json: .*SHA-1 of the git blob/, () =>
    resolveModel('org/text'),
  );
  const folder = join(cache('org/text'), 'snapshots');
  const [commit] = readdirSync(folder);
  t.false(readdirSync(join(folder, commit!)).includes('tokenizer.json'));
  hub.fault = () => undefined;
  t.deepEqual(readFileSync(join(await resolveModel('org/name'), 'model.safetensors')), weights);
});

test.serial(
  'a hub that stays down, and a connection that ends early again and again, are told, with how far it came',
  async (t) => {
    const { hub } = await hubPlace(t);
    await hub.commit('org/name', files);
    hub.fault = ({ part, path, before }) => {
      if (path.includes('org/down')) return { status: 503, body: '<html>' };
      return part === 'cdn' ? { cut: before === 0 ? 5000 : 0 } : undefined;
    };
    // At once: both are tried again and again.
    await Promise.all([
      refused(t, 'ERR_HUB', /org\/down: .* answered 503; try again later/, () => resolveModel('org/down')),
      refused(
        t,
        'ERR_HUB',
        /model.safetensors: the connection ends after 5000 of \d+ bytes again and again; the same call goes on/,
        () => resolveModel('org/name'),
      ),
    ]);
    t.is(hub.asked('api', 'org/down').length, 5);
    hub.fault = () => undefined;
    const asked = hub.asked('cdn').length;
    await resolveModel('org/name');
    t.is(hub.asked('cdn')[asked]!.headers.range, 'bytes=5000-');
  },
);

test.serial('an interruption ends a fetch and keeps what came', async (t) => {
  const { hub, cache } = await hubPlace(t);
  await hub.commit('org/name', files);
  hub.fault = ({ part }) => (part === 'cdn' ? { delay: 60_000, after: 9000 } : undefined);
  const abort = new AbortController();
  const onProgress = ({ done, total }: { done: number; total: number }) => {
    if (done >= total - weights.length + 9000) abort.abort();
  };
  await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
    resolveModel('org/name', { signal: abort.signal, onProgress }),
  );
  const left = readdirSync(join(cache('org/name'), 'blobs')).filter((name) => name.endsWith('.incomplete'));
  t.is(left.length, 1);
  t.is(readFileSync(join(cache('org/name'), 'blobs', left[0]!)).length, 9000);
});

/** A small file system of its own, where this user may mount one. */
function smallDisk(kilobytes: number): { path: string; remove: () => void } | null {
  const path = mkdtempSync(join(tmpdir(), 'distilwhisper-full-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${kilobytes}k`, 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    rmSync(path, { recursive: true });
    return null;
  }
  return {
    path,
    remove: () => {
      execFileSync('umount', ['-l', path]);
      rmSync(path, { recursive: true });
    },
  };
}

test.serial('a full disk: refused before anything is fetched', async (t) => {
  const disk = smallDisk(200);
  if (!disk) {
    t.log('skipped: needs a user who may mount a tmpfs');
    t.pass();
    return;
  }
  t.teardown(disk.remove);
  const { hub } = await hubPlace(t);
  const large = Buffer.alloc(400_000, 1);
  await hub.commit('org/name', { ...files, 'model.safetensors': large });
  process.env.HF_HOME = join(disk.path, 'home');
  await refused(
    t,
    'ERR_DISK_FULL',
    /org\/name needs \d+ bytes more, and .* has room for \d+; make room, or put the cache elsewhere \(HF_HOME\)/,
    () => resolveModel('org/name'),
  );
  t.is(hub.asked('resolve').length, 0);
});

test.serial('a disk that others fill: told with what to do, and the same call goes on from there', async (t) => {
  const { hub } = await hubPlace(t);
  const large = Buffer.alloc(400_000, 1);
  // Room by the numbers, and none when it is written: a limit on a file's size stands for it.
  const home = mkdtempSync(join(tmpdir(), 'distilwhisper-limit-'));
  t.teardown(() => rmSync(home, { recursive: true }));
  mkdirSync(join(home, 'hub'));
  process.env.HF_HOME = home;
  await hub.commit('org/grown', { ...files, 'model.safetensors': large });
  const script = new URL('../support/hub-pull.ts', import.meta.url).pathname;
  const command = `ulimit -f 100; trap '' XFSZ; exec '${process.execPath}' --import=tsx '${script}' model org/grown`;
  const child = await new Promise<{ stderr: string; code: number | null }>((resolve) => {
    const running = execFile('bash', ['-c', command], { env: process.env }, (_, __, stderr) =>
      resolve({ stderr, code: running.exitCode }),
    );
  });
  t.not(child.code, 0);
  t.regex(child.stderr, /ERR_DISK_FULL/);
  t.regex(
    child.stderr,
    /The disk is full: org\/grown, model.safetensors has 400000 bytes, of which \d+ are in .*the same call goes on/,
  );
  const resumed = await pull(['model', 'org/grown'], {});
  t.is(resumed.code, 0, resumed.stderr);
  t.deepEqual(readFileSync(join(JSON.parse(resumed.stdout), 'model.safetensors')), large);
});
