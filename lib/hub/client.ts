/** Requests to the hub: who asks, what is tried again, and refusals as typed errors. */
import { setTimeout as sleep } from 'node:timers/promises';
import { DistilWhisperError, isDistilWhisperError, shown } from '../errors/index.js';
import type { Environment } from './environment.js';
import { placeOf, type Repository } from './names.js';

/** Answers that another try may better. */
const AGAIN: readonly number[] = [408, 425, 429, 500, 502, 503, 504];
/** Seconds before the second try; each further one waits twice as long. */
const FIRST_WAIT = 0.5;
/** The longest that a Retry-After is waited for: whoever is told to wait longer is told so. */
const LONGEST_WAIT = 300;
/** Seconds without a byte after which a connection counts as lost. */
const SILENCE = 60;
/** Bytes of an answer that is no file: 100,000 files are 20 MB. */
const LONGEST_ANSWER = 64 << 20;
/** Characters of a refusal that are looked at. */
const LONGEST_REASON = 2000;

export interface ClientOptions {
  signal?: AbortSignal | undefined;
  /** How often a request is tried before it is given up. */
  tries?: number | undefined;
  /** Seconds in which an answer must begin. */
  patience?: number | undefined;
  /** Whom the requests are about, for the sentences. */
  about: string;
  repository?: Repository | undefined;
}

/** An answer whose body is still to be read; `stop` ends it. */
export interface Answer {
  readonly response: Response;
  readonly stop: AbortController;
}

/** Throws ERR_INTERRUPTED. */
export function throwIfInterrupted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the hub was asked');
}

/** A pause that an interruption ends. Throws ERR_INTERRUPTED. */
export async function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(1000 * seconds, undefined, { signal }).catch(() => {});
  throwIfInterrupted(signal);
}

/** What made a request fail, in a few words: the system's code where there is one, else the innermost sentence. */
function reasonOf(error: unknown): string {
  let at = error;
  while (at instanceof Error) {
    if ('code' in at && typeof at.code === 'string') return at.code;
    if (at.cause === undefined) return at.message;
    at = at.cause;
  }
  return String(at);
}

/** How long the hub asks to wait, in seconds: Retry-After as seconds or a date, or what is left of a rate limit's window. */
export function retryAfter(headers: Headers, now = Date.now()): number | null {
  const text = headers.get('retry-after')?.trim();
  if (text !== undefined && /^\d{1,9}(\.\d+)?$/.test(text)) return Number(text);
  const date = text === undefined ? Number.NaN : Date.parse(text);
  if (Number.isFinite(date)) return Math.max(0, (date - now) / 1000);
  const window = /(?:^|;)\s*t=(\d{1,9})\b/.exec(headers.get('ratelimit') ?? '');
  return window ? Number(window[1]) : null;
}

/** A body, of which no byte may be late: after a minute of silence it fails. */
export async function* chunksOf({ response, stop }: Answer): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const timer = setTimeout(() => stop.abort(new Error(`no byte came in ${SILENCE} seconds`)), 1000 * SILENCE);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Speaks to one hub about one repository. */
export class Client {
  /** `fetch` for the hub's own client: what it gets is 2xx and of a bounded size, all else is thrown. */
  readonly fetch: typeof fetch;

  constructor(
    readonly environment: Environment,
    private readonly options: ClientOptions,
  ) {
    this.fetch = async (input, init) => {
      const answer = await this.request(String(input instanceof Request ? input.url : input), init ?? {});
      const { status, headers } = answer.response;
      return new Response(await this.bounded(answer), { status, headers });
    };
  }

  /**
   * A request that has got an answer of 2xx, or 416 where a range was asked for; its body is still to be read. Errors: ERR_HUB
   * (no answer, 5xx and 429 again and again, other refusals), ERR_HUB_ACCESS (401, 403), ERR_HUB_NOT_FOUND (404), ERR_INTERRUPTED.
   */
  async request(url: string, init: RequestInit, file?: string): Promise<Answer> {
    const { signal, tries = 5 } = this.options;
    for (let attempt = 1; ; attempt++) {
      throwIfInterrupted(signal);
      const stop = new AbortController();
      const last = attempt >= tries;
      let wait = FIRST_WAIT * 2 ** (attempt - 1) * (1 + Math.random() / 4);
      try {
        const response = await this.once(url, init, stop);
        const ranged = response.status === 416 && new Headers(init.headers).has('range');
        if (response.ok || ranged) return { response, stop };
        const error = await this.refusal({ response, stop }, file);
        const asked = retryAfter(response.headers);
        if (last || !AGAIN.includes(response.status) || !replayable(init, response.status)) throw error;
        if (asked !== null && asked > LONGEST_WAIT) throw error;
        wait = asked === null ? wait : Math.max(asked, 0.05);
      } catch (error) {
        throwIfInterrupted(signal);
        if (isDistilWhisperError(error)) throw error;
        if (last || !replayable(init, null)) throw this.unreachable(error);
      }
      await pause(wait, signal);
    }
  }

  /** The error for a hub that does not answer. */
  unreachable(cause: unknown): DistilWhisperError {
    const { endpoint } = this.environment;
    return new DistilWhisperError(
      'ERR_HUB',
      `${this.options.about}: ${endpoint} could not be reached (${reasonOf(cause)}); check the network (HF_ENDPOINT names another hub), or give the path of a local folder`,
      { cause },
    );
  }

  private async once(url: string, init: RequestInit, stop: AbortController): Promise<Response> {
    const { signal, patience = 60 } = this.options;
    const { endpoint, token } = this.environment;
    const headers = new Headers(init.headers);
    headers.set('user-agent', 'distilwhisper');
    // The client adds its own where it has a token of the one form that it knows. It is the hub's alone, whatever it links to.
    headers.delete('authorization');
    const own = URL.canParse(url) && new URL(url).origin === new URL(endpoint).origin;
    if (own && token !== undefined) headers.set('authorization', `Bearer ${token}`);
    // What is uploaded may take its time before it is answered.
    const uploads = init.body !== undefined && init.body !== null && typeof init.body !== 'string';
    const expire = (): void => stop.abort(new Error(`no answer in ${patience} seconds`));
    const late = uploads ? undefined : setTimeout(expire, 1000 * patience);
    try {
      const signals = [stop.signal, signal, init.signal].filter(
        (one): one is AbortSignal => one instanceof AbortSignal,
      );
      return await fetch(url, { ...init, headers, signal: AbortSignal.any(signals) });
    } finally {
      clearTimeout(late);
    }
  }

  /** The body of an answer that is no file. Throws ERR_HUB. */
  private async bounded({ response, stop }: Answer): Promise<Uint8Array<ArrayBuffer> | null> {
    if ([204, 205, 304].includes(response.status)) return null;
    const parts: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const part of chunksOf({ response, stop })) {
        size += part.length;
        if (size > LONGEST_ANSWER) break;
        parts.push(part);
      }
    } catch (error) {
      throwIfInterrupted(this.options.signal);
      throw this.unreachable(error);
    }
    if (size > LONGEST_ANSWER) throw this.strange(`an answer of more than ${LONGEST_ANSWER} bytes`);
    return new Uint8Array(Buffer.concat(parts));
  }

  /** The error for an answer that no hub gives. */
  strange(what: string, cause?: unknown): DistilWhisperError {
    return new DistilWhisperError(
      'ERR_HUB',
      `${this.options.about}: ${this.environment.endpoint} gave ${what}; is it a hub? (HF_ENDPOINT)`,
      { cause },
    );
  }

  /** The error for an answer that is not 2xx. */
  private async refusal(given: Answer, file: string | undefined): Promise<DistilWhisperError> {
    const { response } = given;
    const { about, repository } = this.options;
    const { endpoint, token } = this.environment;
    const { status, headers } = response;
    const reason = await reasonIn(given);
    const said = headers.get('x-error-message') ?? reason;
    const words = said === '' ? '' : `: ${shown(said, 300)}`;
    const what = file === undefined ? about : `${about}, ${file}`;
    const code = headers.get('x-error-code') ?? '';
    const answer = `${endpoint} answered ${status}${words}`;
    const refuse = (kind: 'ERR_HUB' | 'ERR_HUB_ACCESS' | 'ERR_HUB_NOT_FOUND', advice: string): DistilWhisperError =>
      new DistilWhisperError(kind, `${what}: ${answer}; ${advice}`);
    const page = repository
      ? `${endpoint}/${repository.kind === 'dataset' ? 'datasets/' : ''}${repository.name}`
      : endpoint;
    // A name may have been meant as a path.
    const here = repository ? `, and no ${placeOf(repository.kind)} of that name is here` : '';
    if (status === 401 && token !== undefined && !/RepoNotFound/.test(code)) {
      return refuse('ERR_HUB_ACCESS', 'the token is not accepted: make another, and put it into HF_TOKEN');
    }
    if (status === 401) {
      const how =
        token === undefined ? 'put a token with access into HF_TOKEN' : 'the token in use has no access to it';
      return refuse(
        'ERR_HUB_ACCESS',
        `there is no such repository, or it is private${here}: check the name, or ${how}`,
      );
    }
    if (status === 403) {
      const advice = /Gated/i.test(code)
        ? `ask for access, or accept its conditions, at ${page}`
        : token === undefined
          ? 'put a token with access into HF_TOKEN'
          : `the token in HF_TOKEN may not do this at ${page}: take one that may`;
      return refuse('ERR_HUB_ACCESS', advice);
    }
    if (status === 404) {
      const missing = /Revision/.test(code)
        ? `it has no revision ${repository?.revision}`
        : /Entry/.test(code)
          ? 'it has no such file'
          : `check the name${here}; what is private needs a token in HF_TOKEN`;
      return refuse('ERR_HUB_NOT_FOUND', missing);
    }
    const wait = retryAfter(headers);
    const when = wait === null ? 'try again later' : `try again in ${Math.ceil(wait)} seconds`;
    if (status === 429)
      return refuse('ERR_HUB', `${when}${token === undefined ? '; with a token in HF_TOKEN more is allowed' : ''}`);
    return refuse('ERR_HUB', AGAIN.includes(status) ? when : 'this was not expected');
  }
}

/** Whether a request may be made twice: one that commits may have been carried out by a server that then failed. */
function replayable({ headers, body }: RequestInit, status: number | null): boolean {
  if (body instanceof ReadableStream) return false;
  return status === 429 || new Headers(headers).get('content-type') !== 'application/x-ndjson';
}

/** The sentence in a refusal's body. */
async function reasonIn(answer: Answer): Promise<string> {
  try {
    let text = '';
    for await (const part of chunksOf(answer)) {
      text = new TextDecoder().decode(part.subarray(0, LONGEST_REASON)).trim();
      break;
    }
    if (!text.startsWith('{')) return text.startsWith('<') ? '' : text.slice(0, 200);
    const { error, message } = JSON.parse(text) as { error?: unknown; message?: unknown };
    return String(error ?? message ?? '');
  } catch {
    return '';
  }
}
