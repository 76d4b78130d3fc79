/** A hub and an empty cache for a test, and the variables that lead to them. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { HubServer } from './hub-server.js';

/** What of a machine's own settings would change what is tested. */
const OTHERS = [
  'HF_HUB_CACHE',
  'HUGGINGFACE_HUB_CACHE',
  'HF_TOKEN',
  'HUGGING_FACE_HUB_TOKEN',
  'HF_TOKEN_PATH',
  'HF_HUB_OFFLINE',
  'HF_HUB_DISABLE_IMPLICIT_TOKEN',
  'TRANSFORMERS_OFFLINE',
];

export interface HubPlace {
  hub: HubServer;
  /** HF_HOME. */
  home: string;
  /** The cache's folder of a model. */
  cache: (name: string, kind?: string) => string;
  env: Record<string, string>;
}

/** Sets this process's variables too: for tests that run one after the other. */
export async function hubPlace(t: ExecutionContext, more: Record<string, string> = {}): Promise<HubPlace> {
  const hub = await HubServer.start();
  const home = mkdtempSync(join(tmpdir(), 'distilwhisper-hub-'));
  t.teardown(async () => {
    await hub.close();
    rmSync(home, { recursive: true, force: true });
  });
  const env = { HF_ENDPOINT: hub.url, HF_HOME: home, ...more };
  for (const name of OTHERS) delete process.env[name];
  Object.assign(process.env, env);
  return { hub, home, env, cache: (name, kind = 'models') => join(home, 'hub', `${kind}--${name.replace('/', '--')}`) };
}

export interface Pulled {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Resolves a name in a process of its own; `onStderr` may kill it. */
export function pull(
  args: readonly [kind: 'model' | 'experts' | 'dataset', name: string],
  env: Record<string, string>,
  onStderr: (text: string, kill: () => void) => void = () => {},
): Promise<Pulled> {
  const script = fileURLToPath(new URL('./hub-pull.ts', import.meta.url));
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--import=tsx', script, ...args], { env: { ...process.env, ...env } });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
      onStderr(stderr, () => child.kill('SIGKILL'));
    });
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}
