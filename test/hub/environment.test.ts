import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { retryAfter } from '../../lib/hub/client.js';
import { hubEnvironment } from '../../lib/hub/environment.js';

const home = mkdtempSync(join(tmpdir(), 'distilwhisper-environment-'));
test.after.always(() => rmSync(home, { recursive: true }));

/** The environment under these variables alone. */
async function under(variables: Record<string, string>) {
  for (const name of Object.keys(process.env))
    if (/^(HF_|HUGGING|XDG_CACHE|TRANSFORMERS_)/.test(name)) delete process.env[name];
  Object.assign(process.env, variables);
  return hubEnvironment();
}

test.serial(
  'where the cache is: HF_HUB_CACHE, else below HF_HOME, else below XDG_CACHE_HOME, else ~/.cache',
  async (t) => {
    const cache = async (variables: Record<string, string>) => (await under(variables)).cache;
    t.is(await cache({}), join(homedir(), '.cache', 'huggingface', 'hub'));
    t.is(await cache({ XDG_CACHE_HOME: '/x' }), '/x/huggingface/hub');
    t.is(await cache({ XDG_CACHE_HOME: '/x', HF_HOME: '/h' }), '/h/hub');
    t.is(await cache({ HF_HOME: '~/h' }), join(homedir(), 'h', 'hub'));
    t.is(await cache({ HF_HOME: '$PLACE/h', PLACE: '/p' }), '/p/h/hub');
    t.is(await cache({ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old' }), '/old');
    t.is(await cache({ HF_HOME: '/h', HUGGINGFACE_HUB_CACHE: '/old', HF_HUB_CACHE: '/c' }), '/c');
    t.is(await cache({ HF_HOME: '' }), join(homedir(), '.cache', 'huggingface', 'hub'));
  },
);

test.serial('who asks: HF_TOKEN, else what a login has left, else nobody', async (t) => {
  const token = async (variables: Record<string, string>) => (await under({ HF_HOME: home, ...variables })).token;
  t.is(await token({}), undefined);
  writeFileSync(join(home, 'token'), 'hf_file\n');
  t.is(await token({}), 'hf_file');
  t.is(await token({ HF_TOKEN: ' hf_mine\r\n' }), 'hf_mine');
  t.is(await token({ HF_TOKEN: 'with a space' }), undefined);
  t.is(await token({ HF_TOKEN: 'hf_mine', HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' }), undefined);
  writeFileSync(join(home, 'other'), 'hf_other');
  t.is(await token({ HF_TOKEN_PATH: join(home, 'other') }), 'hf_other');
});

test.serial('which hub, and whether it is asked at all', async (t) => {
  t.is((await under({})).endpoint, 'https://huggingface.co');
  t.is((await under({ HF_ENDPOINT: 'http://localhost:8080/hub//' })).endpoint, 'http://localhost:8080/hub');
  for (const endpoint of ['localhost', 'file:///x', 'http://', 'https://a?b', 'x'])
    await t.throwsAsync(under({ HF_ENDPOINT: endpoint }), { code: 'ERR_ARGUMENT', message: /HF_ENDPOINT/ });
  for (const [value, offline] of [
    ['1', true],
    ['true', true],
    ['YES', true],
    ['0', false],
    ['', false],
  ] as const) {
    t.is((await under({ HF_HUB_OFFLINE: value })).offline, offline);
    t.is((await under({ TRANSFORMERS_OFFLINE: value })).offline, offline);
  }
});

test('how long to wait: seconds, a date, a window', (t) => {
  const at = Date.parse('2026-01-01T00:00:00Z');
  const asked = (headers: Record<string, string>) => retryAfter(new Headers(headers), at);
  t.is(asked({}), null);
  t.is(asked({ 'retry-after': '7' }), 7);
  t.is(asked({ 'retry-after': 'Thu, 01 Jan 2026 00:01:00 GMT' }), 60);
  t.is(asked({ 'retry-after': 'Wed, 31 Dec 2025 00:00:00 GMT' }), 0);
  t.is(asked({ 'retry-after': 'soon' }), null);
  t.is(asked({ ratelimit: '"api";r=0;t=55' }), 55);
  t.is(asked({ 'retry-after': '99999999999' }), null);
});
