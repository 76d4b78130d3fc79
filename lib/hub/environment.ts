/** Where the hub and its cache are, by the variables that Python's huggingface_hub reads. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';

/** https://huggingface.co, in the words of the client. */
const HUB = 'https://huggingface.co';

export interface Environment {
  /** Without a slash at its end. */
  readonly endpoint: string;
  /** The cache's folder, with models--org--name and .locks in it. */
  readonly cache: string;
  readonly token: string | undefined;
  readonly offline: boolean;
}

const isTrue = (value: string | undefined): boolean => ['1', 'ON', 'YES', 'TRUE'].includes(value?.toUpperCase() ?? '');

/** As a shell reads it: ~ and variables. */
const expanded = (path: string): string =>
  path
    .replace(/^~(?=\/|$)/, homedir())
    .replace(/\$(?:\{(\w+)\}|(\w+))/g, (whole, a: string, b: string) => process.env[a ?? b] ?? whole);

/** What is not empty. */
const set = (name: string): string | undefined => process.env[name] || undefined;

/**
 * HF_ENDPOINT, HF_HUB_CACHE (else HF_HOME/hub, else $XDG_CACHE_HOME/huggingface/hub), HF_TOKEN (else the file that a login has
 * left), HF_HUB_OFFLINE. Errors: ERR_ARGUMENT for an endpoint that is none.
 */
export async function hubEnvironment(): Promise<Environment> {
  const endpoint = (set('HF_ENDPOINT') ?? HUB).replace(/\/+$/, '');
  if (!/^https?:\/\/[^/?#]+[^?#]*$/.test(endpoint) || !URL.canParse(endpoint)) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `HF_ENDPOINT: expected an http or https URL, got ${JSON.stringify(endpoint.slice(0, 80))}`,
    );
  }
  const home = expanded(set('HF_HOME') ?? join(set('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface'));
  const cache = expanded(set('HF_HUB_CACHE') ?? set('HUGGINGFACE_HUB_CACHE') ?? join(home, 'hub'));
  const implicit = !isTrue(process.env.HF_HUB_DISABLE_IMPLICIT_TOKEN);
  return {
    endpoint,
    cache,
    token: implicit ? await tokenOf(home) : undefined,
    offline: isTrue(process.env.HF_HUB_OFFLINE) || isTrue(process.env.TRANSFORMERS_OFFLINE),
  };
}

async function tokenOf(home: string): Promise<string | undefined> {
  const given = set('HF_TOKEN') ?? set('HUGGING_FACE_HUB_TOKEN');
  // Without one, and where its file cannot be read, the hub is asked as anybody.
  const text = given ?? (await readFile(expanded(set('HF_TOKEN_PATH') ?? join(home, 'token')), 'utf8').catch(() => ''));
  const token = text.replaceAll(/[\r\n]/g, '').trim();
  // What no header may hold is no token.
  return /^[\x21-\x7e]+$/.test(token) ? token : undefined;
}
