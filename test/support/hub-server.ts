/**
 * A hub on this machine: answers as huggingface.co does, to @huggingface/hub and to Python's huggingface_hub (listing in pages, paths
 * info, resolve with a redirect of what is in LFS to a CDN on another port, ETags, ranges, uploads by LFS; no Xet), with faults where
 * a test asks for them.
 */
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Bytes, or a file of this machine that is read as it is sent. */
export type Content = Uint8Array | string | { readonly file: string };

interface Stored {
  content: Content;
  size: number;
  oid: string;
  /** Where it is in LFS. */
  sha256: string | null;
}

interface Repository {
  private: boolean;
  gated: boolean;
  /** Commits by branch and tag. */
  refs: Map<string, string>;
  commits: Map<string, Map<string, Stored>>;
}

export interface HubRequest {
  method: string;
  /** With its query. */
  path: string;
  headers: IncomingMessage['headers'];
  /** Which part of the hub is asked. */
  part: 'api' | 'resolve' | 'cdn' | 'upload';
  /** How many requests of this method and path there were before. */
  before: number;
}

/** Instead of the answer: a status; or the answer, with its body cut after so many bytes, or with a byte of it changed, or slowly. */
export type Fault =
  | { status: number; headers?: Record<string, string>; body?: string }
  | { cut: number }
  | { change: number }
  | { delay: number; after: number }
  | { ignoreRange: true };

export interface RepositoryOptions {
  kind?: 'models' | 'datasets';
  private?: boolean;
  gated?: boolean;
  revision?: string;
  /** Which files are in LFS. Default: those that git calls binary. */
  lfs?: (path: string) => boolean;
}

const BINARY = /\.(safetensors|bin|pt|h5|msgpack|onnx|parquet|mp3|wav|flac|opus|ot|gz|tar)$/;
const PAGE = 3;

const bytesOf = (content: Content): Uint8Array =>
  typeof content === 'string'
    ? Buffer.from(content)
    : content instanceof Uint8Array
      ? content
      : readFileSync(content.file);
const sha1 = (bytes: Uint8Array): string =>
  createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');

async function stored(path: string, content: Content, lfs: (path: string) => boolean): Promise<Stored> {
  if (!lfs(path)) {
    const bytes = bytesOf(content);
    return { content: bytes, size: bytes.length, oid: sha1(bytes), sha256: null };
  }
  const hash = createHash('sha256');
  let size = 0;
  if (typeof content === 'object' && 'file' in content) {
    size = statSync(content.file).size;
    for await (const part of createReadStream(content.file)) hash.update(part);
  } else {
    const bytes = bytesOf(content);
    size = bytes.length;
    hash.update(bytes);
  }
  const sha256 = hash.digest('hex');
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${size}\n`;
  return {
    content: typeof content === 'string' ? Buffer.from(content) : content,
    size,
    oid: sha1(Buffer.from(pointer)),
    sha256,
  };
}

export class HubServer {
  /** For HF_ENDPOINT. */
  readonly url: string;
  /** All that was asked, in its order. */
  readonly requests: HubRequest[] = [];
  /** What goes wrong; undefined: nothing. */
  fault: (request: HubRequest) => Fault | undefined = () => undefined;
  /** Accepted tokens; anybody may read what is public. */
  readonly tokens = new Set(['hf_reader']);
  private readonly repositories = new Map<string, Repository>();
  /** In LFS, by their hash, with who may fetch them. */
  private readonly objects = new Map<string, Content>();
  private readonly cdnUrl: string;

  private constructor(
    private readonly server: Server,
    private readonly cdn: Server,
  ) {
    const at = (host: string, one: Server): string => `http://${host}:${(one.address() as AddressInfo).port}`;
    this.url = at('127.0.0.1', server);
    // Another host: Python takes a redirect to its own for one within the hub.
    this.cdnUrl = at('localhost', cdn);
  }

  static async start(): Promise<HubServer> {
    const listen = async (server: Server): Promise<Server> => {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    };
    const handle =
      (get: () => HubServer, part: 'hub' | 'cdn') => (request: IncomingMessage, response: ServerResponse) => {
        get()
          .answer(request, response, part)
          .catch((error: unknown) => {
            if (!response.headersSent) response.writeHead(500, { 'content-type': 'text/plain' });
            response.end(String(error));
          });
      };
    let made: HubServer;
    const server = await listen(createServer(handle(() => made, 'hub')));
    const cdn = await listen(createServer(handle(() => made, 'cdn')));
    made = new HubServer(server, cdn);
    return made;
  }

  async close(): Promise<void> {
    for (const server of [this.server, this.cdn]) {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    }
  }

  /** Puts files into a repository as a new commit of a branch. Returns the commit. */
  async commit(
    name: string,
    files: Readonly<Record<string, Content>>,
    options: RepositoryOptions = {},
  ): Promise<string> {
    const { kind = 'models', revision = 'main', lfs = (path) => BINARY.test(path) } = options;
    const repository = this.make(`${kind}/${name}`, options);
    const parent = repository.commits.get(repository.refs.get(revision) ?? '') ?? new Map<string, Stored>();
    const next = new Map(parent);
    for (const [path, content] of Object.entries(files)) {
      const one = await stored(path, content, lfs);
      if (one.sha256 !== null) this.objects.set(one.sha256, one.content);
      next.set(path, one);
    }
    return this.advance(repository, revision, next);
  }

  /** The content of a file of a repository, as it is now. */
  read(name: string, path: string, kind = 'models'): Buffer {
    const repository = this.repositories.get(`${kind}/${name}`)!;
    return Buffer.from(bytesOf(repository.commits.get(repository.refs.get('main')!)!.get(path)!.content));
  }

  /** Names of the files of a repository; undefined where there is none. */
  files(name: string, kind = 'models'): string[] | undefined {
    const repository = this.repositories.get(`${kind}/${name}`);
    return repository && [...(repository.commits.get(repository.refs.get('main') ?? '')?.keys() ?? [])].sort();
  }

  isPrivate(name: string): boolean | undefined {
    return this.repositories.get(`models/${name}`)?.private;
  }

  /** What was asked of the files, by path: for who wants to know how often. */
  asked(part: HubRequest['part'], contains = ''): HubRequest[] {
    return this.requests.filter((request) => request.part === part && request.path.includes(contains));
  }

  private make(key: string, options: RepositoryOptions): Repository {
    const earlier = this.repositories.get(key);
    if (earlier) return earlier;
    const { private: hidden = false, gated = false } = options;
    const made: Repository = { private: hidden, gated, refs: new Map(), commits: new Map() };
    this.repositories.set(key, made);
    return made;
  }

  private advance(repository: Repository, revision: string, files: Map<string, Stored>): string {
    const list = [...files].map(([path, { oid }]) => `${path} ${oid}`).join('\n');
    const parent = repository.refs.get(revision) ?? '';
    const commit = createHash('sha1').update(`${parent}\n${list}`).digest('hex');
    repository.commits.set(commit, files);
    repository.refs.set(revision, commit);
    return commit;
  }

  private async answer(request: IncomingMessage, response: ServerResponse, at: 'hub' | 'cdn'): Promise<void> {
    const { method = 'GET', url = '/', headers } = request;
    const path = decodeURIComponent(url.split('?')[0]!);
    const part = at === 'cdn' ? (method === 'PUT' ? 'upload' : 'cdn') : path.includes('/resolve/') ? 'resolve' : 'api';
    const before = this.requests.filter((one) => one.method === method && one.path === url).length;
    const asked: HubRequest = { method, path: url, headers, part, before };
    this.requests.push(asked);
    const fault = this.fault(asked);
    if (fault && 'status' in fault) {
      response.writeHead(fault.status, { 'content-type': 'text/plain', ...fault.headers });
      response.end(fault.body ?? 'a fault');
      return;
    }
    if (at === 'cdn') return this.store(path, request, response, fault);
    const resolve = /^\/(?:(datasets)\/)?([^/]+\/[^/]+)\/resolve\/(.+)$/.exec(path);
    if (resolve) return this.resolve(`${resolve[1] ?? 'models'}/${resolve[2]}`, resolve[3]!, request, response, fault);
    const batch = /^\/([^/]+\/[^/]+)\.git\/info\/lfs\/objects\/batch$/.exec(path);
    if (batch) return this.batch(request, response);
    if (path === '/api/repos/create') return this.create(request, response);
    const api = /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree|paths-info|preupload|commit)\/(.+)$/.exec(
      path,
    );
    if (!api) return refuse(response, 404, '', 'Not found');
    const [, kind, name, what, rest] = api as unknown as [string, string, string, string, string];
    const repository = this.visible(`${kind}/${name}`, request, response);
    if (!repository) return;
    if (what === 'preupload') return this.preupload(request, response);
    if (what === 'commit') return this.accept(repository, name, rest, request, response);
    // A revision may have slashes, and a folder may follow it.
    const revision = rest === 'HEAD' ? 'main' : rest;
    const commit = repository.refs.get(revision) ?? (repository.commits.has(revision) ? revision : undefined);
    if (commit === undefined) return refuse(response, 404, 'RevisionNotFound', `Invalid rev id: ${revision}`);
    const files = repository.commits.get(commit)!;
    if (what === 'revision') {
      const siblings = [...files.keys()].map((rfilename) => ({ rfilename }));
      return json(response, {
        _id: '6321',
        id: name,
        modelId: name,
        sha: commit,
        private: repository.private,
        gated: repository.gated ? 'auto' : false,
        downloads: 1,
        likes: 1,
        lastModified: '2024-02-29T10:57:33.000Z',
        siblings,
      });
    }
    const entry = ([path, { size, oid, sha256 }]: [string, Stored]) => ({
      type: 'file',
      oid,
      size,
      path,
      ...(sha256 !== null && { lfs: { oid: sha256, size, pointerSize: 134 } }),
    });
    if (what === 'paths-info') {
      const body = (await bodyOf(request)).toString();
      const form = new URLSearchParams(body);
      const paths: string[] = body.startsWith('{') ? JSON.parse(body).paths : form.getAll('paths');
      return json(response, [...files].filter(([path]) => paths.includes(path)).map(entry));
    }
    const folders = new Set(
      [...files.keys()].flatMap((path) =>
        path
          .split('/')
          .slice(0, -1)
          .map((_, i, parts) => parts.slice(0, i + 1).join('/')),
      ),
    );
    const entries = [
      ...[...folders].map((path) => ({ type: 'directory', oid: '0'.repeat(40), size: 0, path })),
      ...[...files].map(entry),
    ];
    const query = new URL(url, this.url).searchParams;
    const from = Number(query.get('cursor') ?? 0);
    query.set('cursor', String(from + PAGE));
    const next = `${this.url}${url.split('?')[0]}?${query}`;
    const more = from + PAGE < entries.length;
    return json(response, entries.slice(from, from + PAGE), more ? { link: `<${next}>; rel="next"` } : {});
  }

  /** The repository, where the one who asks may see it; else it is refused as the hub does. */
  private visible(key: string, request: IncomingMessage, response: ServerResponse): Repository | null {
    const token = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1];
    if (token !== undefined && !this.tokens.has(token)) {
      refuse(response, 401, '', 'Invalid credentials in Authorization header');
      return null;
    }
    const repository = this.repositories.get(key);
    if (!repository || (repository.private && token === undefined)) {
      // To who is nobody the hub does not say what there is not.
      if (token === undefined) refuse(response, 401, 'RepoNotFound', 'Invalid username or password.');
      else refuse(response, 404, 'RepoNotFound', 'Repository not found');
      return null;
    }
    if (repository.gated && request.url?.includes('/resolve/')) {
      refuse(response, 403, 'GatedRepo', 'Access to this model is restricted.');
      return null;
    }
    return repository;
  }

  private resolve(
    key: string,
    rest: string,
    request: IncomingMessage,
    response: ServerResponse,
    fault: Fault | undefined,
  ): void {
    const repository = this.visible(key, request, response);
    if (!repository) return;
    const revisions = [...repository.refs.keys(), ...repository.commits.keys()];
    const revision = revisions.find((one) => rest.startsWith(`${one}/`));
    if (revision === undefined) {
      refuse(response, 404, 'RevisionNotFound', 'Invalid rev id');
      return;
    }
    const commit = repository.refs.get(revision) ?? revision;
    const file = repository.commits.get(commit)!.get(rest.slice(revision.length + 1));
    if (!file) {
      refuse(response, 404, 'EntryNotFound', 'Entry not found');
      return;
    }
    const headers = { 'x-repo-commit': commit, 'accept-ranges': 'bytes' };
    if (file.sha256 === null) {
      send(request, response, file, { ...headers, etag: `"${file.oid}"` }, fault);
      return;
    }
    response.writeHead(302, {
      ...headers,
      location: `${this.cdnUrl}/lfs/${file.sha256}?signature=1`,
      'x-linked-etag': `"${file.sha256}"`,
      'x-linked-size': String(file.size),
      etag: `"${file.oid}"`,
    });
    response.end();
  }

  /** The CDN: what is in LFS, and what is put there. */
  private async store(
    path: string,
    request: IncomingMessage,
    response: ServerResponse,
    fault: Fault | undefined,
  ): Promise<void> {
    const oid = path.split('/').at(-1)!;
    if (request.method === 'PUT') {
      const bytes = await bodyOf(request);
      const got = createHash('sha256').update(bytes).digest('hex');
      if (got !== oid) return refuse(response, 400, '', `expected ${oid}, got ${got}`);
      this.objects.set(oid, bytes);
      response.writeHead(200, { etag: `"${oid}"` });
      response.end();
      return;
    }
    const content = this.objects.get(oid);
    if (content === undefined) return refuse(response, 404, '', 'no such object');
    const size =
      typeof content === 'object' && 'file' in content ? statSync(content.file).size : bytesOf(content).length;
    send(request, response, { content, size }, { etag: `"${oid}"`, 'accept-ranges': 'bytes' }, fault);
  }

  private async create(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.mayWrite(request, response)) return;
    const { name, organization, type, visibility } = JSON.parse((await bodyOf(request)).toString());
    const key = `${type === 'dataset' ? 'datasets' : 'models'}/${organization}/${name}`;
    if (this.repositories.has(key)) return refuse(response, 409, '', 'You already created this model repo');
    this.advance(this.make(key, { private: visibility === 'private' }), 'main', new Map());
    json(response, { url: `${this.url}/${organization}/${name}`, id: '1', name: `${organization}/${name}` });
  }

  private mayWrite(request: IncomingMessage, response: ServerResponse): boolean {
    const allowed = request.headers.authorization === 'Bearer hf_writer';
    if (!allowed) refuse(response, 403, '', 'You do not have the required permissions');
    return allowed;
  }

  private async preupload(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.mayWrite(request, response)) return;
    const { files } = JSON.parse((await bodyOf(request)).toString()) as { files: { path: string }[] };
    json(response, {
      files: files.map(({ path }) => ({
        path,
        uploadMode: BINARY.test(path) ? 'lfs' : 'regular',
        shouldIgnore: false,
      })),
    });
  }

  private async batch(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!this.mayWrite(request, response)) return;
    const { objects, transfers = [] } = JSON.parse((await bodyOf(request)).toString()) as {
      objects: { oid: string; size: number }[];
      transfers?: string[];
    };
    const answer = objects.map(({ oid, size }) => ({
      oid,
      size,
      ...(!this.objects.has(oid) && { actions: { upload: { href: `${this.cdnUrl}/lfs/${oid}` } } }),
    }));
    // As the hub does: Xet, where the client has it.
    const transfer = transfers.includes('xet') ? 'xet' : 'basic';
    json(response, { transfer, objects: answer }, { 'content-type': 'application/vnd.git-lfs+json' });
  }

  private async accept(
    repository: Repository,
    name: string,
    revision: string,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if (!this.mayWrite(request, response)) return;
    const lines = (await bodyOf(request)).toString().trim().split('\n');
    const files = new Map(repository.commits.get(repository.refs.get(revision) ?? '') ?? []);
    for (const line of lines) {
      const { key, value } = JSON.parse(line);
      if (key === 'lfsFile') {
        const content = this.objects.get(value.oid);
        if (content === undefined) return refuse(response, 400, '', `no object ${value.oid}`);
        files.set(value.path, await stored(value.path, content, () => true));
      } else if (key === 'file') {
        files.set(value.path, await stored(value.path, Buffer.from(value.content, value.encoding), () => false));
      }
    }
    const commit = this.advance(repository, revision, files);
    json(response, {
      success: true,
      commitOid: commit,
      commitUrl: `${this.url}/${name}/commit/${commit}`,
      hookOutput: '',
    });
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

function json(response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(200, { 'content-type': 'application/json; charset=utf-8', ...headers });
  response.end(JSON.stringify(value));
}

function refuse(response: ServerResponse, status: number, code: string, error: string): void {
  const headers = {
    'content-type': 'application/json',
    'x-error-message': error,
    ...(code && { 'x-error-code': code }),
  };
  response.writeHead(status, headers);
  response.end(JSON.stringify({ error }));
}

/** A file or the range of it that is asked for. */
function send(
  request: IncomingMessage,
  response: ServerResponse,
  { content, size }: { content: Content; size: number },
  headers: Record<string, string>,
  fault: Fault | undefined,
): void {
  const asked = fault && 'ignoreRange' in fault ? null : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const [from, to] = asked ? [Number(asked[1]), asked[2] ? Number(asked[2]) : size - 1] : [0, size - 1];
  if (asked && from >= size) {
    response.writeHead(416, { 'content-range': `bytes */${size}` });
    response.end();
    return;
  }
  const range = asked ? { 'content-range': `bytes ${from}-${to}/${size}` } : {};
  response.writeHead(asked ? 206 : 200, { ...headers, ...range, 'content-length': String(to - from + 1) });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  if (typeof content === 'object' && 'file' in content) {
    createReadStream(content.file, { start: from, end: to }).pipe(response);
    return;
  }
  const body = Buffer.from(bytesOf(content).subarray(from, to + 1));
  if (fault && 'change' in fault && fault.change >= from && fault.change <= to) body[fault.change - from]! ^= 1;
  if (fault && 'cut' in fault) {
    response.write(body.subarray(0, fault.cut), () => setTimeout(() => response.destroy(), 50));
  } else if (fault && 'delay' in fault) {
    response.write(body.subarray(0, fault.after));
    setTimeout(() => response.end(body.subarray(fault.after)), fault.delay).unref();
  } else {
    response.end(body);
  }
}
