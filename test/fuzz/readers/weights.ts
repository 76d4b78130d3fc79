/** Weights and what stands beside them: safetensors, PyTorch checkpoints, experts, configs, whole model folders. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encoderGraph } from '../../../lib/export/onnx/index.js';
import {
  checkWeights,
  convert,
  expertTensorNames,
  importTorchCheckpoint,
  openModelFolder,
  openSafetensors,
  parseSafetensors,
  parseWhisperConfig,
  readExpert,
  Stream,
  serializeSafetensors,
  type TensorSource,
  type TokenizerJSON,
  Transcriber,
  toFloat32,
  tokenizerFromCharacters,
  type WhisperConfig,
  WhisperTokenizer,
  weightEntries,
  whisperConfigJson,
  whisperTensorShapes,
  writeModelFolder,
} from '../../../lib/index.js';
import { openOnnx } from '../../../lib/weights/index.js';
import { tinyConfig } from '../../support/tiny.js';
import { randomTensors, small } from '../../support/weights.js';
import { concat, mutateBytes } from '../mutators/bytes.js';
import { mutateJson, mutateNode, type Node, toNode, writeNode } from '../mutators/json.js';
import { mutateSafetensors, readSafetensors } from '../mutators/safetensors.js';
import { packText, unpackText } from '../mutators/text.js';
import { mutateTorch, unzip } from '../mutators/torch.js';
import type { Random } from '../random.js';
import { promised, type Reader, root } from '../reader.js';

const fixture = (name: string): Uint8Array => new Uint8Array(readFileSync(join(root, 'test', 'fixtures', name)));

async function readAll(source: TensorSource): Promise<void> {
  for (const name of source.names()) {
    const { shape, data, dtype } = await source.read(name);
    promised(data.length === source.info(name).byteLength, `${name}: ${data.length} bytes`);
    const count = shape.reduce((product, size) => product * size, 1);
    promised(dtype === 'i64' || toFloat32({ dtype, shape, data }).length === count, `${name} is not of shape ${shape}`);
  }
}

/** A vocabulary of bytes with three languages: 266 tokens. */
const tokenizerJson = (): TokenizerJSON => tokenizerFromCharacters(['aàé'], { languages: ['en', 'ca', 'th'] });

function tinyModel(): { config: WhisperConfig; tokenizer: TokenizerJSON } {
  const json = tokenizerJson();
  const tokenizer = WhisperTokenizer.fromJSON(json);
  const end = tokenizer.endOfText;
  const ids = { pad_token_id: end, bos_token_id: end, eos_token_id: end };
  const config = tinyConfig({
    vocab_size: tokenizer.vocabSize,
    decoder_start_token_id: tokenizer.startOfTranscript,
    num_mel_bins: 8,
    encoder_ffn_dim: 16,
    decoder_ffn_dim: 16,
    ...ids,
  });
  return { config, tokenizer: json };
}

const GENERATION = {
  max_length: 6,
  max_new_tokens: 5,
  suppress_tokens: [1, 2, 7],
  begin_suppress_tokens: [220, 257],
  is_multilingual: true,
  no_timestamps_token_id: 265,
  lang_to_id: { '<|en|>': 259, '<|ca|>': 260 },
  task_to_id: { transcribe: 263, translate: 262 },
  num_beams: 1,
  repetition_penalty: 1.0,
  forced_decoder_ids: [[1, null]],
  return_timestamps: false,
};
const PREPROCESSOR = {
  feature_extractor_type: 'WhisperFeatureExtractor',
  feature_size: 8,
  hop_length: 160,
  n_fft: 400,
  n_samples: 6400,
  sampling_rate: 16000,
  chunk_length: 30,
  padding_value: 0.0,
};

/** Writes a folder of a tiny model with all files that a folder can have, and those that have come instead of others. */
async function writeFolder(path: string): Promise<void> {
  const { config, tokenizer } = tinyModel();
  const tensors = weightEntries(randomTensors(whisperTensorShapes(config)));
  const added = Object.fromEntries(tokenizer.added_tokens.map(({ content, id }) => [content, id]));
  const merges = tokenizer.model.merges.map((pair) => (typeof pair === 'string' ? pair : pair.join(' ')));
  const files = {
    'tokenizer.json': JSON.stringify(tokenizer),
    'tokenizer_config.json': JSON.stringify({ tokenizer_class: 'WhisperTokenizer', added_tokens_decoder: {} }),
    'processor_config.json': JSON.stringify({ feature_extractor: PREPROCESSOR, processor_class: 'WhisperProcessor' }),
    'special_tokens_map.json': JSON.stringify({ eos_token: '<|endoftext|>' }),
    'added_tokens.json': JSON.stringify(added),
    'vocab.json': JSON.stringify(tokenizer.model.vocab),
    'merges.txt': `#version: 0.2\n${merges.join('\n')}\n`,
  };
  const content = { config, generationConfig: GENERATION, preprocessorConfig: PREPROCESSOR, files, tensors };
  await writeModelFolder(path, content);
}

interface Part {
  folder: string;
  file: string;
  original: Uint8Array;
  make(random: Random): Uint8Array;
}

/**
 * Three folders: as it was written, in shards, and with vocab.json in place of tokenizer.json; and how each file is mutated.
 * Inputs name files by their place in the list: new ones go to its end.
 */
async function folderParts(scratch: string): Promise<Part[]> {
  const whole = join(scratch, 'whole');
  const shards = join(scratch, 'shards');
  const plain = join(scratch, 'vocab');
  await writeFolder(whole);
  const { config } = tinyModel();
  const tensors = weightEntries(randomTensors(whisperTensorShapes(config)));
  await writeModelFolder(shards, { config, tensors }, { maxShardBytes: 20_000 });
  await writeFolder(plain);
  rmSync(join(plain, 'tokenizer.json'));
  const part = (folder: string, file: string): Part => {
    const original = new Uint8Array(readFileSync(join(folder, file)));
    if (file.endsWith('.safetensors')) {
      const seed = readSafetensors(original);
      return { folder, file, original, make: (random) => mutateSafetensors(seed, random) };
    }
    if (!file.endsWith('.json')) return { folder, file, original, make: (random) => mutateBytes(original, random) };
    const seed = toNode(JSON.parse(new TextDecoder().decode(original)));
    return { folder, file, original, make: (random) => mutateJson(seed, random) };
  };
  const names = ['config.json', 'generation_config.json', 'preprocessor_config.json', 'processor_config.json'];
  names.push('tokenizer.json', 'tokenizer_config.json', 'model.safetensors');
  return [
    ...names.map((name) => part(whole, name)),
    ...readdirSync(shards)
      .filter((name) => /index|-00001-/.test(name))
      .map((name) => part(shards, name)),
    ...['vocab.json', 'merges.txt', 'added_tokens.json', 'special_tokens_map.json'].map((name) => part(plain, name)),
  ];
}

/** An input's first byte says which file of `parts` the rest is; `read` sees the folder with it. */
async function withPart(
  parts: readonly Part[],
  input: Uint8Array,
  read: (folder: string) => Promise<void>,
): Promise<void> {
  const part = parts[(input[0] ?? 0) % parts.length]!;
  const path = join(part.folder, part.file);
  writeFileSync(path, input.subarray(1));
  try {
    await read(part.folder);
  } finally {
    writeFileSync(path, part.original);
  }
}

function makePart(parts: readonly Part[], random: Random): Uint8Array {
  const which = random.below(parts.length);
  return concat([which], parts[which]!.make(random));
}

const safetensorsSeeds = (): Uint8Array[] => {
  const floats = randomTensors(
    new Map<string, number[]>([
      ['a', [2, 3]],
      ['b.weight', [4]],
      ['', []],
      ['empty', [0, 5]],
    ]),
  );
  const ids = { dtype: 'i64' as const, shape: [2], data: new Uint8Array(16) };
  const seeds = [floats, new Map([['ids', ids]]), new Map()];
  return seeds.map((tensors, i) => serializeSafetensors(tensors, i === 0 ? { metadata: { format: 'pt' } } : {}));
};

const expertTensors = () => randomTensors(expertTensorNames(small, 'catalan'));

/** A config as it is written here, and with what others write. */
const configSeeds = (): Node[] => {
  const json = whisperConfigJson(small);
  return [
    json,
    json,
    { ...json, torch_dtype: 'float32', suppress_tokens: [-1, 1, 2], begin_suppress_tokens: [220, 50256] },
  ].map(toNode);
};

const TONE = Float32Array.from({ length: 3200 }, (_, i) => 0.3 * Math.sin(i / 6));

export const weightReaders: readonly Reader[] = [
  {
    name: 'safetensors',
    about: 'parseSafetensors from bytes, and openSafetensors for one in sixteen',
    open(scratch) {
      const seeds = safetensorsSeeds().map(readSafetensors);
      const path = join(scratch, 'x.safetensors');
      return {
        make: (random) => mutateSafetensors(random.pick(seeds), random),
        async read(input) {
          if (input.length % 16 === 0) {
            writeFileSync(path, input);
            const file = await openSafetensors(path);
            await readAll(file).finally(() => file.close());
          }
          const { tensors } = parseSafetensors(input);
          for (const [name, { dtype, shape, data }] of tensors) {
            const count = shape.reduce((product, size) => product * size, 1);
            promised(dtype === 'i64' || data.length >= count, `${name} of shape ${shape} has ${data.length} bytes`);
          }
        },
      };
    },
  },
  {
    name: 'config',
    about: "parseWhisperConfig, and a model's tensors held against the result",
    share: 0.3,
    open() {
      const seeds = configSeeds();
      const tensors = randomTensors(whisperTensorShapes(small));
      return {
        make: (random) => packText(writeNode(mutateNode(random.pick(seeds), random))),
        read(input) {
          let json: unknown;
          try {
            json = JSON.parse(unpackText(input));
          } catch {
            return;
          }
          const config = parseWhisperConfig(json, 'config.json');
          // The list of tensors is as long as the layers are many.
          if (config.encoder_layers + config.decoder_layers < 1000) checkWeights(config, tensors);
        },
      };
    },
  },
  {
    name: 'torch',
    about: 'importTorchCheckpoint: zip archives and the pickles in them',
    open(scratch) {
      const seeds = ['kinds.pt', 'expert.thai.bin', 'openai.pt'].map((name) => unzip(fixture(name)));
      const path = join(scratch, 'x.pt');
      return {
        make: (random) => mutateTorch(random.pick(seeds), random),
        async read(input) {
          writeFileSync(path, input);
          const file = await importTorchCheckpoint(path);
          await readAll(file).finally(() => file.close());
        },
      };
    },
  },
  {
    name: 'expert',
    about: 'readExpert: safetensors and PyTorch files',
    open(scratch) {
      const seed = readSafetensors(serializeSafetensors(expertTensors(), { metadata: { language: 'catalan' } }));
      const torch = unzip(fixture('expert.thai.bin'));
      const paths = ['expert.catalan.safetensors', 'expert.thai.bin'].map((name) => join(scratch, name));
      return {
        make: (random) =>
          random.chance(0.5) ? concat([0], mutateSafetensors(seed, random)) : concat([1], mutateTorch(torch, random)),
        async read(input) {
          const path = paths[(input[0] ?? 0) % 2]!;
          writeFileSync(path, input.subarray(1));
          const { tensors } = await readExpert(path, small);
          promised(tensors.size === 21, `${tensors.size} tensors`);
        },
      };
    },
  },
  {
    name: 'onnx',
    about: 'openOnnx: graphs with their tensors inside and in a file beside them',
    async open(scratch) {
      const { config } = tinyModel();
      const shapes = whisperTensorShapes(config);
      const weights = {
        shape: (name: string) => shapes.get(name)!,
        values: async (name: string) => new Float32Array(shapes.get(name)!.reduce((a, b) => a * b, 1)),
      };
      const graph = encoderGraph({ config, weights, expert: null }, 'fp32');
      const path = join(scratch, 'model.onnx');
      const seeds: Uint8Array[] = [];
      for (const maxBytes of [undefined, 0]) {
        await graph.write(path, { maxBytes });
        seeds.push(new Uint8Array(readFileSync(path)));
      }
      return {
        make: (random) => mutateBytes(random.pick(seeds), random),
        async read(input) {
          writeFileSync(path, input);
          const file = await openOnnx(path);
          try {
            for (const name of file.names()) {
              const { data } = await file.read(name);
              promised(data.length === file.info(name).byteLength, `${name}: ${data.length} bytes`);
            }
          } finally {
            await file.close();
          }
        },
      };
    },
  },
  {
    name: 'model',
    about: 'openModelFolder with all of its tensors, and the tokenizer of the folder',
    async open(scratch) {
      mkdirSync(scratch, { recursive: true });
      const parts = await folderParts(scratch);
      return {
        make: (random) => makePart(parts, random),
        read: (input) =>
          withPart(parts, input, async (path) => {
            const folder = await openModelFolder(path);
            await readAll(folder.weights).finally(() => folder.close());
            if (path.endsWith('shards')) return;
            const tokenizer = await WhisperTokenizer.fromFolder(path);
            tokenizer.decode(tokenizer.labels('hola'));
          }),
      };
    },
  },
  {
    name: 'convert',
    about: "convert: a mutated checkpoint of OpenAI's, or the index of a folder's PyTorch shards, into a folder",
    share: 0.5,
    async open(scratch) {
      mkdirSync(scratch, { recursive: true });
      const at = (name: string): string => join(scratch, name);
      const [file, tokenizer, folder, to] = [at('x.pt'), at('tokenizer.json'), at('shards'), at('out')];
      const seed = unzip(fixture('openai.pt'));
      writeFileSync(tokenizer, JSON.stringify(tokenizerJson()));
      // The checkpoint's tensors again, as a folder of one shard.
      writeFileSync(file, fixture('openai.pt'));
      await convert(file, { to: folder, tokenizer });
      const names = parseSafetensors(readFileSync(join(folder, 'model.safetensors'))).tensors.keys();
      rmSync(join(folder, 'model.safetensors'));
      writeFileSync(join(folder, 'pytorch_model-00001-of-00001.bin'), fixture('kinds.pt'));
      const weight_map = Object.fromEntries([...names].map((name) => [name, 'pytorch_model-00001-of-00001.bin']));
      const index = toNode({ metadata: { total_size: 1 }, weight_map });
      return {
        make: (random) =>
          random.chance(0.8) ? concat([0], mutateTorch(seed, random)) : concat([1], mutateJson(index, random)),
        async read(input) {
          const checkpoint = (input[0] ?? 0) % 2 === 0;
          writeFileSync(checkpoint ? file : join(folder, 'pytorch_model.bin.index.json'), input.subarray(1));
          await convert(checkpoint ? file : folder, { to, tokenizer, replace: true });
          const written = await openModelFolder(to);
          await readAll(written.weights).finally(() => written.close());
          rmSync(to, { recursive: true });
        },
      };
    },
  },
  {
    name: 'transcriber',
    about: 'Transcriber.load on a folder of which one file was mutated, and a transcription with it',
    share: 0.5,
    async open(scratch) {
      const parts = (await folderParts(scratch)).filter(({ folder }) => !folder.endsWith('shards'));
      const stream = new Stream({ threads: 1 });
      return {
        make: (random) => makePart(parts, random),
        read: (input) =>
          withPart(parts, input, async (path) => {
            const transcriber = await Transcriber.load(path, { stream });
            try {
              const [transcript] = await transcriber.transcribe([{ samples: TONE, sampleRate: 16000 }], {
                language: 'ca',
              });
              promised(typeof transcript!.text === 'string', 'a transcript without a text');
            } finally {
              await transcriber.close();
              stream.endStep();
            }
          }),
        close: () => stream.close(),
      };
    },
  },
];
