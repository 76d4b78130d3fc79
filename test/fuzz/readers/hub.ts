/** What comes from a hub: the JSON of its API, its headers, its bodies, and a listing that lies in the cache. */
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, sep } from 'node:path';
import { resolveModel } from '../../../lib/index.js';
import { mutateNode, type Node, toNode, writeNode } from '../mutators/json.js';
import { packText, someText, unpackText } from '../mutators/text.js';
import type { Random } from '../random.js';
import { promised, type Reader } from '../reader.js';

/** Separates the parts of an input; no part holds it, or it is another part. */
const NEXT = '\x1e';
const COMMIT = 'c0ffee'.padEnd(40, '0');
const CONTENT: Record<string, string> = {
  'config.json': '{"model_type": "whisper"}',
  'tokenizer.json': '{}',
  'model.safetensors.index.json':
    '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}',
  'model-00001-of-00002.safetensors': 'one',
  'model-00002-of-00002.safetensors': 'two',
};
const sha1 = (text: string): string => createHash('sha1').update(`blob ${text.length}\0${text}`).digest('hex');
const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

const tree = Object.entries(CONTENT).map(([path, text]) => ({
  type: 'file',
  path,
  size: text.length,
  oid: sha1(text),
  ...(path.endsWith('.safetensors') && { lfs: { oid: sha256(text), size: text.length, pointerSize: 130 } }),
}));
const kept = {
  format_version: 1,
  files: Object.fromEntries(
    tree.map(({ path, size, oid, lfs }) => [
      path,
      { size, blob_id: oid, ...(lfs && { lfs_sha256: lfs.oid, lfs_size: size }) },
    ]),
  ),
};
const PARTS: readonly Node[] = [
  { _id: '1', id: 'org/name', sha: COMMIT, private: false, lastModified: '2024-02-29T10:57:33.000Z' },
  [...tree, { type: 'directory', path: 'onnx', oid: COMMIT, size: 0 }],
  { etag: `"${COMMIT}"`, 'content-range': 'bytes 0-9/10', link: '', location: '', 'content-length': '' },
  kept,
  CONTENT,
].map(toNode);

const fields = (text: string): Record<string, unknown> => {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : {};
  } catch {
    return {};
  }
};

/** Everything below a folder that is no folder itself, with where it really lies. */
function* below(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* below(path);
    else yield path;
  }
}

export const hubReaders: readonly Reader[] = [
  {
    name: 'hub',
    about: 'resolveModel from a hub whose answers, headers and files were mutated, and from a cache whose listing was',
    share: 0.5,
    seconds: 40,
    async open(scratch) {
      let [info, listing, headers, content]: [string, string, Record<string, unknown>, Record<string, unknown>] = [
        '',
        '',
        {},
        {},
      ];
      const server = createServer((request, response) => {
        const path = decodeURIComponent((request.url ?? '').split('?')[0]!);
        const file = path.split('/').at(-1)!;
        if (path.includes('/revision/')) return void response.end(info);
        if (path.includes('/tree/')) {
          if (typeof headers.link === 'string' && headers.link !== '') {
            try {
              response.setHeader(
                'link',
                `<http://127.0.0.1:${(server.address() as AddressInfo).port}/api/models/org/name/tree/${headers.link}>; rel="next"`,
              );
            } catch {
              // No header can be that.
            }
          }
          return void response.end(listing);
        }
        for (const name of ['etag', 'content-range']) {
          try {
            if (typeof headers[name] === 'string') response.setHeader(name, headers[name]);
          } catch {
            // No header can be that.
          }
        }
        const text = content[file];
        // A status that is asked again would take the time of many inputs.
        response.statusCode = headers['content-range'] === 'bytes 0-9/10' ? 200 : 206;
        response.end(typeof text === 'string' ? text : undefined);
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const home = join(scratch, 'home');
      const root = join(home, 'hub', 'models--org--name');
      for (const name of ['HF_TOKEN', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE', 'HF_HUB_OFFLINE'])
        delete process.env[name];
      process.env.HF_HOME = home;
      process.env.HF_ENDPOINT = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      return {
        make(random: Random) {
          const parts = PARTS.map((part) => writeNode(random.chance(0.4) ? mutateNode(part, random) : part));
          if (random.chance(0.1)) parts[random.below(parts.length)] = someText(random, 200);
          return packText([...parts, random.chance(0.3) ? 'kept' : ''].join(NEXT));
        },
        async read(input: Uint8Array) {
          const parts = unpackText(input).split(NEXT);
          info = parts[0] ?? '';
          listing = parts[1] ?? '';
          headers = fields(parts[2] ?? '');
          content = fields(parts[4] ?? '');
          rmSync(home, { recursive: true, force: true });
          const outside = join(scratch, 'outside');
          writeFileSync(outside, 'as it was');
          if (parts[5] === 'kept') {
            mkdirSync(join(root, 'trees'), { recursive: true });
            writeFileSync(join(root, 'trees', `${COMMIT}.json`), parts[3] ?? '');
          }
          try {
            const folder = await resolveModel('org/name');
            promised(existsSync(join(folder, 'config.json')), 'a folder without what is needed');
            for (const path of below(folder)) {
              const blob = realpathSync(path);
              promised(
                lstatSync(path).isSymbolicLink() && blob.startsWith(join(root, 'blobs') + sep),
                `${path} leads to ${blob}`,
              );
              const [name, text] = [blob.split(sep).at(-1)!, readFileSync(blob, 'utf8')];
              promised([sha1(text), sha256(text)].includes(name), `${path} is not what its hash says`);
            }
          } finally {
            promised(readFileSync(outside, 'utf8') === 'as it was', 'a file outside of the cache has changed');
            promised(
              readdirSync(scratch).every((name) => ['home', 'outside'].includes(name)),
              'a file outside of the cache',
            );
          }
        },
        close() {
          server.closeAllConnections();
          server.close();
        },
      };
    },
  },
];
